"""The base class of datasets whose cases are blocks of scans: round a nodule, or a point in an organ."""

import abc
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from tapct._utils.files import stamp_of
from tapct.tasks.classification import ClassificationDataset
from tapct.tasks.dataset import require_slices
from tapct.tasks.splits import Split
from tapct.volumes import Grid, Volume, crop_grid, crop_mm, files_of, read_ct, read_grid
from tapct.volumes.plausibility import LEAST_HU

OUTSIDE_HU = LEAST_HU
"""Value of what was not measured, outside the scan (LUNA25's own blocks are padded with it) and in it.

The reader raises padding to it; what noise leaves below is raised here, as in FMCiB's pretraining: some encoders do not
clip (FMCiB, Curia). Everything above stays as it is.
"""


class CroppedDataset(ClassificationDataset):
    """Blocks of a size in mm round points, on the voxels of their scans.

    The last scan is kept in memory (one for each process that reads): the cases of a scan follow each other in the
    shipped splits, and reading a scan takes a hundred times as long as cutting a block out of it.
    """

    size_mm: ClassVar[tuple[float, float, float]]
    """Edges of a block along (z, y, x)."""

    def __init__(self, root: str | Path, split: Split, split_file: str | Path | None = None) -> None:
        """Initializes the dataset.

        Args:
            root: Folder of the task.
            split: Which cases.
            split_file: Another split than the task's own.

        Raises:
            TaskError: If the split cannot be read.
        """
        super().__init__(root, split, split_file)
        self._last: tuple[list[Any], Volume] | None = None
        self._last_grid: tuple[list[Any], Grid] | None = None

    @abc.abstractmethod
    @override
    def point_mm(self, case: str) -> tuple[float, float, float]:
        """Returns the centre of the block of a case, (x, y, z) in mm, RAS+."""

    @override
    def scan_cache_key(self, case: str) -> list[Any]:
        return [*super().scan_cache_key(case), self.point_mm(case)]  # the list was read some time ago

    def read_volume(self, case: str) -> Volume:
        """Returns what the block of a case is cut out of."""
        return read_ct(self.ct_path(case))

    @override
    def read_scan(self, case: str) -> Volume:
        ct = self._volume(case)
        require_slices(ct)  # the block has more of them than that, all but these of padding
        crop = crop_mm(ct, self.point_mm(case), self.size_mm, OUTSIDE_HU)
        return replace(crop, hu=np.maximum(crop.hu, np.float32(OUTSIDE_HU)))

    def volume_grid(self, case: str) -> Grid:
        """Returns the grid of `read_volume`, from headers alone where that can be."""
        if type(self).read_volume is CroppedDataset.read_volume:
            which = self._which(case)
            if self._last_grid is None or self._last_grid[0] != which:
                self._last_grid = which, read_grid(self.ct_path(case))
            return self._last_grid[1]
        return self.read_volume(case).grid

    @override
    def scan_grid(self, case: str) -> Grid:
        return crop_grid(self.volume_grid(case), self.point_mm(case), self.size_mm, str(self.ct_path(case)))

    def _which(self, case: str) -> list[Any]:
        """Returns which scan a case is cut out of, and whether its files are as they were."""
        return [(file, stamp_of(file)) for path in self.scan_paths(case) for file in files_of(path)]

    def _volume(self, case: str) -> Volume:
        which = self._which(case)
        if self._last is None or self._last[0] != which:
            self._last = None  # lets go of the old scan before the new one comes
            self._last = which, self.read_volume(case)
        return self._last[1]
