"""Where commands write: what was asked for to stdout, bars and notices to stderr, so that pipes get the first alone."""

import copy
import io
import os
import select
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from tapct._utils.progress import report

WIDE = 200
"""Characters of a line where no terminal and no COLUMNS says how many there are: a table in a file is not cut."""

_Item = TypeVar("_Item")


def accept_any_text() -> None:
    """Lets stdout write what the locale's encoding lacks as an escape, as stderr does: it is no reason to end a run."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def reader_is_gone() -> bool:
    """Returns whether who read stdout has had enough, as `head` has; what is still to be written then goes nowhere.

    Where a system cannot tell (Windows has no `poll`), nobody is taken to be gone.
    """
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    if not any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())  # else Python says at its end that it could not write
    os.close(nowhere)
    return True


class Columns(Table):
    """A table whose columns may be shown in several tables below one another, each with the first column in front."""


class Output(Console):
    """A console that leaves it to the command to end where who reads has had enough; rich would end with status 1."""

    def on_broken_pipe(self) -> None:
        """Raises what other ways of writing raise."""
        raise BrokenPipeError


class _Whole(Output):
    """A console that cuts no word of a table, however narrow the terminal: names, paths and addresses are copied."""

    def print(self, *objects: Any, **settings: Any) -> None:
        """Prints as `Console` does; of tables every word is whole, and a terminal that is too narrow breaks lines."""
        if any(isinstance(one, Table | Group) for one in objects):
            settings.setdefault("crop", False)
        super().print(*(self.laid_out(one) for one in objects), **settings)

    def laid_out(self, what: Any) -> Any:
        """Returns what is to be shown, with tables (also of a group) as wide as their words, and as the terminal."""
        if isinstance(what, Group):
            return Group(*(self.laid_out(one) for one in what.renderables))
        if not isinstance(what, Table):
            return what
        keep_words_whole(what)
        return Group(*self._below_one_another(what)) if isinstance(what, Columns) else what

    def _below_one_another(self, table: Columns) -> Iterator[Columns]:
        """Yields a table, or where it is too wide several, each with as many columns behind the first as fit."""
        shown, left = [0], list(range(1, len(table.columns)))
        while left:
            wider = _with_columns(table, [*shown, left[0]])
            if len(shown) > 1 and wider.__rich_measure__(self, self.options).minimum > self.width:
                yield _with_columns(table, shown)
                shown = [0]
            shown.append(left.pop(0))
        yield _with_columns(table, shown)


def _with_columns(table: Columns, chosen: Sequence[int]) -> Columns:
    """Returns a table with some of its columns; its title is above the first ones, its caption below the last."""
    part = copy.copy(table)
    part.columns = [replace(table.columns[index], _index=place) for place, index in enumerate(chosen)]
    if 1 not in chosen:
        part.title = None
    if chosen[-1] != len(table.columns) - 1:
        part.caption = None
    return part


def keep_words_whole(table: Table) -> None:
    """Makes each column of a table as wide as its longest word; of a column that does not wrap, as its longest cell.

    A column that folds is left as it is: there a text without blanks continues in the next line.
    """
    for column in table.columns:
        if column.overflow == "fold":
            continue
        texts = (_text_of(one) for one in (column.header, column.footer, *column.cells))
        lines = (line for text in texts for line in text.splitlines())
        parts = (part for line in lines for part in ([line] if column.no_wrap else line.split()))
        column.min_width = max([column.min_width or 0, *map(cell_len, parts)])


def _text_of(cell: RenderableType) -> str:
    if isinstance(cell, str):
        return Text.from_markup(cell).plain
    return cell.plain if isinstance(cell, Text) else ""


def output() -> _Whole:
    """Returns the console of what was asked for."""
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return _Whole(width=None if known else WIDE)


@cache
def notices() -> Console:
    """Returns the console of everything else; one, so that a bar within a bar does not draw over it."""
    # FORCE_COLOR makes rich take a file for a terminal: bars would be drawn into it again and again.
    return Console(stderr=True, force_terminal=sys.stderr.isatty())


class _Reported(Progress):
    """A bar that also tells who watches from elsewhere (`tapct._utils.progress`), with lines below it."""

    below: Callable[[], Iterable[RenderableType]] = tuple

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yields the bar, then the lines."""
        yield from super().get_renderables()
        yield from self.below()

    def add_task(self, description: str, *settings: Any, **more: Any) -> TaskID:
        """Adds as `Progress` does, and reports, as the two that follow."""
        task_id = super().add_task(description, *settings, **more)
        self._report(task_id)
        return task_id

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Updates as `Progress` does."""
        super().update(task_id, **changes)
        self._report(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Advances as `Progress` does."""
        super().advance(task_id, advance)
        self._report(task_id)

    def _report(self, task_id: TaskID) -> None:
        task = self._tasks[task_id]
        if task.total:
            report(task.description, int(task.completed), int(task.total))


def progress(
    *columns: ProgressColumn, transient: bool = True, below: Callable[[], Iterable[RenderableType]] = tuple
) -> Progress:
    """Returns a bar, shown inside `with`.

    Args:
        columns: What it shows.
        transient: Whether it goes when it is done.
        below: Gives the lines below it, again and again.
    """
    # Else what is printed to a pipe meanwhile would go where the bar is.
    bar = _Reported(*columns, console=notices(), transient=transient, redirect_stdout=sys.stdout.isatty())
    bar.below = below
    return bar


def track(items: Iterable[_Item], description: str, total: int) -> Iterator[_Item]:
    """Yields items, with a bar of how many there were."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as bar:
        yield from bar.track(items, total=total, description=description)
