"""Means over labels of a metric of each label by itself: on the cases that state it, whatever the other labels.

Which labels are in a mean is decided once, by the references of all reported cases, and so is the same for every model:
those that `FEW` cases or more have, and `FEW` or more have not. The others stand apart, their numbers hang on a few
patients. A resample in which a label of the mean is left without a positive or without a negative has the mean of the
others. Where no label is left, the mean is undefined (NaN).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tapct import numeric
from tapct.metrics import ranks
from tapct.metrics.left_out import PatientLoss, Without, without_each
from tapct.metrics.resampled import OfCounts, in_resamples

FEW = 20
"""Positives, or negatives, below which a label stands apart from means over labels."""


class Rank(NamedTuple):
    """A rank metric of a label.

    Attributes:
        of_counts: It, of numbers of positives and negatives at each threshold.
        without: It without each patient.
    """

    of_counts: OfCounts
    without: Callable[[Without], np.ndarray]


RANKS: Mapping[str, Rank] = {
    "auroc": Rank(ranks.auroc_of_counts, lambda left: left.auroc),
    "average_precision": Rank(ranks.average_precision_of_counts, lambda left: left.average_precision),
    "average_precision_skill": Rank(ranks.average_precision_skill_of_counts, lambda left: left.average_precision_skill),
}
"""By name."""


def strata(targets: np.ndarray) -> np.ndarray:
    """Returns (2, K) how many cases have each label, and how many have it not, of (C, K) targets."""
    return np.stack([(targets == answer).sum(axis=0) for answer in (1, 0)])


def is_defined(targets: np.ndarray) -> np.ndarray:
    """Returns (K,) which labels have both a positive and a negative, of (C, K) targets."""
    return np.logical_and.reduce(strata(targets) > 0)


def is_in_means(targets: np.ndarray) -> np.ndarray:
    """Returns (K,) which labels are in means over labels, of (C, K) targets."""
    return np.logical_and.reduce(strata(targets) >= FEW)


def stated(scores: np.ndarray, targets: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields of each label the (N,) cases that state it, with their (N,) scores and targets; of (C, K) of each."""
    for of_scores, of_targets in zip(scores.T, targets.T, strict=True):
        cases = np.flatnonzero(~np.isnan(of_targets))
        yield cases, of_scores[cases], of_targets[cases]


def each_in_resamples(
    metrics: Sequence[str], scores: np.ndarray, targets: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Returns (M, K, R) metrics of each label in each resample, NaN where undefined.

    Args:
        metrics: M names, of `RANKS`.
        scores: (C, K) scores.
        targets: (C, K) 0/1 targets, NaN where they are missing.
        counts: (C, R) how often each case counts, whole numbers.
    """
    of_counts, everyone = [RANKS[name].of_counts for name in metrics], np.arange(len(scores))
    found = [in_resamples(of_counts, s, t, everyone[cases], counts) for cases, s, t in stated(scores, targets)]
    return np.stack(found, axis=1) if found else np.empty((len(metrics), 0, counts.shape[1]))


def mean_in_resamples(
    metric: str, scores: np.ndarray, targets: np.ndarray, counts: np.ndarray, among: np.ndarray | None = None
) -> np.ndarray:
    """Returns (R,) the mean over labels in each resample; see `each_in_resamples`.

    Args:
        metric: Its name, of `RANKS`.
        scores: (C, K) scores.
        targets: (C, K) 0/1 targets, NaN where they are missing.
        counts: (C, R) how often each case counts, whole numbers.
        among: (K,) the labels of the mean; by default those of `is_in_means`.
    """
    chosen = is_in_means(targets) if among is None else among
    return numeric.means(each_in_resamples([metric], scores[:, chosen], targets[:, chosen], counts)[0].T)


def mean_without_each(metric: str, scores: np.ndarray, targets: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Returns (n,) the mean over labels without each of n patients.

    Args:
        metric: Its name, of `RANKS`.
        scores: (C, K) scores.
        targets: (C, K) 0/1 targets, NaN where they are missing.
        patients: (C,) the number of each case's patient, from 0.
    """
    chosen, number = is_in_means(targets), int(patients.max()) + 1
    left = [
        RANKS[metric].without(without_each(s, t, patients[cases], number))
        for cases, s, t in stated(scores[:, chosen], targets[:, chosen])
    ]
    return numeric.means(np.stack(left, axis=1)) if left else np.full(number, np.nan)


def lost_by_mean(metric: str, scores: np.ndarray, targets: np.ndarray, patients: np.ndarray) -> list[PatientLoss]:
    """Returns what the mean over labels loses without each patient's cases of a label, two for each label of the mean.

    For the arguments see `mean_without_each`, and for what is lost `lost_of_pairs`.
    """
    chosen, number, found = is_in_means(targets), int(patients.max()) + 1, list[PatientLoss]()
    for cases, s, t in stated(scores[:, chosen], targets[:, chosen]):
        found += lost_of_pairs(metric, s, t, patients[cases], number)
    return [PatientLoss(one.lost / chosen.sum(), one.cases) for one in found]


def lost_of_pairs(
    metric: str, scores: np.ndarray, targets: np.ndarray, patients: np.ndarray, number: int
) -> tuple[PatientLoss, PatientLoss]:
    """Returns what a rank metric loses without each patient's positives, and without their negatives.

    Args:
        metric: Its name, of `RANKS`.
        scores: (N,) scores.
        targets: (N,) 0/1 targets.
        patients: (N,) the number of each pair's patient, from 0.
        number: Patients n, those without a pair among them.
    """
    rank = RANKS[metric]
    value = in_resamples([rank.of_counts], scores, targets, np.zeros(len(targets), dtype=int), np.ones((1, 1)))[0, 0]

    def lost(answer: int) -> PatientLoss:
        own = targets == answer
        left = rank.without(without_each(scores, targets, np.where(own, patients, -1), number))
        return PatientLoss(value - left, np.bincount(patients[own], minlength=number))

    return lost(1), lost(0)
