"""`read_ct` on MetaImage, compared with ITK's own reorientation to LPS."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from tapct.errors import VolumeError
from tapct.volumes.read import read_ct
from tests.volumes.dicom_files import phantom, write_series
from tests.volumes.real_scans import ABDOMEN_CT

OBLIQUE = Rotation.from_euler("xyz", [12, -20, 15], degrees=True).as_matrix()
DIRECTIONS = {
    "identity": np.eye(3),
    "flipped in plane, as some of LUNA16": np.diag([-1.0, -1, 1]),
    "feet first": np.diag([1.0, 1, -1]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "oblique": OBLIQUE,
    "oblique and flipped": OBLIQUE @ np.diag([-1.0, -1, 1]),
}


def make_image(direction=DIRECTIONS["identity"], dtype=np.int16) -> sitk.Image:
    array = np.random.default_rng(0).integers(-1000, 1500, (5, 6, 7)).astype(dtype)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-180.5, -160.25, -300))
    image.SetDirection(np.asarray(direction, dtype=float).ravel().tolist())
    return image


def write(path, image, compress=False):
    sitk.WriteImage(image, str(path), compress)
    return path


@pytest.mark.parametrize("suffix", ["mha", "mhd"])
@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=list(DIRECTIONS))
def test_any_direction_equals_itk_in_values_and_places(tmp_path, direction, suffix):
    image = make_image(direction)
    volume = read_ct(write(tmp_path / f"ct.{suffix}", image))
    expected = sitk.DICOMOrient(image, "LPS")
    np.testing.assert_array_equal(volume.hu, sitk.GetArrayFromImage(expected))
    assert volume.spacing_mm == pytest.approx(expected.GetSpacing()[::-1])
    for zyx in [(0, 0, 0), (1, 2, 3), (4, 5, 6)]:
        x, y, z = expected.TransformIndexToPhysicalPoint(zyx[::-1])
        np.testing.assert_allclose(volume.index_to_world(np.array([zyx]))[0], [-x, -y, z], atol=1e-6)


def test_a_real_scan_is_the_same_from_metaimage_and_nifti(tmp_path):
    nifti = read_ct(ABDOMEN_CT)
    meta = read_ct(write(tmp_path / "ct.mha", sitk.ReadImage(str(ABDOMEN_CT))))
    np.testing.assert_array_equal(meta.hu, nifti.hu)
    np.testing.assert_allclose(meta.affine, nifti.affine, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_number_types_and_compression(tmp_path, dtype):
    image = make_image(dtype=dtype)
    hu = read_ct(write(tmp_path / "ct.mha", image, compress=True)).hu
    np.testing.assert_array_equal(hu, sitk.GetArrayFromImage(image))
    assert hu.dtype == np.float32


def test_a_fourth_axis_of_one_is_dropped_and_a_real_one_refused(tmp_path):
    image = make_image(DIRECTIONS["flipped in plane, as some of LUNA16"])
    flat = read_ct(write(tmp_path / "flat.mha", image))
    longer = read_ct(write(tmp_path / "longer.mha", sitk.JoinSeries([image])))
    np.testing.assert_array_equal(flat.hu, longer.hu)
    np.testing.assert_array_equal(flat.affine, longer.affine)
    with pytest.raises(VolumeError, match=r"series\.mha is 4-D"):
        read_ct(write(tmp_path / "series.mha", sitk.JoinSeries([image, image])))
    with pytest.raises(VolumeError, match=r"plane\.mha is 2-D"):
        read_ct(write(tmp_path / "plane.mha", image[:, :, 0]))


def test_a_missing_raw_file_is_named(tmp_path):
    write(tmp_path / "ct.mhd", make_image())
    (tmp_path / "ct.raw").unlink()
    with pytest.raises(VolumeError, match=r"ct\.mhd keeps its voxels in 'ct\.raw', and there is no such file"):
        read_ct(tmp_path / "ct.mhd")


def test_a_renamed_pair_is_named(tmp_path):
    """The header still asks for the old name of the voxels."""
    write(tmp_path / "old.mhd", make_image())
    (tmp_path / "old.mhd").rename(tmp_path / "new.mhd")
    (tmp_path / "old.raw").rename(tmp_path / "new.raw")
    with pytest.raises(VolumeError, match=r"new\.mhd keeps its voxels in 'old\.raw'"):
        read_ct(tmp_path / "new.mhd")


@pytest.mark.parametrize("compress", [False, True])
def test_a_file_cut_short_is_refused(tmp_path, compress):
    path = write(tmp_path / "ct.mha", make_image(), compress)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(VolumeError, match=r"ct\.mha .*interrupted"):
        read_ct(path)


def test_a_text_file_under_its_name_is_refused(tmp_path):
    (tmp_path / "ct.mha").write_text("<html>not found</html>")
    with pytest.raises(VolumeError, match=r"ct\.mha cannot be read as MetaImage"):
        read_ct(tmp_path / "ct.mha")


def test_a_file_of_another_kind_under_its_name_is_refused(tmp_path):
    """ITK would look into the file and read one slice of a scan as if it were all."""
    (slice_file,) = write_series(tmp_path, phantom(1))
    slice_file.rename(tmp_path / "ct.mha")
    with pytest.raises(VolumeError, match=r"ct\.mha cannot be read as MetaImage"):
        read_ct(tmp_path / "ct.mha")


def test_colours_are_refused(tmp_path):
    image = sitk.Compose([make_image()] * 3)
    with pytest.raises(VolumeError, match=r"ct\.mha holds 3 numbers a voxel"):
        read_ct(write(tmp_path / "ct.mha", image))


def test_values_that_are_no_hu_are_refused(tmp_path):
    with pytest.raises(VolumeError, match=r"ct\.mha has values from \d+ to \d+ and is not a CT in HU: "):
        read_ct(write(tmp_path / "ct.mha", make_image() + 1000))
