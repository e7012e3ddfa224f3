"""A block of the quickstart's abdomen as plain arrays, and how releases store such: for the generators here."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from tests.conftest import QUICKSTART

BLOCK = (slice(20, 100), slice(14, 94))  # x, y: the trunk


@dataclass(frozen=True)
class Block:
    """HU int16 and organs uint8 (ids of TotalSegmentator v2's task "total"), (x, y, z) in RAS+ order, 3 mm cubes."""

    hu: np.ndarray
    organs: np.ndarray
    affine: np.ndarray

    def labels(self, ids: dict[int, int]) -> np.ndarray:
        """Returns other labels for the organs: id in `organs` to label."""
        lookup = np.zeros(256, dtype=np.uint8)
        lookup[list(ids)] = list(ids.values())
        return lookup[self.organs]


def block(first: int, slices: int = 12) -> Block:
    """Returns `slices` axial slices from `first` upwards; the scan has 112, the liver is above 70."""
    where = (*BLOCK, slice(first, first + slices))
    whole = _abdomen()
    affine = whole.affine.copy()
    affine[:3, 3] = affine[:3, :3] @ [s.start for s in where] + affine[:3, 3]
    return Block(whole.hu[where].copy(), whole.organs[where].copy(), affine)


@cache
def _abdomen() -> Block:
    """The whole scan; to read it takes longer than most that is done with a block of it."""
    images = [nib.as_closest_canonical(nib.load(QUICKSTART / "abdomen" / f"{n}.nii.gz")) for n in ("ct", "organs")]
    hu, organs = (np.asanyarray(image.dataobj) for image in images)
    return Block(np.rint(hu).astype(np.int16), organs.astype(np.uint8), images[0].affine)


def spl(array: np.ndarray) -> np.ndarray:
    """Returns what a reader should make of an (x, y, z) array in RAS+ order: (z, y, x), to the back and the left."""
    return array[::-1, ::-1].transpose(2, 1, 0)


def save(path: Path, array: np.ndarray, affine: np.ndarray, axes: str = "RAS", qform: int = 1, sform: int = 1) -> None:
    """Writes an (x, y, z) array in RAS+ order as NIfTI with its axes stored in another order, such as "IPL"."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(axes))
    stored = nib.orientations.apply_orientation(array, turn)
    image = nib.Nifti1Image(stored, affine @ inv_ornt_aff(turn, array.shape))
    image.set_qform(image.affine, qform)
    image.set_sform(image.affine, sform)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def write_slabs(root: Path, splits: Mapping[str, str], step: int = 10) -> Path:
    """Writes slabs of the abdomen as cases of the task "quickstart", and their split.csv; returns the root.

    Args:
        root: The data root.
        splits: Name of each case, to its split.
        step: Slices from one to the next; there are 72.
    """
    for number, case in enumerate(splits):
        slab = block(40 + step * number, slices=8)
        save(root / "quickstart" / case / "ct.nii.gz", slab.hu, slab.affine)
        save(root / "quickstart" / case / "organs.nii.gz", slab.organs, slab.affine)
    rows = [f"{case},p{case},{split}" for case, split in splits.items()]
    (root / "split.csv").write_text("\n".join(["case,patient,split", *rows]))
    return root
