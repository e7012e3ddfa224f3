"""Other processes for tests: forked, so that they start at once with everything imported."""

import ctypes
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import torch

_CAPABILITY_VERSION_3, _CAP_DAC_OVERRIDE = 0x20080522, 1  # linux/capability.h
_FORK = multiprocessing.get_context("fork")


class Child:
    """A process that runs `function(send, *arguments)`; what it sends or raises is received here."""

    _started: ClassVar[list["Child"]] = []

    def __init__(self, function: Callable[..., Any], *arguments: Any, bound: bool = False) -> None:
        """Starts it; `bound` by the permissions of what it writes to, also where root runs the tests."""
        self._ours, theirs = _FORK.Pipe()
        self._process = _FORK.Process(target=_run, args=(theirs, function, arguments, bound), daemon=False)
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


def _run(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...], bound: bool) -> None:
    torch.set_num_threads(1)  # OpenMP's threads did not come along
    try:
        if bound:
            _give_up_override()
        pipe.send(function(pipe.send, *arguments))
    except BaseException as error:  # noqa: BLE001
        pipe.send(error)
    os._exit(0)


def _give_up_override() -> None:
    """Lets permissions bind root. As another user they could not read the checkout where only its owner may enter."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    for call in (libc.capget, libc.capset):
        if call(header, sets):
            raise OSError(ctypes.get_errno(), "capabilities cannot be given up")
        for index in (0, 1):  # those in effect, and those that may be
            sets[index] &= ~(1 << _CAP_DAC_OVERRIDE)
