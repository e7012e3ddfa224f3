"""Several tasks together: mean rank and mean score, only of models that have every task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tapct import numeric
from tapct.statistics import mean_ranks
from tapct.statistics.intervals import Estimate, estimate
from tapct.statistics.levels import Levels
from tapct.statistics.summary import TaskSummary


@dataclass(frozen=True, kw_only=True)
class OverallModel:
    """One model over all tasks.

    Attributes:
        name: The model.
        mean_rank: Mean over tasks of its rank among the models that have every task, equal scores sharing theirs.
        mean_score: Mean over tasks of the metric.
        better_on: On how many tasks it is better than each other model that has every task, beyond chance: corrected
            for all pairs of all tasks together, so that with 95 % not one of all these differences is false.
    """

    name: str
    mean_rank: Estimate
    mean_score: Estimate
    better_on: Mapping[str, int] = field(default_factory=dict)


def summarise_tasks(tasks: Sequence[TaskSummary], models: Sequence[str] = ()) -> tuple[OverallModel, ...]:
    """Returns every model's mean rank and mean score over tasks, in the order in which the models first appear.

    Args:
        tasks: The tasks of the suite (see `suite`).
        models: Models to name, also where they have no score on any of these tasks.

    A model without a score in some task has neither: the others' ranks and means would not be of the same tasks. It
    is left out of the ranks as well, so that what is missing elsewhere moves nobody.

    The interval of the mean rank is from how many of the differences of all pairs in all tasks are real (see
    `mean_ranks.ends`). With probability 95 % all models' intervals hold at once, for other patients of the same tasks;
    the tasks are not a sample of anything and are not resampled. The percentiles of resampled ranks would be shorter,
    and wrong (see `comparison.rank_intervals`).

    The mean score exists only where all tasks have the same metric: an average of Dice and AUROC is of nothing.
    """
    if len({task.task for task in tasks}) != len(tasks):
        raise ValueError("give one summary per task")
    names = list(dict.fromkeys([*models, *(model.name for task in tasks for model in task.models)]))
    if not tasks:
        nothing = Estimate(None, None, None, "no task is in the suite of mean ranks, see docs/leaderboard.md")
        return tuple(OverallModel(name=name, mean_rank=nothing, mean_score=nothing) for name in names)
    missing = {name: [task.task for task in tasks if not _has_score(task, name)] for name in names}
    complete = [name for name in names if not missing[name]]
    ranks = dict(zip(complete, _mean_ranks(tasks, complete), strict=True))
    means = dict(zip(complete, _mean_scores(tasks, complete), strict=True))
    better = _better_on(tasks, complete)
    none = {
        name: Estimate(None, None, None, f"no score in {', '.join(lacking)}, of {len(tasks)} tasks of the suite")
        for name, lacking in missing.items()
    }
    return tuple(
        OverallModel(
            name=name,
            mean_rank=ranks.get(name, none[name]),
            mean_score=means.get(name, none[name]),
            better_on=better.get(name, {}),
        )
        for name in names
    )


def _has_score(task: TaskSummary, name: str) -> bool:
    return any(model.name == name and model.estimate.value is not None for model in task.models)


def _rows(task: TaskSummary, names: Sequence[str]) -> list[int]:
    """Returns the row of each model in the arrays of a task."""
    place = {model.name: index for index, model in enumerate(task.models)}
    return [place[name] for name in names]


def _mean_ranks(tasks: Sequence[TaskSummary], names: Sequence[str]) -> list[Estimate]:
    """Returns the mean rank of each of the models, all of which have every task."""
    if not names:
        return []
    ranks = np.mean([numeric.ranks(task.value[_rows(task, names)], task.sign) for task in tasks], axis=0)
    by_level = _levels(tasks, names)
    if not any(len(task.found) for task in by_level):
        reason = next((task.comparison.reason for task in tasks if task.comparison.reason), None)
        return [Estimate(float(rank), None, None, reason or "no models to compare") for rank in ranks]
    open_ranks = mean_ranks.ends(by_level, len(names))
    return [
        Estimate(float(rank), float(min(low, rank)), float(max(high, rank)))
        for rank, (low, high) in zip(ranks, open_ranks, strict=True)
    ]


def _levels(tasks: Sequence[TaskSummary], names: Sequence[str]) -> list[Levels]:
    """Returns the differences between some models, which have the rows 0, 1, ... in the order of their names."""
    # Resample r of one task has nothing to do with resample r of another: together they are one of all tasks.
    resamples = {task.levels.chance.shape[1] for task in tasks}
    if len(resamples) > 1:
        raise ValueError(f"the tasks were resampled differently often: {sorted(resamples)}")
    found = []
    for task in tasks:
        row = np.full(len(task.models), -1)
        row[_rows(task, names)] = np.arange(len(names))
        first, second = row[task.levels.first], row[task.levels.second]
        both = (first >= 0) & (second >= 0)
        found.append(Levels(first[both], second[both], task.levels.found[both], task.levels.chance[both]))
    return found


def _better_on(tasks: Sequence[TaskSummary], names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Returns by model on how many tasks it is better than each other one, corrected for all pairs of all tasks."""
    found = {name: dict.fromkeys((other for other in names if other != name), 0) for name in names}
    by_level = _levels(tasks, names) if names else []
    for task, sure in zip(by_level, mean_ranks.decided(by_level) if by_level else [], strict=True):
        for first, second, level in zip(task.first[sure], task.second[sure], task.found[sure], strict=True):
            better, worse = (first, second) if level > 0 else (second, first)
            found[names[better]][names[worse]] += 1
    return found


def _mean_scores(tasks: Sequence[TaskSummary], names: Sequence[str]) -> list[Estimate]:
    """Returns the mean score of each of the models, all of which have every task."""
    metrics = sorted({" in ".join(filter(None, (task.metric, task.unit))) for task in tasks})
    if len(metrics) > 1:
        return [Estimate(None, None, None, f"the tasks have different metrics: {', '.join(metrics)}") for _ in names]
    found = []
    for name in names:
        rows = [(task, _rows(task, [name])[0]) for task in tasks]
        value = float(np.mean([task.value[row] for task, row in rows]))
        # Leaving out a patient moves only their own task, hence the mean over tasks by one part in their number.
        moved = np.concatenate([task.jackknife[row] - task.jackknife[row].mean() for task, row in rows]) / len(tasks)
        bootstrap = np.mean([task.bootstrap[row] for task, row in rows], axis=0)
        found.append(estimate(value, bootstrap, value + moved, min(task.num_patients for task in tasks), ""))
    return found
