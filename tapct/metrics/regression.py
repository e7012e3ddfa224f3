"""Metrics of predicted numbers, each computed once for all resamples of the cases.

R2 is about the mean of the *training* cases: it says what a model explains beyond the constant that it could have
learnt, where the mean of the reported cases would be an answer that nobody had. Spearman's correlation is of mid-ranks.
The calibration slope is that of the least-squares line of the reference on the prediction: 1 where a year more of
prediction is a year more of age, below 1 where predictions spread too far.

Undefined is NaN: the slope and the correlation of a constant, R2 of references that all are the training mean.
"""

from collections.abc import Callable

import numpy as np

from tapct import numeric

_CONSTANT = 1e-12
"""Values whose variance is within this share of their mean square about the median are constant but for rounding."""

RegressionMetric = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Of (N,) predictions, references and training means, and (N, R) how often each case counts: (R,)."""


def absolute_errors(predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns how far each case is from its reference, (C,): the mean over the targets that it has; NaN of none.

    Args:
        predictions: (C, K), finite.
        targets: (C, K) references; NaN where one is missing.
    """
    return numeric.means(np.abs(predictions - targets))


def mean_over_targets(
    metric: RegressionMetric, predictions: np.ndarray, targets: np.ndarray, baseline: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Returns the mean of a metric over the targets of which it is defined, (R,); NaN where it is of none.

    Args:
        metric: Of one target.
        predictions: (C, K), finite.
        targets: (C, K) references; NaN where one is missing, which leaves the case out of this target alone.
        baseline: (C, K) the mean of each over the training cases.
        counts: (C, R) how often each case counts, whole numbers.
    """
    found = np.full((counts.shape[1], targets.shape[1]), np.nan)
    for k, there in enumerate(~np.isnan(targets).T):
        if there.any():
            found[:, k] = metric(predictions[there, k], targets[there, k], baseline[there, k], counts[there])
    return numeric.means(found)


def root_mean_squared_error(
    predictions: np.ndarray, targets: np.ndarray, _: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Returns the root of the mean squared distance from the reference, (R,), in the unit of the target."""
    return np.sqrt(_mean((predictions - targets) ** 2, counts))


def r_squared(predictions: np.ndarray, targets: np.ndarray, baseline: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the share of the squared distance from the baseline that the predictions explain, (R,), 1 at most."""
    left, whole = (_mean((targets - of) ** 2, counts) for of in (predictions, baseline))
    return 1 - np.divide(left, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def spearman(predictions: np.ndarray, targets: np.ndarray, _: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the rank correlation, (R,), equal values sharing the mean of their ranks."""
    # About its mean, each rank is a multiple of 1/2: every sum below is exact.
    one, other = (_ranks(values, counts) for values in (predictions, targets))
    products = [(counts * a * b).sum(axis=0) for a, b in ((one, other), (one, one), (other, other))]
    scale = np.sqrt(products[1] * products[2])  # of one order the root of a square, which is exact: 1 is 1
    return np.divide(products[0], scale, out=np.full(counts.shape[1], np.nan), where=scale > 0)


def calibration_slope(predictions: np.ndarray, targets: np.ndarray, _: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the slope of the references on the predictions, (R,)."""
    x, y = predictions - np.median(predictions), targets - np.median(targets)
    mean_x, mean_y, square, product = (_mean(of, counts) for of in (x, y, x * x, x * y))
    variance = square - mean_x**2
    undefined = np.full(counts.shape[1], np.nan)
    return np.divide(product - mean_x * mean_y, variance, out=undefined, where=variance > _CONSTANT * square)


def _mean(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the mean of (N,) values in each resample, (R,); NaN in one that has none of them."""
    total, number = numeric.exact_sums(values[None], counts)[0], counts.sum(axis=0)
    return np.divide(total, number, out=np.full(len(number), np.nan), where=number > 0)


def _ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns (N, R) mid-ranks of values when each counts so often, less their mean."""
    level = numeric.levels(values)
    at = np.zeros((int(level.max()) + 1, counts.shape[1]))
    np.add.at(at, level, counts)
    below = np.cumsum(at, axis=0) - at
    return (below + at / 2 - counts.sum(axis=0) / 2)[level]
