"""What was read from the network, kept on a node's own disk: bounded, shared by all its processes, safe to kill.

    CACHE/blocks/ab/KEY    a checksum, then a range of bytes
    CACHE/stores/KEY/      the small files of a store, see `pretrain.data.remote.mirror`
    CACHE/used             the lock under which room is made, and how many bytes are used

Every entry is written next to its place and renamed, and blocks are compared with their checksum when they are read, so
that neither a process that was killed nor a machine that lost power leaves a block that is read as whole. Room is taken
before it is filled: files are made at their full size under the lock, so the bound holds at every moment. What was used
least recently goes first, by the time of the file, which each use sets.

Own code, since no library does this: fsspec's `blockcache` has no bound and is written by one process at a time,
`filecache` and `simplecache` fetch whole files; blosc2's `RemoteArray` bounds the cache of each array by itself, and
reads no array inside a longer file; `diskcache` is no longer maintained, keeps an index that every read writes to, and
compares no checksums.
"""

import contextlib
import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from pretrain.errors import PretrainError
from pretrain.files import in_bytes
from tapct._utils import locks
from tapct.errors import LockError

_CHECKSUM_BYTES = 4
_FILL_TO = 0.9
"""Room is made down to this share of the bound, so that the entries are not counted for every block."""
_LOCK_S = 120.0
_STORES_LONGER_S = 7 * 86_400.0
"""The small files of a store stay so much longer than blocks: they are used once, as a process begins."""

log = logging.getLogger(__name__)


class Cache:
    """A folder of blocks and small files.

    Attributes:
        folder: The folder.
        limit_bytes: What it holds at most.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Makes the folder.

        Raises:
            PretrainError: It cannot be written, or its file system has no locks.
        """
        self.folder, self.limit_bytes = folder, limit_bytes
        self._warned = False
        try:
            for part in ("blocks", "stores"):
                (folder / part).mkdir(parents=True, exist_ok=True)
            locks.require(folder)
        except LockError as error:
            raise PretrainError(f"{error}. Give data.cache a folder on the node's own disk") from error
        except OSError as error:
            raise PretrainError(
                f"{folder} cannot be written ({error.strerror}). Give data.cache a folder on the node's own disk"
            ) from error

    def get(self, key: str, size: int) -> bytes | None:
        """Returns a block; None where it is not kept, or damaged.

        Args:
            key: Its name.
            size: Its bytes.
        """
        path = self._path(key)
        try:
            with path.open("rb", buffering=0) as file:
                os.utime(file.fileno())
                checksum, content = file.read(_CHECKSUM_BYTES), file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(f"{path} cannot be read ({error.strerror})")
            return None
        if len(content) == size and checksum == _checksum(content):
            return content
        log.warning("%s is damaged, and is read from the network again", path)
        path.unlink(missing_ok=True)
        return None

    def put(self, key: str, content: bytes) -> None:
        """Keeps a block, unless it does not fit at all; a disk that is full is told once."""
        path, size = self._path(key), _CHECKSUM_BYTES + len(content)
        temporary: str | None = None
        try:
            with self.room(size) as there_is:
                if not there_is:
                    return
                path.parent.mkdir(exist_ok=True)
                handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
                os.truncate(handle, size)
            with os.fdopen(handle, "r+b") as file:
                file.write(_checksum(content))
                file.write(content)
            with contextlib.suppress(FileNotFoundError):  # so little room that others have taken this
                Path(temporary).replace(path)
        except OSError as error:
            self._warn(f"{path} could not be written ({error.strerror})")
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)

    def forget(self, beginning: str) -> None:
        """Removes the blocks whose names begin so, at least two characters."""
        for path in (self.folder / "blocks" / beginning[:2]).glob(f"{beginning}*"):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def room(self, size: int) -> Iterator[bool]:
        """Takes room; while it holds, the caller makes, at their full size, the files that fill it.

        Yields:
            Whether there is room: not for more than the bound.

        Raises:
            OSError: The folder cannot be written.
        """
        with locks.hold(self.folder / "used", _LOCK_S) as lock:
            if lock is None or size > self.limit_bytes:
                yield False
                return
            used = _tally(lock)
            if used is None or used + size > self.limit_bytes:
                used = self._make_room(size)
            # Before the files are made: killed in between, too much counts as used, until the entries are counted.
            lock.truncate(0)
            lock.write(str(used + size).encode())
            yield True

    def _make_room(self, size: int) -> int:
        """Removes what was used least recently; returns the bytes that are left."""
        entries = sorted(self._entries())
        used = sum(entry_bytes for _, entry_bytes, _ in entries)
        if used + size <= self.limit_bytes:  # the tally counted what is no longer there
            return used
        goal = min(self.limit_bytes * _FILL_TO, self.limit_bytes - size)
        for _, entry_bytes, path in entries:
            if used <= goal:
                break
            _remove(path)
            used -= entry_bytes
        return used

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """Yields when each entry was used last, its bytes and its path.

        Unfinished ones are among them, so what a killed process has left goes like what nobody uses.
        """
        for folder in (self.folder / "stores", *(self.folder / "blocks").iterdir()):
            with os.scandir(folder) as found:
                for entry in found:
                    with contextlib.suppress(FileNotFoundError):  # renamed into its place, or removed as damaged
                        stat, path = entry.stat(), Path(entry.path)
                        if entry.is_dir():
                            yield stat.st_mtime + _STORES_LONGER_S, _size(path), path
                        else:
                            yield stat.st_mtime, stat.st_size, path

    def _path(self, key: str) -> Path:
        return self.folder / "blocks" / key[:2] / key

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "%s; %s are free there. What cannot be kept is read from the network each time. Fix it, or lower "
                "data.cache_gb",
                *(what, in_bytes(shutil.disk_usage(self.folder).free)),
            )


def _tally(lock: FileIO) -> int | None:
    """The bytes that are used, as the last process wrote them; None where it was killed as it did."""
    lock.seek(0)
    try:
        return int(lock.read())
    except ValueError:
        return None


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "little")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _remove(path: Path) -> None:
    if path.is_dir():
        if not path.name.startswith("."):  # out of its place first: killed here, nobody opens what is left of it
            path = path.replace(path.with_name(f".{path.name}.{os.getpid()}"))
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
