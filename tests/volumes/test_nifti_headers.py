"""Headers of NIfTI that cannot be true, and those that look like them and are valid."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tapct.errors import VolumeError
from tapct.volumes import sizes
from tapct.volumes.read import read_ct, read_labels

SHAPE = (5, 6, 7)
HU = np.random.default_rng(0).integers(-1000, 1500, SHAPE).astype(np.int16)
LPS = np.diag([-0.7, -0.8, 2.5, 1.0])
LPS[:3, 3] = [120.25, 95.5, -300]


def turned(*angles: float) -> np.ndarray:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine = turn @ LPS
    affine[:3, 3] = LPS[:3, 3]  # about the first voxel
    return affine


def moved(*offset_mm: float) -> np.ndarray:
    affine = LPS.copy()
    affine[:3, 3] += offset_mm
    return affine


def sheared(degrees: float) -> np.ndarray:
    affine = LPS.copy()
    affine[1, 2] = 2.5 * np.tan(np.radians(degrees))
    return affine


def write(path: Path, sform=LPS, qform=LPS, pixdim=None, kind=nib.Nifti1Header, voxels=HU, **fields) -> Path:
    """A file whose sform, qform, pixdim (by default the sizes of either) and further fields say just this."""
    header = kind()
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(voxels.dtype)
    for form in (sform, qform):
        if form is not None:
            header["pixdim"][1:4] = np.linalg.norm(form[:3, :3], axis=0)
    if qform is not None:
        header.set_qform(qform, code=1)
    if sform is not None:
        header.set_sform(sform, code=1)
    if pixdim is not None:
        header["pixdim"][1:4] = pixdim
    header["vox_offset"] = header.single_vox_offset
    for name, value in fields.items():
        header[name] = value
    raw = header.binaryblock + bytes(4) + voxels.tobytes(order="F")
    path.write_bytes(gzip.compress(raw, compresslevel=1) if path.suffix == ".gz" else raw)
    return path


def assert_read_at(path: Path, affine: np.ndarray) -> None:
    """The voxel that the file has first lies where `affine` puts it, and so does the last."""
    volume = read_ct(path)
    for index in [(0, 0, 0), tuple(n - 1 for n in SHAPE)]:
        place = affine @ [*index, 1]
        found = volume.world_to_index(place[None, :3])[0]
        np.testing.assert_allclose(found, np.round(found), atol=0.05)
        assert volume.hu[tuple(np.round(found).astype(int))] == HU[index]


# --- sform, qform and pixdim -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forms", "message"),
    [
        (
            {"pixdim": (0.7, 0.8, 2.54), "qform": None},
            r"\(0.7, 0.8, 2.5\) mm apart by the sform, \(0.7, 0.8, 2.54\) mm by",
        ),
        ({"pixdim": (1, 1, 1), "qform": None}, r"\(0.7, 0.8, 2.5\) mm apart by the sform, \(1, 1, 1\) mm by"),
        ({"sform": np.eye(4)}, r"\(1, 1, 1\) mm apart by the sform, \(0.7, 0.8, 2.5\) mm by pixdim"),
        ({"sform": LPS @ np.diag([1, 1, 1.02, 1])}, r"2.55\) mm apart by the sform"),
        ({"pixdim": (0.7, np.nan, 2.5)}, r"nan, 2.5\) mm by pixdim"),
        ({"pixdim": (0.7, 0.8, np.inf), "qform": None}, r"inf\) mm by pixdim"),
        (
            {"sform": LPS * [[-1], [1], [1], [1]]},
            r"axis 1 .* along \(1, 0, 0\), .*; by the qform axis 1 .* \(-1, 0, 0\)",
        ),
        ({"sform": LPS * [-1, -1, 1, 1]}, r"axis 1 of the array runs along \(1, 0, 0\)"),
        ({"sform": LPS[:, [0, 2, 1, 3]], "qform": LPS[:, [0, 2, 1, 3]] * [1, 1, -1, 1]}, r"axis 3 of the array"),
        ({"sform": turned(0, 0, 1)}, "by the qform"),
        ({"sform": turned(0, 0, 90)}, "by the qform"),
        ({"sform": moved(0, 0, 2)}, r"first voxel at \(120.2, 95.5, -298\) mm; by the qform .* \(120.2, 95.5, -300\)"),
        ({"sform": moved(-120.25, -95.5, 300)}, r"first voxel at \(0, 0, 0\) mm"),
        ({"sform": sheared(5)}, "axis 3 .* a scan with a tilted gantry is read from these"),
        ({"sform": sheared(18.5), "pixdim": (0.7, 0.8, 2.5)}, r"2.636\) mm apart by the sform"),
    ],
)
@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
def test_a_header_that_places_the_scan_twice_is_refused_with_both_readings(tmp_path, forms, message, kind):
    path = write(tmp_path / "ct.nii.gz", kind=kind, **forms)
    for read in (read_ct, read_labels):
        with pytest.raises(VolumeError, match=rf"ct\.nii\.gz .*contradicts itself: .*{message}"):
            read(path)


def test_an_identity_sform_beside_a_qform_of_the_same_sizes_is_refused(tmp_path):
    """Its sizes are right, so only sides and place tell."""
    qform = np.diag([-1.0, -1, 1, 1])
    qform[:3, 3] = 30, 40, 50
    with pytest.raises(VolumeError, match=r"contradicts itself: by the sform axis 1 .* \(0, 0, 0\) mm; by the qform"):
        read_ct(write(tmp_path / "ct.nii", sform=np.eye(4), qform=qform))


@pytest.mark.parametrize(
    ("forms", "expected"),
    [
        ({}, LPS),
        ({"qform": None}, LPS),
        ({"sform": None}, LPS),
        ({"qform": None, "pixdim": (0.7 * 1.004, 0.8, 2.49)}, LPS),  # within 1 %
        ({"pixdim": (0.70001, 0.79999, 2.5)}, LPS),
        ({"pixdim": (0.7001, 0.8, 2.51)}, LPS),
        ({"qform": None, "pixdim": (0, 0, 0)}, LPS),  # says nothing
        ({"sform": None, "pixdim": (-0.7, 0.8, 2.5)}, LPS),
        ({"qform": None, "pixdim": (-0.7, 0.8, 2.5)}, LPS),
        ({"sform": turned(25, -20, 15), "qform": turned(25, -20, 15)}, turned(25, -20, 15)),
        ({"sform": turned(0.05, 0, 179.9), "qform": turned(0.05, 0, 179.9)}, turned(0.05, 0, 179.9)),
        ({"sform": turned(0, 0, 0.2)}, turned(0, 0, 0.2)),
        ({"sform": moved(0.05, -0.05, 0.1)}, moved(0.05, -0.05, 0.1)),
        ({"sform": LPS.astype(np.float32).astype(float)}, LPS),
        ({"sform": sheared(18.5), "qform": None}, sheared(18.5)),
        ({"sform": LPS * [-1, 1, 1, 1], "qform": LPS * [-1, 1, 1, 1]}, LPS * [-1, 1, 1, 1]),
    ],
)
@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
def test_a_valid_header_that_looks_similar_is_read(tmp_path, forms, expected, kind):
    assert_read_at(write(tmp_path / "ct.nii", kind=kind, **forms), expected)


def test_a_wrong_form_whose_code_is_0_does_not_count(tmp_path):
    assert_read_at(write(tmp_path / "ct.nii", sform=np.eye(4), pixdim=(0.7, 0.8, 2.5), sform_code=0), LPS)
    assert_read_at(write(tmp_path / "ct.nii", qform=turned(0, 0, 90), pixdim=(0.7, 0.8, 2.5), qform_code=0), LPS)


def test_sizes_of_axes_that_are_not_there_do_not_matter(tmp_path):
    pixdim = [1, 0.7, 0.8, 2.5, 0, -3, np.nan, 0]
    header_only = write(tmp_path / "ct.nii", qform=None)
    raw = bytearray(header_only.read_bytes())
    raw[76:108] = np.array(pixdim, "<f4").tobytes()
    raw[50:56] = bytes(6)  # dim[5] to dim[7] are 0, as dcm2niix writes them
    header_only.write_bytes(raw)
    assert_read_at(header_only, LPS)


@pytest.mark.parametrize("qfac", [0, 1, -1])
def test_the_sign_of_a_qform(tmp_path, qfac):
    """0 stands for 1."""
    turned_axis = LPS * [1, 1, -1, 1] if qfac == -1 else LPS
    path = write(tmp_path / "ct.nii", sform=None, qform=turned_axis)
    raw = bytearray(path.read_bytes())
    raw[76:80] = np.array([qfac], "<f4").tobytes()
    path.write_bytes(raw)
    assert_read_at(path, turned_axis)


@pytest.mark.parametrize(
    ("start", "values", "message"),
    [
        (76, [-0.5], r"pixdim\[0\] is -0.5, and only 1, 0 or -1"),
        (256, [0.9, 0.9, 0.9], "its qform is not a rotation: quatern_b, c and d are"),
    ],
)
def test_a_qform_that_turns_nothing_is_refused(tmp_path, start, values, message):
    path = write(tmp_path / "ct.nii", sform=None)
    raw = bytearray(path.read_bytes())
    raw[start : start + 4 * len(values)] = np.array(values, "<f4").tobytes()
    path.write_bytes(raw)
    with pytest.raises(VolumeError, match=message):
        read_ct(path)


# --- where the voxels are, and how many ------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 1, 348, 351, 352.5, np.nan, -352])
def test_voxels_inside_the_header_are_refused(tmp_path, offset):
    with pytest.raises(
        VolumeError, match=r"contradicts itself: vox_offset says that the voxels begin at byte .* first 352"
    ):
        read_ct(write(tmp_path / "ct.nii", vox_offset=offset))


def test_voxels_inside_the_longer_header_of_nifti_2_are_refused(tmp_path):
    with pytest.raises(VolumeError, match=r"begin at byte 352, but the header itself takes the first 544"):
        read_ct(write(tmp_path / "ct.nii", vox_offset=352, kind=nib.Nifti2Header))


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
def test_voxels_behind_the_end_are_refused(tmp_path, name):
    with pytest.raises(
        VolumeError, match=r"has a header of \(5, 6, 7\) voxels, 420 bytes, but the file can hold no more"
    ):
        read_ct(write(tmp_path / name, vox_offset=10**7))


def test_an_extension_before_the_voxels_is_passed_over(tmp_path):
    image = nib.Nifti1Image(HU, LPS)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 100))
    nib.save(image, tmp_path / "ct.nii.gz")
    assert_read_at(tmp_path / "ct.nii.gz", LPS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bitpix": 8}, "datatype 4 is int16, of 16 bits, but bitpix is 8"),
        ({"datatype": 2, "bitpix": 8}, r"says \(5, 6, 7\) voxels of uint8, and 210 bytes more follow"),
        ({"datatype": 77}, "datatype is 77, which NIfTI does not know"),
        ({"dim": [3, 5, 6, 4, 1, 1, 1, 1]}, "180 bytes more follow: dim or datatype is wrong"),
        ({"dim": [0, 5, 6, 7, 1, 1, 1, 1]}, r"dim\[0\] is 0"),
        ({"dim": [8, 5, 6, 7, 1, 1, 1, 1]}, r"dim\[0\] is 8"),
        ({"magic": b"ni1"}, "a pair .hdr and .img"),
        ({"magic": b""}, "ANALYZE 7.5"),
        ({"dim": [3, 5, 6, -7, 1, 1, 1, 1]}, r"header of \(5, 6, -7\) voxels, which nothing can have"),
        ({"dim": [3, 5, 0, 7, 1, 1, 1, 1]}, "is empty"),
        ({"datatype": 128, "bitpix": 24}, "colours or complex numbers"),
        ({"datatype": 2304, "bitpix": 32}, "colours or complex numbers"),
        ({"datatype": 32, "bitpix": 64}, "colours or complex numbers"),
        ({"dim": [4, 5, 6, 1, 7, 1, 1, 1]}, "is 4-D"),
        ({"xyzt_units": 1}, "positions in meter, not mm"),
        ({"xyzt_units": 3}, "positions in micron, not mm"),
        ({"xyzt_units": 7}, "a unit that NIfTI does not know"),
    ],
)
def test_fields_that_cannot_be_true_are_refused(tmp_path, fields, message):
    with pytest.raises(VolumeError, match=message):
        read_ct(write(tmp_path / "ct.nii", **fields))


def test_what_looks_similar_is_read(tmp_path):
    assert_read_at(write(tmp_path / "ct.nii", bitpix=0), LPS)  # not filled in
    path = write(tmp_path / "ct.nii")
    path.write_bytes(path.read_bytes() + bytes(50))  # padding of less than a slice
    assert_read_at(path, LPS)
    assert_read_at(write(tmp_path / "ct.nii", dim=[5, 5, 6, 7, 1, 1, 1, 1]), LPS)
    assert_read_at(write(tmp_path / "ct.nii", xyzt_units=2 + 56), LPS)  # time in a unit of its own
    assert_read_at(write(tmp_path / "ct.nii", intent_code=1002), LPS)  # labels, by its intent; the values decide


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
@pytest.mark.parametrize(
    ("kind", "size"),
    [(nib.Nifti1Header, [30000] * 3), (nib.Nifti2Header, [2**31] * 3), (nib.Nifti2Header, [2**62, 4, 4])],
)
def test_more_voxels_than_the_file_holds_are_refused_before_they_are_allocated(tmp_path, monkeypatch, name, kind, size):
    path = write(tmp_path / name, kind=kind, dim=[3, *size, 1, 1, 1, 1])
    monkeypatch.setattr(sizes, "available_memory", lambda: None)
    monkeypatch.setattr(np, "asanyarray", None)  # whoever reads the voxels fails
    with pytest.raises(VolumeError, match=r"has a header of .* but the file can hold no more than"):
        read_ct(path)


def test_more_voxels_than_memory_holds_are_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "ct.nii")
    monkeypatch.setattr(sizes, "available_memory", lambda: 210 * (2 + 4) - 1)
    with pytest.raises(VolumeError, match=r"ct\.nii has \(5, 6, 7\) voxels, which take .* of memory are free"):
        read_ct(path)
    monkeypatch.setattr(sizes, "available_memory", lambda: 210 * (2 + 4))
    assert_read_at(path, LPS)


def test_a_scan_of_one_value_packs_nearly_as_far_as_gzip_goes_and_is_read(tmp_path):
    air = np.full((300, 300, 60), -1000, np.int16)
    path = write(tmp_path / "air.nii.gz", voxels=air)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=9))
    assert air.nbytes > 300 * path.stat().st_size
    assert read_labels(write(tmp_path / "empty.nii.gz", voxels=air * 0)).shape == (60, 300, 300)


# --- files under the wrong name --------------------------------------------------------------------------


def tarred(data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("ct.nii")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def zipped(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("ct.nii", data)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ct.nii", gzip.compress, r"it is gzip: rename it ct\.nii\.gz, or unpack it"),
        ("ct.nii.gz", bytes, r"it is NIfTI that is not packed: rename it ct\.nii\)"),
        ("ct.nii.gz", zipped, "it is a zip archive: unpack it"),
        ("ct.nii", zipped, "it is a zip archive: unpack it"),
        ("ct.nii.gz", bz2.compress, "it is compressed by bzip2: unpack it"),
        ("ct.nii.gz", lzma.compress, "it is compressed by xz: unpack it"),
        ("ct.nii", tarred, "it is a tar archive: unpack it"),
        ("ct.nii.gz", lambda raw: gzip.compress(tarred(raw)), "it is a tar archive: unpack it"),
        ("ct.nii.gz", lambda raw: gzip.compress(gzip.compress(raw)), "it is gzip"),
        ("ct.nii.gz", lambda _: b"<!DOCTYPE html><html>", "it is a web page"),
        ("ct.nii", lambda _: b"\n<HTML>", "it is a web page"),
        ("ct.nii", lambda _: b'<?xml version="1.0"?><Error>AccessDenied</Error>', "it is an XML document"),
        ("ct.nii.gz", lambda _: b'{"message": "Not Found"}', "it is JSON text"),
        ("ct.nii.gz", lambda _: b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS.*git lfs pull"),
        ("ct.nii.gz", lambda _: b"/annex/objects/MD5E-s1--0.nii.gz\n", "pointer of git-annex.*git annex get"),
        ("ct.nii", lambda _: b"", "it is empty"),
        ("ct.nii", lambda _: b"\x93NUMPY" + bytes(500), "it is a NumPy array"),
        ("ct.nii", lambda _: b"anything else" * 99, "begins with no header of NIfTI.*Download it again"),
        ("ct.nii.gz", lambda _: b"anything else" * 99, "it is not gzip: Download it again"),
    ],
)
def test_a_file_of_another_kind_is_named_for_what_it_is(tmp_path, name, content, message):
    raw = write(tmp_path / "right.nii").read_bytes()
    (tmp_path / name).write_bytes(content(raw))
    with pytest.raises(VolumeError, match=rf"{name} cannot be read as NIfTI \(.*{message}") as raised:
        read_ct(tmp_path / name)
    assert "interrupted" not in str(raised.value) or "anything" in str(content(raw))


def test_names_in_capitals_count_as_well(tmp_path):
    write(tmp_path / "ct.nii.gz").rename(tmp_path / "CT.NII.GZ")
    assert_read_at(tmp_path / "CT.NII.GZ", LPS)


@pytest.mark.parametrize("name", ["ct.hdr", "ct.img", "ct.img.gz"])
def test_a_pair_is_to_be_joined(tmp_path, name):
    nib.save(nib.Nifti1Pair(HU, LPS), tmp_path / name)
    with pytest.raises(VolumeError, match=rf"{name} is half of a pair .hdr and .img. Save the pair as one file"):
        read_ct(tmp_path / name)
