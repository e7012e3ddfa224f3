"""Which files a scan is read from: every one that the reader opens is named, and each that is named decides."""

import os
import shutil
import sys

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from tapct.errors import VolumeError
from tapct.volumes import files_of, read_ct, read_labels
from tests.volumes.dicom_files import write_series

HU = np.full((6, 8, 8), -1000, np.int16)  # a body of fat and water in air, each voxel another
HU[:, 1:7, 1:7] = -100
HU[:, 2:6, 2:6] = 40
HU += np.random.default_rng(0).integers(0, 30, HU.shape, dtype=np.int16)
HEADER = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 0 0 0
ElementSpacing = 1 1 2
DimSize = 8 8 6
ElementType = MET_SHORT
ElementDataFile = {}
"""


def nifti(folder, suffix):
    nib.save(nib.Nifti1Image(HU.T, np.diag([1.0, 1.0, 2.0, 1.0])), folder / f"ct{suffix}")
    return folder / f"ct{suffix}", [f"ct{suffix}"]


def metaimage(folder, names, element, sub=""):
    (folder / sub).mkdir(exist_ok=True)
    for name, planes in zip(names, np.array_split(HU, len(names)), strict=True):
        (folder / sub / name).write_bytes(planes.tobytes())
    (folder / "ct.mhd").write_text(HEADER.format(element), encoding="utf-8")
    return folder / "ct.mhd", ["ct.mhd", *(os.path.join(sub, name) for name in names)]  # noqa: PTH118


def in_one_file(folder):
    sitk.WriteImage(sitk.GetImageFromArray(HU), folder / "ct.mha")
    return folder / "ct.mha", ["ct.mha"]


def series(folder):
    write_series(folder, HU.astype(int) + 1024)
    (folder / "README.txt").write_text("about", encoding="utf-8")
    return folder, sorted(path.name for path in folder.iterdir() if path.name != "README.txt")


def one_slice(folder):
    _, names = series(folder)
    return folder / names[2], names


PLANES = [f"plane{number}.raw" for number in range(1, 7)]
KINDS = {
    "nii": lambda folder: nifti(folder, ".nii"),
    "nii.gz": lambda folder: nifti(folder, ".nii.gz"),
    "mha": in_one_file,
    "mhd and raw of its name": lambda folder: metaimage(folder, ["ct.raw"], "ct.raw"),
    "mhd and raw of another name": lambda folder: metaimage(folder, ["voxels.bin"], "voxels.bin"),
    "mhd and raw in a folder": lambda folder: metaimage(folder, ["voxels.raw"], "sub/voxels.raw", "sub"),
    "mhd and a list": lambda folder: metaimage(folder, PLANES, "LIST\n" + "\n".join(PLANES)),
    "mhd and a pattern": lambda folder: metaimage(folder, PLANES, "plane%d.raw 1 6 1"),
    "DICOM folder": series,
    "DICOM slice": one_slice,
}


@pytest.fixture(params=KINDS, ids=str)
def scan(request, tmp_path):
    """A scan of each kind, and the names of the files that it is read from."""
    folder = tmp_path / "scan"
    folder.mkdir()
    return KINDS[request.param](folder)


_tracer: list = []


def opened_by(read, folder):
    """The files in a folder that are opened, whatever opens them in Python."""
    if not _tracer:  # an audit hook is for life: one for all tests
        sys.addaudithook(lambda event, args: _tracer[0](event, args) if _tracer and _tracer[0] else None)
        _tracer.append(None)
    found = set()

    def note(event, args):
        if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            found.add(os.path.abspath(os.fsdecode(args[0])))  # noqa: PTH100

    _tracer[0] = note
    try:
        read()
    finally:
        _tracer[0] = None
    return {os.path.relpath(path, folder) for path in found if path.startswith(f"{folder}{os.sep}")}


def test_every_file_that_the_reader_opens_is_named(scan):
    path, names = scan
    folder = path if path.is_dir() else path.parent
    assert sorted(str(file.relative_to(folder)) for file in files_of(path)) == sorted(names)
    opened = opened_by(lambda: read_ct(path), folder)
    assert set(names) <= opened, "so the trace sees them"
    assert opened - {"README.txt"} == set(names)  # a README is only shown to be none of the slices


def hu_or_none(path):
    try:
        return read_ct(path).hu
    except VolumeError:
        return None


def test_each_file_that_is_named_decides(scan):
    path, _ = scan
    before = hu_or_none(path)
    for file in files_of(path):
        content = file.read_bytes()
        file.write_bytes(content[:-256])  # whatever the format: the end of it is voxels or a header's last word
        after = hu_or_none(path)
        assert after is None or not np.array_equal(after, before), file
        file.write_bytes(content)
    assert np.array_equal(hu_or_none(path), before)


def test_a_link_to_nowhere_among_slices_counts(tmp_path):
    write_series(tmp_path, HU.astype(int) + 1024)
    before = files_of(tmp_path)
    (tmp_path / "zz.dcm").symlink_to(tmp_path / "gone")
    assert [path.name for path in files_of(tmp_path)] == [path.name for path in before] + ["zz.dcm"]


@pytest.mark.parametrize("name", ["gone.nii.gz", "gone.mhd", "gone.dcm", "table.csv", "broken.mhd", "sub/gone.dcm"])
def test_whatever_is_no_scan_stands_for_itself(tmp_path, name):
    (tmp_path / "table.csv").write_text("case,label", encoding="utf-8")
    (tmp_path / "broken.mhd").write_text("NDims = 3", encoding="utf-8")
    assert files_of(tmp_path / name) == [tmp_path / name]


def test_labels_that_borrow_a_place_open_the_scan_as_well(tmp_path):
    path, _ = nifti(tmp_path, ".nii.gz")
    image = nib.Nifti1Image((HU.T > 0).astype(np.uint8), None)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "organs.nii.gz")
    ct = read_ct(path)
    opened = opened_by(lambda: read_labels(tmp_path / "organs.nii.gz", ct), tmp_path)
    named = [*files_of(tmp_path / "organs.nii.gz"), *files_of(path)]
    assert opened == {file.name for file in named}


def test_a_moved_scan_has_the_same_files(scan, tmp_path):
    path, names = scan
    folder = path if path.is_dir() else path.parent
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    again = moved if path.is_dir() else moved / path.name
    assert sorted(str(file.relative_to(moved)) for file in files_of(again)) == sorted(names)
