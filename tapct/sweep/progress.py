"""How far an experiment has come, in a small file next to its lock: whoever sees the folder can see it, on any machine.

That an experiment runs is told by its lock alone. The file of an attempt that was killed stays, and says how far it had
come.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tapct._utils.files import write_atomically

PROGRESS_FILE = "progress.json"

EVERY_S = 1.0
"""How often the file is written at most."""


@dataclass(frozen=True)
class Progress:
    """How far an attempt had come when it last said so.

    Attributes:
        attempt: Its number.
        what: What it did, such as "extracting" or "step".
        done: How many were done.
        total: How many there were to do.
        left_s: How long the rest of them would take, as those before did; None where none was done yet.
        at: When that was, in seconds since 1970.
        began: When the attempt began, likewise.
        settings: Those of the experiment that decide how long it takes (`tapct.sweep.matrix.BUDGET`).
    """

    attempt: int
    what: str
    done: int
    total: int
    left_s: float | None
    at: float
    began: float
    settings: dict[str, str]

    @property
    def count(self) -> str:
        """What was done, such as "extracting 12/180"."""
        return f"{self.what} {self.done}/{self.total}"

    def in_words(self, now: float | None = None) -> str:
        """Returns it for somebody who looks now: "extracting 12/180, 7 min left of it (3 s ago)".

        Args:
            now: In seconds since 1970; by default it is asked for.
        """
        age_s = max(0.0, (time.time() if now is None else now) - self.at)
        left = "" if self.left_s is None or self.done == self.total else f", {span(self.left_s)} left of it"
        return f"{self.count}{left} ({span(age_s)} ago)"


class _Begun(NamedTuple):
    """Since when something is done: the time, how many were done then, and how many at last."""

    at_s: float
    first: int
    last: int


class Reports:
    """Writes the file of an attempt, as `tapct._utils.progress` tells it how far the process has come."""

    def __init__(
        self,
        folder: Path,
        attempt: int,
        settings: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Initializes the reports; nothing is written yet.

        Args:
            folder: The experiment's.
            attempt: Number of the attempt.
            settings: Those of the experiment that decide how long it takes.
            clock: Measures how long things take, in seconds; the tests have their own.
            now: The time, in seconds since 1970; likewise.
        """
        self._path, self._clock, self._now = folder / PROGRESS_FILE, clock, now
        self._of_attempt = {"attempt": attempt, "began": now(), "settings": dict(settings)}
        self._begun: dict[str, _Begun] = {}
        self._last: tuple[str, float] = "", 0.0
        self._writing = threading.Lock()  # bars report from threads of their own
        self._failed = False

    def __call__(self, what: str, done: int, total: int) -> None:
        """Takes a report, and writes it unless one of the same work was written within the last second."""
        with self._writing:
            time_s = self._clock()
            begun = self._begun.get(what)
            if begun is None or done < begun.last:  # new, or the same once more
                begun = _Begun(time_s, done, done)
            self._begun[what] = begun._replace(last=done)
            if self._last[0] == what and done < total and time_s - self._last[1] < EVERY_S:
                return
            self._last = what, time_s
            rate = (done - begun.first) / max(time_s - begun.at_s, 1e-6)
            left_s = (total - done) / rate if rate else None
            of_work = {"what": what, "done": done, "total": total, "left_s": left_s, "at": self._now()}
            self._write({**self._of_attempt, **of_work})

    def _write(self, progress: dict[str, Any]) -> None:
        if self._failed:
            return
        try:
            write_atomically(self._path, json.dumps(progress), lasting=False)
        except OSError as error:  # the record is what counts, and says itself where it cannot be written
            self._failed = True
            print(f"progress is not shown: {self._path} cannot be written: {error.strerror or error}", flush=True)


def progress_of(folder: Path, attempt: int) -> Progress | None:
    """Returns how far an attempt at an experiment, or a later one, has come; None where it has not said so."""
    try:
        found = Progress(**json.loads((folder / PROGRESS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):  # none yet, or not ours
        return None
    numbers = (found.attempt, found.done, found.total, found.at, found.began, found.left_s or 0.0)
    valid = isinstance(found.what, str) and isinstance(found.settings, dict)
    valid = valid and all(isinstance(number, int | float) for number in numbers)
    return found if valid and found.attempt >= attempt else None


def span(seconds: float) -> str:
    """Returns a time in words, such as "40 s", "7 min" or "2.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
