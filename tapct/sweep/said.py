"""What a sweep leaves out it says, and once a launch, of however many tasks it is true."""

import contextlib
import sys
from collections.abc import Iterator
from contextvars import ContextVar

_said: ContextVar[set[str] | None] = ContextVar("said", default=None)


@contextlib.contextmanager
def once() -> Iterator[None]:
    """Says inside of it nothing twice."""
    before = _said.set(set())
    try:
        yield
    finally:
        _said.reset(before)


def say(text: str) -> None:
    """Prints a line for whoever looks, and not for what reads the output."""
    said = _said.get()
    if said is not None:
        if text in said:
            return
        said.add(text)
    print(text, file=sys.stderr)
