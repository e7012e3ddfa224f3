"""What perturbed scans cost each model: the paired drop against the scans as they are, and the change of rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tapct import kinds, numeric
from tapct.errors import RecordError
from tapct.leaderboard import thin
from tapct.leaderboard.inputs import from_records, model_names, require_one_encoder
from tapct.leaderboard.intervals import Estimate, estimate
from tapct.leaderboard.summary import RESAMPLES, TaskSummary, summarise_task
from tapct.records.record import Recorded


@dataclass(frozen=True, kw_only=True)
class Drop:
    """A model under a perturbation of the reported scans.

    Attributes:
        model: The model.
        perturbation: Name of the perturbation.
        clean: The metric on the scans as they are, with its interval over patients.
        perturbed: The same on the perturbed scans.
        drop: What is lost, positive where the perturbed number is worse; its interval is of the paired difference.
        rank_clean: Rank among the models that have both numbers, equal ones sharing theirs; the interval holds the
            ranks that are left open (see `comparison.rank_intervals`).
        rank_perturbed: The same on the perturbed scans.
        rank_change: Places lost (positive) or gained; None where a rank is undefined. Within the intervals of both
            ranks it may be chance.
        same_probes: Whether both numbers are of the very same trained heads, as they should be; if not, the drop holds
            what training another time (on another machine) does as well. None where nothing is trained (in retrieval
            the gallery is perturbed as the queries are), and of a model without one of the two numbers.
    """

    model: str
    perturbation: str
    clean: Estimate
    perturbed: Estimate
    drop: Estimate
    rank_clean: Estimate
    rank_perturbed: Estimate
    rank_change: float | None
    same_probes: bool | None


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """One metric of one task under perturbations.

    Attributes:
        task: Name of the task.
        metric: The metric.
        notice: What must stand beside every number, if anything.
        num_patients: Reported patients.
        warnings: What to know before reading the numbers.
        drops: For every perturbation that any model has, all models in the order in which they first appear.
    """

    task: str
    metric: str
    notice: str | None
    num_patients: int
    warnings: tuple[str, ...]
    drops: tuple[Drop, ...]


def robustness(
    records: Sequence[Recorded],
    metric: str,
    *,
    split: str = "test",
    names: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
) -> Robustness:
    """Returns every model's drop under every perturbation.

    Resamples draw the same patients for the scans as they are and for the perturbed ones, so that what makes a patient
    easy or hard cancels. A model without one of the two numbers moves nobody's rank.

    Args:
        records: One record per model without perturbation, and one per model and perturbation, which differ in
            nothing else.
        metric: The metric.
        split: The split that is reported.
        names: Name of the model of each record; by default its `model_names`.
        resamples: Number of resamples.

    Raises:
        RecordError: If records do not compare, or two are of one cell.
    """
    models = list(names or model_names(records))
    cells: dict[str | None, dict[str, Recorded]] = {None: {}}
    for model, record in zip(models, records, strict=True):
        under = cells.setdefault(_perturbation(record), {})
        if model in under:
            raise RecordError(f"two records are of {model} under {_perturbation(record) or 'no perturbation'}")
        under[model] = record
    require_one_encoder(models, records)
    labels = [f"{model}, {_perturbation(record)}" for model, record in zip(models, records, strict=True)]
    inputs = from_records(records, metric, split=split, names=labels, vary={"perturbation"})

    def summary(of: Mapping[str, Recorded], chosen: Sequence[str]) -> TaskSummary:
        return summarise_task(from_records([of[m] for m in chosen], metric, split=split, names=chosen), resamples)

    clean = cells.pop(None)
    drops: list[Drop] = []
    for name, perturbed in cells.items():
        assert name is not None
        both = [model for model in dict.fromkeys(models) if model in clean and model in perturbed]
        same = {model: _same_probes(clean[model], perturbed[model]) for model in both}
        found = _drops(name, summary(clean, both), summary(perturbed, both), same) if both else {}
        for model in dict.fromkeys(models):
            drops.append(found.get(model) or _no_drop(name, model, has_clean=model in clean))
    return Robustness(
        task=inputs.task,
        metric=metric,
        notice=inputs.notice,
        num_patients=inputs.num_patients,
        warnings=thin.of_task(inputs),
        drops=tuple(drops),
    )


def _perturbation(record: Recorded) -> str | None:
    """Returns the name of the perturbation of a record's reported scans."""
    return record.task.perturbation


def _same_probes(one: Recorded, other: Recorded) -> bool | None:
    """Returns whether two records evaluated the same trained heads; None where nothing is trained."""
    if one.task.kind is not None and not kinds.kind(one.task.kind).trains:
        return None
    return [run.probe_sha256 for run in one.runs] == [run.probe_sha256 for run in other.runs]


def _drops(name: str, clean: TaskSummary, perturbed: TaskSummary, same: Mapping[str, bool | None]) -> dict[str, Drop]:
    """Returns the drop of each of the models, which are in both summaries in the same order."""
    numbers = zip(_resampled(clean), _resampled(perturbed), strict=True)
    lost = [clean.sign * numeric.difference(before, after) for before, after in numbers]
    ranks = list(zip(_ranks(clean), _ranks(perturbed), strict=True))
    found = {}
    for index, (before, after) in enumerate(zip(clean.models, perturbed.models, strict=True)):
        value, draws, jackknife = (of[index] for of in lost)
        reason = before.estimate.reason or after.estimate.reason or ""
        rank_clean, rank_perturbed = ranks[index]
        moved = None
        if rank_clean.value is not None and rank_perturbed.value is not None:
            moved = rank_perturbed.value - rank_clean.value
        found[before.name] = Drop(
            model=before.name,
            perturbation=name,
            clean=before.estimate,
            perturbed=after.estimate,
            drop=estimate(float(value), draws, jackknife, clean.num_patients, reason),
            rank_clean=rank_clean,
            rank_perturbed=rank_perturbed,
            rank_change=moved,
            same_probes=same[before.name],
        )
    return found


def _resampled(summary: TaskSummary) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return summary.value, summary.draws, summary.jackknife


def _ranks(summary: TaskSummary) -> list[Estimate]:
    """Returns each model's rank, with the ranks that are left open."""
    if np.isnan(summary.value).any():
        return [Estimate(None, None, None, "a model has no score to be ranked by") for _ in summary.models]
    ranks = numeric.ranks(summary.value, summary.sign)
    found, why = summary.comparison.rank_intervals, summary.comparison.reason
    open_ranks = [found.get(model.name) for model in summary.models]
    return [
        Estimate(float(rank), None, None, why)
        if ends is None
        else Estimate(float(rank), float(ends[0]), float(ends[1]))
        for rank, ends in zip(ranks, open_ranks, strict=True)
    ]


def _no_drop(name: str, model: str, *, has_clean: bool) -> Drop:
    """Returns the drop of a model that lacks one of the two numbers."""
    missing = "not run on the perturbed scans" if has_clean else "not run on the scans as they are"
    none = Estimate(None, None, None, missing)
    return Drop(
        model=model,
        perturbation=name,
        clean=none,
        perturbed=none,
        drop=none,
        rank_clean=none,
        rank_perturbed=none,
        rank_change=None,
        same_probes=None,
    )
