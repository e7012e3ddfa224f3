"""Metrics of independent 0/1 labels, from probabilities.

AUROC, average precision and balanced accuracy are undefined (NaN) for a set of pairs without both a positive
and a negative: torchmetrics gives 0 there, and scikit-learn a precision of 0 or 1, none of which says
anything of the model. A mean over labels leaves such labels out; how many there are is reported.
"""

import math
from collections.abc import Callable

import torch
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

BINS = 15
"""Bins of the calibration error, of equal width."""


def is_defined(targets: torch.Tensor) -> bool:
    """Returns whether 0/1 targets hold both a positive and a negative."""
    return bool((targets == 1).any() and (targets == 0).any())


def auroc(probabilities: torch.Tensor, targets: torch.Tensor) -> float:
    """Returns the area under the ROC curve of (N,) probabilities against (N,) 0/1 targets."""
    return float(binary_auroc(probabilities, targets)) if is_defined(targets) else math.nan


def average_precision(probabilities: torch.Tensor, targets: torch.Tensor) -> float:
    """Returns the average precision of (N,) probabilities against (N,) 0/1 targets."""
    return float(binary_average_precision(probabilities, targets)) if is_defined(targets) else math.nan


def balanced_accuracy(probabilities: torch.Tensor, targets: torch.Tensor) -> float:
    """Returns the mean of sensitivity and specificity, with probabilities above 0.5 taken as positive.

    Args:
        probabilities: (N,) probabilities.
        targets: (N,) 0/1 targets.
    """
    if not is_defined(targets):
        return math.nan
    right = (probabilities > 0.5) == (targets == 1)
    return float((right[targets == 1].double().mean() + right[targets == 0].double().mean()) / 2)


def calibration_error(probabilities: torch.Tensor, targets: torch.Tensor) -> float:
    """Returns the expected calibration error.

    Pairs are binned by the predicted probability that the target is 1 (not by the confidence in the
    likelier answer, which for 0/1 labels hides errors of opposite sign in each other). It is the mean, over
    pairs, of the distance in their bin between the mean probability and the share of positives.

    Args:
        probabilities: (N,) probabilities, N > 0. Bin k holds [k / BINS, (k + 1) / BINS), the last 1 as well.
        targets: (N,) 0/1 targets.
    """
    probabilities = probabilities.double()
    bins = (probabilities * BINS).long().clamp(max=BINS - 1)
    excess = probabilities.new_zeros(BINS).index_add_(0, bins, probabilities - targets)
    return float(excess.abs().sum() / len(probabilities))


def mean_over_labels(
    metric: Callable[[torch.Tensor, torch.Tensor], float], probabilities: torch.Tensor, targets: torch.Tensor
) -> float:
    """Returns the mean of a metric over the labels where it is defined; NaN where it is for none.

    Args:
        metric: Of (N,) probabilities and (N,) targets.
        probabilities: (N, labels) probabilities.
        targets: (N, labels) 0/1 targets.
    """
    values = [metric(p, t) for p, t in zip(probabilities.T, targets.T, strict=True)]
    defined = [v for v in values if not math.isnan(v)]
    return sum(defined) / len(defined) if defined else math.nan
