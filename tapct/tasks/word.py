"""WORD: 16 organs of the whole abdomen (Luo et al., Medical Image Analysis 2022)."""

from functools import cached_property
from pathlib import Path

from typing_extensions import override

from tapct.tasks.eva_task import EvaTask
from tapct.tasks.release_files import ReleaseFiles, nifti
from tapct.tasks.segmentation import SegmentationDataset
from tapct.tasks.spec import TaskSpec

SPEC = TaskSpec(
    name="word",
    display_name="WORD",
    kind="segmentation",
    version=1,
    # By number in the release's dataset.json. eva's class lists the names of 10 to 16 behind that of 1: sorted as text.
    classes=(
        "background",
        "liver",
        "spleen",
        "left kidney",
        "right kidney",
        "stomach",
        "gallbladder",
        "esophagus",
        "pancreas",
        "duodenum",
        "colon",
        "intestine",
        "adrenal glands",
        "rectum",
        "bladder",
        "left femoral head",
        "right femoral head",
    ),
    metric="dice_native",
    source_data=("word", "abdomenatlas"),
    licence="GPL-3.0 by its dataset.json, which adds 'just for research use'; its authors approve each request",
    source="ask for WORD-V0.1.0.zip as https://github.com/HiLab-git/WORD says, and unpack it in word/",
)

_FOLDERS = ("Tr", "Val")


class WORD(EvaTask, SegmentationDataset):
    """The 120 labelled scans: `imagesTr` trains and selects, `imagesVal` is reported.

    The root is WORD-V0.1.0, or the folder that holds it. The labels of `imagesTs` are not public.
    """

    spec = SPEC
    eva_class = "eva.vision.data.datasets.WORD"
    scan_patterns = tuple(f"{top}images{part}/word_*.nii.gz" for top in ("", "*/") for part in _FOLDERS)

    @cached_property
    def _files(self) -> ReleaseFiles:
        return ReleaseFiles(
            self.root, [f"{kind}{part}/word_*.nii*" for kind in ("images", "labels") for part in _FOLDERS]
        )

    @override
    def ct_path(self, case: str) -> Path:
        return self._find("images", case)

    @override
    def label_path(self, case: str) -> Path:
        return self._find("labels", case)

    def _find(self, kind: str, case: str) -> Path:
        parts = _FOLDERS[::-1] if self.split == "test" else _FOLDERS  # where it belongs, if it is not there
        return self._files.find(*nifti(*(f"{kind}{part}/{case}" for part in parts)))
