"""Points of a scan with diameters: nodules, vertebrae, whatever is to be found in it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tapct.errors import VolumeError
from tapct.volumes.geometry import Grid

COLUMNS = 6
"""Of findings as an array: class, x, y, z in mm (RAS+), diameter in mm, and 1 for what counts neither way."""


@dataclass(frozen=True, eq=False)
class Findings:
    """What is to be found in one scan.

    Attributes:
        classes: (n,) int64, which class each is of, from 0.
        places_mm: (n, 3) float64 centres x, y, z in mm, RAS+.
        diameters_mm: (n,) float64.
        excluded: (n,) booleans: those that count neither way, found or not.
    """

    classes: np.ndarray
    places_mm: np.ndarray
    diameters_mm: np.ndarray
    excluded: np.ndarray

    def __post_init__(self) -> None:
        for place, diameter in zip(self.places_mm, self.diameters_mm, strict=True):
            if not np.isfinite([*place, diameter]).all() or diameter <= 0:
                raise VolumeError(
                    f"there is no finding at (x, y, z) = {tuple(place.tolist())} mm with a diameter of {diameter} mm: "
                    "places are finite, and diameters finite and positive"
                )

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]] | np.ndarray) -> "Findings":
        """Returns the findings of rows as `rows` gives them; none of no rows.

        Raises:
            VolumeError: If a place is not finite, or a diameter not positive.
        """
        table = np.asarray(rows, dtype=np.float64).reshape(-1, COLUMNS)
        return cls(table[:, 0].astype(np.int64), table[:, 1:4], table[:, 4], table[:, 5] != 0)

    def rows(self) -> np.ndarray:
        """Returns the (n, COLUMNS) float64 array of the findings."""
        return np.column_stack([self.classes, self.places_mm, self.diameters_mm, self.excluded]).astype(np.float64)

    def only(self, which: np.ndarray) -> "Findings":
        """Returns some of the findings, by (n,) booleans."""
        return Findings(self.classes[which], self.places_mm[which], self.diameters_mm[which], self.excluded[which])

    def index_in(self, grid: Grid) -> np.ndarray:
        """Returns (n, 3) where they lie on a grid, in voxels (z, y, x)."""
        return np.linalg.solve(grid.affine[:3, :3], (self.places_mm - grid.affine[:3, 3]).T).T

    def inside(self, scan: Grid) -> np.ndarray:
        """Returns (n,) booleans: those whose centre lies in a scan."""
        index = self.index_in(scan)
        return np.all((index >= -0.5) & (index <= np.array(scan.shape) - 0.5), axis=1)

    def require_inside(self, scan: Grid, source: str) -> None:
        """Makes sure that whatever counts lies in its scan.

        Args:
            scan: The grid of the scan.
            source: Where the findings are from, for the error.

        Raises:
            VolumeError: If one does not, with what it may be instead.
        """
        out = np.flatnonzero(~self.inside(scan) & ~self.excluded)
        if not len(out):
            return
        place = self.places_mm[out[0]]
        index = ", ".join(f"{v:.1f}" for v in self.index_in(scan)[out[0]])
        raise VolumeError(
            f"{source}: the point (x, y, z) = {tuple(place.tolist())} mm (RAS) lies outside the scan, at voxel "
            f"(z, y, x) = ({index}) of {tuple(scan.shape)}{self._likely(scan, out)}"
        )

    def _likely(self, scan: Grid, out: np.ndarray) -> str:
        """Returns what the places outside a scan seem to be."""
        index = np.abs(self.places_mm[out])  # that of voxels, whose signs a reader has turned from LPS to RAS
        if (index <= np.array(scan.shape)[::-1] - 0.5).all():
            return ". As voxel indices it would lie inside: coordinates are in mm of the patient's world, not in voxels"
        return ". Do the points and the scan belong together, and are they in mm of the patient's world (LPS in ITK)?"
