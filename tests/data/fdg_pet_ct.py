"""Writes a tiny FDG-PET-CT-Lesions release, as converted to NIfTI: its names and header, invented rows."""

from pathlib import Path

import nibabel
import numpy as np

from tests.data.slabs import slab

RELEASE = "FDG-PET-CT-Lesions"
TABLE = "Clinical Metadata FDG PET_CT Lesions.csv"
HEADER = (
    "Series UID,Collection,3rd Party Analysis,Data Description URI,Subject ID,Study UID,Study Description,Study Date,"
    "Series Description,Manufacturer,Modality,SOP Class Name,SOP Class UID,Number of Images,File Size,File Location,"
    "Download Timestamp,diagnosis,age,sex"
)
SERIES = {"9.000000-Segmentation": "SEG", "8.000000-PET": "PT", "7.000000-CT": "CT"}


def study_folder(number: int) -> str:
    """The name of a study's folder, with spaces, two in a row."""
    return f"{number % 12 + 1:02}-{number % 28 + 1:02}-2000-NA-PET-CT Ganzkoerper  primaer mit KM-{10000 + number}"


STUDIES = {
    f"PETCT_zz00000001/{study_folder(0)}": "MELANOMA",
    f"PETCT_zz00000001/{study_folder(1)}": "NEGATIVE",
    f"PETCT_zz00000002/{study_folder(2)}": "NEGATIVE",
    f"PETCT_zz00000002/{study_folder(3)}": "NEGATIVE",
    f"PETCT_zz00000003/{study_folder(4)}": "LYMPHOMA",
    f"PETCT_zz00000004/{study_folder(5)}": "LUNG_CANCER",
    f"PETCT_zz00000005/{study_folder(6)}": "NEGATIVE",
}
"""Case to diagnosis; the first patient has a tumour in one study and none in the next."""


def rows(case: str, diagnosis: str, number: int) -> list[str]:
    """The rows of a study: one a DICOM series."""
    subject, study = case.split("/")
    return [
        f"1.3.6.{number}.{i},{RELEASE},NO,,{subject},1.3.6.{number},PET-CT Ganzkoerper  primaer mit KM,1/2/2000,"
        f"{name[9:]},SIEMENS,{modality},{modality} Storage,1.2.840.{i},12,1.00 MB,"
        f"./{RELEASE}/{subject}/{study}/{name}-{10000 + i},2000-01-01T00:00:00.00,{diagnosis},099Y,O"
        for i, (name, modality) in enumerate(SERIES.items())
    ]


def write_table(folder: Path, studies: dict[str, str]) -> None:
    """Writes the clinical table of case to diagnosis, with Windows line ends as in the release."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [HEADER, *(row for i, (case, diagnosis) in enumerate(studies.items()) for row in rows(case, diagnosis, i))]
    (folder / TABLE).write_bytes("\r\n".join([*lines, ""]).encode())


def write_release(folder: Path) -> dict[str, str]:
    """Writes seven studies of five patients; returns case to diagnosis."""
    write_table(folder, STUDIES)
    for number, case in enumerate(STUDIES):
        ct = slab(number)
        on_pet_grid = ct.affine @ np.diag([1, 2, 2, 1])
        save(folder / case / "CT.nii.gz", ct.hu, ct.affine)
        save(folder / case / "CTres.nii.gz", ct.hu[:, ::2, ::2], on_pet_grid)
        for name in ("SUV", "PET", "SEG"):
            save(folder / case / f"{name}.nii.gz", np.zeros_like(ct.hu[:, ::2, ::2]), on_pet_grid)
    return STUDIES


def save(path: Path, spl: np.ndarray, affine: np.ndarray) -> None:
    """Saves an SPL array as NIfTI, in the axis order (x, y, z) that converters write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(spl.T.astype(np.int16), affine[:, [2, 1, 0, 3]]), path)
