"""AUROC and average precision, from exact counts of what is ranked above what.

They depend on nothing but the order of the scores, so they are computed of the scores that keep it: logits. A float32
sigmoid of two logits above 16.7 is the same number, 1, and makes ties where there are none. Integers are counted, and
one division (or one sum of them, for the average precision) ends in float64: of the same order it is the same number,
to the bit, whatever the scores, the order of the cases or the machine.

Equal scores are one threshold. Both are undefined (NaN) without a positive and a negative: torchmetrics gives 0 there,
and scikit-learn a precision of 0 or 1, none of which says anything of the model.
"""

import math

import numpy as np
from numpy.typing import ArrayLike


def auroc(scores: ArrayLike, targets: ArrayLike) -> float:
    """Returns the area under the ROC curve of (N,) scores against (N,) 0/1 targets, as scikit-learn's `roc_auc_score`.

    Raises:
        ValueError: If a score is NaN, or a target neither 0 nor 1.
    """
    return float(auroc_of_counts(*_counts(scores, targets))[0])


def average_precision(scores: ArrayLike, targets: ArrayLike) -> float:
    """Returns the average precision of (N,) scores against (N,) 0/1 targets, as scikit-learn's.

    Raises:
        ValueError: If a score is NaN, or a target neither 0 nor 1.
    """
    return float(average_precision_of_counts(*_counts(scores, targets))[0])


def average_precision_skill(scores: ArrayLike, targets: ArrayLike) -> float:
    """Returns the average precision between that of chance, 0, and that of a perfect order, 1; NaN where undefined.

    A score that knows nothing has an average precision of the share of positives, which differs from label to label and
    data set to data set: (AP - share) / (1 - share) does not.

    Raises:
        ValueError: If a score is NaN, or a target neither 0 nor 1.
    """
    return float(average_precision_skill_of_counts(*_counts(scores, targets))[0])


def stated(scores: ArrayLike, targets: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns the (N,) scores and targets of the pairs of case and label whose target is stated, and is not NaN.

    Args:
        scores: Scores of any shape.
        targets: Of the same shape, 0, 1 or NaN.
    """
    scores, targets = np.asarray(scores).ravel(), np.asarray(targets).ravel()
    known = ~np.isnan(targets)
    return scores[known], targets[known]


def thresholds(scores: ArrayLike, targets: ArrayLike) -> np.ndarray:
    """Returns which threshold each pair is at, numbered from the highest score on.

    Neighbouring scores of negatives alone count as one: with nothing to be told apart from, they change no number, and
    where positives are rare, most scores are such.

    Args:
        scores: (N,) scores; infinite ones have their place, NaN has none.
        targets: (N,) 0/1 targets.

    Returns:
        (N,) int64.

    Raises:
        ValueError: If a score is NaN, or a target neither 0 nor 1.
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    if np.isnan(scores).any() or not np.isin(targets, (0, 1)).all():
        raise ValueError("scores must not be NaN, and targets must be 0 or 1")
    values, place = np.unique(scores, return_inverse=True)
    place = len(values) - 1 - place
    has_positives = np.bincount(place, weights=targets, minlength=len(values)) > 0
    begins = has_positives.copy()
    begins[1:] |= has_positives[:-1]
    begins[:1] = True
    return (np.cumsum(begins) - 1)[place]


def auroc_of_counts(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Returns the area under the ROC curve: the share of (positive, negative) pairs that are in order, ties half.

    Args:
        positives: (thresholds, R) how many positives are at each threshold, highest first, int64; R samples.
        negatives: (thresholds, R) how many negatives. int64 holds the pairs of 2e9 of each.

    Returns:
        (R,) float64, NaN where a sample lacks positives or negatives.
    """
    higher = np.cumsum(positives, axis=0)
    pairs = higher[-1] * negatives.sum(axis=0)
    higher *= 2
    higher -= positives  # twice those above, and once those at the threshold
    higher *= negatives
    twice = higher.sum(axis=0)
    # Python's integers divide with one rounding, whatever their size.
    return np.array([a / b if b else math.nan for a, b in zip(twice.tolist(), (2 * pairs).tolist(), strict=True)])


def average_precision_of_counts(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Returns the average precision: the mean over positives of the precision at their threshold.

    Args:
        positives: (thresholds, R) how many positives are at each threshold, highest first, int64; R samples.
        negatives: (thresholds, R) how many negatives.

    Returns:
        (R,) float64, NaN where a sample lacks positives or negatives.
    """
    true, false = np.cumsum(positives, axis=0), np.cumsum(negatives, axis=0)
    total = np.where((true[-1] > 0) & (false[-1] > 0), true[-1], np.nan)
    false += true
    # Where a sample has nothing at the first thresholds, there are no positives to give a precision to.
    precision = np.divide(true, false, out=np.zeros(true.shape), where=false > 0)
    precision *= positives
    # Not `sum`, whose order depends on the number of samples.
    return np.cumsum(precision, axis=0)[-1] / total


def average_precision_skill_of_counts(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Returns the skill of the average precision, (R,); see `average_precision_of_counts`."""
    true, false = positives.sum(axis=0), negatives.sum(axis=0)
    total = true + false
    share = np.divide(true, total, out=np.full(len(total), np.nan), where=total > 0)
    return skill(average_precision_of_counts(positives, negatives), share)


def skill(average_precision: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Returns (AP - share) / (1 - share) of (R,) average precisions, NaN where one is undefined.

    Args:
        average_precision: (R,)
        share: (R,) of positives.
    """
    return np.divide(average_precision - share, 1 - share, out=np.full(len(share), np.nan), where=share < 1)


def _counts(scores: ArrayLike, targets: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns (thresholds, 1) positives and negatives."""
    place, positive = thresholds(scores, targets), np.asarray(targets) == 1
    number = place.max(initial=0) + 1
    positives, negatives = (np.bincount(place[of], minlength=number)[:, None] for of in (positive, ~positive))
    return positives, negatives
