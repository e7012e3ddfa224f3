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


def class_shares(labels: torch.Tensor, native: Grid, cells: Grid, num_classes: int) -> torch.Tensor:
    """Returns (K, d, h, w) float32: the share of each class in the box of each cell.

    A cell's box is centred on the cell and as wide as cells are apart. What of it lies outside the scan is left out; a
    box wholly outside has the labels of the nearest border voxels.

    Args:
        labels: (D, H, W) integer labels.
        native: The grid of the labels.
        cells: The feature grid.
        num_classes: Number of classes, K.
    """
    axes = [_overlaps(where, size) for where, size in zip(cells.coordinates_in(native), native.shape, strict=True)]
    z, y, x = (m.to(labels.device, torch.float32) for m in axes)
    shares = torch.zeros((num_classes, *cells.shape), device=labels.device)
    for label in range(1, num_classes):
        inside = labels == label
        # Only the block of voxels that the class occupies: most structures are small.
        spans = [_span(inside.any(dim=tuple(d for d in range(3) if d != axis))) for axis in range(3)]
        if any(span is None for span in spans):
            continue
        block = inside[spans[0], spans[1], spans[2]].float()
        shares[label] = LinearMap(z[:, spans[0]], y[:, spans[1]], x[:, spans[2]])(block)
    shares[0] = 1 - shares[1:].sum(dim=0)
    return shares


def _span(occupied: torch.Tensor) -> slice | None:
    """Returns the range from the first to the last true value of (n,), or None where there is none."""
    where = occupied.nonzero().flatten()
    return None if not len(where) else slice(int(where[0]), int(where[-1]) + 1)


def _overlaps(where: np.ndarray, size: int) -> torch.Tensor:
    """Returns (len(where), size): the share of each voxel in the box around each coordinate; rows sum to one."""
    width = abs(float(where[1] - where[0])) if len(where) > 1 else float(size)
    low, high = (np.clip(where + side * width / 2, -0.5, size - 0.5)[:, None] for side in (-1, 1))
    voxels = np.arange(size)[None]
    overlap = np.clip(np.minimum(high, voxels + 0.5) - np.maximum(low, voxels - 0.5), 0, None)
    outside = overlap.sum(axis=1) < 1e-9
    nearest = np.clip(np.rint(where), 0, size - 1).astype(int)
    overlap[outside] = np.eye(size)[nearest[outside]]
    return torch.from_numpy(overlap / overlap.sum(axis=1, keepdims=True))


class CellSizes:
    """The feature cells of the cases of a session."""

    def __init__(self) -> None:
        self._cases: dict[str, tuple[tuple[float, float, float], np.ndarray]] = {}

    def __contains__(self, case: str) -> bool:
        return case in self._cases

    def add(self, case: str, size_mm: tuple[float, float, float], confusion: torch.Tensor) -> None:
        """Adds a case: the distance between its cells along (z, y, x), and the counts of its reference."""
        self._cases[case] = size_mm, dice_per_class(confusion.cpu().numpy())

    def summary(self, cases: Sequence[str], classes: Sequence[str]) -> CellSize:
        """Returns what the record holds.

        Args:
            cases: The reported ones, all added.
            classes: Names of the classes with background.
        """
        sizes, dice = zip(*(self._cases[case] for case in cases), strict=True)
        reference = summarise(np.array(dice))
        z, y, x = np.median(np.array(sizes), axis=0).tolist()
        return CellSize(
            size_mm=(z, y, x),
            dice=_defined(reference.headline),
            by_class=dict(zip(classes[1:], map(_defined, reference.per_class[1:]), strict=True)),
            cases=len(cases),
        )


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
