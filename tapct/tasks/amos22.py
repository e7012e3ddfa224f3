"""AMOS22, the CT part: 15 abdominal organs (Ji et al., NeurIPS 2022)."""

from functools import cached_property
from pathlib import Path

from typing_extensions import override

from tapct.tasks.release_files import ReleaseFiles, nifti
from tapct.tasks.segmentation import SegmentationDataset
from tapct.tasks.spec import TaskSpec

SPEC = TaskSpec(
    name="amos22",
    display_name="AMOS22",
    kind="segmentation",
    version=1,
    classes=(
        "background",
        "spleen",
        "right kidney",
        "left kidney",
        "gallbladder",
        "esophagus",
        "liver",
        "stomach",
        "aorta",
        "inferior vena cava",
        "pancreas",
        "right adrenal gland",
        "left adrenal gland",
        "duodenum",
        "bladder",
        "prostate/uterus",
    ),
    metric="dice_native",
    source_data=("amos", "abdomenatlas"),
    licence="CC BY 4.0 by its Zenodo page, CC BY-SA 4.0 by its dataset.json: treat it as BY-SA",
    source="download amos22.zip (24 GB) from https://zenodo.org/records/7262581 and unpack it in amos22/",
)


class AMOS22(SegmentationDataset):
    """The labelled CT scans of the release: `imagesTr` trains and selects, `imagesVa` is reported.

    The labels of the official test scans are not public, and ids above 500 are MRI: neither is read. The root
    is the folder that holds `imagesTr`, or holds the one that does.
    """

    spec = SPEC
    # Labelled CT ids end at 410; the MRI in the same folders (507 and up) is no surprise to the doctor.
    scan_patterns = tuple(f"{top}images{part}/amos_0[0-4]??.nii.gz" for top in ("", "*/") for part in ("Tr", "Va"))

    @cached_property
    def _files(self) -> ReleaseFiles:
        return ReleaseFiles(
            self.root, [f"{kind}{part}/amos_*.nii*" for kind in ("images", "labels") for part in ("Tr", "Va")]
        )

    @override
    def ct_path(self, case: str) -> Path:
        return self._find("images", case)

    @override
    def label_path(self, case: str) -> Path:
        return self._find("labels", case)

    def _find(self, kind: str, case: str) -> Path:
        parts = ("Va", "Tr") if self.split == "test" else ("Tr", "Va")  # a split_file may use either anywhere
        return self._files.find(*nifti(*(f"{kind}{part}/{case}" for part in parts)))
