"""The matrix of a sweep, as a table."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.text import Text

from tapct._utils.terminal import Columns
from tapct.encoders.options import encoder_of
from tapct.sweep.progress import span
from tapct.sweep.state import ExperimentStatus, State

COLOURS: dict[ExperimentStatus, str] = {
    "done": "green",
    "running": "cyan",
    "queued": "cyan",
    "unknown": "yellow",
    "other": "yellow",
    "broken": "yellow",
    "failed": "red",
    "missing": "dim",
}

WORDS: dict[ExperimentStatus, str] = {"missing": "to do"}
"""How a status is shown where it is not shown as itself."""

BUDGET = (
    *("trainer.init_args.max_steps", "trainer.init_args.n_runs"),
    *("model.init_args.adaptor", "model.init_args.encoder_options"),
)
"""Settings that a time depends on: experiments that differ in one say nothing of each other."""


class Times:
    """What experiments took, to estimate others by."""

    def __init__(self, finished: Iterable[State]) -> None:
        """Initializes the times.

        Args:
            finished: Experiments with a record.
        """
        self._seconds: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for state in finished:
            if state.wall_s is not None:
                for alike in _alike(state, state.settings or {}):
                    self._seconds[alike].append(state.wall_s)

    def minutes(self, state: State, asked: Mapping[str, str]) -> float | None:
        """Returns how long an experiment may take, from what others took under the same steps and runs.

        Args:
            state: The experiment.
            asked: Its settings.

        Returns:
            The mean over the experiments of the same task, else over those of the same encoder, in minutes; None
            without any.
        """
        found = (self._seconds[alike] for alike in _alike(state, asked) if alike in self._seconds)
        return next((fmean(seconds) / 60 for seconds in found), None)


def _alike(state: State, settings: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Returns what experiments share that take as long: the task first, then the encoder, each with the budget."""
    budget = tuple(settings.get(key, "") for key in BUDGET)
    return [("task", state.task, *budget), ("encoder", encoder_of(state.label), *budget)]


def table(states: Sequence[State], estimates: Mapping[str, float | None] | None = None) -> Group:
    """Returns a row for each encoder and variant, a column for each task, then lines for experiments that need one.

    Args:
        states: The experiments.
        estimates: Minutes by the name of an experiment, for those that would run.
    """
    tasks = list(dict.fromkeys(state.task for state in states))
    grid = Columns("", *map(escape, tasks), box=box.SIMPLE)
    for column in grid.columns:
        column.no_wrap = True
    by_name = {state.name: state for state in states}
    for label in dict.fromkeys(state.label for state in states):
        experiments = (by_name.get(f"{label} on {task}") for task in tasks)
        grid.add_row(escape(label), *(_experiment(state, estimates) for state in experiments))
    times = Times(states)
    lines = [_line(state, times) for state in states if state.status not in ("done", "missing")]
    return Group(grid, *lines, Text(summary(states, estimates), style="bold"))


def summary(states: Sequence[State], estimates: Mapping[str, float | None] | None = None) -> str:
    """Returns the counts of each status, and the minutes to go where all are known."""
    counts = Counter(state.status for state in states)
    words = ", ".join(f"{counts[status]} {_word(status)}" for status in COLOURS if counts[status])
    if older := sum(state.status == "done" and state.older is not None for state in states):
        words += f"; {older} of what is done are of an older protocol, and marked so wherever they are shown"
    if not estimates:
        return words
    known = [value for value in estimates.values() if value is not None]
    unknown = len(estimates) - len(known)
    sure = f"; about {sum(known):.1f} min of work for {len(known)} experiments to run" if known else ""
    return f"{words}{sure}" + (f"; no estimate for {unknown}: nothing like them has finished" if unknown else "")


def _word(status: ExperimentStatus) -> str:
    return WORDS.get(status, status)


def _experiment(state: State | None, estimates: Mapping[str, float | None] | None) -> str:
    if state is None:
        return ""
    text = _word(state.status)
    if estimates is not None and state.name in estimates:
        value = estimates[state.name]
        text += " ?" if value is None else f" ~{value:.1f} min"
    elif state.status == "done" and state.wall_s is not None:
        text += f" {state.wall_s / 60:.1f} min"
    if state.status == "done" and state.older is not None:
        text += " (older protocol)"
    return f"[{COLOURS[state.status]}]{text}[/]"


def _line(state: State, times: Times) -> Text:
    log = f"\n    {state.log}" if state.log is not None and state.status == "failed" else ""
    text = f"{state.name}: {state.detail}{_left(state, times)}{log}"
    return Text.from_markup(f"[{COLOURS[state.status]}]{_word(state.status)}[/] {escape(text)}")


def _left(state: State, times: Times) -> str:
    """Returns how long an experiment that runs will take in all, where experiments like it have finished."""
    if state.status != "running" or state.progress is None:
        return ""
    minutes = times.minutes(state, state.progress.settings)
    left_s = 0.0 if minutes is None else 60 * minutes - (time.time() - state.progress.began)
    return f"; about {span(left_s)} left in all, by what experiments like it took" if left_s > 0 else ""
