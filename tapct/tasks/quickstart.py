"""The quickstart: two real scans that ship with the project, to see everything work. Not a benchmark.

The scans and their organ masks are the reference files of the TotalSegmentator source distribution
(2.18.0, `tests/reference_files/`, Apache-2.0). The masks are predictions of that model, not expert truth.
"""

from functools import cached_property
from importlib.resources import files
from pathlib import Path

import numpy as np
from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.release_files import ReleaseFiles, nifti
from tapct.tasks.segmentation import SegmentationDataset
from tapct.tasks.spec import TaskSpec
from tapct.volumes import LabelMap, Volume, read_ct

# Organs that both scans show, merged as in the paper's Table 8; ids of TotalSegmentator v2's "total" task
# (totalsegmentator/map_to_binary.py). Everything else counts as background.
ORGANS = {
    "spleen": (1,),
    "liver": (5,),
    "stomach": (6,),
    "colon": (20,),
    "vertebrae": tuple(range(26, 51)),
    "aorta": (52,),
    "inferior vena cava": (63,),
    "spinal cord": (79,),
    "autochthon": (86, 87),
    "ribs": tuple(range(92, 116)),
    "costal cartilages": (117,),
}

SPEC = TaskSpec(
    name="quickstart",
    display_name="Quickstart",
    kind="segmentation",
    version=1,
    classes=("background", *ORGANS),
    metric="dice_native",
    licence="Apache-2.0",
    source="it ships with the project; leave DATA_ROOT unset to use it",
    notice="A demonstration on two patients (one trains the probe, one is reported), not a benchmark score.",
)


class Quickstart(SegmentationDataset):
    """Abdomen (NIfTI, 61 organs) and lower chest (DICOM series, 31 organs) of two patients."""

    spec = SPEC
    shipped_root = Path(str(files("tapct.tasks"))) / "quickstart_data"

    @cached_property
    def _files(self) -> ReleaseFiles:
        return ReleaseFiles(self.root, ("*/ct.nii*", "*/ct_dicom", "*/organs.nii*"), tops=("",))

    @override
    def ct_path(self, case: str) -> Path:
        return self._files.find(*nifti(f"{case}/ct"), f"{case}/ct_dicom")

    @override
    def label_path(self, case: str) -> Path:
        return self._files.find(*nifti(f"{case}/organs"))

    @override
    def read_labels(self, case: str, ct: Volume) -> LabelMap:
        organs = super().read_labels(case, ct)
        lookup = np.zeros(118, dtype=np.uint8)
        for label, ids in enumerate(ORGANS.values(), start=1):
            lookup[list(ids)] = label
        if int(organs.labels.max()) >= len(lookup):
            raise TaskError(f"{organs.source} holds labels over 117, the last id of TotalSegmentator v2")
        return LabelMap(lookup[organs.labels], organs.affine, organs.source)


def shipped_scan() -> Volume:
    """Returns the scan that input sheets show: the abdomen, Apache-2.0."""
    return read_ct(Quickstart.shipped_root / "abdomen" / "ct.nii.gz")
