"""C4KC-KiTS in small: of each patient phases of real CT, a SEG of kidney and mass on one of them, a clinical table.

KiTS, where the same patients are cases, has them as NIfTI. The rows of the tables are invented.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tapct.tasks.c4kc_kits_retrieval import CLINICAL_FILE, RELEASE
from tests.data.abdomen import save
from tests.data.slabs import slab
from tests.data.tcia import box, write_ct, write_segmentation

HEADER = "patient_id,age_at_nephrectomy,gender,body_mass_index,tumor_histologic_subtype,tumor_isup_grade"


@dataclass(frozen=True)
class Patient:
    """A patient, and what stands in the tables."""

    number: int
    grade: str = "2"
    subtype: str = "clear_cell_rcc"
    age: str = "61"
    sex: str = "male"
    maker: str = "SIEMENS"

    @property
    def name(self) -> str:
        return f"KiTS-{self.number:05d}"

    @property
    def row(self) -> str:
        return ",".join([self.name, self.age, self.sex, "27.1", self.subtype, self.grade])


COHORT = (
    Patient(0, "3", age="49"),
    Patient(4, "2", maker="GE MEDICAL SYSTEMS"),
    Patient(5, "1", sex="female"),
    Patient(6, "4", maker="GE MEDICAL SYSTEMS"),
    Patient(7, "2.0", age="73", sex="female"),
)
"""Two of a high grade, three of a low one."""


def write_clinical(root: Path, patients: Sequence[Patient] = COHORT) -> Path:
    """Writes the clinical table."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / CLINICAL_FILE
    path.write_text("\n".join([HEADER, *(patient.row for patient in patients), ""]), encoding="utf-8")
    return path


def write(root: Path, patients: Sequence[Patient] = COHORT) -> None:
    """Writes the release: the clinical table, and for each patient a study of two phases and what was drawn."""
    write_clinical(root, patients)
    for patient in patients:
        number, study = patient.number % 5, study_of(root, patient)
        write_ct(study, patient.name, "noncontrast", number, first=2, slices=6, Manufacturer=patient.maker)
        series = write_ct(study, patient.name, "arterial", number, first=7, Manufacturer=patient.maker)
        segments = {"Kidney": ~box(number), "Mass": box(number)}
        write_segmentation(study, patient.name, "Segmentation", number, series, segments)


def study_of(root: Path, patient: Patient) -> Path:
    """Returns the folder of a patient's study."""
    return root / "manifest-1" / RELEASE / patient.name / f"06-29-2003-NA-threephaseabdomen-{patient.number:05d}"


def write_kits(root: Path, patients: Sequence[Patient] = COHORT, name: str = "kits.json") -> None:
    """Writes the same as a repository of KiTS has it, slices as the first axis; in kits23.json grades are texts."""
    records = []
    for patient in patients:
        ct, case = slab(patient.number % 5), f"case_{patient.number:05d}"
        xyz = ct.affine @ np.eye(4)[[2, 1, 0, 3]]
        labels = np.where(box(patient.number % 5), 2, 1).astype(np.uint8)
        for file, voxels in (("imaging", ct.hu.astype(np.int16)), ("segmentation", labels)):
            save(root / "data" / case / f"{file}.nii.gz", voxels.transpose(2, 1, 0), xyz, "IPL", qform=0, sform=2)
        grade = patient.grade.removesuffix(".0")
        known = {"kits.json": int(grade) if grade else None, "kits23.json": grade or "na"}[name]
        records.append(
            {
                "case_id": case,
                "age_at_nephrectomy": int(patient.age),
                "gender": patient.sex,
                "tumor_histologic_subtype": patient.subtype,
                "tumor_isup_grade": known,
            }
        )
    records.append({**records[0], "case_id": "case_00299", "gender": "transgender_male_to_female"})
    (root / "data" / name).write_text(json.dumps(records), encoding="utf-8")
