"""Writes a tiny RSNA 2023 release: its names and headers, invented labels."""

from pathlib import Path

from tests.data.slabs import rle, write_dicom

RELEASE = "rsna-2023-abdominal-trauma-detection"
HEADER = (
    "patient_id,bowel_healthy,bowel_injury,extravasation_healthy,extravasation_injury,"
    "kidney_healthy,kidney_low,kidney_high,liver_healthy,liver_low,liver_high,"
    "spleen_healthy,spleen_low,spleen_high,any_injury"
)
SERIES_HEADER = "patient_id,series_id,aortic_hu,incomplete_organ"
GRADES = {"healthy": "1,0,0", "low": "0,1,0", "high": "0,0,1"}


def label_row(patient: str, kidney: str = "healthy", liver: str = "healthy", spleen: str = "healthy") -> str:
    """A row with these grades; every patient has an injury of the bowel, which is no label of the task."""
    return f"{patient},0,1,1,0,{GRADES[kidney]},{GRADES[liver]},{GRADES[spleen]},1"


def write_labels(folder: Path, rows: list[str], series: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.csv").write_text("\n".join([HEADER, *rows, ""]))
    (folder / "train_series_meta.csv").write_text("\n".join([SERIES_HEADER, *series, ""]))


def write_release(folder: Path) -> list[str]:
    """Writes five patients, two of them with two series, run-length encoded; the second series is signed.

    Returns:
        The series, "patient/series".
    """
    grades = [
        ("low", "healthy", "healthy"),
        ("healthy", "high", "low"),
        ("healthy",) * 3,
        ("high",) * 3,
        ("healthy",) * 3,
    ]
    patients = [str(900001 + number) for number in range(5)]
    cases = ["900001/1", "900001/2", "900002/3", "900003/4", "900004/5", "900004/7", "900005/8"]
    write_labels(
        folder,
        [label_row(patient, *row) for patient, row in zip(patients, grades, strict=True)],
        [f"{case.replace('/', ',')},{100.5 + i},{int(i == 3)}" for i, case in enumerate(cases)],
    )
    for number, case in enumerate(cases):
        signed = number == 1
        write_dicom(folder / "train_images" / case, number, f"1.2.3.{number}", signed=signed, edit=rle)
    (folder / "image_level_labels.csv").write_text("patient_id,series_id,instance_number,injury_name\n")
    (folder / "segmentations").mkdir()
    return cases
