"""Locks on files, of processes on any machine that shares them: the one place that takes them.

The kernel lets go of a lock when its holder dies, so there are no dead locks to clear. Where a file system has no locks
(Lustre without the mount option flock, NFS without lockd), whoever would write is told which option is missing.
"""

import contextlib
import errno
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import filelock

from tapct._utils import system
from tapct.errors import LockError

_REFUSALS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
"""What flock(2) answers where there are no locks: NFS without lockd, Lustre without -o flock, other file systems."""

_FIRST_POLL_S, _LAST_POLL_S = 0.01, 1.0

_held: set[FileIO] = set()


@dataclass(frozen=True)
class Mount:
    """Where a file system is mounted.

    Attributes:
        kind: Such as "nfs4" or "lustre".
        options: Its mount options.
    """

    kind: str
    options: frozenset[str]


@contextlib.contextmanager
def hold(path: Path, wait_s: float) -> Iterator[FileIO | None]:
    """Holds a lock file against all other processes; yields it, open to read and write, or None if another holds it.

    Processes that this one forks do not hold it. A holder may remove the file: who waited for it takes the next one.

    Args:
        path: The file; it is made, with its folder, where it is not there.
        wait_s: How long to wait for another holder.

    Raises:
        LockError: If the file system refuses locks.
        OSError: If the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _locked(path, time.monotonic() + wait_s)
    if file is None:
        yield None
        return
    _held.add(file)
    try:
        yield file
    finally:
        _held.discard(file)
        file.close()


def is_held(file: FileIO, path: Path) -> bool:
    """Returns whether a process holds a lock file. Needs no write permission, and who looks is in no one's way.

    Args:
        file: The lock file, open for reading.
        path: Its path, for the error.

    Raises:
        LockError: If the file system refuses locks.
    """
    try:
        return not _shared(file)
    except (BlockingIOError, PermissionError):  # the latter is what some file systems answer instead
        return True
    except OSError as error:
        _explain(error, path)
        raise


def require(folder: Path) -> None:
    """Tries a lock in a folder, before work is begun that needs one.

    Args:
        folder: The folder; it is made where it is not there.

    Raises:
        LockError: If its file system refuses locks, or two processes would hold one at once.
        OSError: If the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".lock-test.") as inside:
        path = Path(inside) / "lock"
        with hold(path, 0) as first, hold(path, 0) as second:
            if first is None or second is not None:
                raise LockError(f"{folder}: locks keep nobody out there. {_fix(mount_of(folder))}")


def only_here(folder: Path) -> str | None:
    """Returns the mount option that makes locks hold on this machine alone, if the folder's mount has one."""
    mount = mount_of(folder)
    if mount is None:
        return None
    local = {"lustre": {"localflock"}, "nfs": {"nolock", "local_lock=all", "local_lock=flock"}}
    return next(iter(sorted(local.get(_family(mount), set()) & mount.options)), None)


def mount_of(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> Mount | None:
    """Returns the mount that a folder is on.

    Args:
        folder: The folder, which exists.
        mounts: The system's table of mounts; its like is in fstab(5).

    Returns:
        The mount; None where the system has no such table (only Linux has).
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    above = {str(folder.resolve()), *map(str, folder.resolve().parents)}
    found = [(_unescaped(at), kind, options) for _, at, kind, options, *_ in map(str.split, lines)]
    on = [(len(at), number, kind, options) for number, (at, kind, options) in enumerate(found) if at in above]
    if not on:
        return None
    *_, kind, options = max(on)  # the innermost, and of several in one place the last: it covers the others
    return Mount(kind, frozenset(options.split(",")))


def _locked(path: Path, deadline_s: float) -> FileIO | None:
    """Returns the lock file, held until it is closed, or None if another process holds it until the deadline."""
    poll_s = _FIRST_POLL_S
    while True:
        file = path.open("ab+", buffering=0)
        try:
            # Not filelock's FileLock: where flock is refused it may fall back to a file whose holder, once killed,
            # holds it for ever, and by the number of links it cannot tell a file that NFS renamed as it was removed.
            taken = filelock.lock_descriptor(file.fileno(), blocking=False)
            if taken and _is_there(file, path):
                return file
        except BaseException as error:
            file.close()
            _explain(error, path)
            raise
        file.close()
        if taken:  # but removed meanwhile: another file is, or will be, the lock
            continue
        if time.monotonic() >= deadline_s:
            return None
        time.sleep(poll_s)
        poll_s = min(2 * poll_s, _LAST_POLL_S)


def _shared(file: FileIO) -> bool:
    """Takes a lock that others who look may have too, until the file is closed; returns whether it was to be had."""
    try:
        import fcntl
    except ImportError:  # Windows: who looks is in the way of others for that instant, who wait for longer
        return filelock.lock_descriptor(file.fileno(), blocking=False)
    # filelock has no such lock. Two who look do not see each other, and NFS wants no write permission for it.
    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return True


def _is_there(file: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _explain(error: BaseException, path: Path) -> None:
    """Raises what a refusal means; any other error is left."""
    if not isinstance(error, OSError) or error.errno not in _REFUSALS:
        return
    mount = mount_of(path.parent)
    kind = "" if mount is None else f" ({mount.kind})"
    raise LockError(
        f"the file system of {path.parent}{kind} refuses locks: {os.strerror(error.errno or 0)}. {_fix(mount)}"
    ) from error


def _fix(mount: Mount | None) -> str:
    """Says what a mount lacks for locks to work."""
    lustre = "Lustre needs the mount option flock on every client"
    nfs = "NFS needs version 4, or 3 with lockd and rpc.statd on client and server, without the mount option nolock"
    needs = {"lustre": lustre, "nfs": nfs}.get("" if mount is None else _family(mount), f"{lustre}; {nfs}")
    return needs


def _family(mount: Mount) -> str:
    return "nfs" if mount.kind in ("nfs", "nfs4") else mount.kind


def _unescaped(path: str) -> str:
    """Returns a path of the table of mounts: blanks and the like are octal there."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def _let_go() -> None:
    for file in _held:
        with contextlib.suppress(OSError):
            file.close()
    _held.clear()


# Loader processes are forked: one that outlives us must not hold what we held.
system.in_forked(_let_go)
