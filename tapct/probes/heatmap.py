"""What a localisation head is trained on: a score for every cell, 1 in the middle of each finding, and a focal loss."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from tapct.volumes import Findings, Grid

FOCUS = 2.0
"""Exponent of the focal loss, as in Lin et al. 2017 and Li et al. 2020."""

_REACH = 4.0
"""Standard deviations beyond which a finding's Gaussian is 0: it is under 0.0004 there."""


class Heatmap(NamedTuple):
    """What each cell should say.

    Attributes:
        target: (K, d, h, w) float32 in [0, 1], by class.
        counted: (K, d, h, w) booleans: cells that the loss is taken over.
        findings: How many there are that count.
    """

    target: torch.Tensor
    counted: torch.Tensor
    findings: int

    def to(self, device: torch.device) -> "Heatmap":
        """Returns it on a device."""
        return Heatmap(self.target.to(device), self.counted.to(device), self.findings)


def heatmap(findings: Findings, cells: Grid, classes: int) -> Heatmap:
    """Returns the targets of a scan's cells.

    A finding is a Gaussian in mm round its centre, with a standard deviation of half its radius, seen by cells: blurred
    by half a cell along each axis, so that a nodule smaller than a cell is seen by that cell and, by their distances,
    by the next ones. Each is scaled so that the nearest cell has 1, however it lies between cells. Where several
    overlap, the highest counts. Cells within the radius of an excluded finding, blurred likewise, are not counted.

    Args:
        findings: Of the scan.
        cells: Where its cells lie; the affine may be oblique, sheared or flipped.
        classes: Number of classes.
    """
    target = torch.zeros((classes, *cells.shape))
    counted = torch.ones((classes, *cells.shape), dtype=torch.bool)
    places = findings.index_in(cells)
    order = np.argsort(~findings.excluded, kind="stable")  # what counts comes last: its cells count
    for label, place, diameter, excluded in zip(
        findings.classes[order], places[order], findings.diameters_mm[order], findings.excluded[order], strict=True
    ):
        box, values = _gaussian(place, diameter, cells)
        within = values > np.exp(-2)  # two standard deviations: the radius
        if excluded:
            counted[label][box] &= ~within
        else:
            counted[label][box] |= within
            target[label][box] = torch.maximum(target[label][box], values)
    return Heatmap(target, counted, int((~findings.excluded).sum()))


def focal_loss(logits: torch.Tensor, of: Heatmap) -> torch.Tensor:
    """Returns the quality focal loss (Li et al. 2020, equation 5) of a scan, by finding, differentiable in the logits.

    The cross-entropy of each cell times the square of how far its score is from the target, added up. It is smallest
    where scores are the targets, and cells that are right already, which are nearly all, add next to nothing.

    Args:
        logits: (K, d, h, w).
        of: What the cells should say.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, of.target, reduction="none")
    weight = (of.target - logits.sigmoid()).abs() ** FOCUS
    return torch.where(of.counted, weight * entropy, 0.0).sum() / max(1, of.findings)


def _gaussian(place: np.ndarray, diameter_mm: float, cells: Grid) -> tuple[tuple[slice, ...], torch.Tensor]:
    """Returns the box of cells that a finding reaches, and its value in each of them, 1 in the nearest."""
    to_cells = np.linalg.inv(cells.affine[:3, :3])
    covariance = (diameter_mm / 4) ** 2 * to_cells @ to_cells.T + 0.25 * np.eye(3)  # in cells
    reach = _REACH * np.sqrt(np.diag(covariance))
    last = np.array(cells.shape) - 1
    low, high = (np.clip(np.rint(place + side * reach), 0, last).astype(int) for side in (-1, 1))
    axes = [np.arange(a, b + 1) - at for a, b, at in zip(low, high, place, strict=True)]
    apart = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    squared = np.einsum("...i,ij,...j->...", apart, np.linalg.inv(covariance), apart)
    values = torch.from_numpy(np.exp(-(squared - squared.min()) / 2)).float()
    return tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True)), values
