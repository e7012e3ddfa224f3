"""Whether a record is better than what knows nothing of the cases, on the task's ranked metric.

Of classification the same scores are dealt out to the cases again, in two ways: at random, and by somebody who knows
`WEAK` of each label. A record that no random deal in forty reaches is better than chance. Any other is *at chance* if
nineteen weak deals in twenty are above it, so that a model which knows that much is rarely called so; else its patients
are *too few to tell*. Of voxels chance is the one class, given to all of them, that has the best mean Dice; other kinds
say themselves how somebody would answer who knows nothing (`Kind.chance`). A record whose interval does not exclude
that it is no better is *at chance* where it stays under half the way to perfect. Of kinds whose predictions may be
dealt out (`Kind.deals`), `tapct.flags.dealt` has it.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.special import ndtri

from tapct import numeric
from tapct.flags import dealt
from tapct.flags.messages import ONE_PATIENT, RaisedFlags, reported
from tapct.kinds import Kind, Mean, PairRank, kind
from tapct.metrics.by_label import RANKS, is_in_means
from tapct.metrics.classification import OVER_LABELS
from tapct.metrics.resampled import OfCounts
from tapct.records import CaseResult, Record
from tapct.records.case import as_cases
from tapct.statistics import TaskInputs
from tapct.statistics.intervals import Estimate, estimate
from tapct.statistics.resampling import resample

DEALS = 400
"""How often scores are dealt out, each way."""

AT_ONCE, SCORES_AT_ONCE = 50, 12_500_000
"""Deals at a time, fewer where they would be of more scores: 100 MB."""

WEAK = 0.75
"""AUROC of each label of somebody who knows a little: half way from chance to perfect."""

BY_LUCK, BY_MISFORTUNE = 0.025, 0.05
"""Share of random deals that may reach what is better than chance, and of weak ones that may be called at chance."""

RESAMPLES = 500
"""Fewer than the leaderboard's: a flag needs to know on which side of 0 an interval ends, not where."""


def against_chance(record: Record) -> RaisedFlags:
    """Compares with what knows nothing of the cases, on the ranked metric alone."""
    runs = [reported(run) for run in record.runs]
    cases = {tuple((case.case, case.patient) for case in run) for run in runs}
    if not runs or not runs[0] or len(cases) > 1 or len({case.case for case in runs[0]}) < len(runs[0]):
        return
    if all(case.scores and case.target for run in runs for case in run):
        yield from _dealt(record.task.metric or "MicroAUROC", runs)
    elif all(case.dice and case.voxels and case.reference_voxels for run in runs for case in run):
        yield from _against_one_class(record, runs)
    elif record.task.kind is not None and (of := kind(record.task.kind)).deals:
        yield from dealt.against_chance(of, record.task.metric, runs)
    elif record.task.kind is not None and (of := kind(record.task.kind)).chance is not None:
        yield from _against_nothing(record, runs, of)


# -- Scores --------------------------------------------------------------------------------------------


def _dealt(metric: str, runs: list[list[CaseResult]]) -> RaisedFlags:
    scores = np.array([[list((case.scores or {}).values()) for case in run] for run in runs])
    targets = np.array([list((case.target or {}).values()) for case in runs[0]], dtype=np.float64)  # NaN: missing
    if not (labels := _ranked_together(metric, targets)):
        return  # the metric is undefined
    patients = np.unique([case.patient for case in runs[0]], return_inverse=True)[1]
    # Dealt out again they are the same numbers: of each run only the order counts, and that is known once for all.
    levels = np.stack([np.unique(run, return_inverse=True)[1].reshape(run.shape) for run in scores])
    pair_rank = kind("classification").metric(metric).of
    of_counts = RANKS[pair_rank.rank if isinstance(pair_rank, PairRank) else OVER_LABELS[metric]].of_counts

    def values(drawn: np.ndarray) -> np.ndarray:
        return np.mean([_values(of_counts, drawn[..., some], targets[:, some]) for some in labels], axis=0)

    own = values(levels[None])
    random, weak = (
        np.concatenate([values(some) for some in deals(levels, targets, patients, knowing)]) for knowing in (0.5, WEAK)
    )
    if numeric.at_least(random, own).mean() <= BY_LUCK:
        return
    if not patients.any() and (levels != levels[:, :1]).any():
        yield "too-few-to-tell", f"{metric} {own[0]:.3f}: {ONE_PATIENT}"
        return
    said = f"{metric} {own[0]:.3f}: chance gives up to {np.quantile(random, 1 - BY_LUCK):.3f}"
    if numeric.equal(random, own).all():
        yield "chance-level", f"{said}, as does whatever order the cases are in"
        return
    said += f", a weak model (AUROC {WEAK}) at least {np.quantile(weak, BY_MISFORTUNE):.3f}"
    yield "chance-level" if numeric.at_least(own, weak).mean() <= BY_MISFORTUNE else "too-few-to-tell", said


def _ranked_together(metric: str, targets: np.ndarray) -> list[list[int]]:
    """Returns the labels whose scores are ranked together, all or each by itself; nothing where it is undefined."""
    if metric in OVER_LABELS:
        return [[int(label)] for label in np.flatnonzero(is_in_means(targets))]
    both = bool((targets == 0).any() and (targets == 1).any())
    return [list(range(targets.shape[1]))] if both else []


def _values(of_counts: OfCounts, drawn: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns (R,) the mean over runs of a metric of all pairs, of (R, runs, cases, labels) levels."""
    found = []
    for levels in np.moveaxis(drawn, 1, 0).reshape(drawn.shape[1], len(drawn), -1):  # (R, pairs) of each run
        number = levels.max() + 1
        place = np.arange(len(levels))[:, None] * number + levels
        counts = [
            np.bincount(place[:, targets.ravel() == answer].ravel(), minlength=len(levels) * number)
            for answer in (1, 0)
        ]
        found.append(of_counts(*(of.reshape(-1, number).T[::-1] for of in counts)))
    return np.mean(found, axis=0)


def deals(scores: np.ndarray, targets: np.ndarray, patients: np.ndarray, knowing: float) -> Iterator[np.ndarray]:
    """Yields scores as they are dealt out to the cases again, some deals at a time: (R, runs, cases, labels).

    They are the same numbers in each run and label. What a model says of the labels of a case, and of the cases of a
    patient, stays together: such scores are alike, and dealt out one by one they would seem to be more evidence.

    Args:
        scores: (runs, cases, labels).
        targets: (cases, labels) 0/1; NaN where it is missing, of which whoever deals knows nothing.
        patients: (cases,) numbers of the patients, from 0.
        knowing: AUROC of each label that is known to who deals; 0.5 for nothing.
    """
    rng = np.random.default_rng(0)
    by_patient = [np.flatnonzero(patients == patient) for patient in range(patients.max() + 1)]
    places, ordered = np.concatenate(by_patient), np.sort(scores, axis=1)
    shift = np.sqrt(2) * ndtri(knowing)
    step = max(1, min(AT_ONCE, SCORES_AT_ONCE // scores.size))
    for number in (min(step, DEALS - start) for start in range(0, DEALS, step)):
        orders = [np.concatenate([by_patient[k] for k in rng.permutation(len(by_patient))]) for _ in range(number)]
        dealt = np.empty((number, *scores.shape), dtype=scores.dtype)
        dealt[:, :, places] = np.moveaxis(scores[:, np.stack(orders)], 1, 0)
        if shift:
            noise = ndtri((_places(dealt, rng) + 0.5) / scores.shape[1])
            known = np.where(np.isnan(targets), 0.5, targets)
            dealt = np.take_along_axis(ordered[None], _places(noise + shift * known, rng), axis=2)
        yield dealt


def _places(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the place of each of (R, runs, cases, labels) values among its label's cases, from 0, ties at random."""
    order, found = rng.permutation(values.shape[2]), np.empty(values.shape, dtype=np.int64)
    found[:, :, order] = np.argsort(np.argsort(values[:, :, order], axis=2, kind="stable"), axis=2, kind="stable")
    return found


# -- Answers of somebody who knows nothing --------------------------------------------------------------


def _against_nothing(record: Record, runs: list[list[CaseResult]], of: Kind) -> RaisedFlags:
    assert of.chance is not None
    metric = of.metric(record.task.metric or of.ranked[0])
    own = tuple(as_cases(of, run) for run in runs)
    nothing = tuple(of.chance(cases) for cases in own)
    results: dict[str, Any] = {"samples": (own, nothing)}
    if isinstance(metric.of, Mean):
        results = {"values": np.array([[metric.of.of(cases) for cases in both] for both in (own, nothing)])}
    gap = _gap(record, runs, metric.name, **results)
    best = metric.low if metric.lower_is_better else metric.high
    half_way = abs(best - float(np.mean([metric.value(cases) for cases in nothing]))) / 2
    yield from _judged(gap, half_way, f"{metric.name} better than that of somebody who knows nothing")


# -- Voxels --------------------------------------------------------------------------------------------


def _against_one_class(record: Record, runs: list[list[CaseResult]]) -> RaisedFlags:
    dice = np.array([[numeric.mean((case.by_class("dice_native") or {}).values()) for case in run] for run in runs])
    constant = _constant_dice(runs[0])
    gap = _gap(record, runs, "dice_native", values=np.stack([dice, np.broadcast_to(constant, dice.shape)]))
    yield from _judged(gap, (1 - numeric.mean(constant)) / 2, "dice_native above the best single class")


def _judged(gap: Estimate, half_way: float, what: str) -> RaisedFlags:
    """Judges by how much a record is above what knows nothing, in `what` words.

    Args:
        gap: By how much, the higher the better.
        half_way: Half of what the best possible one is above.
        what: In words.
    """
    if gap.value is None or not numeric.at_least(0, gap.value if gap.low is None else gap.low):
        return
    detail = f"{what} by {gap.value:.3f}"
    if gap.low is None or gap.high is None:
        same = bool(numeric.equal(gap.value, 0))  # it answers as who knows nothing, which no patient more would change
        yield "chance-level" if same else "too-few-to-tell", f"{detail} ({gap.reason})"
        return
    told = numeric.at_least(half_way, gap.high)
    yield "chance-level" if told else "too-few-to-tell", f"{detail} (95 % interval {gap.low:.3f} to {gap.high:.3f})"


def _constant_dice(cases: list[CaseResult]) -> np.ndarray:
    """Returns (cases,) mean Dice over the defined classes if all voxels are of one class, the best one for that."""
    references = [case.reference_voxels or {} for case in cases]
    by_class = []
    for name in references[0]:
        there = [reference[name] for reference in references]
        dice = [2 * n / (n + (case.voxels or 0)) for n, case in zip(there, cases, strict=True)]
        # The class itself is defined wherever it is predicted, so everywhere.
        defined = [sum(v > 0 for k, v in reference.items() if k != name) + 1 for reference in references]
        by_class.append(np.array(dice) / defined)
    return by_class[numeric.best_first([numeric.mean(of) for of in by_class])[0]]


def _gap(record: Record, runs: list[list[CaseResult]], metric: str, **results: Any) -> Estimate:
    """Returns by how much a metric of the record is better than that of what knows nothing, with its interval.

    Args:
        record: The record.
        runs: Its reported cases.
        metric: The metric.
        results: The `values` or `samples` of both, as `TaskInputs` takes them.
    """
    inputs = TaskInputs(
        task=record.task.name,
        version=f"{record.task.version}:{record.task.split_sha256}",
        metric=metric,
        models=("this", "nothing"),
        cases=tuple(case.case for case in runs[0]),
        patients=tuple(case.patient for case in runs[0]),
        **results,
    )
    this, nothing = zip(*(of.mean(axis=1) for of in resample(inputs, RESAMPLES)), strict=True)
    value, bootstrap, jackknife = (inputs.sign * numeric.difference(*both) for both in zip(this, nothing, strict=True))
    return estimate(float(value), bootstrap, jackknife, inputs.num_patients, "it is undefined")
