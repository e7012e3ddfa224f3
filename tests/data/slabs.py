"""Small slabs of the quickstart's real abdomen, and DICOM series of them as the RSNA releases have them."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.uid import RLELossless

from tapct.tasks.quickstart import Quickstart
from tapct.volumes import Volume, read_ct
from tests.volumes.dicom_files import Edit, write_series

SLICES = 12
"""More than nine: as text, 10.dcm comes before 2.dcm."""


@cache
def slab(number: int) -> Volume:
    """Returns a slab of the abdomen, (12, 51, 61) whole HU at 3 x 6 x 6 mm; each number lies higher."""
    abdomen = _abdomen()
    low = 8 * number
    affine = abdomen.affine @ np.diag([1, 2, 2, 1])
    affine[:3, 3] = abdomen.index_to_world(np.array([[low, 0, 0]]))[0]
    hu = np.rint(abdomen.hu[low : low + SLICES, ::2, ::2]).clip(-1024, 2047)  # 12 bits, with a sign or without
    assert hu.shape[0] == SLICES
    return Volume(np.ascontiguousarray(hu), affine, f"slab {number}")


@cache
def _abdomen() -> Volume:
    return read_ct(Quickstart.shipped_root / "abdomen" / "ct.nii.gz")


def write_dicom(
    folder: Path, number: int, series: str, *, first_is_top: bool = True, signed: bool = False, edit: Edit | None = None
) -> list[Path]:
    """Writes a slab as 1.dcm, 2.dcm, ..., from the top of the patient down (or up).

    Signed values have 12 bits with nothing in the other four, as in RSNA 2023: the sign is not extended.
    """
    ct = slab(number)
    names = [f"{SLICES - i if first_is_top else i + 1}.dcm" for i in range(SLICES)]
    x, y, z = ct.affine[:3, 3]
    intercept = 0 if signed else -1024
    stored = (ct.hu - intercept).astype(np.int64) & 0x0FFF
    return write_series(
        folder,
        stored,
        first=(-x, -y, z),
        step=(0, 0, 3),
        pixel_spacing=(6, 6),
        signed=signed,
        intercept=intercept,
        series=series,
        names=names,
        edit=edit,
    )


def rle(dataset, _) -> None:
    """An edit for `write_dicom`: run-length encoding, as all of RSNA 2023."""
    dataset.compress(RLELossless, generate_instance_uid=False)


def to_lossless_jpeg(files: Sequence[Path]) -> None:
    """Compresses slices in place, as some of RSNA 2022 are."""
    for path in files:
        image = sitk.ReadImage(str(path))
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.KeepOriginalImageUIDOn()
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        writer.SetFileName(str(path))
        writer.Execute(image)


def assert_is_slab(sample, number: int) -> None:
    """Asserts that a sample of a dataset is the slab, every voxel in value and place."""
    volume, _, metadata = sample
    ct = slab(number)
    assert np.array_equal(volume[:, 0].numpy(), ct.hu)
    assert np.allclose(metadata["affine"].numpy(), ct.affine, atol=1e-3)


def edited(path: Path, change: Callable[[str], str]) -> None:
    """Changes a text file, line ends kept."""
    path.write_bytes(change(path.read_bytes().decode()).encode())
