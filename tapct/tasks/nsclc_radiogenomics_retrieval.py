"""NSCLC Radiogenomics (Bakr et al. 2018): cancers of the lung of the same pathological T stage."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.release_files import ReleaseFiles, nifti
from tapct.tasks.shortcuts import DICOM
from tapct.tasks.spec import TaskSpec
from tapct.tasks.tables import by_name, read_table
from tapct.tasks.tumour_retrieval import TumourRetrieval

CLINICAL_FILE = "NSCLCR01Radiogenomic_DATA_LABELS_2018-05-22_1500-shifted.csv"
CLINICAL_FILES = "NSCLCR01Radiogenomic*DATA*LABELS*.csv"

STAGES = {"Tis-T1": ("Tis", "T1a", "T1b"), "T2": ("T2a", "T2b"), "T3-T4": ("T3", "T4")}
"""Early, intermediate and advanced, as FlexiCT has them: of the single stages, four of seven have fewer than 20
patients. Their letters are those of the seventh edition of TNM."""

RELEASE = "NSCLC Radiogenomics"

TUMOUR = "tumour"
"""Of its NIfTI file, where there is one."""

SPEC = TaskSpec(
    name="nsclc_radiogenomics_retrieval",
    display_name="NSCLC Radiogenomics, T stage",
    kind="retrieval",
    adaptor="cosine:mask",
    version=1,
    classes=tuple(STAGES),
    metric="mAP",
    mask="the tumour of the lung, as the release draws it",
    shortcuts=DICOM,
    release="nsclc_radiogenomics",
    source_data=("nsclc[- _]?radiogenomics",),
    licence="CC BY 3.0",
    source=f"TCIA collection {RELEASE} (doi:10.7937/K9/TCIA.2017.7hs46erv): its DICOM files as the NBIA Data Retriever "
    f"writes them, nsclc_radiogenomics/{RELEASE}/R01-001/<study>/<series>/, of each of the 144 patients with a "
    "segmentation (SEG: '3D Slicer segmentation result' or 'ePAD Generated DSO ...') the study that holds it (22 GB; "
    f"all is 98 GB), or R01-001/CT.nii.gz and R01-001/{TUMOUR}.nii.gz; and the clinical table {CLINICAL_FILE} next to "
    "them",
    citation="""@misc{bakr2017nsclcradiogenomics,
  title={Data for NSCLC Radiogenomics},
  author={Bakr, Shaimaa and Gevaert, Olivier and Echegaray, Sebastian and others},
  year={2017},
  publisher={The Cancer Imaging Archive},
  doi={10.7937/K9/TCIA.2017.7hs46erv}
}""",
)


class NSCLCRadiogenomicsRetrieval(TumourRetrieval):
    """144 patients, each by the CT before the operation that the tumour was drawn on.

    Segmentations that others have added to the collection (AIMI) are passed over. Those of the release hold one
    segment, whose label says nothing: that of R01-001 is "Heart".
    """

    spec = SPEC
    window = "lung"
    folders = "R01-*"
    collection = RELEASE
    drawn_as = "3D Slicer segmentation result|ePAD Generated DSO.*"
    tumour = ()
    tumour_labels = None
    groups = STAGES
    of_table = MappingProxyType(
        {"institute": "Patient affiliation", "sex": "Gender", "age": "Age at Histological Diagnosis"}
    )
    rows = 211
    in_groups = (74, 49, 21)

    @property
    @override
    def label_file(self) -> Path:
        return ReleaseFiles(self.root, (CLINICAL_FILES,), ("", "*/", "*/*/")).only(CLINICAL_FILE)

    @cached_property
    @override
    def table_rows(self) -> Mapping[str, Mapping[str, str]]:
        columns = ("Case ID", "Pathological T stage", *self.of_table.values())
        rows = read_table(self.label_file, columns, what="clinical table")
        return by_name([(row["Case ID"].strip(), row) for row in rows], self.label_file, "patient")

    @override
    def nifti_files(self, case: str) -> tuple[Path, Path]:
        folder = self._folders.find(case)
        scan, drawing = (
            next((path for name in nifti(stem) if (path := folder / name).exists()), folder / f"{stem}.nii.gz")
            for stem in ("CT", TUMOUR)
        )
        return scan, drawing

    @override
    def stage(self, case: str) -> str | None:
        if (stage := self.told(case, "Pathological T stage")) is None:
            return None
        if not any(stage in of for of in STAGES.values()):
            known = ", ".join(one for of in STAGES.values() for one in of)
            raise TaskError(
                f"{self.label_file}, {case}: Pathological T stage is '{stage}', and must be one of {known}. Use the "
                "release's own file"
            )
        return stage
