"""Other processes for tests: forked, so that they start at once with everything imported."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import torch

_FORK = multiprocessing.get_context("fork")


class Child:
    """A process that runs `function(send, *arguments)`; what it sends or raises is received here."""

    _started: ClassVar[list["Child"]] = []

    def __init__(self, function: Callable[..., Any], *arguments: Any, nobody: bool = False) -> None:
        self._ours, theirs = _FORK.Pipe()
        self._process = _FORK.Process(target=_run, args=(theirs, function, arguments, nobody), daemon=False)
        self._process.start()
        theirs.close()
        self._started.append(self)

    @classmethod
    def kill_all(cls) -> None:
        """Ends what a test left running, above all one that failed."""
        while cls._started:
            cls._started.pop().kill()

    def receive(self) -> Any:
        """Returns the next thing that was sent, at last what the function returned; raises what it raised."""
        if not self._ours.poll(60):
            self.kill()
            raise TimeoutError("the process says nothing")
        received = self._ours.recv()
        if isinstance(received, BaseException):
            raise received
        return received

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        """Ends it as `kill -9` does."""
        self._process.kill()
        self._process.join()


def _run(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...], nobody: bool) -> None:
    torch.set_num_threads(1)  # OpenMP's threads did not come along
    if nobody and os.geteuid() == 0:
        os.setuid(65534)  # permissions do not bind root
    try:
        pipe.send(function(pipe.send, *arguments))
    except BaseException as error:  # noqa: BLE001
        pipe.send(error)
    os._exit(0)
