"""Errors that a user of the benchmark sees: each says what is wrong, where, and how to fix it."""

import difflib
import os
import re
from collections.abc import Iterable


class TapctError(Exception):
    """Base class of every error that TAP-CT Bench raises on purpose."""


class VolumeError(TapctError, ValueError):
    """A scan or a mask cannot be read, or is not what it should be."""


class EncoderError(TapctError, ValueError):
    """An encoder is unknown, was built wrongly, or was given an input that it cannot take."""


class WeightsError(TapctError, ValueError):
    """A weights file is missing, unreadable, or does not fit the network."""


class TaskError(TapctError, ValueError):
    """A task is unknown, or its data on disk is not what the task expects."""


class FeatureError(TapctError, ValueError):
    """Stored features are missing, damaged, or cannot be written."""


class RecordError(TapctError, ValueError):
    """A result record is malformed or cannot be written."""


class LockError(TapctError, OSError):
    """A file system refuses locks, without which two processes would write the same."""


TRACE = "TAPCT_TRACEBACK"
"""The variable that asks for the whole trace next to a message, for who looks for a fault of ours."""

_IN_A_WORKER = re.compile(r"Caught \w+ in .*?\nOriginal Traceback.*\n[\w.]*Error: (.*)", re.DOTALL)
"""An error that a process of PyTorch's loader passes on: its message is the trace, and ends with the message."""


def shows_trace() -> bool:
    """Returns whether the whole trace is asked for, by `TAPCT_TRACEBACK=1`."""
    return os.environ.get(TRACE, "") not in ("", "0")


def in_one_message(error: TapctError) -> str:
    """Returns what is said of an error on the terminal: what was wrong, without where in our code it was found."""
    text = str(error)
    passed_on = _IN_A_WORKER.match(text)
    return f"tapct: {passed_on[1].strip() if passed_on else text}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a sentence that helps with a mistyped name.

    Args:
        name: The name that was given.
        known: The names that exist.

    Returns:
        ``"Did you mean 'a' or 'b'? Known: ..."``, ready to append to an error message.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(n) for n in close)}? " if close else ""
    return f"{hint}Known: {', '.join(names) or 'none'}."
