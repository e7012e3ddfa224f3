"""Volumes of five organs in TotalSegmentator's scans: a task whose truth is known, as it is counted from the masks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.measured import measured
from tapct.tasks.regression import Missing, RegressionDataset
from tapct.tasks.spec import TaskSpec
from tapct.tasks.totalsegmentator_scans import LICENCE, RELEASE, SHORTCUTS, SOURCE, TotalSegmentatorScans
from tapct.volumes import Grid, Mask, read_labels

ORGANS: dict[str, tuple[str, ...]] = {
    "liver (ml)": ("liver",),
    "spleen (ml)": ("spleen",),
    "kidneys (ml)": ("kidney_left", "kidney_right"),
    "pancreas (ml)": ("pancreas",),
    "heart (ml)": ("heart",),
}
"""The targets, each with the masks of the release that it adds up."""

SPEC = TaskSpec(
    name="totalsegmentator_organ_volume",
    display_name="TotalSegmentator, organ volumes",
    kind="regression",
    adaptor="ridge",
    version=1,
    classes=tuple(ORGANS),
    unit="SD",
    metric="MAE",
    licence=LICENCE,
    source=SOURCE,
    source_data=(RELEASE,),
    release=RELEASE,
    shortcuts=SHORTCUTS,
)

ABSENT = "the mask of {} is empty: it is outside of the scan, or was removed"
CUT = "the mask of {} touches the border of the scan: what lies beyond is not known"
CUT_BY_FIELD_OF_VIEW = "the field of view of the perturbed scan does not hold all of {}"


class TotalSegmentatorOrganVolume(TotalSegmentatorScans, RegressionDataset):
    """Voxels of each organ's masks on the scan's own grid, times the volume of a voxel.

    An organ has a volume where the scan shows it whole: none of its masks is empty, and none touches one of the six
    faces of the scan. An empty mask is not a volume of 0: nobody can tell from it a spleen that was removed from one
    that was not scanned. Two kidneys, of which one is cut, have no volume together.
    """

    spec = SPEC

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [self.mask_path(case, name) for names in ORGANS.values() for name in names]

    @override
    def numbers(self, case: str) -> Sequence[float | Missing]:
        def measure() -> list[float | str]:
            grid = self.scan_grid(case)
            return [self._volume_ml(case, grid, names) for names in ORGANS.values()]

        what = f"volumes {self._perturbing}" if self.perturbation and self.perturbation.changes_labels else "volumes"
        found = measured(self, case, what, [self.ct_path(case), *self.target_paths(case)], measure)
        return [Missing(value) if isinstance(value, str) else value for value in found]

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
