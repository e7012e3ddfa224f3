"""A tiny Merlin Abdominal CT: the layout, names and columns of the release, real slices, invented labels."""

import csv
from collections.abc import Sequence
from pathlib import Path

import openpyxl

from tapct.tasks.merlin_release import FINDINGS, LABELS, METADATA, SHEET
from tests.data.abdomen import block, save

PARTS = {
    **{"AC421360a": "train", "AC421361b": "train", "AC421362c": "train", "AC421363e": "train", "AC42136a1": "val"},
    **{"AC421390e": "val", "AC42139c4": "test", "AC4214054": "test", "AC4214e53": "test"},
}
"""Study to its part."""

UNLABELLED = {"AC423bfa9": "test"}
"""Studies of the spreadsheet that the label file does not have, as 43 of the release's."""

WITHOUT_PART = "AC4245c95"
"""A study with labels that the spreadsheet does not have."""

COLUMNS = (
    *("study id", "Age", "Gender", "Race", "phase", "manufacturer", "manufacturermodelname", "kvp", "slicethickness"),
    "xraytubecurrent",
)
"""Of the metadata, as the documentation spells them; what the column of studies is called there is not known."""

REPORT = 'FINDINGS:\nLiver: "normal", no mass.\n\nIMPRESSION:\n1. Renal cyst, 4 mm.\n'


def labels(study: str) -> list[int]:
    """Invented labels: the first finding is never stated, and of the others one in three is not."""
    number = list(PARTS).index(study)
    return [-1, *((number + k) % 3 - 1 for k in range(1, len(FINDINGS)))]


def metadata(study: str) -> list[object]:
    """Returns a row of the metadata, with one of two scanners; of some, things are not known."""
    number = list(PARTS).index(study)
    scanner = [("GE MEDICAL SYSTEMS", "Discovery CT750 HD", 120.0), ("SIEMENS", "Sensation 64", "")][number % 2]
    return [study, 40 + number, "Female" if number % 3 else "", "Unknown", "portal venous", *scanner, 1.25, 350]


def write(root: Path) -> Path:
    """Writes the folder that the download makes, `merlinabdominalctdataset/`, below the root; returns the root."""
    top = root / "merlinabdominalctdataset"
    for number, study in enumerate([*PARTS, *UNLABELLED]):
        write_scan(top, study, number)
    rows = [[study, *labels(study)] for study in PARTS]
    write_labels(top, [*rows, [WITHOUT_PART, *([0] * len(FINDINGS))]])
    _write(top / METADATA, [COLUMNS, *(metadata(study) for study in PARTS)])
    studies = [[study, REPORT, part, 0.0] for study, part in (PARTS | UNLABELLED).items()]
    write_sheet(top / SHEET, [["study id", "Findings", "Split", "Few Shot"], *studies])
    return root


def write_scan(top: Path, study: str, number: int) -> None:
    """Writes slices of the abdomen as HU with their geometry."""
    slab = block(6 * number, slices=8)
    save(top / "merlin_data" / f"{study}.nii.gz", slab.hu, slab.affine)


def write_labels(top: Path, rows: Sequence[Sequence[object]]) -> None:
    _write(top / LABELS, [["study id", *FINDINGS], *rows])


def write_sheet(path: Path, rows: Sequence[Sequence[object]], **others: Sequence[Sequence[object]]) -> None:
    """Writes a workbook: its first sheet, as pandas calls it, and others by their names."""
    book = openpyxl.Workbook()
    book.active.title = "Sheet1"
    for name, patches in {"Sheet1": rows, **others}.items():
        sheet = book[name] if name in book.sheetnames else book.create_sheet(name)
        for row in patches:
            sheet.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)


def _write(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
