"""Workers on this machine: started, watched, and ended with their launcher."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Literal, NoReturn, Protocol

from tapct._utils.system import cores
from tapct.sweep import lock
from tapct.sweep.experiment import Order
from tapct.sweep.state import state_of
from tapct.sweep.worker import DONE, FAILED, HELD, note_end

POLL_S = 0.2

Notify = Callable[[Order, Literal["started", "ended"]], None]


class Interrupted(BaseException):
    """The launcher was told to end.

    Attributes:
        signum: By which signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Process(Protocol):
    """A worker that was started."""

    def poll(self) -> int | None:
        """Returns the exit status, minus the signal if it was one; None while it runs."""

    def kill(self) -> None:
        """Ends it and its children at once, and waits for that."""

    def last_words(self) -> list[str]:
        """Returns what it printed before its log was open; call it once it has ended."""


_WHOLE_LOG = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}
"""Makes a worker's log whole when it is killed, and UTF-8 whatever the locale."""


class Worker:
    """A worker in a process group of its own, so that Ctrl-C reaches the launcher alone."""

    def __init__(self, order: Order, variables: Mapping[str, str]) -> None:
        """Starts it.

        Args:
            order: What it runs.
            variables: Set in its environment.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tapct.sweep.worker", order.to_json(), str(os.getpid())],
            env={**os.environ, **_WHOLE_LOG, **variables},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def poll(self) -> int | None:
        """See `Process`."""
        return self._process.poll()

    def kill(self) -> None:
        """See `Process`."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def last_words(self) -> list[str]:
        """See `Process`."""
        assert self._process.stderr is not None
        with self._process.stderr as pipe:
            return pipe.read().decode(errors="replace").splitlines()


Start = Callable[[Order, Mapping[str, str]], Process]


def run(orders: Sequence[Order], slots: Sequence[Mapping[str, str]], notify: Notify, start: Start = Worker) -> None:
    """Runs experiments, as many at once as there are slots. What came out is on disk.

    Args:
        orders: The experiments.
        slots: For each worker at once, the variables that tell it its device.
        notify: Called as an experiment starts and ends.
        start: Starts a worker; the tests put something faster here.

    Raises:
        Interrupted: By SIGINT, SIGTERM or SIGHUP; the workers are ended first.
    """
    waiting, running = deque(orders), dict[int, tuple[Order, Process]]()
    with _signals_raise():
        try:
            while waiting or running:
                for slot in set(range(len(slots))) - set(running):
                    if (order := _next(waiting, notify)) is not None:
                        running[slot] = order, start(order, slots[slot])
                        notify(order, "started")
                for slot, (order, process) in list(running.items()):
                    if (status := process.poll()) is not None:
                        del running[slot]
                        settle(order, status, process.last_words())
                        notify(order, "ended")
                time.sleep(POLL_S)
        except BaseException:
            with _signals_wait():
                for order, process in running.values():
                    process.kill()
                    with lock.between_attempts(order.experiment.folder):
                        pass  # notes that the attempt has ended: nobody need wonder how
            raise


def settle(order: Order, status: int, words: list[str]) -> None:
    """Notes the end of a worker that could not do it itself.

    Args:
        order: What it ran.
        status: Its exit status; minus the signal if it was one.
        words: What it printed before its log was open.
    """
    if status in (DONE, FAILED, HELD):
        return
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    hint = " (out of memory? the kernel's log says)" if -status == signal.SIGKILL else ""
    note_end(order, ": ".join([f"the worker {how}{hint}", *words[-1:]]), words)


def slots(jobs: int | None, accelerator: str | None) -> list[dict[str, str]]:
    """Returns the variables of each worker at once: its device, or its share of the cores.

    Args:
        jobs: Workers at once; None is one a device.
        accelerator: As the configs have it; "cpu" uses no device.
    """
    devices = [] if accelerator == "cpu" else _devices()
    count = jobs or max(1, len(devices))
    if devices:
        return [{"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]} for i in range(count)]
    if count == 1 or "OMP_NUM_THREADS" in os.environ:
        return [{} for _ in range(count)]
    return [{"OMP_NUM_THREADS": str(max(1, cores() // count))} for _ in range(count)]


def _devices() -> list[str]:
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(i) for i in range(count)] if visible is None else visible.split(",")[:count]


def _next(waiting: deque[Order], notify: Notify) -> Order | None:
    """Takes the next order that nobody else has run or runs."""
    while waiting:
        order = waiting.popleft()
        state = state_of(order.experiment.folder, order.experiment.settings())
        if state.status not in ("done", "running") and state.attempts == order.attempts_seen:
            return order
        notify(order, "ended")
    return None


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    with _handled(_interrupt):
        yield


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    with _handled(signal.SIG_IGN):
        yield


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], NoReturn] | signal.Handlers) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python's signals are the main thread's
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]  # nohup ignores one
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(signum)
