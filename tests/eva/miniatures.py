"""Tiny BTCV and CC-CCII as eva's own classes read them, of slabs of the quickstart's abdomen."""

import csv
import os
from pathlib import Path

import numpy as np

from tests.data.abdomen import block, save

BTCV = {1: 1, 2: 2, 3: 3, 4: 4, 15: 5, 5: 6, 6: 7, 52: 8, 63: 9, 64: 10, 7: 11, 8: 12, 9: 13}
"""Id of TotalSegmentator's task "total" to the label of BTCV."""

GREY_HU = (-1350.0, 150.0)
"""The window in which CC-CCII was exported to 8 bits."""


def write_btcv(root: Path, slices: int = 8) -> Path:
    """Writes the 30 scans that eva's class wants, of three slabs: links hold the others."""
    numbers = [*range(1, 11), *range(21, 41)]
    for place, number in enumerate(numbers):
        names = f"BTCV/imagesTr/img{number:04}.nii.gz", f"BTCV/labelsTr/label{number:04}.nii.gz"
        first = [n.replace(f"{number:04}", f"{numbers[place % 3]:04}") for n in names]
        if place < 3:
            slab = block(70 + 8 * place, slices)
            for name, array in zip(names, (slab.hu, slab.labels(BTCV)), strict=True):
                save(root / name, array, slab.affine, "LAS")
            continue
        for name, source in zip(names, first, strict=True):
            os.link(root / source, root / name)
    return root


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
