"""A tiny RAD-ChestCT: the names, columns and arrays of the release, real slices, invented labels."""

import csv
from pathlib import Path

import numpy as np

from tapct.tasks.rad_chest_ct import DISPUTED, PATIENTS, SHARED, TABLES
from tests.data.abdomen import Block, block

_OF_FINDINGS = (*SHARED.values(), *(tokens for tables in DISPUTED.values() for tokens in tables))
TOKENS = tuple(
    dict.fromkeys(("air_trapping", "calcification", *(token for tokens in _OF_FINDINGS for token in tokens)))
)
"""Findings of the tables: some that are not shared as well."""

LOCATIONS = ("lung", "other_location")

SCANS = {
    **{"trn00001": "imgtrain", "trn00002": "imgtrain", "trn00003": "imgtrain", "trn00004": "imgtrain"},
    **{"val00001": "imgvalid", "val00002": "imgvalid", "tst00001": "imgtest", "tst00002": "imgtest"},
    "tst00003": "imgtest",
}
WITHOUT_SCAN = "tst00003"
NOT_RELEASED = ("trn00005", "tst00004")
"""Scans of the data set, whose table of patients lists all of it, that are not in the release."""


def value(scan: str, token: str, location: str) -> int:
    """An invented label: of every other scan, at the second location alone."""
    return int((int(scan[-1]) + TOKENS.index(token)) % 2 and location == LOCATIONS[1])


def slab(scan: str) -> Block:
    """The slices of a scan."""
    return block(8 * list(SCANS).index(scan), slices=8)


def write(root: Path) -> Path:
    """Writes scans and tables; returns the root."""
    root.mkdir(parents=True, exist_ok=True)
    for scan in SCANS:
        if scan != WITHOUT_SCAN:
            hu = np.clip(slab(scan).hu, -1000, 1000)
            np.savez_compressed(root / f"{scan}.npz", ct=hu[::-1, ::-1, ::-1].transpose(2, 1, 0))
    columns = [f"{token}*{location}" for token in TOKENS for location in LOCATIONS]
    for table in TABLES:
        scans = [scan for scan, part in SCANS.items() if table.startswith(part)]
        rows = [[scan, *(value(scan, *column.split("*")) for column in columns)] for scan in scans]
        _write(root / table, ["NoteAcc_DEID", *columns], rows)
    rows = [[f"p{scan}", scan, f"{scan}.npz", 0.8] for scan in (*SCANS, *NOT_RELEASED)]
    _write(root / PATIENTS, ["MRN_DEID", "NoteAcc_DEID", "VolumeAcc_DEID", "final_spacing"], rows)
    return root


def _write(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
