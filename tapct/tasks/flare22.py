"""FLARE22: 13 abdominal organs in the labelled part of the challenge (Ma et al., Lancet Digital Health 2024)."""

from functools import cached_property
from pathlib import Path

from typing_extensions import override

from tapct.tasks.eva_task import EvaTask
from tapct.tasks.release_files import ReleaseFiles, nifti
from tapct.tasks.segmentation import SegmentationDataset
from tapct.tasks.spec import TaskSpec

SPEC = TaskSpec(
    name="flare22",
    display_name="FLARE22",
    kind="segmentation",
    version=1,
    # By number in the masks. eva's class lists the names of 10 to 13 behind that of 1: sorted as text.
    classes=(
        "background",
        "liver",
        "right kidney",
        "spleen",
        "pancreas",
        "aorta",
        "inferior vena cava",
        "right adrenal gland",
        "left adrenal gland",
        "gallbladder",
        "esophagus",
        "stomach",
        "duodenum",
        "left kidney",
    ),
    metric="dice_native",
    source_data=("flare2[23]", "abdomenct-1k", "medical segmentation decathlon", "msd task07", "abdomenatlas"),
    licence="CC BY-NC-SA 4.0, as eva has it; its Zenodo page asks to cite the Decathlon and AbdomenCT-1K",
    source="download FLARE22Train.zip from https://zenodo.org/records/7860267 and unpack it in flare22/",
)

_TOPS = ("", "*/")
_SCANS = ("images/FLARE22_Tr_*.nii*", "imagesTr/FLARE22_Tr_*.nii*")
_LABELS = ("labels/FLARE22_Tr_*.nii*", "labelsTr/FLARE22_Tr_*.nii*")


class FLARE22(EvaTask, SegmentationDataset):
    """The 50 labelled scans, all from the Decathlon's pancreas task: FLARE22Train, or the folder that holds it."""

    spec = SPEC
    eva_class = "eva.vision.data.datasets.FLARE22"
    scan_patterns = tuple(top + scans for top in _TOPS for scans in _SCANS)

    @cached_property
    def _files(self) -> ReleaseFiles:
        return ReleaseFiles(self.root, (*_SCANS, *_LABELS), _TOPS)

    @override
    def ct_path(self, case: str) -> Path:
        return self._files.find(*nifti(f"images/{case}_0000", f"imagesTr/{case}_0000"))

    @override
    def label_path(self, case: str) -> Path:
        return self._files.find(*nifti(f"labels/{case}", f"labelsTr/{case}"))
