"""A tiny LiTS17: plain and gzipped, scattered folders, a mask without a place, wrong 1 mm cubes, no lesion."""

from pathlib import Path

import numpy as np

from tests.data.abdomen import Block, block, save

FIRST = {"volume-0": 84, "volume-10": 86, "volume-14": 92, "volume-28": 84, "volume-130": 96}
"""Case to its first slice; volume-28 is excluded, volume-130 has no lesion."""

TEST = ["volume-14"]


def labels(case: str, slab: Block) -> np.ndarray:
    """Returns 1 in the liver and 2 in a lesion drawn inside it."""
    liver = slab.labels({5: 1})
    if case != "volume-130":
        centre = np.argwhere(liver).mean(axis=0)
        far = np.linalg.norm(np.indices(liver.shape) - centre[:, None, None, None], axis=0)
        liver[(far < 4) & (liver == 1)] = 2
    return liver


def write(root: Path) -> dict[str, Block]:
    """Writes the two batches as CodaLab serves them, one pair gzipped; returns the cases."""
    blocks = {case: block(first) for case, first in FIRST.items()}
    for case, slab in blocks.items():
        number = int(case.removeprefix("volume-"))
        folder = root / ("Training_Batch1" if number < 28 else "Training_Batch2")
        end = ".nii.gz" if number == 10 else ".nii"
        affine = np.eye(4) if number == 28 else slab.affine
        axes, placed = ("LPS", 0) if number == 14 else ("RAS", 1)
        save(folder / f"{case}{end}", slab.hu, affine, axes)
        save(folder / f"segmentation-{number}{end}", labels(case, slab), affine, axes, qform=placed, sform=placed)
    save(root / "test-volume-0.nii", blocks["volume-0"].hu, blocks["volume-0"].affine)
    return blocks


def write_decathlon(root: Path) -> dict[str, Block]:
    """Writes the same cases under the names of the Decathlon's Task03_Liver, with macOS's shadow files."""
    blocks = {case: block(FIRST[case]) for case in ("volume-0", "volume-14")}
    for case, slab in blocks.items():
        name = f"{case.replace('volume-', 'liver_')}.nii.gz"
        for kind, array in (("images", slab.hu), ("labels", labels(case, slab))):
            save(root / "Task03_Liver" / f"{kind}Tr" / name, array, slab.affine)
            (root / "Task03_Liver" / f"{kind}Tr" / f"._{name}").write_bytes(b"Mac OS X")
    return blocks
