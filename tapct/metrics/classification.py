"""Metrics of independent 0/1 labels, from logits: AUROC and average precision (`tapct.metrics.ranks`) and what follows.

A target that is NaN is not stated: its pair of case and label counts in nothing here.

Balanced accuracy is undefined (NaN), as they are, without both a positive and a negative. A mean over labels leaves
such labels out; how many there are is reported.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from tapct.metrics import ranks

BINS = 15
"""Bins of the calibration error, of equal width."""

FEW_POSITIVES = 20
"""Labels with fewer positives stand apart from means over labels: their numbers hang on a few patients."""


def sigmoid(logits: ArrayLike) -> np.ndarray:
    """Returns the probabilities of logits, in float64; they are 1 from a logit of 37 on, and never overflow."""
    logits = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1 + small)


def is_defined(targets: ArrayLike) -> bool:
    """Returns whether 0/1 targets hold both a positive and a negative."""
    targets = np.asarray(targets)
    return bool((targets == 1).any() and (targets == 0).any())


def balanced_accuracy(logits: ArrayLike, targets: ArrayLike) -> float:
    """Returns the mean of sensitivity and specificity, with logits above 0 taken as positive.

    Args:
        logits: (N,) logits.
        targets: (N,) 0/1 targets.
    """
    logits, targets = np.asarray(logits), np.asarray(targets)
    if not is_defined(targets):
        return math.nan
    right = (logits > 0) == (targets == 1)
    return float((right[targets == 1].mean() + right[targets == 0].mean()) / 2)


def average_precision_skill(scores: ArrayLike, targets: ArrayLike) -> float:
    """Returns the average precision between that of chance, 0, and that of a perfect order, 1; NaN where undefined.

    A score that knows nothing has an average precision of the share of positives, which differs from label to label and
    data set to data set: (AP - share) / (1 - share) does not.

    Args:
        scores: (N,) scores.
        targets: (N,) 0/1 targets.
    """
    value = ranks.average_precision(scores, targets)
    if math.isnan(value):
        return math.nan
    share = float(np.mean(np.asarray(targets) == 1))
    return (value - share) / (1 - share)


def calibration_error(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Returns the expected calibration error.

    Pairs are binned by the predicted probability that the target is 1 (not by the confidence in the
    likelier answer, which for 0/1 labels hides errors of opposite sign in each other). It is the mean, over
    pairs, of the distance in their bin between the mean probability and the share of positives.

    Args:
        probabilities: (N,) probabilities; of none it is undefined (NaN). Bin k holds [k / BINS, (k + 1) / BINS),
            the last 1 as well.
        targets: (N,) 0/1 targets.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if not len(probabilities):
        return math.nan
    bins = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    excess = np.bincount(bins, weights=probabilities - np.asarray(targets), minlength=BINS)
    return float(np.abs(excess).sum() / len(probabilities))


def of_labels(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Returns every metric of (N, labels) logits and 0/1/NaN targets, by its name in records; NaN where undefined."""
    return {name: metric(np.asarray(logits, dtype=np.float64), targets) for name, metric in METRICS.items()}


def mean_over_labels(
    metric: Callable[[np.ndarray, np.ndarray], float], logits: np.ndarray, targets: np.ndarray
) -> float:
    """Returns the mean of a metric over the labels where it is defined; NaN where it is for none.

    Args:
        metric: Of (N,) logits and (N,) targets.
        logits: (N, labels) logits.
        targets: (N, labels) 0/1 targets, NaN where they are not stated.
    """
    values = [metric(*ranks.stated(z, t)) for z, t in zip(logits.T, targets.T, strict=True)]
    defined = [v for v in values if not math.isnan(v)]
    return math.fsum(defined) / len(defined) if defined else math.nan


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "MicroAUROC": lambda logits, targets: ranks.auroc(*ranks.stated(logits, targets)),
    "MicroAP": lambda logits, targets: ranks.average_precision(*ranks.stated(logits, targets)),
    "MacroAUROC": lambda logits, targets: mean_over_labels(ranks.auroc, logits, targets),
    "MacroAP": lambda logits, targets: mean_over_labels(ranks.average_precision, logits, targets),
    "BalancedAccuracy": lambda logits, targets: mean_over_labels(balanced_accuracy, logits, targets),
    "CalibrationError": lambda logits, targets: calibration_error(*ranks.stated(sigmoid(logits), targets)),
    "UndefinedLabels": lambda logits, targets: float(sum(not is_defined(of_label) for of_label in targets.T)),
}
"""By the name that records have, each metric of (N, labels) logits and 0/1/NaN targets; NaN where it is undefined."""
