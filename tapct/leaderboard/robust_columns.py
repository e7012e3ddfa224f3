"""The robustness part of the board: repeated scans and perturbed ones as ranked columns, one row a model.

Repeated scans are the tasks of the kind `reliability`, ranked as every task is. Perturbations of one sort (thicker
slices at two levels, say) are one column over all tasks that were run under them: a model's mean rank by what it lost,
the paired drop against the scans as they are. Its interval is that of mean ranks (`tapct.statistics.mean_ranks`).

Who finds nothing has nothing to lose. So controls, which nobody trained, and models that are not better than `chance`
where that was run, have no rank by what they lost; the number stands there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from tapct import numeric
from tapct.leaderboard.board import Board, Task
from tapct.leaderboard.mistakes import model_of
from tapct.leaderboard.variations import Perturbed
from tapct.statistics.intervals import Estimate, estimate
from tapct.statistics.levels import Levels
from tapct.statistics.overall import summarise_tasks
from tapct.statistics.robustness import Robustness, lost
from tapct.statistics.summary import TaskSummary
from tapct.volumes import perturb

FILE = "robustness_ranks.csv"
TITLE = "Robustness"

READ_AS = (
    "In each cell the rank, with the ranks that are left open, and what it is by, with its 95 % interval over "
    "patients. Repeated scans are ranked as every task is. Under perturbations a model is ranked by what it loses "
    "against the scans as they are, on the same patients: positive is worse. Who finds nothing has nothing to lose: "
    "controls, and models no better than chance, have no rank by that. Perturbations are changes of voxel values, "
    "and no scans of another scanner."
)

RELIABILITY = "reliability"
"""The kind whose tasks are columns of repeated scans."""

CHANCE = "chance"
"""The encoder that says nothing of a scan."""

SORTS: Mapping[type[perturb.Perturbation], tuple[str, str]] = {
    perturb.ThickSlices: ("Spacing", "slices two and four times as thick and as far apart"),
    perturb.Noise: ("Noise", "white noise of 30 and 100 HU"),
    perturb.Contrast: ("Contrast", "weaker and stronger contrast of iodine and bone"),
    perturb.Shift: ("HU shift", "all values 50 HU lower or higher"),
    perturb.FieldOfView: ("Field of view", "only the middle of the scan is there"),
}
"""Sorts of perturbations: the title of their column, and what is done."""

FEWEST_MODELS = 2


@dataclass(frozen=True, kw_only=True)
class RankCell:
    """A model in a column.

    Attributes:
        rank: Its rank, or mean rank, with what is left open.
        number: What it is ranked by.
    """

    rank: Estimate
    number: Estimate


@dataclass(frozen=True, kw_only=True)
class RankedColumn:
    """A ranked column.

    Attributes:
        title: What it is called.
        says: What was done to the scans.
        measure: What the number is.
        digits: Decimals of it.
        over: What ranks are over, in words: one task, or tasks under perturbations.
        cells: By model.
    """

    title: str
    says: str
    measure: str
    digits: int
    over: tuple[str, ...]
    cells: Mapping[str, RankCell]

    @property
    def rank_digits(self) -> int:
        """Decimals of its ranks: means have one."""
        return int(len(self.over) > 1)


@dataclass(frozen=True, kw_only=True)
class TaskDrops:
    """What perturbed scans cost on a task.

    Attributes:
        task: The task.
        patients: Reported patients.
        perturbations: Their names.
        drops: By model as the board calls it and perturbation, what was lost.
        notes: What must be known of it.
    """

    task: Task
    patients: int
    perturbations: tuple[str, ...]
    drops: Mapping[str, Mapping[str, Estimate]]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RobustnessBoard:
    """The robustness part.

    Attributes:
        columns: Repeated scans first, then perturbations in the order of `SORTS`.
        tasks: What perturbed scans cost on each task.
    """

    columns: tuple[RankedColumn, ...]
    tasks: tuple[TaskDrops, ...]


class _Contest(NamedTuple):
    """The changes of the models on a task under a perturbation, and the models that have nothing to lose there."""

    title: str
    task: Task
    change: TaskSummary
    blind: frozenset[str]


def assemble(board: Board, perturbed: Sequence[Perturbed], names: Mapping[str, str]) -> RobustnessBoard | None:
    """Returns the robustness part of a board; None where there is nothing of it.

    Args:
        board: The board.
        perturbed: What perturbed scans cost, of all records.
        names: What models are called on the board, by `model_of` their records.
    """
    tasks = {task.name: task for task in board.tasks if task.summaries}
    contests: list[tuple[str, _Contest]] = []
    drops = []
    for of in perturbed:
        task = tasks.get(of.task)
        if task is None or of.own_because or of.adaptor != (task.adaptor or ""):
            continue
        called = {label: names.get(model_of(one), label) for label, one in of.records.items()}
        drops.append(_drops(task, of.found, called))
        if task.family == RELIABILITY or of.found.notice:  # of repeated scans there is a column; a notice ranks nowhere
            continue
        chance = {label for label, one in of.records.items() if one.encoder.card.name == CHANCE}
        for name, change in of.found.changes.items():
            blind = frozenset(called[one] for one in _blind(of.found.clean[name], chance))
            contests.append((name, _Contest(f"{task.title}, {name}", task, _called(change, called), blind)))
    controls = {model.name for model in board.models if model.is_control}
    columns = [_repeated(task) for task in board.family(RELIABILITY)]
    for sort in SORTS:
        of_sort = [one for name, one in contests if type(perturb.PERTURBATIONS.get(name)) is sort]
        columns += [_by_sort(sort, of_sort, controls)] if of_sort else []
    return RobustnessBoard(columns=tuple(columns), tasks=tuple(drops)) if columns or drops else None


# -- Repeated scans --------------------------------------------------------------------------------------


def _repeated(task: Task) -> RankedColumn:
    """Returns the column of a task of repeated scans, ranked as the task is."""
    summary, metric = task.summaries["native"], task.of_metric
    rows = [row for row, model in enumerate(summary.models) if model.estimate.value is not None]
    ranks = dict(zip(rows, numeric.ranks(summary.value[rows], summary.sign).tolist(), strict=True)) if rows else {}
    cells = {}
    for row, model in enumerate(summary.models):
        ends = task.rank_interval(model.name, "native")
        why = model.estimate.reason if row not in ranks else summary.comparison.reason
        low, high = (None, None) if ends is None else map(float, ends)
        cells[model.name] = RankCell(rank=Estimate(ranks.get(row), low, high, why), number=model.estimate)
    says = "two scans of a patient, between which nothing changed"
    measure = metric.column or metric.title
    return RankedColumn(
        title=task.title, says=says, measure=measure, digits=metric.digits, over=(task.title,), cells=cells
    )


# -- Perturbed scans -------------------------------------------------------------------------------------


def _blind(clean: TaskSummary, chance: set[str]) -> set[str]:
    """Returns the models that are not better than chance on the scans as they are; none where chance was not run."""
    better = {frozenset((one.first, one.second)): one.better for one in clean.comparison.differences}
    models = [model.name for model in clean.models]
    return {name for name in models for row in chance & {*models} if better.get(frozenset((name, row))) != name}


def _by_sort(sort: type[perturb.Perturbation], contests: Sequence[_Contest], controls: set[str]) -> RankedColumn:
    """Returns the column of perturbations of a sort."""
    title, says = SORTS[sort]
    why = dict.fromkeys(controls, "a control: nobody trained it, and it has nothing to lose")
    for one in contests:
        blind = f"on {one.task.title} it is no better than chance, and has nothing to lose"
        why = dict.fromkeys(one.blind, blind) | why
    can_rank = [_only(one.change, lambda name: name not in why) for one in contests]
    having = {name for change in can_rank for name in _defined(change)}
    least = max(FEWEST_MODELS, len(having) / 2)
    ranked = [place for place, change in enumerate(can_rank) if len(_defined(change)) >= least]
    ranks = {one.name: one.mean_rank for one in summarise_tasks([can_rank[place] for place in ranked], [*having])}
    nothing = Estimate(None, None, None, "no two models that can be ranked were run under it")
    cells = {}
    for name in dict.fromkeys(model.name for one in contests for model in one.change.models):
        rank = Estimate(None, None, None, why[name]) if name in why else ranks.get(name, nothing) if ranked else nothing
        cells[name] = RankCell(rank=rank, number=_mean_lost(name, contests))
    metrics = {(one.change.metric, one.task.heading): one for one in contests}
    one = next(iter(metrics.values()))
    measure = f"lost: {one.task.heading}" if len(metrics) == 1 else "lost"
    digits = one.task.of_metric.digits
    over = tuple(contests[place].title for place in ranked)
    return RankedColumn(title=title, says=says, measure=measure, digits=digits, over=over, cells=cells)


def _mean_lost(model: str, contests: Sequence[_Contest]) -> Estimate:
    """Returns what a model lost on average over the contests, with its interval over patients of the same tasks."""
    metrics = sorted({one.task.heading for one in contests})
    if len(metrics) > 1:
        return Estimate(None, None, None, f"the tasks have different metrics: {', '.join(metrics)}")
    if lacking := [one.title for one in contests if model not in _defined(one.change)]:
        return Estimate(None, None, None, f"no score in {', '.join(lacking)}, of {len(contests)}")
    by_task: dict[str, list[TaskSummary]] = {}
    for one in contests:
        by_task.setdefault(one.task.name, []).append(one.change)
    numbers = []
    for changes in by_task.values():  # levels of one task are of the same patients and draws
        of_levels = [
            [np.asarray(getattr(change, name)[_row(change, model)]) for name in ("value", "bootstrap", "jackknife")]
            for change in changes
        ]
        numbers.append([np.mean(levels, axis=0) for levels in zip(*of_levels, strict=True)])
    weights = [len(changes) / len(contests) for changes in by_task.values()]
    value = sum(weight * of[0] for weight, of in zip(weights, numbers, strict=True))
    bootstrap = sum(weight * of[1] for weight, of in zip(weights, numbers, strict=True))
    # Leaving out a patient moves only their own task.
    moved = [weight * (of[2] - of[2].mean()) for weight, of in zip(weights, numbers, strict=True)]
    patients = min(one.change.num_patients for one in contests)
    sign = contests[0].change.sign
    return lost(estimate(float(value), bootstrap, value + np.concatenate(moved), patients, ""), sign)


def _row(change: TaskSummary, model: str) -> int:
    return next(row for row, one in enumerate(change.models) if one.name == model)


def _defined(change: TaskSummary) -> list[str]:
    return [model.name for model in change.models if model.estimate.value is not None]


def _called(change: TaskSummary, names: Mapping[str, str]) -> TaskSummary:
    """Returns statistics whose models are called as on the board; their differences stay under the old names."""
    return replace(change, models=tuple(replace(model, name=names[model.name]) for model in change.models))


def _only(change: TaskSummary, is_kept: Any) -> TaskSummary:
    """Returns the statistics of some of the models."""
    rows = [row for row, model in enumerate(change.models) if is_kept(model.name)]
    place = np.full(len(change.models), -1)
    place[rows] = np.arange(len(rows))
    of = change.levels
    first, second = place[of.first], place[of.second]
    both = (first >= 0) & (second >= 0)
    return replace(
        change,
        models=tuple(change.models[row] for row in rows),
        value=change.value[rows],
        bootstrap=change.bootstrap[rows],
        jackknife=change.jackknife[rows],
        levels=Levels(first[both], second[both], of.found[both], of.chance[both]),
    )


def _drops(task: Task, found: Robustness, called: Mapping[str, str]) -> TaskDrops:
    drops: dict[str, dict[str, Estimate]] = {}
    for drop in found.drops:
        drops.setdefault(called[drop.model], {})[drop.perturbation] = drop.drop
    under = list(dict.fromkeys(drop.perturbation for drop in found.drops))
    known = [*perturb.PERTURBATIONS]
    under.sort(key=lambda name: known.index(name) if name in known else len(known))
    notes = tuple(filter(None, [found.notice, *found.warnings]))
    return TaskDrops(task=task, patients=found.num_patients, perturbations=tuple(under), drops=drops, notes=notes)


def models_in(board: RobustnessBoard) -> set[str]:
    """Returns the models that are in any column."""
    return {model for column in board.columns for model in column.cells}


def as_rows(board: RobustnessBoard) -> list[dict[str, Any]]:
    """Returns a row for each column and model."""
    return [
        {
            **{"column": column.title, "model": model},
            **{"rank": cell.rank.value, "rank_low": cell.rank.low, "rank_high": cell.rank.high},
            **{"measure": column.measure, "value": cell.number.value},
            **{"value_low": cell.number.low, "value_high": cell.number.high, "over": "; ".join(column.over)},
            **{"reason": cell.rank.reason or cell.number.reason or ""},
        }
        for column in board.columns
        for model, cell in column.cells.items()
    ]
