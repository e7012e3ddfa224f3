"""LUNG1 in small: slabs of real CT in TCIA's folders, an RTSTRUCT and a SEG round a made-up tumour, a clinical table.

The rows of the table are invented: the release's may not be passed on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tapct.tasks.lung1_survival import CLINICAL_FILE, RELEASE
from tests.data.drawn import write_rtstruct, write_seg
from tests.data.slabs import SLICES, slab, write_dicom

HEADER = (
    "PatientID,age,clinical.T.Stage,Clinical.N.Stage,Clinical.M.Stage,Overall.Stage,Histology,gender,Survival.time,"
    "deadstatus.event"
)
CENTRE, RADIUS = (6, 25.3, 30.4), 5.0
"""Of the tumour, in voxels of the slab (slice from the bottom, row, column), and in its slice the radius."""


@dataclass(frozen=True)
class Patient:
    """A patient, and what stands in the clinical table."""

    number: int
    time: str = "400"
    event: str = "1"
    age: str = "65.5"
    stage: str = "II"
    histology: str = "large cell"
    t_stage: str = "2"
    sex: str = "male"
    drawn: Sequence[str] = ("RTSTRUCT", "SEG")
    tumour: str = "GTV-1"
    radius: float = RADIUS

    @property
    def name(self) -> str:
        return f"LUNG1-{self.number:03d}"

    @property
    def row(self) -> str:
        values = (self.age, self.t_stage, "0", "0", self.stage, self.histology, self.sex, self.time, self.event)
        return ",".join([self.name, *values])


def cohort(patients: int = 20, seed: int = 0) -> list[Patient]:
    """Patients who die the sooner the older they are; some are lost before, an age and a histology are missing."""
    random = np.random.default_rng(seed)
    ages = random.uniform(45, 85, patients)
    died = 600 * random.exponential(size=patients) * np.exp(-(ages - 65) / 8)
    lost = random.uniform(200, 3000, patients)
    found = [
        Patient(
            number=number + 1,
            time=str(int(np.ceil(min(died[number], lost[number]) / 10) * 10)),
            event=str(int(died[number] <= lost[number])),
            age=f"{ages[number]:.4f}",
            stage=("I", "II", "IIIa", "IIIb")[number % 4],
            sex=("male", "female")[number % 3 == 0],
            histology=("large cell", "nos", "Adenocarcinoma")[number // 2 % 3],
            radius=RADIUS - 0.2 * (number % 9),
        )
        for number in range(patients)
    ]
    found[1] = replace(found[1], age="NA")
    found[2] = replace(found[2], histology="NA", t_stage="5")
    return found


def write_clinical(root: Path, patients: Sequence[Patient]) -> Path:
    """Writes the clinical table."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / CLINICAL_FILE
    path.write_text("\n".join([HEADER, *(patient.row for patient in patients), ""]), encoding="utf-8")
    return path


def write(root: Path, patients: Sequence[Patient]) -> None:
    """Writes the release: the clinical table, and for each patient a study with a CT, a localizer and what is drawn."""
    write_clinical(root, patients)
    for patient in patients:
        study = root / RELEASE / patient.name / f"01-01-2014-NA-StudyID-{patient.number:05d}"
        series = f"1.2.3.{patient.number}"
        ct = study / f"0.000000-NA-{patient.number:05d}"
        write_dicom(ct, patient.number % 5, series)
        localizer = write_dicom(study / f"3.000000-NA-{patient.number:05d}", patient.number % 5, f"{series}.9")
        for path in localizer[1:]:
            path.unlink()
        if "RTSTRUCT" in patient.drawn:
            rings = {"Lung-Left": [], patient.tumour: contours(patient)}
            write_rtstruct(study / f"0.000000-NA-{patient.number + 500:05d}" / "1-1.dcm", rings, series)
        if "SEG" in patient.drawn:
            path = study / f"300.000000-Segmentation-{patient.number:05d}" / "1-1.dcm"
            drawn = {"Lung-Left": np.ones(voxels(patient).shape, dtype=bool), patient.tumour: voxels(patient)}
            write_seg(path, drawn, places(patient), series, pixel_spacing=(6, 6))


def places(patient: Patient) -> np.ndarray:
    """(12, 3) ImagePositionPatient of the slices, from the bottom of the patient up, in mm, LPS."""
    first = slab(patient.number % 5).affine[:3, 3] * [-1, -1, 1]
    return first + np.arange(SLICES)[:, None] * [0, 0, 3.0]


def _radius(patient: Patient, number: int) -> float:
    return patient.radius * np.sqrt(max(0.0, 1 - ((number - CENTRE[0]) / 3.2) ** 2))


def contours(patient: Patient) -> list[np.ndarray]:
    """(60, 3) corners of a ball's ring in every slice that it reaches, in mm, LPS."""
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False) + 0.01
    found = []
    for number, place in enumerate(places(patient)):
        if (radius := _radius(patient, number)) > 0.5:
            rows, columns = CENTRE[1] + radius * np.sin(angle), CENTRE[2] + radius * np.cos(angle)
            found.append(place + np.stack([columns, rows, np.zeros(60)], axis=1) * [6, 6, 0])
    return found


def voxels(patient: Patient) -> np.ndarray:
    """(12, 51, 61) booleans of the ball."""
    rows, columns = np.indices(slab(0).hu.shape[1:])
    apart = np.hypot(rows - CENTRE[1], columns - CENTRE[2])
    radii = [_radius(patient, number) for number in range(SLICES)]
    return np.stack([(apart <= radius) & (radius > 0.5) for radius in radii])
