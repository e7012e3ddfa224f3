"""Where commands write: what was asked for to stdout, bars and notices to stderr, so that pipes get the first alone."""

import io
import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

WIDE = 200
"""Characters of a line where no terminal and no COLUMNS says how many there are: a table in a file is not cut."""

_Item = TypeVar("_Item")


def accept_any_text() -> None:
    """Lets stdout write what the locale's encoding lacks as an escape, as stderr does: it is no reason to end a run."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def output() -> Console:
    """Returns the console of what was asked for."""
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if known else WIDE)


@cache
def notices() -> Console:
    """Returns the console of everything else; one, so that a bar within a bar does not draw over it."""
    # FORCE_COLOR makes rich take a file for a terminal: bars would be drawn into it again and again.
    return Console(stderr=True, force_terminal=sys.stderr.isatty())


def progress(*columns: ProgressColumn, transient: bool = True) -> Progress:
    """Returns a bar, shown inside `with`.

    Args:
        columns: What it shows.
        transient: Whether it goes when it is done.
    """
    # Else what is printed to a pipe meanwhile would go where the bar is.
    return Progress(*columns, console=notices(), transient=transient, redirect_stdout=sys.stdout.isatty())


def track(items: Iterable[_Item], description: str, total: int) -> Iterator[_Item]:
    """Yields items, with a bar of how many there were."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as bar:
        yield from bar.track(items, total=total, description=description)
