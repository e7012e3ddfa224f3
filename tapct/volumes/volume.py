"""A scan and its label map, each with the affine that places it in the patient."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from tapct.errors import VolumeError
from tapct.volumes.geometry import Grid

SAME_GRID_TOLERANCE = 0.1
"""Two grids are one when their corners agree to this fraction of the smallest voxel edge."""


class _Placed:
    """What a scan and a label map share: an array of voxels and the affine that places it."""

    affine: np.ndarray
    source: str

    @property
    def _voxels(self) -> np.ndarray:
        raise NotImplementedError

    def _check(self, dtypes: tuple[type, ...]) -> None:
        """Refuses an array or an affine of the wrong kind, so that a caller's mistake shows here."""
        if self._voxels.ndim != 3 or self._voxels.dtype not in dtypes:
            names = " or ".join(np.dtype(dtype).name for dtype in dtypes)
            raise VolumeError(
                f"{self.source}: expected a (D, H, W) array of {names}, "
                f"got shape {self._voxels.shape} of {self._voxels.dtype}."
            )
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise VolumeError(f"{self.source}: expected a finite 4x4 affine, got {self.affine.tolist()}.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        depth, height, width = self._voxels.shape
        return depth, height, width

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance in mm between neighbouring voxels along (z, y, x)."""
        return self.grid.spacing_mm

    @property
    def grid(self) -> Grid:
        """Where the voxels lie, without their values."""
        return Grid.of(self.shape, self.affine)

    def index_to_world(self, points: np.ndarray) -> np.ndarray:
        """Maps voxel indices to the patient.

        Args:
            points: (N, 3) indices (z, y, x); fractions are allowed.

        Returns:
            (N, 3) float64 positions (x, y, z) in mm, RAS+.
        """
        return np.asarray(points, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def world_to_index(self, points: np.ndarray) -> np.ndarray:
        """Maps positions in the patient to voxel indices: the inverse of `index_to_world`.

        Args:
            points: (N, 3) positions (x, y, z) in mm, RAS+.

        Returns:
            (N, 3) float64 indices (z, y, x), not rounded and not clipped to the volume.
        """
        offsets = np.asarray(points, dtype=np.float64) - self.affine[:3, 3]
        return np.linalg.solve(self.affine[:3, :3], offsets.T).T


@dataclass(frozen=True, eq=False)
class Volume(_Placed):
    """A CT scan, its index growing towards Superior, Posterior, Left ("SPL").

    Attributes:
        hu: (D, H, W) float32 Hounsfield units.
        affine: (4, 4) float64, homogeneous index (z, y, x, 1) to mm in RAS+.
        source: The path that was read, for messages.
        notes: What a user should know of how it was read, one sentence each; the record keeps them.
    """

    hu: np.ndarray
    affine: np.ndarray
    source: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check((np.float32,))

    @property
    def _voxels(self) -> np.ndarray:
        return self.hu


@dataclass(frozen=True, eq=False)
class LabelMap(_Placed):
    """One whole number a voxel (0 is background), in the same convention as `Volume`.

    Attributes:
        labels: (D, H, W) uint8, or uint16 where a label exceeds 255.
        affine: (4, 4) float64, homogeneous index (z, y, x, 1) to mm in RAS+.
        source: The path that was read, for messages.
    """

    labels: np.ndarray
    affine: np.ndarray
    source: str

    def __post_init__(self) -> None:
        self._check((np.uint8, np.uint16))

    @property
    def _voxels(self) -> np.ndarray:
        return self.labels


def check_same_grid(volume: Volume | LabelMap, labels: LabelMap | Volume) -> None:
    """Checks that the voxels of two files are the same places in the patient.

    Args:
        volume: The scan.
        labels: The labels (or a second scan) that should lie on its grid.

    Raises:
        VolumeError: The shapes differ, or a corner voxel lies more than a tenth of the smallest voxel edge
            away from its counterpart.
    """
    pair = f"{labels.source} does not lie on the grid of {volume.source}"
    if labels.shape != volume.shape:
        raise VolumeError(
            f"{pair}: {labels.shape} voxels at {_mm(labels)} against {volume.shape} at {_mm(volume)} "
            "(z, y, x). Check that both belong to one scan; if they do, resample the labels to the scan "
            "with nearest neighbour."
        )
    corners = np.array(list(product(*((0, size - 1) for size in volume.shape))))
    apart = np.linalg.norm(volume.index_to_world(corners) - labels.index_to_world(corners), axis=1)
    tolerance = SAME_GRID_TOLERANCE * min(volume.spacing_mm)
    worst = int(apart.argmax())
    if apart[worst] > tolerance:
        raise VolumeError(
            f"{pair}: the shapes agree, but the voxel {tuple(corners[worst].tolist())} lies "
            f"{apart[worst]:.3g} mm apart in the two (allowed: {tolerance:.3g} mm). Check that both belong "
            "to one scan; if only the header of the labels is wrong, copy the scan's into it."
        )


def _mm(grid: _Placed) -> str:
    return " x ".join(f"{edge:.4g}" for edge in grid.spacing_mm) + " mm"
