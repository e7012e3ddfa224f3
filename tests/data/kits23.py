"""A tiny KiTS23: slices as the first axis (IPL), sform only, origin 0, ids with a gap, instance masks beside."""

import json
from pathlib import Path

import numpy as np

from tests.data.abdomen import Block, block, save

FIRST = {"case_00000": 84, "case_00005": 88, "case_00299": 90, "case_00400": 86, "case_00588": 92}
"""Case to its first slice; case_00588 is the last of the release."""

TEST = ["case_00005"]


def labels(slab: Block) -> np.ndarray:
    """Returns 1 in the kidneys, and a tumour (2) and a cyst (3) drawn into them."""
    kidneys = slab.labels({2: 1, 3: 1})
    inside = np.argwhere(kidneys)
    kidneys[tuple(inside[: len(inside) // 4].T)] = 2
    kidneys[tuple(inside[-len(inside) // 8 :].T)] = 3
    return kidneys


def write(root: Path, hugging_face: bool = False) -> dict[str, Block]:
    """Writes the repository with its masks, and the scans as downloaded by its script or from Hugging Face."""
    blocks = {case: block(first) for case, first in FIRST.items()}
    for case, slab in blocks.items():
        folder = root / "dataset" / case
        affine = slab.affine.copy()
        affine[:3, 3] = -np.diag(affine)[:3] * (np.array(slab.hu.shape) - 1)  # the first stored voxel is at 0
        scan = root / "images" / f"{case}.nii.gz" if hugging_face else folder / "imaging.nii.gz"
        save(scan, slab.hu, affine, "IPL", qform=0, sform=2)
        for name in ("segmentation", "instances/kidney_instance-1_annotation-1"):
            save(folder / f"{name}.nii.gz", labels(slab), affine, "IPL", qform=0, sform=2)
    records = [{"case_id": case, "malignant": True} for case in blocks]
    (root / "dataset" / "kits23.json").write_text(json.dumps(records))
    return blocks
