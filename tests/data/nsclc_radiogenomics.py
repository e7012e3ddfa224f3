"""NSCLC Radiogenomics in small: studies of real CT with series next to the one that was drawn on, and a clinical table.

Its segmentations are of one segment with a label that says nothing, and others have added theirs. Invented rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tapct.tasks.nsclc_radiogenomics_retrieval import CLINICAL_FILE, RELEASE
from tests.data.drawn import share_the_segment
from tests.data.tcia import box, write_ct, write_segmentation

HEADER = (
    "Case ID,Patient affiliation,Age at Histological Diagnosis,Weight (lbs),Gender,%GG,Histology ,Pathological T stage"
)


@dataclass(frozen=True)
class Patient:
    """A patient, and what stands in the clinical table."""

    number: int
    stage: str = "T1a"
    sex: str = "Male"
    age: str = "66"
    where: str = "Stanford"
    drawn_as: str = "3D Slicer segmentation result"
    affix: str = "R01"

    @property
    def name(self) -> str:
        return f"{self.affix}-{self.number:03d}"

    @property
    def row(self) -> str:
        return ",".join(
            [self.name, self.where, self.age, "Not Collected", self.sex, ">0 - 25%", "Adenocarcinoma", self.stage]
        )


COHORT = (
    Patient(1, "T1a"),
    Patient(2, "Tis", sex="Female", where="VA"),
    Patient(3, "T2a", drawn_as="ePAD Generated DSO Nov-14-1739"),
    Patient(4, "T2b", age="71"),
    Patient(5, "T3", sex="Female"),
    Patient(6, "T4", where="VA"),
    Patient(7, "Not Collected"),
)
"""Two of each group, and one of which the stage is not known."""


def write_clinical(root: Path, patients: Sequence[Patient] = COHORT) -> Path:
    """Writes the clinical table."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / CLINICAL_FILE
    path.write_text("\n".join([HEADER, *(patient.row for patient in patients), ""]), encoding="utf-8")
    return path


def write(root: Path, patients: Sequence[Patient] = COHORT) -> None:
    """Writes the release: the clinical table, and of each patient a CT that was drawn on, one of PET/CT, a topogram."""
    write_clinical(root, patients)
    for patient in patients:
        number, folder = patient.number % 5, root / RELEASE / patient.name
        study = study_of(root, patient)
        write_ct(study, patient.name, "Topogram", number, first=1, slices=1)
        series = write_ct(study, patient.name, "THIN LUNG WINDOW", number, first=3, Manufacturer="GE MEDICAL SYSTEMS")
        drawn = {"Neoplasm": box(number)}
        edit = share_the_segment if patient.drawn_as.startswith("3D") else None
        write_segmentation(study, patient.name, patient.drawn_as, number, series, drawn, edit)
        added = {"Lung": ~box(number), "Nodule": box(number)}
        write_segmentation(study, patient.name, "AIMI lung and nodule AI segmentation", number, series, added)
        write_ct(folder / "10-17-1990-NA-PETCT Lung Cancer", patient.name, "CT Images", number, first=5, slices=8)


def study_of(root: Path, patient: Patient) -> Path:
    """Returns the folder of the study that holds the tumour."""
    return root / RELEASE / patient.name / "09-06-1990-NA-CT CHEST"
