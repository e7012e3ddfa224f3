"""Radiomics: hand-made features of the body, of a nodule or of a mask, as IBSI defines them (baselines/ibsi.py).

The bar that foundation models of lesions have to clear: in a published comparison on renal lesions such features were
ahead of three of them. Nothing here is learned, and no setting was chosen on scores.

Where they are measured:

* In an adaptor's mask (`linear:mask`, `cox:mask`): in that part of the scan, such as a tumour.
* In a scan: in the body, by the mask of `tapct.volumes.body`, which has the air inside it and neither table nor
  clothes; in voxels of 4 mm, which are means over 4 x 4 x 4 of 1 mm. Of air alone, in all of it.
* In a crop round a nodule, which is a scan of at most 64 mm along every axis, and holds no body: in what is above -400
  HU (half-way from aerated lung to soft tissue), is connected with the middle of the crop or what lies within 3 mm of
  it, and is within a sphere of 30 mm round it (what is larger is not a nodule by definition). Where there is nothing of
  that kind, as of a ground-glass nodule: in a sphere of 10 mm. No contour was drawn: the list says where a nodule is,
  no more.

How they stand in a vector: intensities in thousands of HU; all else as sign(x) log10(1 + |x|), since some are shares
and others sums over millions of voxels, next to which a cosine or a neighbour would see nothing else.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from baselines.ibsi import BIN_HU, LEAST_VOXELS, NAMES, RANGE_HU, measured
from tapct.encoders import Declared, EncoderCard, HuWindow, InputSheet, Weights
from tapct.encoders.regions import Region, RegionEncoder
from tapct.errors import EncoderError
from tapct.volumes.body import BODY_ABOVE_HU, body_mask

SPACING_MM = 1.0
"""Of the grid on which lesions are measured: about that of thin slices of the chest."""

BODY_STEP = 4
"""Voxels of that grid, along each axis, whose mean is one of the grid on which bodies are measured."""

CROP_MM = 64.0
"""A scan of at most this along every axis is a crop round a nodule: the tasks' have 50 mm, and no body is as small."""

NODULE_ABOVE_HU = -400.0
NODULE_MM, OFF_CENTRE_MM, SPHERE_MM = 30.0, 3.0, 10.0
"""Diameter of the largest nodule; how far from the middle it may begin; diameter of the sphere where none is found."""

UNIT_HU = 1000.0
IN_HU = ("mean", "median", "min", "p10", "p90", "max", "iqr", "range", "mad", "rmad", "medad", "rms")
"""Intensity statistics that are in HU."""

BODY, SOLID, SPHERE, ALL = range(4)


class Radiomics(RegionEncoder):
    """120 features of a region: 14 of its shape, 23 of its intensities, 83 of their texture in 3D."""

    numbers = NAMES
    rules = (
        None,
        None,
        f"nothing above {NODULE_ABOVE_HU:g} HU in the middle of the crop: radiomics of a sphere of {SPHERE_MM:g} mm",
        "no body was found: radiomics of all voxels",
    )
    card = EncoderCard(
        name="radiomics",
        display_name="Radiomics (hand-made)",
        window_size=(128, 128, 128),
        spacing_mm=(SPACING_MM, SPACING_MM, SPACING_MM),
        in_plane_size=None,
        pad_hu=-1024.0,
        feature_stride=(128, 128, 128),
        feature_dim=len(NAMES),
        embedding_dim=len(NAMES),
        has_cls=False,
        num_params=0,
        weights=Weights(needed=False),
        reference="features by Zwanenburg et al., IBSI, arXiv 1612.07003; a baseline of TAP-CT Bench",
    )

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        range_hu: tuple[float, float] = RANGE_HU,
        bin_hu: float = BIN_HU,
        **options: Any,
    ) -> None:
        """Initializes the baseline.

        Args:
            weights: As in `Encoder`; there are none.
            range_hu: Lowest and highest intensity that counts.
            bin_hu: Width of a grey level.
            options: As in `Encoder`.

        Raises:
            EncoderError: If an option is unknown, the range does not rise, or the width is not positive.
        """
        low, high = (float(end) for end in range_hu)
        if not (low < high and 0 < bin_hu < math.inf):
            raise EncoderError(
                f"{self.card.name}: range_hu must rise and bin_hu be positive, not {low:g} to {high:g} and {bin_hu:g}"
            )
        self.range_hu, self.bin_hu = (low, high), float(bin_hu)
        super().__init__(weights, **options)

    def describe(self) -> dict[str, Any]:
        """Returns what a record must hold: the base class's entries, and the settings of the features."""
        return super().describe() | {"range_hu": list(self.range_hu), "bin_hu": self.bin_hu}

    def region(self, hu: np.ndarray) -> Region:
        """Returns the body, or of a crop the nodule; see the module."""
        z, y, x = self.card.spacing_mm or (SPACING_MM,) * 3
        if all(n * mm <= CROP_MM for n, mm in zip(hu.shape, (z, y, x), strict=True)):
            return nodule(hu, (z, y, x))
        coarse = torch.nn.functional.avg_pool3d(
            torch.from_numpy(hu)[None, None], BODY_STEP, ceil_mode=True, count_include_pad=False
        )[0, 0].numpy()
        spacing_mm = (z * BODY_STEP, y * BODY_STEP, x * BODY_STEP)
        body = body_mask(coarse)
        if body.sum() < LEAST_VOXELS:
            return Region(coarse, np.ones_like(body), spacing_mm, ALL)
        return Region(coarse, body, spacing_mm, BODY)

    def measure(self, hu: np.ndarray, inside: np.ndarray, spacing_mm: tuple[float, float, float]) -> tuple[float, ...]:
        """Returns the features of a region, as they stand in a vector.

        Raises:
            EncoderError: If mirp is not installed, or a feature is not defined.
        """
        found = measured(hu, inside, spacing_mm, range_hu=self.range_hu, bin_hu=self.bin_hu)
        return tuple(in_vector(name, value) for name, value in found.items())

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        low, high = self.range_hu
        return InputSheet(
            orientation="ours: as the harness has it",
            grid=f"ours: thin slices of the chest; {BODY_STEP} times as coarse for a body",
            hu_window=HuWindow(low, high, "ours: air to where only cortical bone, calcium and metal are denser"),
            normalisation=Declared(
                f"rounded to whole HU, those beyond the window left out, grey levels of {self.bin_hu:g} HU",
                "paper: IBSI, arXiv 1612.07003",
            ),
            padding="ours: air, which is never looked at",
            window="ours: any, as all say the same",
            patches="ours: any, as all say the same",
            region=Declared(
                f"a mask, where an adaptor has one; else the body (above {BODY_ABOVE_HU} HU, holes filled), or in a "
                f"crop of {CROP_MM:g} mm what is above {NODULE_ABOVE_HU:g} HU in its middle, up to {NODULE_MM:g} mm, "
                f"or a sphere of {SPHERE_MM:g} mm",
                "ours: baselines/radiomics.py",
            ),
            embedding=Declared(
                "features of shape, intensity and texture (paper: IBSI, by mirp); in thousands of HU, or as logarithms",
                "ours: baselines/radiomics.py",
            ),
        )


def nodule(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> Region:
    """Returns the nodule in the middle of a crop, or a sphere where none is found; see the module.

    Args:
        hu: (D, H, W) HU.
        spacing_mm: Of the voxels, (z, y, x).
    """
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(hu.shape, spacing_mm, strict=True)]
    apart_mm = np.sqrt(sum(place**2 for place in np.meshgrid(*axes, indexing="ij")))
    parts, _ = ndimage.label((hu > NODULE_ABOVE_HU) & (apart_mm <= NODULE_MM / 2))
    nearest = np.argmin(np.where(parts > 0, apart_mm, np.inf))
    inside = (parts == parts.flat[nearest]) & (parts > 0)
    if apart_mm.flat[nearest] <= OFF_CENTRE_MM and inside.sum() >= LEAST_VOXELS:
        return Region(hu, inside, spacing_mm, SOLID)
    return Region(hu, apart_mm <= SPHERE_MM / 2, spacing_mm, SPHERE)


def in_vector(name: str, value: float) -> float:
    """Returns a feature as it stands in a vector: thousands of HU, or sign(x) log10(1 + |x|).

    Args:
        name: One of `baselines.ibsi.NAMES`.
        value: As IBSI has it.
    """
    family, _, what = name.partition("_")
    if family == "stat" and what in IN_HU:
        return value / UNIT_HU
    return math.copysign(math.log10(1 + abs(value)), value)
