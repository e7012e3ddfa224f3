"""What the size of a patch does to Dice: the reference that a perfect knowledge of every patch would reach.

Each patch is given the true share of every class in its box, the shares are interpolated to voxels as logits are, and
the largest one wins. An encoder with patches of 12 mm is so shown next to what patches of 12 mm hold of the task's
organs. It is a reference, not a bound: a probe may overshoot a share to move a boundary, and features see beyond their
patch.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from tapct.metrics import confusion_matrix, dice_per_class, summarise
from tapct.probes.dense import predict_labels
from tapct.probes.patches import class_shares
from tapct.records import PatchSize
from tapct.volumes import Grid, LinearMap


def patch_size_confusion(labels: torch.Tensor, native: Grid, patches: Grid, num_classes: int) -> torch.Tensor:
    """Returns the confusion counts of the patch-size reference on the scan's own grid.

    Args:
        labels: (D, H, W) integer labels in [0, num_classes).
        native: The grid of the labels.
        patches: The feature grid; its axes must be parallel.
        num_classes: Number of classes with background.

    Returns:
        (num_classes, num_classes) int64 counts by (reference, predicted).
    """
    shares = class_shares(labels, native, patches, num_classes)
    predicted = predict_labels(shares, LinearMap.between(patches, native))
    return confusion_matrix(predicted, labels, num_classes)


class PatchSizes:
    """The patches of the cases of a session."""

    def __init__(self) -> None:
        self._cases: dict[str, tuple[tuple[float, float, float], np.ndarray | None]] = {}

    def __contains__(self, case: str) -> bool:
        return case in self._cases

    def add(self, case: str, size_mm: tuple[float, float, float], confusion: torch.Tensor | None = None) -> None:
        """Adds a case: the distance between its patches along (z, y, x), and the counts of its reference, if any."""
        self._cases[case] = size_mm, None if confusion is None else dice_per_class(confusion.cpu().numpy())

    def summary(self, cases: Sequence[str], classes: Sequence[str]) -> PatchSize:
        """Returns what the record holds.

        Args:
            cases: The reported ones, all added, all with a reference or all without.
            classes: Names of the classes with background.
        """
        sizes, dice = zip(*(self._cases[case] for case in cases), strict=True)
        z, y, x = np.median(np.array(sizes), axis=0).tolist()
        if dice[0] is None:
            return PatchSize(size_mm=(z, y, x), dice=None, by_class={}, cases=len(cases))
        reference = summarise(np.array(dice))
        return PatchSize(
            size_mm=(z, y, x),
            dice=_defined(reference.headline),
            by_class=dict(zip(classes[1:], map(_defined, reference.per_class[1:]), strict=True)),
            cases=len(cases),
        )


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
