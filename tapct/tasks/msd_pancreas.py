"""Task07 of the Medical Segmentation Decathlon: pancreas and tumour (Antonelli et al., Nature Communications 2022)."""

from functools import cached_property
from pathlib import Path

from typing_extensions import override

from tapct.tasks.release_files import ReleaseFiles, nifti
from tapct.tasks.segmentation import SegmentationDataset
from tapct.tasks.spec import TaskSpec

SPEC = TaskSpec(
    name="msd_pancreas",
    display_name="MSD Pancreas",
    kind="segmentation",
    version=1,
    classes=("background", "pancreas", "cancer"),
    metric="dice_native",
    source_data=("medical segmentation decathlon", "msd task07", "abdomenct-1k", "flare22", "abdomenatlas"),
    licence="CC BY-SA 4.0",
    source="download Task07_Pancreas.tar (12 GB) from http://medicaldecathlon.com and unpack it in msd_pancreas/",
)


class MSDPancreas(SegmentationDataset):
    """The 281 labelled scans, under the release's names or with nnU-Net's `_0000` behind that of the scan.

    The root is Task07_Pancreas, or the folder that holds it.
    """

    spec = SPEC
    scan_patterns = ("imagesTr/pancreas_*.nii.gz", "*/imagesTr/pancreas_*.nii.gz")

    @cached_property
    def _files(self) -> ReleaseFiles:
        return ReleaseFiles(self.root, ("imagesTr/pancreas_*.nii*", "labelsTr/pancreas_*.nii*"))

    @override
    def ct_path(self, case: str) -> Path:
        return self._files.find(*nifti(f"imagesTr/{case}", f"imagesTr/{case}_0000"))

    @override
    def label_path(self, case: str) -> Path:
        return self._files.find(*nifti(f"labelsTr/{case}"))
