"""RIDER Lung CT in small: real CT as two series of a study each, as the NBIA Data Retriever writes them.

The names of folders are those of the collection; the retest is the test with other noise, one pixel to the left.
"""

from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset

from tapct.tasks.rider_lung_retest import COLLECTION, FIRST_UPLOAD
from tests.data.slabs import write_dicom

PATIENTS = {
    "RIDER-1129164940": "09-20-2006-1-NA-96508",
    "RIDER-1225316081": "01-30-2007-NA-NA-56138",
    "RIDER-1286684383": "02-27-2007-NA-NA-47413",
    "RIDER-1532432635": "04-12-2007-NA-NA-05084",
}
"""Patient to the folder of the study."""

ORIGINAL = {"SliceThickness": "1.25", "ConvolutionKernel": "LUNG", "Manufacturer": "GE MEDICAL SYSTEMS"}


def folder_of(root: Path, patient: str) -> Path:
    """The folder of a patient's study."""
    return root / COLLECTION / patient / PATIENTS[patient]


def uid_of(patient: str, number: int, root: str = FIRST_UPLOAD) -> str:
    """A SeriesInstanceUID of the first upload."""
    return f"{root}{patient.partition('-')[2]}.{number}"


def write_series(
    study: Path, patient: str, number: int, slab: int, *, seed: int, slices: int = 12, uid: str = "", **header: str
) -> Path:
    """Writes a series, SERIESNUMBER-NA-five digits of its UID, whose noise is that of a seed; returns its folder."""
    uid = uid or uid_of(patient, number)
    folder = study / f"{number}.000000-NA-{uid[-5:].replace('.', '0')}"
    random = np.random.default_rng(seed)

    def edit(dataset: FileDataset, _: int) -> None:
        dataset.PatientID, dataset.SeriesNumber = patient, number
        for name, value in (ORIGINAL | header).items():
            setattr(dataset, name, value)
        stored = np.frombuffer(dataset.PixelData, dtype=np.uint16).reshape(dataset.Rows, dataset.Columns)
        stored = np.roll(stored, seed % 2, axis=1) + random.integers(0, 20, stored.shape)
        dataset.PixelData = stored.clip(0, 4095).astype(np.uint16).tobytes()

    for path in write_dicom(folder, slab, uid, edit=edit)[slices:]:
        path.unlink()
    return folder


def split(path: Path) -> Path:
    """Writes a split of these patients alone: the task's own has all of the collection."""
    rows = [f"{patient}_{one},{patient},test" for patient in PATIENTS for one in ("TEST", "RETEST")]
    path.write_text("\n".join(["case,patient,split", *rows, ""]), encoding="utf-8")
    return path


def write(root: Path) -> Path:
    """Writes the collection: of each patient the test (series 4) and the retest (series 8), and a scout."""
    for place, patient in enumerate(PATIENTS):
        study = folder_of(root, patient)
        write_series(study, patient, 1, place, seed=0, slices=2)
        write_series(study, patient, 4, place, seed=2 * place + 2, AcquisitionDate="20060920", AcquisitionTime="091500")
        write_series(study, patient, 8, place, seed=2 * place + 3, AcquisitionDate="20060920", AcquisitionTime="092800")
    return root
