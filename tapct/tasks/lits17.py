"""LiTS17: liver and its lesions (Bilic et al., Medical Image Analysis 2023)."""

from functools import cached_property
from pathlib import Path

from typing_extensions import override

from tapct.tasks.release_files import ReleaseFiles, nifti
from tapct.tasks.segmentation import SegmentationDataset
from tapct.tasks.spec import TaskSpec

SPEC = TaskSpec(
    name="lits17",
    display_name="LiTS17",
    kind="segmentation",
    version=1,
    classes=("background", "liver", "lesion"),
    metric="dice_native",
    source_data=("lits", "medical segmentation decathlon", "msd task03", "abdomenct-1k", "ct-org", "abdomenatlas"),
    licence="CC BY-NC-ND 4.0 (LiTS), or CC BY-SA 4.0 as Task03_Liver of the Medical Segmentation Decathlon",
    source="download Training_Batch1 and 2 of https://competitions.codalab.org/competitions/17094, or "
    "Task03_Liver.tar of http://medicaldecathlon.com (the same scans), and unpack them in lits17/",
)

_SCANS = ("volume-*.nii", "volume-*.nii.gz", "imagesTr/liver_*.nii", "imagesTr/liver_*.nii.gz")
_LABELS = ("segmentation-*.nii", "segmentation-*.nii.gz", "labelsTr/liver_*.nii", "labelsTr/liver_*.nii.gz")


class LiTS17(SegmentationDataset):
    """The 131 labelled scans, wherever under the root a mirror has put them.

    Case `volume-N` is volume-N.nii with segmentation-N.nii, either of them gzipped or not, or the Decathlon's
    imagesTr/liver_N.nii.gz with labelsTr/liver_N.nii.gz. Some masks have no place in the patient in their
    header and take that of their scan. Scans without a lesion belong to the task: there the class is undefined.
    """

    spec = SPEC
    scan_patterns = tuple(f"**/{pattern}" for pattern in _SCANS)

    @cached_property
    def _files(self) -> ReleaseFiles:
        return ReleaseFiles(self.root, (*_SCANS, *_LABELS), tops=("**/",))

    @override
    def ct_path(self, case: str) -> Path:
        return self._files.find(*nifti(case, f"imagesTr/liver_{case.removeprefix('volume-')}"))

    @override
    def label_path(self, case: str) -> Path:
        number = case.removeprefix("volume-")
        return self._files.find(*nifti(f"segmentation-{number}", f"labelsTr/liver_{number}"))
