"""Volumes of five organs in TotalSegmentator's scans, counted from the masks: a task's truth, and columns of others."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.columns import Column, Value
from tapct.tasks.measured import measured
from tapct.tasks.totalsegmentator_scans import TotalSegmentatorScans
from tapct.volumes import Grid, Mask, read_labels

ORGANS: dict[str, tuple[str, ...]] = {
    "liver": ("liver",),
    "spleen": ("spleen",),
    "kidneys": ("kidney_left", "kidney_right"),
    "pancreas": ("pancreas",),
    "heart": ("heart",),
}
"""By organ the masks of the release that it adds up."""

COLUMNS = tuple(Column(name=f"volume_{organ}", title=f"volume of the {organ}", unit="log10 of ml") for organ in ORGANS)
ROW = tuple(column.name for column in COLUMNS)
"""All of them, as a row that a model should beat."""

ABSENT = "the mask of {} is empty: it is outside of the scan, or was removed"
CUT = "the mask of {} touches the border of the scan: what lies beyond is not known"
CUT_BY_FIELD_OF_VIEW = "the field of view of the perturbed scan does not hold all of {}"


class OrganVolumes(TotalSegmentatorScans):
    """Voxels of each organ's masks on the scan's own grid, times the volume of a voxel.

    An organ has a volume where the scan shows it whole: none of its masks is empty, and none touches one of the six
    faces of the scan. An empty mask is not a volume of 0: nobody can tell from it a spleen that was removed from one
    that was not scanned. Two kidneys, of which one is cut, have no volume together.
    """

    def organ_paths(self, case: str) -> list[Path]:
        """Returns the masks of all organs of a case; they need not be there."""
        return [self.mask_path(case, name) for names in ORGANS.values() for name in names]

    def volumes_ml(self, case: str) -> list[float | str]:
        """Returns the volume of each organ in ml, or why there is none; they are measured once, and remembered."""

        def measure() -> list[float | str]:
            grid = self.scan_grid(case)
            return [self._volume_ml(case, grid, names) for names in ORGANS.values()]

        what = f"volumes {self._perturbing}" if self.perturbation and self.perturbation.changes_labels else "volumes"
        return measured(self, case, what, [self.ct_path(case), *self.organ_paths(case)], measure)

    @override
    def read_value(self, case: str, column: str) -> Value:
        if column not in ROW:
            return super().read_value(case, column)
        as_they_are = self if self.perturbation is None else self.perturbed(None)  # of the patient, not of the scan
        volume = as_they_are.volumes_ml(case)[ROW.index(column)]
        return None if isinstance(volume, str) else math.log10(volume)

    @override
    def value_paths(self, case: str, column: str) -> list[Path]:
        return self.organ_paths(case) if column in ROW else super().value_paths(case, column)

    def _volume_ml(self, case: str, grid: Grid, structures: Sequence[str]) -> float | str:
        """Returns the volume of an organ, or why there is none."""
        voxels = 0
        for name in structures:
            inside = self._mask(case, grid, name)
            if not inside.any():
                return ABSENT.format(name)
            if any(face.any() for axis in range(3) for face in (inside.take(0, axis), inside.take(-1, axis))):
                return CUT.format(name)
            if self.perturbation is not None and not np.array_equal(self.perturbation.labels(inside), inside):
                return CUT_BY_FIELD_OF_VIEW.format(name)
            voxels += int(inside.sum())
        return voxels * abs(float(np.linalg.det(grid.affine[:3, :3]))) / 1000

    def _mask(self, case: str, grid: Grid, structure: str) -> np.ndarray:
        labels = read_labels(self.mask_path(case, structure))
        if labels.labels.max() > 1:
            raise TaskError(f"{labels.source} holds values up to {labels.labels.max()}; a mask has 0 and 1")
        return Mask.of_labels(labels, grid).inside
