"""The lock of an experiment, held by the process that runs it, with who that is inside.

What the file says stays when its holder dies: an attempt without an end, in a file that nobody holds, was killed.
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from tapct._utils import locks
from tapct.errors import LockError

LOCK_FILE = "cell.lock"

WAIT_S = 2.0
"""How long an attempt waits for the lock: who only looks holds it for an instant."""


@dataclass(frozen=True)
class Attempt:
    """An attempt at an experiment.

    Attributes:
        number: Counted from 1.
        host: Name of the machine.
        pid: The process.
        started_at: UTC.
        slurm_job: The Slurm job, if it is one.
        ended_at: UTC; None while it runs, and for ever if it was killed.
    """

    number: int
    host: str
    pid: int
    started_at: str
    slurm_job: str | None = None
    ended_at: str | None = None

    def __str__(self) -> str:
        job = "" if self.slurm_job is None else f", slurm job {self.slurm_job}"
        return f"attempt {self.number} on {self.host} (pid {self.pid}{job}) since {self.started_at}"


@contextlib.contextmanager
def attempt(folder: Path) -> Iterator[Attempt | None]:
    """Holds an experiment against all other processes; yields None if another one holds it.

    Raises:
        LockError: If the file system refuses locks.
    """
    with locks.hold(folder / LOCK_FILE, WAIT_S) as file:
        if file is None:
            yield None
            return
        before = _read(file)
        mine = _this_process(1 if before is None else before.number + 1)
        _write(file, mine)
        try:
            yield mine
        finally:
            _write(file, replace(mine, ended_at=now()))


@contextlib.contextmanager
def between_attempts(folder: Path, at_least: int = 0) -> Iterator[bool]:
    """Holds an experiment that nobody runs, to note the end of an attempt that was killed; yields whether it is held.

    Args:
        folder: The experiment's folder.
        at_least: Number of that attempt; it is counted even if it was killed before it had the lock.
    """
    with locks.hold(folder / LOCK_FILE, WAIT_S) as file:
        if file is None:
            yield False
            return
        yield True
        last = _read(file)
        if last is None or last.number < at_least:
            last = _this_process(at_least)
        if last.ended_at is None:
            _write(file, replace(last, ended_at=now()))


def last_attempt(folder: Path) -> tuple[Attempt | None, bool | None]:
    """Returns the last attempt at an experiment, and whether it is running. Needs no write permission.

    Where the file system refuses locks, an attempt that has not ended may be running or was killed: that is None.
    """
    path = folder / LOCK_FILE
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return None, False
    with file:
        try:
            running: bool | None = locks.is_held(file, path)
            return _read(file), running
        except LockError:
            last = _read(file)
            return last, False if last is not None and last.ended_at is not None else None


def now() -> str:
    """Returns the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def slurm_job() -> str | None:
    """Returns the name of the Slurm job that this process is in, as `squeue` shows it."""
    array, index = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return os.environ.get("SLURM_JOB_ID") if array is None or index is None else f"{array}_{index}"


def _read(file: FileIO) -> Attempt | None:
    file.seek(0)
    try:
        found = Attempt(**json.loads(file.read()))
    except (ValueError, TypeError, RecursionError):  # new, being written at this moment, or not ours
        return None
    return found if isinstance(found.number, int) and isinstance(found.started_at, str) else None


def _write(file: FileIO, content: Attempt) -> None:
    file.truncate(0)
    file.write(json.dumps(asdict(content)).encode())


def _this_process(number: int) -> Attempt:
    return Attempt(number, socket.gethostname(), os.getpid(), now(), slurm_job())
