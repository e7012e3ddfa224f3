"""Several tasks together: mean rank and mean score, only of models that have every task."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tapct import numeric
from tapct.leaderboard import comparison
from tapct.leaderboard.intervals import Estimate, estimate, no_interval
from tapct.leaderboard.summary import TaskSummary


@dataclass(frozen=True, kw_only=True)
class OverallModel:
    """One model over all tasks.

    Attributes:
        name: The model.
        mean_rank: Mean over tasks of its rank among the models that have every task, equal scores sharing theirs.
        mean_score: Mean over tasks of the metric.
    """

    name: str
    mean_rank: Estimate
    mean_score: Estimate


def summarise_tasks(tasks: Sequence[TaskSummary]) -> tuple[OverallModel, ...]:
    """Returns every model's mean rank and mean score over tasks, in the order in which the models first appear.

    A model without a score in some task has neither: the others' ranks and means would not be of the same tasks. It
    is left out of the ranks as well, so that what is missing elsewhere moves nobody.

    The interval of the mean rank is from the differences that remain when those of all pairs in all tasks are
    corrected together: per task the ranks that are left open, averaged. With probability 95 % all models' intervals
    hold at once, for other patients of the same tasks; the tasks are not a sample of anything and are not resampled.
    The percentiles of resampled ranks would be shorter, and wrong (see `comparison.rank_intervals`).

    The mean score exists only where all tasks have the same metric: an average of Dice and AUROC is of nothing.
    """
    if not tasks or len({task.task for task in tasks}) != len(tasks):
        raise ValueError("give one summary per task")
    names = list(dict.fromkeys(model.name for task in tasks for model in task.models))
    missing = {name: [task.task for task in tasks if not _has_score(task, name)] for name in names}
    complete = [name for name in names if not missing[name]]
    ranks = dict(zip(complete, _mean_ranks(tasks, complete), strict=True))
    means = dict(zip(complete, _mean_scores(tasks, complete), strict=True))
    none = {name: Estimate(None, None, None, f"no score in {', '.join(tasks)}") for name, tasks in missing.items()}
    return tuple(
        OverallModel(name=name, mean_rank=ranks.get(name, none[name]), mean_score=means.get(name, none[name]))
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
    reason = next((f"{task.task}: {why}" for task in tasks if (why := _incomparable(task, names))), None)
    if reason:
        return [Estimate(float(rank), None, None, reason) for rank in ranks]
    # Resample r of one task has nothing to do with resample r of another: together they are one of all tasks.
    resamples = {task.draws.shape[1] for task in tasks}
    if len(resamples) > 1:
        raise ValueError(f"the tasks were resampled differently often: {sorted(resamples)}")
    rows = [(task, _rows(task, names)) for task in tasks]
    found = [comparison.pairs(task.value[row], task.jackknife[row], task.swaps, task.sign) for task, row in rows]
    corrected = comparison.corrected_p_values(
        np.concatenate([each.evidence for each in found]), np.concatenate([each.chance for each in found])
    )
    open_ranks = [
        comparison.rank_intervals(comparison.wins(each, p, len(names)))
        for each, p in zip(found, np.split(corrected, len(tasks)), strict=True)
    ]
    ends = np.mean(open_ranks, axis=0)
    return [Estimate(float(rank), float(low), float(high)) for rank, (low, high) in zip(ranks, ends, strict=True)]


def _incomparable(task: TaskSummary, names: Sequence[str]) -> str | None:
    """Returns why the models of a task cannot be compared, None if they can."""
    reason = no_interval(task.num_patients, task.draws.shape[1])
    if reason is None and not task.comparable[_rows(task, names)].all():
        reason = "too few patients define the metric"
    return reason


def _mean_scores(tasks: Sequence[TaskSummary], names: Sequence[str]) -> list[Estimate]:
    """Returns the mean score of each of the models, all of which have every task."""
    metrics = sorted({task.metric for task in tasks})
    if len(metrics) > 1:
        return [Estimate(None, None, None, f"the tasks have different metrics: {', '.join(metrics)}") for _ in names]
    found = []
    for name in names:
        rows = [(task, _rows(task, [name])[0]) for task in tasks]
        value = float(np.mean([task.value[row] for task, row in rows]))
        # Leaving out a patient moves only his own task, hence the mean over tasks by one part in their number.
        moved = np.concatenate([task.jackknife[row] - task.jackknife[row].mean() for task, row in rows]) / len(tasks)
        draws = np.mean([task.draws[row] for task, row in rows], axis=0)
        found.append(estimate(value, draws, value + moved, min(task.num_patients for task in tasks), ""))
    return found
