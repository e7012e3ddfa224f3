"""Writes a tiny RSNA 2022 release: its names and header, invented labels."""

from pathlib import Path

from pydicom.dataset import FileDataset

from tests.data.slabs import to_lossless_jpeg, write_dicom

RELEASE = "rsna-2022-cervical-spine-fracture-detection"
MAKERS = ("GE MEDICAL SYSTEMS", "SIEMENS")
"""Of studies with an even number, and with an odd one."""
HEADER = "StudyInstanceUID,patient_overall,C1,C2,C3,C4,C5,C6,C7"
UID = "1.2.826.0.1.3680043"


def label_rows(studies: int) -> list[str]:
    """Invented rows: half with a fracture, of a vertebra that goes round; the two wrong studies last."""
    rows = []
    for number in range(studies):
        level = number // 2 % 7 if number % 2 else None
        rows.append(",".join([f"{UID}.{900000 + number}", str(number % 2), *(str(int(i == level)) for i in range(7))]))
    return [*rows, f"{UID}.20574,1,0,0,0,0,1,0,0", f"{UID}.29952,1,0,0,0,0,0,0,1"]


def write_labels(folder: Path, studies: int = 8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "train.csv"
    path.write_text("\n".join([HEADER, *label_rows(studies), ""]))
    return path


def write_release(folder: Path) -> list[str]:
    """Writes eight studies and a wrong one; the second has its files numbered from below, the third is JPEG.

    Returns:
        The eight studies.
    """
    write_labels(folder)
    studies = [f"{UID}.{900000 + number}" for number in range(8)]
    for number, study in enumerate([*studies, f"{UID}.20574"]):

        def said(header: FileDataset, _: int, maker: str = MAKERS[number % 2]) -> None:
            header.Manufacturer, header.KVP = maker, "120"

        place = folder / "train_images" / study
        files = write_dicom(place, number, f"{study}.1", first_is_top=number != 1, edit=said)
        if number == 2:
            to_lossless_jpeg(files)
    for name in ("train_bounding_boxes.csv", "test.csv", "sample_submission.csv"):
        (folder / name).write_text("StudyInstanceUID\n")
    (folder / "segmentations").mkdir()
    return studies
