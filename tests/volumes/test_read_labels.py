"""`read_labels`: whole numbers on the scan's grid, or an error."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from tapct.errors import VolumeError
from tapct.volumes.read import read_ct, read_labels
from tests.volumes.dicom_files import phantom, write_series
from tests.volumes.real_scans import ABDOMEN_CT, ABDOMEN_ORGANS, CHEST_CT, CHEST_ORGANS

RAS = np.diag([0.7, 0.8, 2.5, 1.0])
SHAPE = (4, 5, 6)


def save(path, array, affine=RAS):
    nib.save(nib.Nifti1Image(array, affine, dtype=array.dtype), path)
    return path


def block(top: int) -> np.ndarray:
    labels = np.random.default_rng(0).integers(0, top + 1, SHAPE)
    labels[0, 0, 0] = top
    return labels


def spl(ras: np.ndarray) -> np.ndarray:
    return ras.transpose(2, 1, 0)[:, ::-1, ::-1]


@pytest.fixture
def scan(tmp_path):
    array = np.random.default_rng(1).integers(-1000, 1000, SHAPE).astype(np.int16)
    return read_ct(save(tmp_path / "ct.nii.gz", array))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int64", "float32", "float64"])
@pytest.mark.parametrize("top", [1, 117])
def test_labels_of_any_number_type_become_uint8(tmp_path, dtype, top):
    labels = read_labels(save(tmp_path / "mask.nii.gz", block(top).astype(dtype)))
    assert labels.labels.dtype == np.uint8
    np.testing.assert_array_equal(labels.labels, spl(block(top)))


def test_labels_above_255_become_uint16_and_do_not_wrap(tmp_path):
    labels = read_labels(save(tmp_path / "mask.nii.gz", block(300).astype(np.int32)))
    assert labels.labels.dtype == np.uint16
    np.testing.assert_array_equal(labels.labels, spl(block(300)))


def test_a_mask_without_any_finding_is_taken(tmp_path):
    assert not read_labels(save(tmp_path / "mask.nii.gz", np.zeros(SHAPE, np.uint8))).labels.any()


@pytest.mark.parametrize("value", [0.99, 0.5, 1.0001])
def test_a_value_that_is_not_whole_is_refused_and_not_truncated(tmp_path, value):
    labels = block(1).astype(np.float32)
    labels[1, 2, 3] = value
    with pytest.raises(VolumeError, match=rf"mask\.nii\.gz has 1 values .* whole numbers, first {value}.*3, 2, 2\)"):
        read_labels(save(tmp_path / "mask.nii.gz", labels))


def save_scaled(path, values, stored):
    """As nibabel saves floats in a file of whole numbers: with a slope and an intercept of its choice."""
    image = nib.Nifti1Image(values.astype(np.float64), RAS)
    image.set_data_dtype(stored)
    nib.save(image, path)
    return path


@pytest.mark.parametrize(
    ("top", "stored"),
    [
        (1, "int16"),
        (1, "uint8"),
        (3, "uint8"),
        (3, "uint16"),
        (15, "int16"),
        (117, "int16"),
        (300, "int16"),
        (1, "int32"),
    ],
)
def test_labels_that_nibabel_saved_from_floats_come_back_whole(tmp_path, top, stored):
    path = save_scaled(tmp_path / "mask.nii.gz", block(top), stored)
    assert (np.asanyarray(nib.load(path).dataobj) != block(top)).any() or stored == "int32"  # what others read
    np.testing.assert_array_equal(read_labels(path).labels, spl(block(top)))


def test_scaled_labels_with_an_intercept_come_back_whole(tmp_path):
    save(tmp_path / "mask.nii", np.array([-32768, 32767]).repeat(60).reshape(SHAPE).astype(np.int16))
    raw = bytearray((tmp_path / "mask.nii").read_bytes())
    raw[112:120] = np.array([1 / 65535, 0.50000763], "<f4").tobytes()
    (tmp_path / "mask.nii").write_bytes(raw)
    assert np.unique(read_labels(tmp_path / "mask.nii").labels).tolist() == [0, 1]


@pytest.mark.parametrize("value", [0.99, 0.5, 1.001, 0.9999])
def test_interpolated_labels_are_refused_though_the_file_scales_them(tmp_path, value):
    labels = block(1).astype(np.float64)
    labels[1, 2, 3] = value
    with pytest.raises(
        VolumeError, match=r"has [1-9]\d* values that are not whole numbers, first \d\.\d{3}.*scl_slope"
    ):
        read_labels(save_scaled(tmp_path / "mask.nii.gz", labels, "int16"))


def test_steps_too_coarse_to_tell_labels_from_other_values_are_named(tmp_path):
    with pytest.raises(VolumeError, match=r"scales stored numbers by scl_slope 0\.458\d+: save the labels unscaled"):
        read_labels(save_scaled(tmp_path / "mask.nii.gz", block(117), "uint8"))


def test_a_whole_slope_keeps_labels(tmp_path):
    save(tmp_path / "mask.nii", block(1).astype(np.uint8))
    raw = bytearray((tmp_path / "mask.nii").read_bytes())
    raw[112:116] = np.array([255], "<f4").tobytes()
    (tmp_path / "mask.nii").write_bytes(raw)
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.nii").labels, 255 * spl(block(1)))


@pytest.mark.parametrize(("value", "seen"), [(-1, "-1 to 1"), (70000, "0 to 70000")])
def test_labels_out_of_range_are_refused(tmp_path, value, seen):
    labels = block(1).astype(np.int32)
    labels[1, 2, 3] = value
    with pytest.raises(VolumeError, match=rf"mask\.nii\.gz has values from {seen}"):
        read_labels(save(tmp_path / "mask.nii.gz", labels))


def test_labels_with_nan_are_refused(tmp_path):
    labels = block(1).astype(np.float32)
    labels[1, 2, 3] = np.nan
    with pytest.raises(VolumeError, match=r"mask\.nii\.gz has 1 values that are NaN"):
        read_labels(save(tmp_path / "mask.nii.gz", labels))


def test_real_organs_equal_itk():
    expected = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(ABDOMEN_ORGANS)), "LPS"))
    np.testing.assert_array_equal(read_labels(ABDOMEN_ORGANS).labels, expected)


# --- the grid of the scan --------------------------------------------------------------------------------


def test_a_nifti_mask_in_another_axis_order_fits_its_dicom_scan():
    """The organs are stored L, A, S and the slices L, P: on one grid only if both are turned rightly."""
    volume = read_ct(CHEST_CT)
    labels = read_labels(CHEST_ORGANS, volume)
    liver, lung = (volume.hu[labels.labels == number] for number in (5, 20))
    assert (liver.mean(), liver.std()) == (pytest.approx(89, abs=2), pytest.approx(20, abs=20))
    assert lung.mean() < -500


def test_a_mask_stored_in_another_axis_order_than_its_scan_fits(tmp_path, scan):
    mask = nib.Nifti1Image(block(3).astype(np.uint8), RAS)
    lps = mask.as_reoriented(nib.orientations.axcodes2ornt(("L", "P", "S")))
    nib.save(lps, tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.nii.gz", scan).labels, spl(block(3)))


def test_a_mask_of_another_scan_is_refused(tmp_path, scan):
    with pytest.raises(VolumeError, match=r"organs\.nii\.gz does not lie on the grid of .*ct\.nii\.gz"):
        read_labels(ABDOMEN_ORGANS, scan)
    shifted = RAS.copy()
    shifted[2, 3] = 1.0
    path = save(tmp_path / "mask.nii.gz", block(1).astype(np.uint8), shifted)
    with pytest.raises(VolumeError, match=r"mask\.nii\.gz does not lie .* 1 mm apart"):
        read_labels(path, scan)
    read_labels(path)  # with no scan to compare with there is nothing to refuse


def save_unplaced(path, array):
    """Both codes 0, as some LiTS masks have it."""
    nib.save(nib.Nifti1Image(array, None), path)
    return path


@pytest.mark.parametrize("codes", ["RAS", "LPS", "IPL"])
def test_a_mask_without_sform_and_qform_takes_the_header_of_its_scan(tmp_path, codes):
    """The mask's array is the scan's own array, whatever order that is stored in."""
    stored = np.random.default_rng(2).integers(-1000, 1000, SHAPE).astype(np.int16)
    turned = nib.Nifti1Image(stored, RAS).as_reoriented(nib.orientations.axcodes2ornt(tuple(codes)))
    affine = turned.affine
    volume = read_ct(save(tmp_path / "volume-0.nii", stored, affine))
    mask = (stored > 0).astype(np.uint8)
    labels = read_labels(save_unplaced(tmp_path / "segmentation-0.nii", mask), volume)
    np.testing.assert_array_equal(labels.labels, volume.hu > 0)
    np.testing.assert_array_equal(labels.affine, volume.affine)


def test_a_mask_without_sform_and_qform_is_refused_where_no_header_can_stand_in(tmp_path, scan):
    path = save_unplaced(tmp_path / "mask.nii", np.zeros(SHAPE, np.uint8))
    with pytest.raises(VolumeError, match=r"mask\.nii has neither an sform nor a qform, so left"):
        read_labels(path)
    write_series(tmp_path / "dicom", phantom(6, 5, 4))
    with pytest.raises(VolumeError, match=r"mask\.nii has neither an sform nor a qform, so left"):
        read_labels(path, read_ct(tmp_path / "dicom"))
    # Shapes are compared as stored: the same number of voxels in another order is another array.
    other = save_unplaced(tmp_path / "other.nii", np.zeros(SHAPE[::-1], np.uint8))
    with pytest.raises(VolumeError, match=r"other\.nii has .* shape \(6, 5, 4\) is not that of .*\(4, 5, 6\)"):
        read_labels(other, scan)


# --- types -----------------------------------------------------------------------------------------------


def test_metaimage_labels_are_read(tmp_path):
    image = sitk.GetImageFromArray(block(9).astype(np.uint8))
    sitk.WriteImage(image, str(tmp_path / "mask.mha"))
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.mha").labels, block(9))


@pytest.mark.parametrize("single", [False, True], ids=["folder", "file"])
def test_a_dicom_segmentation_is_refused_with_the_way_out(tmp_path, single):
    files = write_series(tmp_path / "seg", phantom())
    with pytest.raises(VolumeError, match="is DICOM, and labels are read from NIfTI or MetaImage"):
        read_labels(files[0] if single else files[0].parent)


@pytest.mark.parametrize("read", [read_ct, read_labels])
def test_a_missing_path_and_an_unknown_type_are_refused(tmp_path, read):
    with pytest.raises(VolumeError, match=r"nowhere\.nii\.gz does not exist"):
        read(tmp_path / "nowhere.nii.gz")
    (tmp_path / "scan.nrrd").write_bytes(b"NRRD0004")
    with pytest.raises(VolumeError, match=r"scan\.nrrd is of no type.*\.nii\.gz.*\.mha.*DICOM"):
        read(str(tmp_path / "scan.nrrd"))


def test_a_path_may_be_text():
    assert read_ct(str(ABDOMEN_CT)).source == str(ABDOMEN_CT)
