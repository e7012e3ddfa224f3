"""`read_grid`, which reads headers alone, against the grid of the scan that `read_ct` reads in full."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from tapct.errors import VolumeError
from tapct.volumes import read_ct, read_grid
from tests.volumes.dicom_files import phantom, write_series
from tests.volumes.real_scans import ABDOMEN_CT, CHEST_CT


def assert_same_grid(path) -> None:
    grid, ct = read_grid(path), read_ct(path)
    assert tuple(grid.shape) == ct.shape
    np.testing.assert_array_equal(grid.affine, ct.affine)


@pytest.mark.parametrize("path", [ABDOMEN_CT, CHEST_CT, next(CHEST_CT.iterdir())], ids=["nifti", "dicom", "a slice"])
def test_real_scans_have_the_grid_of_their_headers(path):
    assert_same_grid(path)


@pytest.mark.parametrize("axes", [("R", "A", "S"), ("L", "P", "S"), ("I", "R", "P"), ("A", "S", "L")], ids="".join)
def test_stored_axes_of_any_order_turn_as_the_voxels_do(tmp_path, axes):
    shape = (5, 6, 7, 1)  # a trailing axis of one is dropped
    ornt = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(("R", "A", "S")), nib.orientations.axcodes2ornt(axes)
    )
    turn = np.array([[0.9, -0.1, 0, 3], [0.1, 0.9, 0.05, -7], [0, 0.1, 2.5, 11], [0, 0, 0, 1]])
    affine = turn @ nib.orientations.inv_ornt_aff(ornt, shape[:3])
    hu = np.random.default_rng(0).integers(-1000, 500, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(hu, affine), tmp_path / "ct.nii.gz")
    assert_same_grid(tmp_path / "ct.nii.gz")


@pytest.mark.parametrize("name", ["ct.mha", "ct.mhd"])
def test_a_metaimage_that_runs_backwards(tmp_path, name):
    image = sitk.GetImageFromArray(np.linspace(-1000, 400, 5 * 6 * 7).reshape(5, 6, 7).astype(np.int16))
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-30.0, 12.5, 100.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteImage(image, tmp_path / name, useCompression=True)
    assert_same_grid(tmp_path / name)


def test_a_tilted_series(tmp_path):
    write_series(tmp_path, phantom(), step=(0, 1.5, 4))
    assert_same_grid(tmp_path)


def test_what_lies_nowhere_and_what_is_missing_are_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7), np.int16), None), tmp_path / "ct.nii")
    with pytest.raises(VolumeError, match="neither an sform nor a qform"):
        read_grid(tmp_path / "ct.nii")
    with pytest.raises(VolumeError, match="does not exist"):
        read_grid(tmp_path / "none.nii")
