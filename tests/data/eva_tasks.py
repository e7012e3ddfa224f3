"""Tiny BTCV, FLARE22, WORD and CC-CCII in the layouts that eva's classes read, of slabs of the quickstart's abdomen."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.data.abdomen import Block, block, save

BTCV = {1: 1, 2: 2, 3: 3, 4: 4, 15: 5, 5: 6, 6: 7, 52: 8, 63: 9, 64: 10, 7: 11, 8: 12, 9: 13}
FLARE22 = {5: 1, 2: 2, 1: 3, 7: 4, 52: 5, 63: 6, 8: 7, 9: 8, 4: 9, 15: 10, 6: 11, 19: 12, 3: 13}
WORD = {5: 1, 1: 2, 3: 3, 2: 4, 6: 5, 4: 6, 15: 7, 7: 8, 19: 9, 20: 10, 18: 11, 8: 12, 9: 12, 21: 14, 75: 15, 76: 16}
"""Id of TotalSegmentator's task "total" to the number in the release's masks, as the release's own lists have it."""

LABELS = {"btcv": BTCV, "flare22": FLARE22, "word": WORD}

CASES = {
    "btcv": {"img0001": 84, "img0004": 86, "img0035": 88},
    "flare22": {"FLARE22_Tr_0012": 84, "FLARE22_Tr_0013": 86, "FLARE22_Tr_0001": 88},
    "word": {"word_0002": 84, "word_0003": 86, "word_0001": 88},
}
"""By task, case to its first slice: the first trains and the last is reported in eva's lists."""


def paths(task: str, case: str) -> tuple[str, str]:
    """Returns scan and mask of a case, relative to what the release's archive makes."""
    match task:
        case "btcv":
            return f"BTCV/imagesTr/{case}.nii.gz", f"BTCV/labelsTr/{case.replace('img', 'label')}.nii.gz"
        case "flare22":
            return f"FLARE22Train/images/{case}_0000.nii.gz", f"FLARE22Train/labels/{case}.nii.gz"
        case "word":
            part = "Val" if case == "word_0001" else "Tr"
            return f"WORD-V0.1.0/images{part}/{case}.nii.gz", f"WORD-V0.1.0/labels{part}/{case}.nii.gz"
    raise ValueError(task)


def write(root: Path, task: str, axes: str = "LAS") -> dict[str, Block]:
    """Writes the three cases of a segmentation task."""
    blocks = {case: block(first) for case, first in CASES[task].items()}
    for case, slab in blocks.items():
        for name, array in zip(paths(task, case), (slab.hu, slab.labels(LABELS[task])), strict=True):
            save(root / name, array, slab.affine, axes)
    return blocks


# -- CC-CCII -----------------------------------------------------------------------------------------------------------

SCANS = {
    ("train", "2668", "3259"): "CP",
    ("train", "2668", "3260"): "CP",
    ("train", "364", "1880"): "NCP",
    ("train", "1680", "840"): "Normal",
    ("valid", "11", "3161"): "CP",
    ("valid", "101", "1340"): "NCP",
    ("valid", "753", "188"): "Normal",
}
"""List of the release, patient and scan, to label."""

TARGETS = {"Normal": "0", "CP": "1", "NCP": "2"}
HEADER = ("zip_file", "target", "label", "patient_id", "scan_id", "n_slice", "scan_count", "all_scan_ids")


def grey(slab: Block, low: float = -1350, high: float = 150) -> np.ndarray:
    """Returns a slab as a hospital exports it: 8 bits, (slice, row, column) as on the screen, in the lung window."""
    stack = slab.hu[::-1, ::-1].transpose(2, 1, 0).astype(np.float64)
    return np.rint((stack.clip(low, high) - low) * 255 / (high - low)).astype(np.uint8)


def write_cc_ccii(root: Path, scans: Mapping[tuple[str, str, str], str] = SCANS) -> dict[str, np.ndarray]:
    """Writes lists and arrays as eva's class reads them; returns case to its grey values."""
    stacks = {}
    for number, (_, patient, scan) in enumerate(scans):
        case = f"p{patient}-s{scan}"
        stacks[case] = grey(block(60 + 4 * number, slices=8 + number % 3))
        path = root / "CC-CCII_public" / "data" / f"{case}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, stacks[case])
    for part in ("train", "valid"):
        with (root / f"CC_CCII_fold0_{part}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            for (of, patient, scan), label in scans.items():
                if of == part:
                    writer.writerow([f"{label}-1.zip", TARGETS[label], label, patient, scan, 52, 1, f"[{scan}]"])
    return stacks
