"""A part of a scan: an organ, a lesion, a sphere round a point."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from tapct.errors import VolumeError
from tapct.volumes.geometry import Grid
from tapct.volumes.volume import LabelMap, check_same_grid

ACROSS_A_SPHERE = 32
"""Voxels of a sphere's lattice along each axis: its volume is right to 1 %, however small it is."""


@dataclass(frozen=True, eq=False)
class Mask:
    """The voxels of a lattice that belong to a part of a scan.

    Attributes:
        inside: (D, H, W) booleans; all false where the scan shows nothing of it.
        grid: Where these voxels lie: the scan's own grid, or a finer one that is parallel to it.
    """

    inside: np.ndarray
    grid: Grid

    def __post_init__(self) -> None:
        if self.inside.dtype != np.bool_ or self.inside.shape != tuple(self.grid.shape):
            raise VolumeError(
                f"a mask is an array of booleans on its grid of {tuple(self.grid.shape)} voxels, "
                f"not of {self.inside.dtype} with shape {self.inside.shape}"
            )

    @classmethod
    def of_labels(cls, labels: LabelMap, scan: Grid, values: Collection[int] | None = None) -> "Mask":
        """Returns the voxels of a label map that have one of these labels.

        Args:
            labels: The label map.
            scan: The grid of the scan that it belongs to.
            values: The labels; None for any but the background (0).

        Raises:
            VolumeError: If it does not lie on the grid of the scan.
        """
        # A stand-in for the scan, whose voxels nobody needs; it takes no memory.
        check_same_grid(LabelMap(np.broadcast_to(np.uint8(0), scan.shape), scan.affine, "its scan"), labels)
        inside = labels.labels != 0 if values is None else np.isin(labels.labels, list(values))
        return cls(inside, scan)

    @classmethod
    def sphere(cls, centre_mm: Sequence[float], diameter_mm: float, scan: Grid) -> "Mask":
        """Returns what a scan holds of a sphere, on a lattice as fine as the sphere is small.

        On the voxels of the scan, a nodule of 4 mm in slices of 5 mm would be one voxel or none.

        Args:
            centre_mm: Its centre (x, y, z) in mm, RAS+.
            diameter_mm: Its diameter.
            scan: The grid of the scan.

        Raises:
            VolumeError: If it has no size or no place.
        """
        if not np.isfinite([*centre_mm, diameter_mm]).all() or diameter_mm <= 0:
            raise VolumeError(f"there is no sphere of {diameter_mm} mm round {tuple(centre_mm)} mm")
        axes = scan.affine[:3, :3]
        to_index = np.linalg.inv(axes)
        centre = to_index @ (np.array(centre_mm, dtype=np.float64) - scan.affine[:3, 3])
        reach = diameter_mm / 2 * np.linalg.norm(to_index, axis=1)  # in voxels of the scan; its axes may be oblique
        step = 2 * reach / ACROSS_A_SPHERE
        first = centre - reach + step / 2
        where = [f + np.arange(ACROSS_A_SPHERE) * s for f, s in zip(first, step, strict=True)]
        apart = np.stack(np.meshgrid(*(at - c for at, c in zip(where, centre, strict=True)), indexing="ij"), axis=-1)
        inside = np.linalg.norm(apart @ axes.T, axis=-1) <= diameter_mm / 2
        z, y, x = ((at >= -0.5) & (at <= size - 0.5) for at, size in zip(where, scan.shape, strict=True))
        inside &= z[:, None, None] & y[:, None] & x
        lattice = np.eye(4)
        lattice[:3, :3], lattice[:3, 3] = np.diag(step), first
        return cls(inside, Grid.of(inside.shape, scan.affine @ lattice))
