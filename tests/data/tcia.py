"""Studies of TCIA collections in small: series of real CT as the NBIA Data Retriever writes them, and drawings."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset

from tests.data.drawn import write_seg
from tests.data.slabs import SLICES, slab, write_dicom


def write_ct(
    study: Path, patient: str, title: str, number: int, *, slices: int = SLICES, first: int = 1, **header: str
) -> str:
    """Writes the lowest slices of a slab as a series.

    Args:
        study: Folder of the study.
        patient: PatientID.
        title: SeriesDescription.
        number: Of the slab.
        slices: How many; of fewer than five, a localizer.
        first: SeriesNumber.
        header: Further attributes of every slice.

    Returns:
        The SeriesInstanceUID.
    """
    uid = f"1.2.3.{int(''.join(filter(str.isdigit, patient)))}.{first}"

    def edit(dataset: FileDataset, _: int) -> None:
        dataset.PatientID, dataset.SeriesDescription, dataset.SeriesNumber = patient, title, first
        for name, value in header.items():
            setattr(dataset, name, value)

    for path in write_dicom(study / f"{first}.000000-{title}-{number:05d}", number, uid, edit=edit)[slices:]:
        path.unlink()
    return uid


def write_segmentation(
    study: Path, patient: str, title: str, number: int, series: str, segments: Mapping[str, np.ndarray], edit=None
) -> Path:
    """Writes (12, 51, 61) booleans of each segment on a slab's series."""

    def edited(dataset: FileDataset) -> None:
        dataset.PatientID, dataset.SeriesDescription, dataset.SeriesInstanceUID = patient, title, f"{series}.300"
        if edit is not None:
            edit(dataset)

    path = study / f"300.000000-{title}-{number:05d}" / "1-1.dcm"
    return write_seg(path, segments, places(number), series, pixel_spacing=(6, 6), edit=edited)


def places(number: int) -> np.ndarray:
    """(12, 3) ImagePositionPatient of a slab's slices, from the bottom of the patient up, in mm, LPS."""
    first = slab(number).affine[:3, 3] * [-1, -1, 1]
    return first + np.arange(SLICES)[:, None] * [0, 0, 3.0]


def box(number: int) -> np.ndarray:
    """(12, 51, 61) booleans of a tumour, the larger the higher its number."""
    drawn = np.zeros(slab(number).hu.shape, dtype=bool)
    drawn[4:8, 22 : 27 + number, 25:31] = True
    return drawn
