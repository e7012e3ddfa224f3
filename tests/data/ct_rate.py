"""A tiny CT-RATE: the layout, names and headers of the release, real slices, invented labels and reports."""

import csv
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from tapct.tasks.ct_rate_release import FINDINGS, METADATA, VolumeName
from tapct.tasks.ct_rate_scans import side
from tests.data.abdomen import block, save

HEADS = ("valid_2_a_1", "valid_2_b_1")
"""Of scan b of patient valid_2 the second reconstruction is a chest."""

VALID = ("valid_1_a_1", "valid_1_a_2", *HEADS, "valid_2_b_2", "valid_3_a_1", "valid_3_b_1")

MORE = ("valid_4_a_1", "valid_4_a_2", "valid_4_a_3", "valid_5_a_2", "valid_5_a_3", "valid_5_b_1", "valid_5_b_2")
"""Of patients with pairs: the first two of three reconstructions, and of valid_5_a those without a first one."""

REPORTED = {"valid_1_a": "valid_1", "valid_2_b": "valid_2", "valid_3_a": "valid_3", "valid_3_b": "valid_3"}
"""Case to patient."""

COLUMNS = (
    *("VolumeName", "Manufacturer", "SeriesDescription", "ManufacturerModelName", "PatientSex", "PatientAge"),
    *("ConvolutionKernel", "ImagePositionPatient", "Rows", "Columns", "XYSpacing", "RescaleIntercept", "RescaleSlope"),
    *("NumberofSlices", "ZSpacing", "StudyDate"),
)
"""Some of the 44 columns of the metadata, as the release spells them."""

SCANNERS = (
    ("Philips", "HRCT", "iCT 256", "YA"),
    ("SIEMENS", "Thorax 1.5 Bl64", "SOMATOM go.Top", "Bl64f"),
    ("Siemens Healthineers", "Thorax", "SOMATOM go.Top", "Br40f"),
    ("PNMS", "", "MX 16-slice", "D"),
)
"""Manufacturer, series, model and kernel of volumes, in turn."""


def train() -> tuple[str, ...]:
    """Volumes of six training patients, the last two of which select; the first has two scans, one of two volumes."""
    sides = {n: side(VolumeName.parse(f"train_{n}_a_1", "")) for n in range(1, 200)}
    trains, selects = ([n for n, of in sides.items() if of == one] for one in ("train", "val"))
    first, *others = [*trains[:4], *selects[:2]]
    own = (f"train_{first}_a_1", f"train_{first}_a_2", f"train_{first}_b_1")
    return (*own, *(f"train_{n}_a_1" for n in others))


def findings(volume: str) -> list[int]:
    """Invented labels, the same of each reconstruction of a scan; of every label both answers are there."""
    scan = VolumeName.parse(volume, "").scan
    number = sum(map(ord, scan))
    return [(number + k) % 3 % 2 for k in range(len(FINDINGS))]


def metadata(volume: str) -> list[object]:
    """Returns a row of the metadata; of patients whose number is a multiple of three, sex and age are not known."""
    name = VolumeName.parse(volume, "")
    number = int(name.patient.split("_")[1])
    manufacturer, series, model, kernel = SCANNERS[(number + name.reconstruction) % len(SCANNERS)]
    whom = ["", ""] if number % 3 == 0 else ["MF"[number % 2], f"{30 + number % 60:03d}Y"]
    geometry = ["[-166, 9, 56.3]", 512, 512, "[0.7, 0.7]", -1024, 1, 251, 1.5, 20210427]
    return [f"{volume}.nii.gz", manufacturer, series, model, *whom, kernel, *geometry]


def report(volume: str) -> tuple[str, str]:
    """An invented report that says its findings: what was seen, and the impression; quotes, commas and line ends."""
    there = dict(zip(FINDINGS, findings(volume), strict=True))
    seen = [f"{name}, {'is' if found else 'not'} seen" for name, found in there.items()]
    lines = "\n".join(f"{line}." for line in seen)
    size_mm = sum(map(ord, VolumeName.parse(volume, "").scan)) % 97  # no two scans have one report
    impression = "; ".join(name for name, found in there.items() if found)
    return f'Trachea is "open", {size_mm} mm.\n\n{lines}\n', f'{impression}\n""'


def text(volume: str) -> str:
    """The report as tasks give it: on one line, findings before impression."""
    return " ".join(" ".join(report(volume)).split())


def write(root: Path, *, volumes: bool = True, more: Sequence[str] = ()) -> Path:
    """Writes the second upload with its tables under `dataset/`, as the data page has them; returns the root.

    Args:
        root: Folder of the release.
        volumes: Whether scans are written, and not tables alone.
        more: Further volumes of the part `valid`.
    """
    top, valid = root / "dataset", (*VALID, *more)
    for number, volume in enumerate((*train(), *valid) if volumes else ()):
        write_volume(top, volume, number % 17)
    for part, names, reports in (("train", train(), "train_reports"), ("valid", valid, "validation_reports")):
        rows = [[f"{volume}.nii.gz", *findings(volume)] for volume in names]
        _write(top / f"multi_abnormality_labels/{part}_predicted_labels.csv", ["VolumeName", *FINDINGS], rows)
        heads = "".join(f"{head}.nii.gz\n" for head in HEADS if head.startswith(part))
        (top / "metadata").mkdir(exist_ok=True)
        (top / f"metadata/no_chest_{part}.txt").write_text(heads)
        _write(top / f"metadata/{METADATA[part]}", list(COLUMNS), [metadata(volume) for volume in names])
        header = ["VolumeName", "ClinicalInformation_EN", "Technique_EN", "Findings_EN", "Impressions_EN"]
        _write(
            top / f"radiology_text_reports/{reports}.csv",
            header,
            [[f"{volume}.nii.gz", "", 'Axial, "1.5" mm', *report(volume)] for volume in names],
        )
    return root


def path_of(top: Path, volume: str, upload: str = "_fixed") -> Path:
    """The file of a volume, of the second upload or (with "") of the first."""
    name = VolumeName.parse(volume, "")
    return top / f"{name.part}{upload}" / name.patient / name.scan / f"{volume}.nii.gz"


def write_volume(top: Path, volume: str, number: int) -> None:
    """Writes slices of the abdomen as HU with their geometry."""
    slab = block(6 * number, slices=8)
    save(path_of(top, volume), slab.hu, slab.affine)


def as_first_upload(path: Path, into: Path) -> None:
    """Writes a volume as the first upload has it: voxels as the scanner stored them, no spacing, no rescale."""
    stored = np.asanyarray(nib.load(path).dataobj).astype(np.int16) + 1024
    into.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(stored, np.eye(4)), into)


def _write(path: Path, header: list[str], rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
