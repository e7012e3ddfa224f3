"""A tiny AMOS22: CT and MRI in the same folders, mixed directions, test scans without labels."""

import json
from pathlib import Path

import numpy as np

from tests.data.abdomen import Block, block, save

ORGANS = {1: 1, 2: 2, 3: 3, 4: 4, 15: 5, 5: 6, 6: 7, 52: 8, 63: 9, 7: 10, 8: 11, 9: 12, 19: 13, 21: 14, 22: 15}
"""Ids of TotalSegmentator v2 to those of AMOS22."""

CASES = {"amos_0001": ("Tr", "RAS", 84), "amos_0006": ("Tr", "LPS", 92), "amos_0008": ("Va", "LAS", 90)}
"""Case to part, stored axes, first slice."""


def write(root: Path) -> dict[str, Block]:
    """Writes the release's top folder; returns the CT cases that have labels."""
    blocks = {}
    for case, (part, axes, first) in CASES.items():
        blocks[case] = block(first)
        save(root / f"images{part}" / f"{case}.nii.gz", blocks[case].hu, blocks[case].affine, axes)
        save(root / f"labels{part}" / f"{case}.nii.gz", blocks[case].labels(ORGANS), blocks[case].affine, axes)
    slab = block(84)
    mri = np.clip(slab.hu + 1024, 0, None)  # as MRI, nothing is below zero
    save(root / "imagesTr" / "amos_0507.nii.gz", mri, slab.affine)
    save(root / "labelsTr" / "amos_0507.nii.gz", slab.labels(ORGANS), slab.affine)
    save(root / "imagesTs" / "amos_0002.nii.gz", slab.hu, slab.affine)
    (root / "dataset.json").write_text(json.dumps({"name": "AMOS", "labels": {"0": "background", "8": "arota"}}))
    return blocks
