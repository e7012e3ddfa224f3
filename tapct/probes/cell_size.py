"""What the size of a feature cell does to Dice: the reference that a perfect knowledge of every cell would reach.

Each cell is given the true share of every class in its box, the shares are interpolated to voxels as logits are, and
the largest one wins. An encoder with cells of 12 mm is so shown beside what cells of 12 mm hold of the task's organs.
It is a reference and no bound: a probe may overshoot a share to move a boundary, and features see beyond their cell.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from tapct.metrics import confusion_matrix, dice_per_class, summarise
from tapct.probes.cells import class_shares
from tapct.probes.dense import predict_labels
from tapct.records import CellSize
from tapct.volumes import Grid, LinearMap


def cell_size_confusion(labels: torch.Tensor, native: Grid, cells: Grid, num_classes: int) -> torch.Tensor:
    """Returns the confusion counts of the cell-size reference on the scan's own grid.

    Args:
        labels: (D, H, W) integer labels in [0, num_classes).
        native: The grid of the labels.
        cells: The feature grid; its axes must be parallel.
        num_classes: Number of classes with background.

    Returns:
        (num_classes, num_classes) int64 counts by (reference, predicted).
    """
    shares = class_shares(labels, native, cells, num_classes)
    predicted = predict_labels(shares, LinearMap.between(cells, native))
    return confusion_matrix(predicted, labels, num_classes)


class CellSizes:
    """The feature cells of the cases of a session."""

    def __init__(self) -> None:
        self._cases: dict[str, tuple[tuple[float, float, float], np.ndarray | None]] = {}

    def __contains__(self, case: str) -> bool:
        return case in self._cases

    def add(self, case: str, size_mm: tuple[float, float, float], confusion: torch.Tensor | None = None) -> None:
        """Adds a case: the distance between its cells along (z, y, x), and the counts of its reference, if any."""
        self._cases[case] = size_mm, None if confusion is None else dice_per_class(confusion.cpu().numpy())

    def summary(self, cases: Sequence[str], classes: Sequence[str]) -> CellSize:
        """Returns what the record holds.

        Args:
            cases: The reported ones, all added, all with a reference or all without.
            classes: Names of the classes with background.
        """
        sizes, dice = zip(*(self._cases[case] for case in cases), strict=True)
        z, y, x = np.median(np.array(sizes), axis=0).tolist()
        if dice[0] is None:
            return CellSize(size_mm=(z, y, x), dice=None, by_class={}, cases=len(cases))
        reference = summarise(np.array(dice))
        return CellSize(
            size_mm=(z, y, x),
            dice=_defined(reference.headline),
            by_class=dict(zip(classes[1:], map(_defined, reference.per_class[1:]), strict=True)),
            cases=len(cases),
        )


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
