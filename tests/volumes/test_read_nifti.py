"""`read_ct` and `read_labels` on NIfTI. The reference for the array is ITK's own reorientation to LPS."""

import gzip
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from tapct.errors import VolumeError
from tapct.volumes.read import read_ct, read_labels
from tests.volumes.real_scans import ABDOMEN_CT, ABDOMEN_ORGANS, SHARED, needs_shared

SPACING_AFFINE = np.diag([0.7, 0.8, 2.5, 1.0])


def itk_spl(path: Path) -> np.ndarray:
    """The array that ITK gives for the file when oriented to LPS: independent of nibabel and of our code."""
    return sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS"))


def hu_block(shape=(5, 6, 7)) -> np.ndarray:
    """HU without any symmetry and each value only once."""
    return np.random.default_rng(0).permutation(np.arange(np.prod(shape)) - 100).reshape(shape).astype(np.int16)


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = SPACING_AFFINE, kind=nib.Nifti1Image) -> Path:
    nib.save(kind(array, affine), path)
    return path


def assert_places_kept(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Each value of `array` (all distinct) lies in the patient where the file's own affine puts it."""
    volume = read_ct(path)
    order = np.argsort(volume.hu, axis=None)
    indices = np.stack(np.unravel_index(order, volume.shape), axis=1)
    stored = np.stack(np.unravel_index(np.argsort(array, axis=None), array.shape), axis=1)
    np.testing.assert_array_equal(volume.hu.reshape(-1)[order], np.sort(array, axis=None))
    np.testing.assert_allclose(volume.index_to_world(indices), nib.affines.apply_affine(affine, stored), atol=1e-4)


# --- real scans ------------------------------------------------------------------------------------------


def test_the_quickstart_abdomen_equals_itk():
    volume = read_ct(ABDOMEN_CT)
    np.testing.assert_array_equal(volume.hu, itk_spl(ABDOMEN_CT))
    assert (volume.hu.dtype, volume.shape, volume.spacing_mm) == (np.float32, (112, 101, 122), (3, 3, 3))


def test_organs_lie_where_anatomy_puts_them():
    """Head is up the first axis, back up the second, left up the third; the liver is no air."""
    volume = read_ct(ABDOMEN_CT)
    labels = read_labels(ABDOMEN_ORGANS, volume)
    spleen, kidney_right, kidney_left, liver, vertebra_l5, vertebra_l1 = (
        np.argwhere(labels.labels == number).mean(axis=0) for number in (1, 2, 3, 5, 27, 31)
    )
    assert liver[0] > vertebra_l5[0]
    assert vertebra_l1[0] > vertebra_l5[0]
    assert vertebra_l1[1] > liver[1]
    assert spleen[2] > liver[2]
    assert kidney_left[2] > kidney_right[2]
    assert 20 < volume.hu[labels.labels == 5].mean() < 120


@needs_shared
@pytest.mark.parametrize(
    "name",
    [
        "totalsegmentator/s9004/ct.nii.gz",
        "lidc/LIDC-IDRI-0314_nodule_128x128x64.nii.gz",
        "sts/STS_002/CT.nii.gz",
        "crlm/CRLM-CT-1004_1.5x5mm.nii.gz",
        "elastix/3DCT_lung_baseline_small.nii.gz",
    ],
)
def test_shared_scans_equal_itk(name):
    np.testing.assert_array_equal(read_ct(SHARED / name).hu, itk_spl(SHARED / name))


@needs_shared
def test_a_mask_of_the_pet_grid_is_refused_on_the_ct_and_its_ct_twin_is_taken():
    volume = read_ct(SHARED / "sts/STS_002/CT.nii.gz")
    assert read_labels(SHARED / "sts/STS_002/SEG_ct.nii.gz", volume).shape == volume.shape
    with pytest.raises(VolumeError, match=r"SEG\.nii\.gz does not lie on the grid of"):
        read_labels(SHARED / "sts/STS_002/SEG.nii.gz", volume)


@needs_shared
def test_pet_is_no_ct():
    with pytest.raises(
        VolumeError, match=r"SUV\.nii\.gz has values from 0 to 21\.67\d* and is not a CT in HU: .*SUV of a PET"
    ):
        read_ct(SHARED / "sts/STS_002/SUV.nii.gz")


# --- orientation and geometry ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crop() -> tuple[np.ndarray, np.ndarray]:
    """A small piece of the real abdomen without symmetry, (x, y, z) in RAS, and its affine."""
    image = nib.load(ABDOMEN_CT).slicer[30:41, 40:53, 50:59]
    return np.asarray(image.dataobj).astype(np.int16), image.affine


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
@pytest.mark.parametrize("flips", list(product([False, True], repeat=3)), ids=str)
def test_every_stored_axis_order_gives_the_same_scan(tmp_path, crop, order, flips):
    array, affine = crop
    turn = np.zeros((4, 4))  # index in the turned array to index in `array`
    turn[3, 3] = 1
    for new, old in enumerate(order):
        turn[old, new] = -1 if flips[new] else 1
        turn[old, 3] = array.shape[old] - 1 if flips[new] else 0
    turned = array.transpose(order)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    volume = read_ct(save(tmp_path / "turned.nii.gz", turned, affine @ turn))

    plain = save(tmp_path / "plain.nii.gz", array, affine)
    np.testing.assert_array_equal(volume.hu, itk_spl(plain))
    # The same corner of the patient, found in the untouched array: most right, anterior and inferior voxel.
    first = affine @ [array.shape[0] - 1, array.shape[1] - 1, 0, 1]
    np.testing.assert_allclose(volume.index_to_world(np.zeros((1, 3)))[0], first[:3], atol=1e-4)
    np.testing.assert_allclose(volume.affine[:3, :3], affine[:3, :3][:, ::-1] * [1, -1, -1], atol=1e-6)


@pytest.mark.parametrize("shear", [0.0, 0.2], ids=["rotated", "rotated and sheared"])
@pytest.mark.parametrize("angles", [(0, 0, 10), (25, -20, 15), (-30, 10, 170)], ids=str)
def test_an_oblique_affine_keeps_every_place(tmp_path, angles, shear):
    """ITK refuses the sheared ones; nibabel must not."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag([0.7, 0.8, 2.5])
    affine[:3, 1] += shear * affine[:3, 2]
    affine[:3, 3] = [-120.5, 33.25, 1400]
    path = save(tmp_path / "oblique.nii.gz", hu_block(), affine)
    assert_places_kept(path, hu_block(), affine)
    if not shear:
        np.testing.assert_array_equal(read_ct(path).hu, itk_spl(path))


def test_slices_first_as_kits23_stores_them(tmp_path):
    """Array axis 0 is z there: axes (S, P, L) flipped to I, P, L, and a qform code of 0."""
    affine = np.array([[0, 0, -0.8, 0], [0, -0.8, 0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 1]])
    image = nib.Nifti1Image(hu_block(), None)
    image.set_sform(affine, code=2)
    image.set_qform(None, code=0)
    image.header.set_zooms((3.0, 0.8, 0.8))
    nib.save(image, tmp_path / "imaging.nii.gz")
    volume = read_ct(tmp_path / "imaging.nii.gz")
    np.testing.assert_array_equal(volume.hu, hu_block()[::-1])
    assert volume.spacing_mm == pytest.approx((3.0, 0.8, 0.8))


def test_a_qform_alone_places_the_scan(tmp_path):
    image = nib.Nifti1Image(hu_block(), None)
    image.set_qform(SPACING_AFFINE, code=1)
    image.set_sform(None, code=0)
    nib.save(image, tmp_path / "qform.nii")
    assert_places_kept(tmp_path / "qform.nii", hu_block(), SPACING_AFFINE)


def test_a_scan_without_sform_and_qform_is_refused(tmp_path):
    with pytest.raises(VolumeError, match=r"ct\.nii\.gz has neither an sform nor a qform"):
        read_ct(save(tmp_path / "ct.nii.gz", hu_block(), None))


def test_a_degenerate_affine_is_refused(tmp_path):
    image = nib.Nifti1Image(hu_block(), None)
    one_plane = np.array([[0.7, 0.8, 0, 0], [0, 0, 0, 0], [0, 0, 2.5, 0], [0, 0, 0, 1]])
    image.header.set_sform(one_plane, code=1)
    image.header.set_zooms((0.7, 0.8, 2.5))
    image = nib.Nifti1Image(hu_block(), None, image.header)
    nib.save(image, tmp_path / "flat.nii")
    with pytest.raises(VolumeError, match=r"flat\.nii has a degenerate affine"):
        read_ct(tmp_path / "flat.nii")


def test_positions_in_metres_are_refused(tmp_path):
    image = nib.Nifti1Image(hu_block(), SPACING_AFFINE)
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "metres.nii")
    with pytest.raises(VolumeError, match=r"metres\.nii gives its positions in meter"):
        read_ct(tmp_path / "metres.nii")


# --- number types, slope, shape --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int8", "int16", ">i2", "int32", "int64", "float32", "float64", ">f8"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image], ids=["nifti1", "nifti2"])
def test_every_number_type_gives_the_same_float32_hu(tmp_path, dtype, kind):
    block = hu_block((4, 5, 6)) % 128 - 100
    image = kind(block.astype(dtype), SPACING_AFFINE, dtype=dtype)
    nib.save(image, tmp_path / "ct.nii.gz")
    volume = read_ct(tmp_path / "ct.nii.gz")
    np.testing.assert_array_equal(volume.hu, block.transpose(2, 1, 0)[:, ::-1, ::-1])
    assert volume.hu.dtype == np.dtype(np.float32)
    assert volume.hu.dtype.isnative


@pytest.mark.parametrize(
    ("slope", "intercept", "expected"),
    [(10.0, -1024.0, (10.0, -1024.0)), (np.nan, np.nan, (1.0, 0.0)), (0.0, 7.0, (1.0, 0.0))],
    ids=["slope and intercept", "NaN slope means none", "zero slope means none"],
)
def test_slope_and_intercept_are_applied(tmp_path, slope, intercept, expected):
    stored = (hu_block() if expected == (1.0, 0.0) else hu_block() + 100).astype(np.int32)
    image = nib.Nifti1Image(stored, SPACING_AFFINE)
    nib.save(image, tmp_path / "ct.nii")
    raw = bytearray((tmp_path / "ct.nii").read_bytes())
    raw[112:120] = np.array([slope, intercept], "<f4").tobytes()  # nibabel's writer would rescale them away
    (tmp_path / "ct.nii").write_bytes(raw)
    expected_hu = (stored * expected[0] + expected[1]).transpose(2, 1, 0)[:, ::-1, ::-1]
    np.testing.assert_array_equal(read_ct(tmp_path / "ct.nii").hu, expected_hu)


def test_a_trailing_axis_of_one_is_dropped_and_a_real_fourth_axis_refused(tmp_path):
    flat = read_ct(save(tmp_path / "flat.nii.gz", hu_block()))
    longer = read_ct(save(tmp_path / "longer.nii.gz", hu_block()[..., None]))
    np.testing.assert_array_equal(flat.hu, longer.hu)
    np.testing.assert_array_equal(flat.affine, longer.affine)
    with pytest.raises(VolumeError, match=r"series\.nii\.gz is 4-D \(shape \(5, 6, 7, 2\)\)"):
        read_ct(save(tmp_path / "series.nii.gz", np.stack([hu_block()] * 2, axis=-1)))
    with pytest.raises(VolumeError, match=r"plane\.nii\.gz is 2-D"):
        read_ct(save(tmp_path / "plane.nii.gz", hu_block()[:, :, 0]))


def test_an_empty_scan_is_refused(tmp_path):
    save(tmp_path / "ct.nii", hu_block())
    raw = bytearray((tmp_path / "ct.nii").read_bytes())
    raw[44:46] = b"\0\0"  # the header's dim[2]
    (tmp_path / "ct.nii").write_bytes(raw)
    with pytest.raises(VolumeError, match=r"ct\.nii is empty"):
        read_ct(tmp_path / "ct.nii")


def test_colours_are_refused(tmp_path):
    colours = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(VolumeError, match=r"rgb\.nii\.gz holds .* voxels \(colours"):
        read_ct(save(tmp_path / "rgb.nii.gz", colours))


# --- values that cannot be HU ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_with_count_and_place(tmp_path, value):
    block = hu_block().astype(np.float32)
    block[1, 2, 3] = block[4, 5, 6] = value  # (x, y, z) in RAS: z, y, x in SPL are 3, 5-2, 4-1 and 6, 0, 0
    with pytest.raises(VolumeError, match=r"ct\.nii\.gz has 2 values .* first at \(z, y, x\) = \(3, 3, 3\)"):
        read_ct(save(tmp_path / "ct.nii.gz", block))


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (0, 1, r"values from 0 to 1 .*all within \[0, 1\], so already normalised"),
        (0, 3071, "values from 0 to 3071 .*RescaleIntercept"),
        (-3, 3, "values from -3 to 3 .*z-scores"),
        (-1024, 40000, "values from -1024 to 40000 .*beyond 32768"),
        (-40000, 3071, "values from -40000 to 3071 .*beyond 32768"),
    ],
)
def test_what_cannot_be_hu_is_refused_with_the_values_seen(tmp_path, low, high, message):
    block = np.linspace(low, high, 5 * 6 * 7).reshape(5, 6, 7).astype(np.float32)
    with pytest.raises(VolumeError, match=r"ct\.nii\.gz has " + message):
        read_ct(save(tmp_path / "ct.nii.gz", block))


def test_padding_is_raised_to_air_and_said(tmp_path):
    block = hu_block().astype(np.float32)
    block[:, 0] = -3024
    scan = read_ct(save(tmp_path / "ct.nii.gz", block))
    np.testing.assert_array_equal(scan.hu, np.maximum(block, -1024).transpose(2, 1, 0)[:, ::-1, ::-1])
    assert scan.notes == (
        "16.67% of the voxels lie below -1500 HU, mostly at -3024: padding outside the field of view, "
        "raised to -1024 HU.",
    )
    assert read_ct(save(tmp_path / "whole.nii.gz", hu_block())).notes == ()


# --- files that are no NIfTI -----------------------------------------------------------------------------


def damaged(path: Path, kind: str) -> Path:
    whole = save(path.with_name("whole.nii.gz"), hu_block((40, 40, 40)) % 997 - 500).read_bytes()
    if kind == "cut short":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "only the header":
        path.write_bytes(gzip.compress(gzip.decompress(whole)[:352]))
    elif kind == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", encoding="utf-8")
    elif kind == "checksum":
        path.write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])
    elif kind == "end missing":
        path.write_bytes(whole[:-4])
    elif kind == "no bytes":
        path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut short", "cannot be read as NIfTI .*interrupted.*Download it again"),
        ("only the header", r"has a header of \(40, 40, 40\) voxels.*interrupted"),
        ("text", "cannot be read as NIfTI .*a pointer of Git LFS, not the file: run `git lfs pull`"),
        ("checksum", "cannot be read as NIfTI .*interrupted.*Download it again"),
        ("end missing", "cannot be read as NIfTI .*interrupted.*Download it again"),
        ("no bytes", "cannot be read as NIfTI .*it is empty: fetch it again"),
    ],
)
def test_a_damaged_file_is_named_with_the_likely_cause(tmp_path, kind, message):
    path = damaged(tmp_path / "ct.nii.gz", kind)
    with pytest.raises(VolumeError, match=rf"ct\.nii\.gz {message}"):
        read_ct(path)


@pytest.mark.parametrize("size", [100, 352, 1000])
def test_an_uncompressed_file_cut_short_is_refused(tmp_path, size):
    whole = save(tmp_path / "whole.nii", hu_block((10, 10, 10))).read_bytes()
    (tmp_path / "ct.nii").write_bytes(whole[:size])
    with pytest.raises(VolumeError, match=r"ct\.nii .*interrupted"):
        read_ct(tmp_path / "ct.nii")
