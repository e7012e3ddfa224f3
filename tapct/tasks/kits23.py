"""KiTS23: kidneys, tumours and cysts (Heller et al., 2023)."""

from functools import cached_property
from pathlib import Path

from typing_extensions import override

from tapct.tasks.release_files import ReleaseFiles, nifti
from tapct.tasks.segmentation import SegmentationDataset
from tapct.tasks.spec import TaskSpec

SPEC = TaskSpec(
    name="kits23",
    display_name="KiTS23",
    kind="segmentation",
    version=1,
    classes=("background", "kidney", "tumor", "cyst"),
    metric="dice_native",
    source_data=("(c4kc-)?kits", "abdomenct-1k", "abdomenatlas"),
    licence="CC BY-NC-SA 4.0",
    source="clone https://github.com/neheller/kits23 as kits23/ and run its kits23_download_data, or put the folder "
    "images/ of the Hugging Face dataset neheller/KiTS-Challenge-Imaging next to its dataset/",
)


class KiTS23(SegmentationDataset):
    """All 489 labelled scans, 0 to 299 and 400 to 588, stored with the slice as the first axis.

    The root is the repository, or its `dataset`. A scan is case_NNNNN/imaging.nii.gz, or images/case_NNNNN.nii.gz
    as on Hugging Face; the masks are in the repository.
    The classes are scored one by one, as the paper does, not as the challenge's nested regions.
    """

    spec = SPEC
    scan_patterns = ("case_*/imaging.nii.gz", "*/case_*/imaging.nii.gz", "images/case_*.nii.gz")

    @cached_property
    def _files(self) -> ReleaseFiles:
        return ReleaseFiles(self.root, ("case_*/imaging.nii*", "images/case_*.nii*", "case_*/segmentation.nii*"))

    @override
    def ct_path(self, case: str) -> Path:
        return self._files.find(*nifti(f"{case}/imaging", f"images/{case}"))

    @override
    def label_path(self, case: str) -> Path:
        return self._files.find(*nifti(f"{case}/segmentation"))
