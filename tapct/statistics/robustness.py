"""What perturbed scans cost each model: the paired drop against the scans as they are, and the change of rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tapct import kinds, numeric
from tapct.errors import RecordError
from tapct.records.record import Recorded
from tapct.statistics.header import OfMetric, header
from tapct.statistics.inputs import TaskInputs, from_records, model_names, require_one_encoder
from tapct.statistics.intervals import Estimate
from tapct.statistics.summary import RESAMPLES, TaskSummary, summarise_change, summarise_task


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
class Robustness(OfMetric):
    """One metric of one task under perturbations.

    Attributes:
        drops: For every perturbation that any model has, all models in the order in which they first appear.
        changes: By perturbation, the statistics of what changed under it, of the models that have both numbers; without
            one of which nobody has.
        clean: By perturbation, those of the same models on the scans as they are.
    """

    drops: tuple[Drop, ...]
    changes: Mapping[str, TaskSummary] = field(default_factory=dict)
    clean: Mapping[str, TaskSummary] = field(default_factory=dict)


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
        RecordError: If records do not compare, or two are of one experiment.
    """
    models = list(names or model_names(records))
    experiments: dict[str | None, dict[str, Recorded]] = {None: {}}
    for model, record in zip(models, records, strict=True):
        under = experiments.setdefault(_perturbation(record), {})
        if model in under:
            raise RecordError(f"two records are of {model} under {_perturbation(record) or 'no perturbation'}")
        under[model] = record
    require_one_encoder(models, records)
    labels = [f"{model}, {_perturbation(record)}" for model, record in zip(models, records, strict=True)]
    inputs = from_records(records, metric, split=split, names=labels, vary={"perturbation"})

    def inputs_of(of: Mapping[str, Recorded], chosen: Sequence[str]) -> TaskInputs:
        return from_records([of[m] for m in chosen], metric, split=split, names=chosen)

    clean = experiments.pop(None)
    drops: list[Drop] = []
    changes: dict[str, TaskSummary] = {}
    as_they_are: dict[str, TaskSummary] = {}
    for name, perturbed in experiments.items():
        assert name is not None
        both = [model for model in dict.fromkeys(models) if model in clean and model in perturbed]
        same = {model: _same_probes(clean[model], perturbed[model]) for model in both}
        found: dict[str, Drop] = {}
        if both:
            before, after = (inputs_of(of, both) for of in (clean, perturbed))
            summaries = summarise_task(before, resamples), summarise_task(after, resamples)
            changes[name] = summarise_change(before, after, summaries, f"{inputs.task}, {name}")
            as_they_are[name] = summaries[0]
            found = _drops(name, *summaries, changes[name], same)
        for model in dict.fromkeys(models):
            drops.append(found.get(model) or _no_drop(name, model, has_clean=model in clean))
    return Robustness(
        **header(inputs),
        drops=tuple(drops),
        changes=changes,
        clean=as_they_are,
    )


def _perturbation(record: Recorded) -> str | None:
    """Returns the name of the perturbation of a record's reported scans."""
    return record.task.perturbation


def _same_probes(one: Recorded, other: Recorded) -> bool | None:
    """Returns whether two records evaluated the same trained heads; None where nothing is trained."""
    if one.task.kind is not None and not kinds.kind(one.task.kind).trains:
        return None
    return [run.probe_sha256 for run in one.runs] == [run.probe_sha256 for run in other.runs]


def _drops(
    name: str,
    clean: TaskSummary,
    perturbed: TaskSummary,
    change: TaskSummary,
    same: Mapping[str, bool | None],
) -> dict[str, Drop]:
    """Returns the drop of each of the models, which are in all summaries in the same order."""
    ranks = list(zip(_ranks(clean), _ranks(perturbed), strict=True))
    found = {}
    for index, (before, after, changed) in enumerate(zip(clean.models, perturbed.models, change.models, strict=True)):
        undefined = before.estimate.reason or after.estimate.reason or ""
        rank_clean, rank_perturbed = ranks[index]
        moved = None
        if rank_clean.value is not None and rank_perturbed.value is not None:
            moved = rank_perturbed.value - rank_clean.value
        found[before.name] = Drop(
            model=before.name,
            perturbation=name,
            clean=before.estimate,
            perturbed=after.estimate,
            drop=lost(changed.estimate, clean.sign, undefined),
            rank_clean=rank_clean,
            rank_perturbed=rank_perturbed,
            rank_change=moved,
            same_probes=same[before.name],
        )
    return found


def lost(change: Estimate, sign: int, undefined: str = "") -> Estimate:
    """Returns a change as what was lost, positive where the number has become worse.

    Args:
        change: The number now less that before.
        sign: -1 where a lower number is better.
        undefined: Why there is none, where that is known better.
    """
    if change.value is None:
        return Estimate(None, None, None, undefined or change.reason)
    ends = [] if change.low is None or change.high is None else sorted(-sign * end for end in (change.low, change.high))
    low, high = ends or (None, None)
    return Estimate(0.0 - sign * change.value, low, high, change.reason)


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
