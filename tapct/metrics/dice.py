"""The one Dice policy of the benchmark.

Counts are taken once per scan as a confusion matrix; every Dice below is a function of those counts.

* A class absent from both the reference and the prediction of a scan is undefined there (NaN) and left
  out; how many such entries there are is reported.
* A class absent from the reference but predicted scores 0.
* Headline: per case the mean over its defined classes without background, then the mean over cases (the
  order of eva and of the paper). Next to it: per class the mean over cases, then the mean over classes.
  The two differ as soon as an entry is undefined.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

PART_VOXELS = 2**21
"""Voxels that are counted at a time."""


def confusion_matrix(prediction: "torch.Tensor", reference: "torch.Tensor", num_classes: int) -> "torch.Tensor":
    """Counts voxels by (reference class, predicted class).

    Args:
        prediction: Integer labels of any shape, in [0, num_classes).
        reference: Integer labels of the same shape.
        num_classes: Number of classes with background.

    Returns:
        (num_classes, num_classes) int64 counts.

    Raises:
        ValueError: If the shapes differ, or a label is out of range.
    """
    import torch  # records are read without it

    if prediction.shape != reference.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and reference {tuple(reference.shape)} differ")
    if any(int(t.min()) < 0 or int(t.max()) >= num_classes for t in (prediction, reference)):
        raise ValueError(f"labels must lie in [0, {num_classes})")
    counts = prediction.new_zeros(num_classes**2, dtype=torch.int64)
    # A part at a time: as int64, a scan takes eight times its labels.
    parts = (labels.flatten().split(PART_VOXELS) for labels in (reference, prediction))
    for truth, guess in zip(*parts, strict=True):
        counts += (truth.long() * num_classes + guess.long()).bincount(minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def dice_per_class(confusion: np.ndarray) -> np.ndarray:
    """Returns Dice per class.

    Args:
        confusion: (..., K, K) counts by (reference, prediction).

    Returns:
        (..., K) float64, NaN where a class is in neither.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    both = np.diagonal(counts, axis1=-2, axis2=-1)
    total = counts.sum(axis=-1) + counts.sum(axis=-2)
    with np.errstate(invalid="ignore"):
        return np.where(total > 0, 2 * both / total, np.nan)


@dataclass(frozen=True)
class Summary:
    """Dice, or another number by class, of a set of cases.

    Attributes:
        headline: Mean over cases of the mean over a case's defined classes; NaN where nothing is defined.
        class_mean: Mean over classes of the mean over the cases where a class is defined.
        per_class: (K,) mean over the cases where the class is defined; NaN where there is none.
        undefined_entries: Entries (case, class) without background that are undefined and left out.
        entries: All entries (case, class) without background.
    """

    headline: float
    class_mean: float
    per_class: np.ndarray
    undefined_entries: int
    entries: int

    def means(self, name: str) -> dict[str, float]:
        """Returns the two means by their names in records; NaN where nothing is defined."""
        return {name: self.headline, f"{name}_class_mean": self.class_mean}


def summarise(values: np.ndarray) -> Summary:
    """Summarises Dice, or another number by class, over cases.

    Args:
        values: (cases, K) with background first, NaN where undefined.
    """
    values = np.asarray(values, dtype=np.float64)
    foreground = values[:, 1:]
    per_class = _mean(values, axis=0)
    return Summary(
        headline=float(_mean(_mean(foreground, axis=1), axis=0)),
        class_mean=float(_mean(per_class[1:], axis=0)),
        per_class=per_class,
        undefined_entries=int(np.isnan(foreground).sum()),
        entries=foreground.size,
    )


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Returns the mean of the values that are defined, NaN (without numpy's warning) where none is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=axis)
    total = np.where(defined, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
