"""The quickstart in small: eight slices of the abdomen in place of each of its scans, for runs of a second."""

from pathlib import Path

from tests.data.abdomen import block, save


def write(root: Path) -> Path:
    """Writes the two cases under `root/quickstart`, and returns `root`, as DATA_ROOT wants it."""
    for case, first in (("abdomen", 66), ("chest", 78)):
        slab = block(first, 8)
        save(root / "quickstart" / case / "ct.nii.gz", slab.hu, slab.affine)
        save(root / "quickstart" / case / "organs.nii.gz", slab.organs, slab.affine)
    return root
