"""BTCV: 13 abdominal organs (Landman et al., MICCAI Multi-Atlas Labeling Beyond the Cranial Vault, 2015)."""

from functools import cached_property
from pathlib import Path

from typing_extensions import override

from tapct.tasks.eva_task import EvaTask
from tapct.tasks.release_files import ReleaseFiles, nifti
from tapct.tasks.segmentation import SegmentationDataset
from tapct.tasks.spec import TaskSpec

SPEC = TaskSpec(
    name="btcv",
    display_name="BTCV",
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
        "portal vein and splenic vein",
        "pancreas",
        "right adrenal gland",
        "left adrenal gland",
    ),
    metric="dice_native",
    source_data=("btcv(?!-cervix)", "multi-organ abdominal ct", "abdomenatlas"),
    licence="the terms of Synapse syn3193805, which are accepted there on registration",
    source="register at https://www.synapse.org/Synapse:syn3193805 and unpack Abdomen's RawData.zip in btcv/, or take "
    "BTCV.zip of the Hugging Face dataset Luffy503/VoCo_Downstream, as eva does",
)

_TOPS = ("", "*/", "*/*/")
_SCANS = ("imagesTr/img*.nii*", "img/img*.nii*")
_LABELS = ("labelsTr/label*.nii*", "label/label*.nii*")


class BTCV(EvaTask, SegmentationDataset):
    """The 30 labelled scans, 1 to 10 and 21 to 40.

    In img/ and label/, as Synapse has them, or in imagesTr/ and labelsTr/, as eva does.
    """

    spec = SPEC
    eva_class = "eva.vision.data.datasets.BTCV"
    scan_patterns = tuple(top + scans for top in _TOPS for scans in _SCANS)

    @cached_property
    def _files(self) -> ReleaseFiles:
        return ReleaseFiles(self.root, (*_SCANS, *_LABELS), _TOPS)

    @override
    def ct_path(self, case: str) -> Path:
        return self._files.find(*nifti(f"imagesTr/{case}", f"img/{case}"))

    @override
    def label_path(self, case: str) -> Path:
        name = f"label{case.removeprefix('img')}"
        return self._files.find(*nifti(f"labelsTr/{name}", f"label/{name}"))
