"""A tiny Task07_Pancreas: gaps in the ids, macOS's shadow files, unlabelled test scans."""

import json
from pathlib import Path

import numpy as np

from tests.data.abdomen import Block, block, save

FIRST = {"pancreas_001": 86, "pancreas_004": 88, "pancreas_012": 90}
"""Case to its first slice."""


def labels(slab: Block) -> np.ndarray:
    """Returns 1 in the pancreas, and a tumour (2) drawn into its end."""
    pancreas = slab.labels({7: 1})
    inside = np.argwhere(pancreas)
    pancreas[tuple(inside[: len(inside) // 3].T)] = 2
    return pancreas


def write(root: Path, suffix: str = "") -> dict[str, Block]:
    """Writes the release's top folder; `suffix` "_0000" names the scans as nnU-Net does."""
    blocks = {case: block(first) for case, first in FIRST.items()}
    for case, slab in blocks.items():
        for kind, name, array in (("images", f"{case}{suffix}", slab.hu), ("labels", case, labels(slab))):
            save(root / f"{kind}Tr" / f"{name}.nii.gz", array, slab.affine, "LAS")
            (root / f"{kind}Tr" / f"._{name}.nii.gz").write_bytes(b"Mac OS X")
    save(root / "imagesTs" / "pancreas_002.nii.gz", slab.hu, slab.affine, "LAS")
    (root / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "pancreas", "2": "cancer"}}))
    return blocks
