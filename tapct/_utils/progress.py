"""How far this process has come with long work, told to whoever asked: every bar on the terminal reports here."""

import contextlib
from collections.abc import Callable, Iterator

Listener = Callable[[str, int, int], None]
"""Takes what is done in a word, how many of it are done, and how many there are."""

_listener: Listener | None = None


@contextlib.contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Tells a listener inside of it how far the process has come; from whatever thread."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


def report(what: str, done: int, total: int) -> None:
    """Says how far the process has come.

    Args:
        what: What is done, such as "extracting" or "step".
        done: How many are.
        total: How many there are to do.
    """
    if _listener is not None:
        _listener(what, done, total)
