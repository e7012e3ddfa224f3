"""Organ centre: how far each place is from the centre of the lungs (or the bones), and nothing else of the scan.

The bar for finding things. A head on it says one place a scan, that centre: what a detector finds no better than this
it has not looked for.
"""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from tapct.encoders import Declared, Encoder, EncoderCard, Features, HuWindow, InputSheet, Weights
from tapct.errors import EncoderError
from tapct.volumes.body import BODY_ABOVE_HU, SMALLEST_PART, body_mask

SPACING_MM = 8.0
"""Of the grid: a centre is a mean over thousands of voxels, and a window of 2 m is the whole of any scan."""

ORGANS_HU = {"lungs": (-950.0, -500.0), "bones": (200.0, math.inf)}
"""Values of the organ within the body: aerated lung, and what is denser than enhanced soft tissue."""

LEAST_ML = 100.0
"""Of less, the centre of the body stands in: a scan of the abdomen has no lungs."""


def centre_of(hu: np.ndarray, values_hu: tuple[float, float]) -> np.ndarray:
    """Returns the centre of an organ, (z, y, x) in voxels.

    The mean place of the voxels of the body within these values, in their largest part and others of at least a
    fiftieth of it; where that is less than `LEAST_ML`, of the body; of air alone, the middle of the scan.

    Args:
        hu: (D, H, W) at `SPACING_MM`.
        values_hu: Lowest and highest value of the organ.
    """
    body = body_mask(hu)
    parts, number = ndimage.label(body & (hu >= values_hu[0]) & (hu <= values_hu[1]))
    sizes = np.bincount(parts.ravel(), minlength=number + 1)
    sizes[0] = 0
    organ = (sizes >= max(1.0, SMALLEST_PART * sizes.max()))[parts]
    for found in (organ, body):
        if found.sum() * SPACING_MM**3 / 1000 >= LEAST_ML:
            return np.argwhere(found).mean(axis=0)
    return (np.array(hu.shape) - 1) / 2


class OrganCentre(Encoder):
    """One feature: less the squared distance from the organ's centre in dm2, up to 1. Its embedding is where that is.

    Farther than a decimetre all places are alike, so that a head says one place whichever way it turns.
    """

    card = EncoderCard(
        name="organ-centre",
        display_name="Organ centre",
        window_size=(256, 128, 128),
        spacing_mm=(SPACING_MM, SPACING_MM, SPACING_MM),
        in_plane_size=None,
        pad_hu=-1024.0,
        feature_stride=(4, 4, 4),
        feature_dim=1,
        embedding_dim=3,
        has_cls=False,
        num_params=0,
        weights=Weights(needed=False),
        reference="a baseline of TAP-CT Bench",
    )

    def __init__(
        self, weights: str | Path | None = None, *, organ: Literal["lungs", "bones"] = "lungs", **options: Any
    ) -> None:
        """Initializes the baseline.

        Args:
            weights: As in `Encoder`; there are none.
            organ: Whose centre: "lungs" or "bones".
            options: As in `Encoder`.

        Raises:
            EncoderError: If an option is unknown.
        """
        if organ not in ORGANS_HU:
            raise EncoderError(f"{self.card.name}: organ must be 'lungs' or 'bones', not {organ!r}")
        self.organ = organ
        super().__init__(weights, **options)

    def build(self) -> nn.Module:
        """Returns a network that does nothing."""
        return nn.Identity()

    def describe(self) -> dict[str, Any]:
        """Returns what a record must hold: the base class's entries, and the organ."""
        return super().describe() | {"organ": self.organ}

    def scan_statistics(self, scan_hu: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns the centre of the organ in each scan, in voxels along z, y and x.

        Raises:
            EncoderError: If a scan is larger than a window, in which its place would not be known.
        """
        size, window = tuple(scan_hu.shape[2:]), self.card.window_size
        if any(n > w for n, w in zip(size, window, strict=True)):
            raise EncoderError(f"{self.card.name}: a scan of {size} voxels is larger than a window of {window}")
        scans = scan_hu.cpu().numpy()[:, 0]
        centres = np.array([centre_of(scan, ORGANS_HU[self.organ]) for scan in scans])
        return {
            axis: torch.tensor(centres[:, i], dtype=torch.float32, device=scan_hu.device)
            for i, axis in enumerate("zyx")
        }

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        return InputSheet(
            orientation="ours: as the harness has it",
            grid="ours: coarse, as a centre needs no more",
            hu_window=HuWindow(-math.inf, math.inf, "ours: thresholds, see below"),
            normalisation=Declared(
                f"within the body (above {BODY_ABOVE_HU} HU, holes filled), {ORGANS_HU[self.organ][0]:g} to "
                f"{ORGANS_HU[self.organ][1]:g} HU",
                "ours: aerated lung, or bone",
            ),
            padding="ours: air",
            window="ours: the whole of any scan",
            patches="ours: 32 mm; a parabola is found between patches whatever their size",
            embedding=Declared("the centre of the organ in dm, from the first voxel", "ours: a baseline"),
        )

    def _encode(self, windows_hu: torch.Tensor, statistics: dict[str, torch.Tensor]) -> Features:
        dm = SPACING_MM / 100
        centre = torch.stack([statistics[name].flatten() for name in "zyx"], dim=1)
        squared = windows_hu.new_zeros(1)
        for axis, step in enumerate(self.card.feature_stride):
            patches = torch.arange(windows_hu.shape[2 + axis] // step, device=windows_hu.device) * step + (step - 1) / 2
            shape = [len(windows_hu), 1, 1, 1, 1]
            shape[2 + axis] = -1
            squared = squared + ((patches - centre[:, axis, None]) * dm).square().view(shape)
        return Features(-squared.clamp(max=1), centre * dm, None)
