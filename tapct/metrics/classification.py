"""Metrics of independent 0/1 labels: over all pairs of case and label, and as means over labels (`by_label`).

A target that is NaN is not stated: its pair of case and label counts in nothing here. Everything is computed for all
resamples of the cases at once.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from tapct import numeric
from tapct.metrics import by_label, ranks
from tapct.metrics.resampled import OfCounts, in_resamples

BINS = 15
"""Bins of the calibration error, of equal width."""

InResamples = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""A metric of (C, K) logits, (C, K) 0/1/NaN targets and (C, R) how often each case counts: (R,), NaN if undefined."""


def sigmoid(logits: ArrayLike) -> np.ndarray:
    """Returns the probabilities of logits, in float64; they are 1 from a logit of 37 on, and never overflow."""
    logits = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1 + small)


def over_pairs(metric: OfCounts, logits: np.ndarray, targets: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns (R,) a rank metric of all pairs that are stated, in each resample; see `InResamples`."""
    known = ~np.isnan(targets)
    return in_resamples([metric], logits[known], targets[known], np.nonzero(known)[0], counts)[0]


def balanced_accuracy(logits: np.ndarray, targets: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns (R,) the mean over labels of the mean of sensitivity and specificity, with logits above 0 positive.

    It is of the labels of `by_label.is_in_means`; for the arguments see `InResamples`.
    """
    chosen = by_label.is_in_means(targets)
    predicted, of_labels = logits[:, chosen] > 0, targets[:, chosen]
    shares = [
        _share(((predicted == answer) & (of_labels == answer)).T @ counts, (of_labels == answer).T @ counts)
        for answer in (1, 0)
    ]
    return numeric.means(((shares[0] + shares[1]) / 2).T)


def calibration_error(probabilities: np.ndarray, targets: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns (R,) the expected calibration error over all pairs that are stated; NaN of none.

    Pairs are binned by the predicted probability that the target is 1 (not by the confidence in the
    likelier answer, which for 0/1 labels hides errors of opposite sign in each other). It is the mean, over
    pairs, of the distance in their bin between the mean probability and the share of positives.

    Args:
        probabilities: (C, K) probabilities. Bin k holds [k / BINS, (k + 1) / BINS), the last 1 as well.
        targets: (C, K) 0/1 targets, NaN where they are missing.
        counts: (C, R) how often each case counts.
    """
    excess, pairs = _excess(probabilities, targets)
    return _share(np.abs(numeric.exact_sums(excess, counts)).sum(axis=0), pairs @ counts)


def calibration_without_each(probabilities: np.ndarray, targets: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Returns (n,) the same without each of n patients, of (C,) the number of each case's patient, from 0."""
    excess, pairs = _excess(probabilities, targets)
    own = np.stack([np.bincount(patients, weights=of) for of in (*excess, pairs)])
    *left, number = numeric.exact_sums(np.vstack([excess, pairs]), np.ones((len(targets), 1))) - own
    return _share(np.abs(left).sum(axis=0), np.rint(number))


def _excess(probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (BINS, C) the sums of probabilities less targets of each case's pairs in a bin, (C,) how many it has."""
    known = ~np.isnan(targets)
    bins = np.minimum((probabilities[known] * BINS).astype(np.int64), BINS - 1)
    place = bins * len(targets) + np.nonzero(known)[0]
    excess = np.bincount(place, weights=probabilities[known] - targets[known], minlength=BINS * len(targets))
    return excess.reshape(BINS, -1), known.sum(axis=1).astype(np.float64)


def undefined_labels(logits: np.ndarray, targets: np.ndarray) -> float:
    """Returns the number of labels without a positive or without a negative."""
    return float((~by_label.is_defined(targets)).sum())


def rare_labels(logits: np.ndarray, targets: np.ndarray) -> float:
    """Returns the number of labels that are defined, and stand apart from means over labels."""
    return float((by_label.is_defined(targets) & ~by_label.is_in_means(targets)).sum())


def _share(of: np.ndarray, total: np.ndarray) -> np.ndarray:
    return np.divide(of, total, out=np.full(total.shape, np.nan), where=total > 0)


OVER_LABELS: Mapping[str, str] = {
    "MacroAUROC": "auroc",
    "MacroAP": "average_precision",
    "MacroAPSkill": "average_precision_skill",
}
"""By the name that records have, the rank metric (`by_label.RANKS`) that a mean over labels is of."""

METRICS: Mapping[str, InResamples] = {
    "MicroAUROC": partial(over_pairs, ranks.auroc_of_counts),
    "MicroAP": partial(over_pairs, ranks.average_precision_of_counts),
    **{name: partial(by_label.mean_in_resamples, rank) for name, rank in OVER_LABELS.items()},
    "BalancedAccuracy": balanced_accuracy,
    "CalibrationError": lambda logits, targets, counts: calibration_error(sigmoid(logits), targets, counts),
}
"""By the name that records have, each metric that models are compared by."""

NUMBERS: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "UndefinedLabels": undefined_labels,
    "RareLabels": rare_labels,
}
"""By the name that records have, each number of (C, K) logits and targets that stands next to them."""


def value(name: str, logits: np.ndarray, targets: np.ndarray) -> float:
    """Returns a metric or number of (C, K) logits and 0/1/NaN targets, NaN where it is undefined."""
    if name in NUMBERS:
        return NUMBERS[name](logits, targets)
    return float(METRICS[name](np.asarray(logits, dtype=np.float64), targets, np.ones((len(targets), 1)))[0])
