"""What a localisation head is trained on: a score for every patch, 1 in the middle of a finding, and a focal loss."""

import math
from collections.abc import Sequence
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
    """What each patch should say.

    Attributes:
        target: (K, d, h, w) float32 in [0, 1], by class.
        counted: (K, d, h, w) booleans: patches that the loss is taken over.
        findings: How many there are that count.
    """

    target: torch.Tensor
    counted: torch.Tensor
    findings: int

    def to(self, device: torch.device) -> "Heatmap":
        """Returns it on a device."""
        return Heatmap(self.target.to(device), self.counted.to(device), self.findings)


class Stamp(NamedTuple):
    """What one finding says of the patches round it.

    Attributes:
        label: Its class.
        excluded: Whether it counts neither way.
        box: The patches that it reaches.
        values: Of these, 1 in the nearest.
    """

    label: int
    excluded: bool
    box: tuple[slice, ...]
    values: torch.Tensor


def stamps(findings: Findings, patches: Grid) -> list[Stamp]:
    """Returns what the findings of a scan say of its patches.

    A finding is a Gaussian in mm round its centre, with a standard deviation of half its radius, seen by patches:
    blurred by half a patch along each axis, so that a nodule smaller than a patch is seen by that patch and, by their
    distances, by the next ones. Each is scaled so that the nearest patch has 1, however it lies between patches.

    Args:
        findings: Of the scan.
        patches: Where its patches lie; the affine may be oblique, sheared or flipped.
    """
    of = zip(findings.classes, findings.excluded, findings.index_in(patches), findings.diameters_mm, strict=True)
    return [Stamp(int(label), bool(excluded), *_gaussian(at, mm, patches)) for label, excluded, at, mm in of]


def heatmap(found: Sequence[Stamp], shape: Sequence[int], classes: int) -> Heatmap:
    """Returns the targets of a scan's patches.

    Where several findings overlap, the highest counts. Patches within the radius of an excluded finding, blurred
    likewise, are not counted, but for those within one that is not excluded.

    Args:
        found: What its findings say.
        shape: Of the patches, (d, h, w).
        classes: Number of classes.
    """
    target = torch.zeros((classes, *shape))
    counted = torch.ones((classes, *shape), dtype=torch.bool)
    for label, excluded, box, values in sorted(found, key=lambda one: not one.excluded):  # what counts comes last
        within = values > math.exp(-2)  # two standard deviations: the radius
        if excluded:
            counted[label][box] &= ~within
        else:
            counted[label][box] |= within
            target[label][box] = torch.maximum(target[label][box], values)
    return Heatmap(target, counted, sum(not one.excluded for one in found))


def focal_loss(logits: torch.Tensor, of: Heatmap) -> torch.Tensor:
    """Returns the quality focal loss (Li et al. 2020, equation 5) of a scan, by finding, differentiable in the logits.

    The cross-entropy of each patch times the square of how far its score is from the target, added up. It is smallest
    where scores are the targets, and patches that are right already, which are nearly all, add next to nothing.

    Args:
        logits: (K, d, h, w).
        of: What the patches should say.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, of.target, reduction="none")
    weight = (of.target - logits.sigmoid()).abs() ** FOCUS
    return torch.where(of.counted, weight * entropy, 0.0).sum() / max(1, of.findings)


def _gaussian(place: np.ndarray, diameter_mm: float, patches: Grid) -> tuple[tuple[slice, ...], torch.Tensor]:
    """Returns the box of patches that a finding reaches, and its value in each of them, 1 in the nearest."""
    to_patches = np.linalg.inv(patches.affine[:3, :3])
    covariance = (diameter_mm / 4) ** 2 * to_patches @ to_patches.T + 0.25 * np.eye(3)  # in patches
    reach = _REACH * np.sqrt(np.diag(covariance))
    last = np.array(patches.shape) - 1
    low, high = (np.clip(np.rint(place + side * reach), 0, last).astype(int) for side in (-1, 1))
    axes = [np.arange(a, b + 1) - at for a, b, at in zip(low, high, place, strict=True)]
    apart = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    squared = np.einsum("...i,ij,...j->...", apart, np.linalg.inv(covariance), apart)
    values = torch.from_numpy(np.exp(-(squared - squared.min()) / 2)).float()
    return tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True)), values
