"""A task of one case, whose scan is a MetaImage header next to a file of voxels with a name of its own."""

import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from tapct.tasks.quickstart import Quickstart
from tapct.volumes import read_ct
from tests.data.abdomen import block, save


class Reading(Quickstart):
    """The quickstart's task on it."""

    def ct_path(self, case):
        return self.root / case / "ct.mhd"


def write(root: Path) -> Path:
    """Writes the folder of the task: c0/ct.mhd, c0/voxels.bin, c0/organs.nii.gz, split.csv."""
    slab = block(60)
    save(root / "c0" / "organs.nii.gz", slab.organs, slab.affine)
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "ct.nii.gz", slab.hu, slab.affine)
        ct = read_ct(Path(folder) / "ct.nii.gz")
    image = sitk.GetImageFromArray(ct.hu.astype(np.int16))
    image.SetSpacing(ct.spacing_mm[::-1])
    image.SetOrigin((ct.affine[:3, 3] * [-1, -1, 1]).tolist())
    sitk.WriteImage(image, root / "c0" / "ct.mhd")
    header = (root / "c0" / "ct.mhd").read_text(encoding="utf-8").replace("ct.raw", "voxels.bin")
    (root / "c0" / "ct.mhd").write_text(header, encoding="utf-8")
    (root / "c0" / "ct.raw").rename(root / "c0" / "voxels.bin")
    (root / "split.csv").write_text("case,patient,split\nc0,p0,train\n", encoding="utf-8")
    return root
