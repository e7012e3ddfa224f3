"""Sampling grids: where the voxels of an array lie in the patient, and how one grid maps to another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tapct.errors import VolumeError


class Size(NamedTuple):
    """A size in voxels, in the order of the array's axes."""

    z: int
    y: int
    x: int


@dataclass(frozen=True)
class Grid:
    """A regular lattice of voxels.

    Attributes:
        shape: Number of voxels along (z, y, x).
        affine: (4, 4) float64, homogeneous voxel index (z, y, x, 1) to world millimetres (RAS+).
    """

    shape: Size
    affine: np.ndarray

    @classmethod
    def of(cls, shape: Sequence[int], affine: np.ndarray) -> "Grid":
        """Returns the grid of an array of `shape` (D, H, W) with `affine` (4, 4)."""
        return cls(Size(*(int(n) for n in shape)), np.asarray(affine, dtype=np.float64))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Grid":
        """Returns the grid that `to_json` was called on."""
        return cls.of(content["shape"], content["affine"])

    def to_json(self) -> dict[str, Any]:
        """Returns the grid as JSON has it."""
        return {"shape": list(self.shape), "affine": self.affine.tolist()}

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along (z, y, x), in millimetres."""
        z, y, x = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)

    def resized(self, shape: Sequence[int]) -> "Grid":
        """Returns the grid with `shape` (D, H, W) voxels over the same field of view."""
        scale = np.array(self.shape, dtype=np.float64) / np.array(shape, dtype=np.float64)
        return self._rescaled(shape, scale, offset=(scale - 1) / 2)

    def respaced(self, spacing_mm: Sequence[float]) -> "Grid":
        """Returns the grid with exactly this spacing (z, y, x), centred on the same field of view.

        The number of voxels is rounded, so up to half a voxel at each border is gained or lost.
        """
        scale = np.array(spacing_mm, dtype=np.float64) / np.array(self.spacing_mm)
        shape = np.maximum(1, np.rint(np.array(self.shape) / scale)).astype(int)
        centre = (np.array(self.shape) - 1) / 2
        return self._rescaled(shape.tolist(), scale, offset=centre - (shape - 1) / 2 * scale)

    def padded(self, shape: Sequence[int]) -> "Grid":
        """Returns the grid grown to `shape` (D, H, W) at the high end of each axis."""
        return Grid.of(shape, self.affine)

    def patches(self, stride: Sequence[int], centre: Sequence[float] | None = None) -> "Grid":
        """Returns the grid of patches, one for every `stride` (z, y, x) voxels of this grid.

        Args:
            stride: Voxels between patches.
            centre: Voxel within its stride on which a patch is centred; by default the middle.

        Raises:
            VolumeError: If an axis is not a whole number of patches.
        """
        if any(n % s for n, s in zip(self.shape, stride, strict=True)):
            raise VolumeError(f"a grid of {tuple(self.shape)} voxels has no whole number of {tuple(stride)} patches")
        scale = np.array(stride, dtype=np.float64)
        offset = (scale - 1) / 2 if centre is None else np.array(centre, dtype=np.float64)
        return self._rescaled([n // s for n, s in zip(self.shape, stride, strict=True)], scale, offset)

    def _rescaled(self, shape: Sequence[int], scale: np.ndarray, offset: np.ndarray) -> "Grid":
        step = np.eye(4)
        step[:3, :3] = np.diag(scale)
        step[:3, 3] = offset
        return Grid.of(shape, self.affine @ step)

    def coordinates_in(self, other: "Grid") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns where this grid's voxel centres lie in `other`, in units of its voxels, axis by axis.

        Raises:
            VolumeError: If the axes of the two grids are not parallel.
        """
        step = np.linalg.inv(other.affine) @ self.affine
        off_axis = np.abs(step[:3, :3] - np.diag(np.diag(step[:3, :3])))
        if off_axis.max() * max(self.shape) > 0.01:
            raise VolumeError(
                "the axes of the two grids are not parallel: "
                f"{off_axis.max() * max(self.shape):.3g} voxels apart at the far end"
            )
        z, y, x = (np.arange(n) * step[i, i] + step[i, 3] for i, n in enumerate(self.shape))
        return z, y, x
