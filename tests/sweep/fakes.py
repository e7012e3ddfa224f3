"""Workers that start at once: in this process, or forked and with `fit` in eva's place."""

import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import ClassVar, TextIO
from unittest import mock

from tapct.encoders.eva_names import encoder_name
from tapct.records import Record
from tapct.sweep import commands
from tapct.sweep.experiment import Experiment, Order
from tapct.sweep.worker import die_with, work
from tests.features.processes import Child
from tests.records.made import changed

Fit = Callable[[Experiment], None]


def _printing_to(number: int) -> TextIO:
    return open(number, "w", encoding="utf-8", closefd=False)


class Here:
    """A worker in this process, where everything is imported; see `tapct.sweep.local.Process`."""

    def __init__(self, order, variables) -> None:
        kept = [os.dup(number) for number in (1, 2)]  # a worker sends both to its log
        try:
            with (
                mock.patch.dict(os.environ),  # a worker sets the variables of its experiment, for its own process
                _printing_to(1) as out,
                _printing_to(2) as err,
                redirect_stdout(out),
                redirect_stderr(err),
            ):
                self._status = work(order)
        finally:
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)

    def poll(self) -> int:
        return self._status

    def kill(self) -> None:
        pass

    def last_words(self) -> list[str]:
        return []


class Forked:
    """A worker in a process of its own; see `tapct.sweep.local.Process`."""

    _started: ClassVar[list["Forked"]] = []

    def __init__(self, order: Order, fit: Fit) -> None:
        launcher = os.getpid()
        self._status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                gc.disable()  # it would copy every page of pytest's
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_DFL)
                die_with(launcher)
                sys.stdout, sys.stderr = map(_printing_to, (1, 2))
                os._exit(work(order, fit))
            finally:
                os._exit(77)
        self._started.append(self)

    @classmethod
    def kill_all(cls) -> None:
        while cls._started:
            cls._started.pop().kill()

    def poll(self) -> int | None:
        if self._status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # of another process than this
                return None
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def kill(self) -> None:
        if self.poll() is None:
            try:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass

    def last_words(self) -> list[str]:
        return []


class Lab:
    """A results folder in which experiments run at once, as a test says.

    Attributes:
        results: The folder.
        fails: Names of experiments that fail.
        waits: Names of experiments that wait until `release` is called.
        takes_s: What every other one takes.
    """

    def __init__(self, folder: Path, record: Record) -> None:
        self.results, self._record = folder / "results", record
        self._ran, self._go = folder / "ran", folder / "go"
        self.fails: set[str] = set()
        self.waits: set[str] = set()
        self.takes_s = 0.0

    def fit(self, experiment: Experiment) -> None:
        """Leaves a record where eva would, after noting that it ran."""
        with self._ran.open("a") as file:
            file.write(f"{experiment.name} {os.getpid()}\n")
        print(f"fitting {experiment.name}", flush=True)
        while experiment.name in self.waits and not self._go.exists():
            time.sleep(0.02)
        time.sleep(self.takes_s)
        if experiment.name in self.fails:
            raise RuntimeError("the GPU fell off the bus")
        self.write(self.record(experiment), experiment.folder / "sessions" / experiment.task / "session")

    def record(self, experiment: Experiment, **changes) -> Record:
        """Returns the real record under the names of an experiment."""
        card = {**self._record.encoder.card.content(), "name": encoder_name(experiment.encoder)}
        named = changed(self._record, encoder={"card": card}, task={"name": experiment.task})
        return named.model_copy(update=changes)

    def write(self, record: Record, folder: Path) -> None:
        unique = folder.with_name(f"{folder.name}-{os.getpid()}-{time.monotonic_ns()}")
        unique.mkdir(parents=True)
        (unique / "record.json").write_text(record.to_json())

    def run(self, encoders: str, tasks: str, *, dry_run=False, replace=False, jobs=1, **sweep) -> int:
        """Runs a sweep as `tapct run` would, and returns its exit status."""
        asked = commands.Sweep(encoders=encoders, tasks=tasks, results=str(self.results), **sweep)
        return commands.run(
            asked,
            dry_run=dry_run,
            replace=replace,
            jobs=jobs,
            start=self.start,
            refused=lambda experiments: {},
        )

    def launch(self, encoders: str, tasks: str, **options) -> Child:
        """Does the same in a process of its own, which first sends its number."""

        def run(send):
            gc.disable()
            signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where pytest is a shell's background job
            send(os.getpid())
            return self.run(encoders, tasks, **options)

        return Child(run)

    def start(self, order: Order, variables: Mapping[str, str]) -> Forked:
        return Forked(order, self.fit)

    def release(self) -> None:
        self._go.touch()

    def ran(self) -> list[str]:
        """Returns the names of the experiments that were fitted, in order."""
        return [line.rpartition(" ")[0] for line in self._lines()]

    def pid_of(self, name: str, timeout_s: float = 20) -> int:
        """Returns the process that fits an experiment, once it does."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for line in reversed(self._lines()):
                if line.rpartition(" ")[0] == name:
                    return int(line.rpartition(" ")[2])
            time.sleep(0.02)
        raise TimeoutError(f"{name} did not start")

    def folder(self, name: str) -> Path:
        encoder, _, task = name.partition(" on ")
        return self.results / task / encoder

    def _lines(self) -> list[str]:
        return self._ran.read_text(encoding="utf-8").splitlines() if self._ran.exists() else []
