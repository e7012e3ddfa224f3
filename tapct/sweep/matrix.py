"""The matrix of a sweep, as a table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tapct.sweep.state import State, Status
from tapct.sweep.variants import encoder_of

COLOURS: dict[Status, str] = {
    "done": "green",
    "running": "cyan",
    "queued": "cyan",
    "other": "yellow",
    "broken": "yellow",
    "failed": "red",
    "missing": "dim",
}

WORDS: dict[Status, str] = {"missing": "to do"}
"""How a status is shown where it is not shown as itself."""

BUDGET = ("trainer.init_args.max_steps", "trainer.init_args.n_runs", "model.init_args.adaptor")
"""Settings that a time depends on: cells that differ in one say nothing of each other."""


def minutes(state: State, asked: Mapping[str, str], finished: Sequence[State]) -> float | None:
    """Returns how long a cell may take, from what others took under the same steps and runs.

    Args:
        state: The cell.
        asked: Its settings.
        finished: Cells with a record.

    Returns:
        The mean over the cells of the same task, else over those of the same encoder, in minutes; None without any.
    """
    alike = [
        other
        for other in finished
        if other.wall_s is not None and all((other.settings or {}).get(key) == asked.get(key) for key in BUDGET)
    ]
    for same in (lambda of: of.task, lambda of: encoder_of(of.label)):
        if found := [other.wall_s for other in alike if same(other) == same(state)]:
            return fmean(s for s in found if s is not None) / 60
    return None


def table(states: Sequence[State], estimates: Mapping[str, float | None] | None = None) -> Group:
    """Returns a row for each encoder and variant, a column for each task, then a line for each cell that needs one.

    Args:
        states: The cells.
        estimates: Minutes by the name of a cell, for those that would run.
    """
    tasks = list(dict.fromkeys(state.task for state in states))
    grid = Table("", *tasks, box=box.SIMPLE)
    for column in grid.columns:
        column.no_wrap = True
    by_name = {state.name: state for state in states}
    for label in dict.fromkeys(state.label for state in states):
        cells = (by_name.get(f"{label} on {task}") for task in tasks)
        grid.add_row(label, *(_cell(state, estimates) for state in cells))
    lines = [_line(state) for state in states if state.status not in ("done", "missing")]
    return Group(grid, *lines, Text(summary(states, estimates), style="bold"))


def summary(states: Sequence[State], estimates: Mapping[str, float | None] | None = None) -> str:
    """Returns the counts of each status, and the minutes to go where all are known."""
    counts = Counter(state.status for state in states)
    words = ", ".join(f"{counts[status]} {_word(status)}" for status in COLOURS if counts[status])
    if not estimates:
        return words
    known = [value for value in estimates.values() if value is not None]
    unknown = len(estimates) - len(known)
    sure = f"; about {sum(known):.1f} min of work for {len(known)} cells to run" if known else ""
    return f"{words}{sure}" + (f"; no estimate for {unknown}: nothing like them has finished" if unknown else "")


def _word(status: Status) -> str:
    return WORDS.get(status, status)


def _cell(state: State | None, estimates: Mapping[str, float | None] | None) -> str:
    if state is None:
        return ""
    text = _word(state.status)
    if estimates is not None and state.name in estimates:
        value = estimates[state.name]
        text += " ?" if value is None else f" ~{value:.1f} min"
    elif state.status == "done" and state.wall_s is not None:
        text += f" {state.wall_s / 60:.1f} min"
    return f"[{COLOURS[state.status]}]{text}[/]"


def _line(state: State) -> Text:
    log = f"\n    {state.log}" if state.log is not None and state.status == "failed" else ""
    return Text.from_markup(
        f"[{COLOURS[state.status]}]{_word(state.status)}[/] {escape(f'{state.name}: {state.detail}{log}')}"
    )
