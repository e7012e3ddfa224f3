"""The centres of vertebrae in TotalSegmentator's scans, from their masks (Wasserthal et al., 2023)."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.localisation import LocalisationDataset
from tapct.tasks.measured import measured
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import Split
from tapct.tasks.totalsegmentator import STRUCTURES
from tapct.tasks.totalsegmentator_scans import LICENCE, RELEASE, SOURCE, TotalSegmentatorScans
from tapct.volumes import Findings, Mask, read_labels

SPEC = TaskSpec(
    name="vertebra_landmarks",
    display_name="Vertebra landmarks",
    kind="localisation",
    version=1,
    classes=("vertebra",),
    metric="FROC",
    release=RELEASE,
    source_data=("totalsegmentator",),
    licence=LICENCE,
    source=SOURCE,
)

TOLERANCE_MM = 10.0
"""Distance within which a vertebra is found: ours. Half of what lies between neighbours in the chest of an adult is 12
mm, in the neck 9 mm, where the nearer of two is the one that is found."""

LEAST_ML = 1.0
"""A mask of less, a cube of 10 mm, is taken for a fragment: whole vertebrae have several times that."""


class VertebraLandmarks(TotalSegmentatorScans, LocalisationDataset):
    """The centroids of the 25 masks from C1 to S1, as one class, in the official split.

    One class, for a 1x1x1 head sees one patch: which vertebra it is takes counting along the spine, and a head that
    told them apart would only show how far the encoder's context reaches. A vertebra that the border of the scan cuts
    has no centre in it, and a fragment none at all; both count neither way.
    """

    spec = SPEC
    described = ("tolerance_mm",)
    excluded_why: ClassVar[str] = f"cut by the border of the scan, or a mask of less than {LEAST_ML:g} ml"
    window = "bone"

    def __init__(
        self,
        root: str | Path,
        split: Split,
        split_file: str | Path | None = None,
        tolerance_mm: float = TOLERANCE_MM,
    ) -> None:
        """Initializes the dataset.

        Args:
            root: Folder of the task.
            split: Which cases.
            split_file: Another split than the task's own.
            tolerance_mm: Distance within which a vertebra is found.

        Raises:
            TaskError: If the split cannot be read, or the tolerance is no distance.
        """
        super().__init__(root, split, split_file)
        if not 0 < tolerance_mm < np.inf:
            raise TaskError(f"vertebra_landmarks: the option tolerance_mm must be a distance in mm, not {tolerance_mm}")
        self.tolerance_mm = tolerance_mm

    @override
    def target_paths(self, case: str) -> list[Path]:
        # Each of the 25: a mask that is missing is not the same as a vertebra that is not there.
        return [self.mask_path(case, name) for name in STRUCTURES["vertebrae"]]

    @override
    def findings(self, case: str) -> Findings:
        found = measured(self, case, "centres of vertebrae", self.target_paths(case), lambda: self._centres(case))
        return Findings.of([[0.0, *one["place_mm"], 2 * self.tolerance_mm, one["excluded"]] for one in found])

    def _centres(self, case: str) -> list[dict[str, Any]]:
        """Returns where the centroid of each mask lies that is not empty, and whether it counts neither way."""
        scan, found = self.scan_grid(case), []
        for path in self.target_paths(case):
            labels = read_labels(path)
            if labels.labels.max() > 1:
                raise TaskError(f"{labels.source} holds values up to {labels.labels.max()}; a mask has 0 and 1")
            where = np.argwhere(Mask.of_labels(labels, scan).inside)
            if not len(where):
                continue
            is_cut = (where == 0).any() or (where == np.array(scan.shape) - 1).any()
            ml = len(where) * abs(np.linalg.det(scan.affine[:3, :3])) / 1000
            place = labels.index_to_world(where.mean(axis=0)[None])[0]
            found.append({"place_mm": place.tolist(), "excluded": bool(is_cut or ml < LEAST_ML)})
        return found
