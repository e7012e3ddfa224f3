"""Tiny BTCV, FLARE22 and CC-CCII as eva's own classes read them, of slabs of the quickstart's abdomen."""

import csv
import os
from pathlib import Path

import numpy as np

from tests.data.abdomen import block, save

BTCV = {1: 1, 2: 2, 3: 3, 4: 4, 15: 5, 5: 6, 6: 7, 52: 8, 63: 9, 64: 10, 7: 11, 8: 12, 9: 13}
FLARE22 = {5: 1, 15: 2, 6: 3, 19: 4, 3: 5, 2: 6, 1: 7, 7: 8, 52: 9, 63: 10, 8: 11, 9: 12, 4: 13}
"""Id of TotalSegmentator's task "total" to the label in the order of eva's `classes`."""

BTCV_CASES = [(f"imagesTr/img{n:04}", f"labelsTr/label{n:04}") for n in (*range(1, 11), *range(21, 41))]
FLARE22_CASES = [(f"images/FLARE22_Tr_{n:04}_0000", f"labels/FLARE22_Tr_{n:04}") for n in range(1, 51)]

GREY_HU = (-1350.0, 150.0)
"""The window in which CC-CCII was exported to 8 bits."""


def write_btcv(root: Path) -> Path:
    """Writes the 30 scans that eva's class wants; returns the root."""
    return _write(root / "BTCV", BTCV_CASES, BTCV).parent


def write_flare22(root: Path) -> Path:
    """Writes the 50 scans that eva's class wants; returns the root."""
    return _write(root / "FLARE22Train", FLARE22_CASES, FLARE22).parent


def _write(folder: Path, cases: list[tuple[str, str]], labels: dict[int, int]) -> Path:
    """Writes three slabs of eight slices as the first cases; the others are links to them."""
    for place, names in enumerate(cases):
        if place < 3:
            slab = block(70 + 8 * place, 8)
            for name, array in zip(names, (slab.hu, slab.labels(labels)), strict=True):
                save(folder / f"{name}.nii.gz", array, slab.affine, "LAS")
            continue
        for name, source in zip(names, cases[place % 3], strict=True):
            os.link(folder / f"{source}.nii.gz", folder / f"{name}.nii.gz")
    return folder


def write_cc_ccii(root: Path) -> Path:
    """Writes six scans of CC-CCII in 8 bits, as it was published, with lists for training and validation."""
    (root / "CC-CCII_public" / "data").mkdir(parents=True)
    low, high = GREY_HU
    rows: dict[str, list[list[int]]] = {"train": [], "valid": []}
    for number in range(6):
        slab = block(60 + 5 * number, slices=8)
        spl = slab.hu[::-1, ::-1].transpose(2, 1, 0).astype(np.float64)
        grey = np.rint((spl.clip(low, high) - low) * 255 / (high - low)).astype(np.uint8)
        np.save(root / "CC-CCII_public" / "data" / f"p{number}-s{number + 10}.npy", grey)
        rows["train" if number < 4 else "valid"].append([number % 3, number, number + 10])
    for part, of_part in rows.items():
        with (root / f"CC_CCII_fold0_{part}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["target", "patient_id", "scan_id"], *of_part])
    return root
