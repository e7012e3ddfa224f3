"""`read_ct` on DICOM, compared with ITK (its GDCM is other code), or with numbers worked out by hand."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from tapct.errors import VolumeError
from tapct.volumes.read import read_ct
from tests.volumes.dicom_files import assert_equals_itk, itk_series, phantom, write_series
from tests.volumes.real_scans import CHEST_CT

HEAD_FIRST = (1, 0, 0, 0, 1, 0)


# --- a real series, in JPEG 2000 and without SeriesInstanceUID -------------------------------------------


@pytest.fixture(scope="module")
def chest():
    return read_ct(CHEST_CT)


@pytest.fixture(scope="module")
def chest_by_itk():
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(CHEST_CT))  # in GDCM's order, by position
    return itk_series([Path(name) for name in files])


def test_the_quickstart_chest_equals_itk(chest, chest_by_itk):
    np.testing.assert_array_equal(chest.hu, sitk.GetArrayFromImage(chest_by_itk))
    assert chest.spacing_mm == pytest.approx(chest_by_itk.GetSpacing()[::-1], abs=1e-3)
    for zyx in [(0, 0, 0), (19, 511, 511), (7, 300, 20)]:
        x, y, z = chest_by_itk.TransformIndexToPhysicalPoint(zyx[::-1])
        np.testing.assert_allclose(chest.index_to_world(np.array([zyx]))[0], [-x, -y, z], atol=1e-3)


def test_nifti_and_dicom_of_one_scan_are_the_same_volume(tmp_path, chest, chest_by_itk):
    sitk.WriteImage(chest_by_itk, str(tmp_path / "ct.nii"))
    nifti = read_ct(tmp_path / "ct.nii")
    np.testing.assert_array_equal(chest.hu, nifti.hu)
    np.testing.assert_allclose(chest.affine, nifti.affine, atol=1e-3)


def test_one_file_stands_for_its_folder(tmp_path):
    files = write_series(tmp_path, phantom(), names=[f"IM{i}" for i in range(5)])
    np.testing.assert_array_equal(read_ct(files[3]).hu, read_ct(tmp_path).hu)


# --- order and geometry ----------------------------------------------------------------------------------


def test_slices_are_ordered_by_position_and_not_by_name_or_number(tmp_path):
    stored = phantom()

    def backwards(dataset, number):
        dataset.InstanceNumber = 100 - number

    files = write_series(tmp_path, stored, names=[f"{9 - i}.dcm" for i in range(5)], edit=backwards)
    volume = read_ct(tmp_path)
    np.testing.assert_array_equal(volume.hu, stored - 1024)
    np.testing.assert_allclose(volume.index_to_world(np.zeros((1, 3)))[0], [50, 60, -700])
    assert_equals_itk(tmp_path, files)


@pytest.mark.parametrize(
    ("orientation", "step"),
    [
        pytest.param(HEAD_FIRST, (0, 0, 2.5), id="axial"),
        pytest.param(HEAD_FIRST, (0, 0, -2.5), id="axial, from head to foot"),
        pytest.param((-1, 0, 0, 0, -1, 0), (0, 0, 2.5), id="prone"),
        pytest.param((1, 0, 0, 0, 0, -1), (0, 2.5, 0), id="coronal"),
        pytest.param((0, 1, 0, 0, 0, -1), (2.5, 0, 0), id="sagittal"),
        pytest.param((0.96, 0.28, 0, -0.28, 0.96, 0), (0, 0, 2.5), id="turned in the plane"),
        pytest.param((0.8, 0, 0.6, 0, 1, 0), (-1.5, 0, 2), id="oblique"),
    ],
)
def test_every_orientation_equals_itk(tmp_path, orientation, step):
    assert_equals_itk(tmp_path, write_series(tmp_path, phantom(), orientation=orientation, step=step))


def test_a_gantry_tilt_stays_in_the_affine(tmp_path):
    """The table moves along the patient, the slices stand at an angle: a shear, which ITK cannot hold."""
    tilt = np.deg2rad(20)
    orientation = (1, 0, 0, 0, np.cos(tilt), np.sin(tilt))
    stored = phantom()
    write_series(tmp_path, stored, orientation=orientation, step=(0, 0, 3.0))
    volume = read_ct(tmp_path)
    np.testing.assert_array_equal(volume.hu, stored - 1024)
    for k, r, c in [(0, 0, 0), (4, 0, 0), (2, 5, 6)]:
        lps = np.array([-50 + 0.7 * c, -60 + 0.8 * r * np.cos(tilt), -700 + 3 * k + 0.8 * r * np.sin(tilt)])
        world = volume.index_to_world(np.array([[k, r, c]]))[0]
        np.testing.assert_allclose(world, lps * [-1, -1, 1], atol=1e-9)


@pytest.mark.parametrize(("thickness", "depth"), [(3.5, 3.5), (None, None), (0, None)])
def test_a_single_slice_is_as_deep_as_its_thickness(tmp_path, thickness, depth):
    def edit(dataset, _):
        dataset.SliceThickness = thickness

    write_series(tmp_path, phantom(slices=1), edit=edit)
    if depth is None:
        with pytest.raises(VolumeError, match=r"slice_0\.dcm is a single slice without SliceThickness"):
            read_ct(tmp_path)
    else:
        assert read_ct(tmp_path).spacing_mm == pytest.approx((depth, 0.8, 0.7))


def moved_slices(**moves: tuple[float, float, float]):
    """An edit that moves single slices: s3=(0, 0, 0.1) moves slice 3 by 0.1 mm along the patient."""

    def edit(dataset, number):
        offset = moves.get(f"s{number}", (0, 0, 0))
        dataset.ImagePositionPatient = [float(v) for v in np.add(dataset.ImagePositionPatient, offset)]

    return edit


def test_a_missing_slice_is_refused_and_the_gap_named(tmp_path):
    files = write_series(tmp_path, phantom(8))
    files[3].unlink()
    found = r"5\.000 mm between slice_2\.dcm \(at -695\.000 mm.*slice_4\.dcm.*2\.500 mm; 1 gaps"
    with pytest.raises(VolumeError, match=rf"not evenly spaced: {found}"):
        read_ct(tmp_path)


@pytest.mark.parametrize("offset", [0.03, -0.03, 0.3])
def test_uneven_slices_are_refused(tmp_path, offset):
    write_series(tmp_path, phantom(8), edit=moved_slices(s3=(0, 0, offset)))
    with pytest.raises(VolumeError, match=r"not evenly spaced: .*slice_2\.dcm.*2 gaps differ"):
        read_ct(tmp_path)


def test_unevenness_below_one_percent_is_rounding(tmp_path):
    write_series(tmp_path, phantom(8), edit=moved_slices(s3=(0, 0, 0.02)))
    assert read_ct(tmp_path).spacing_mm[0] == pytest.approx(2.5)


def test_positions_rounded_to_a_hundredth_are_taken(tmp_path):
    """0.625 mm between slices becomes gaps of 0.62 and 0.63: 0.01 mm apart, which is more than 1 % there."""

    def rounded(dataset, number):
        dataset.ImagePositionPatient = [-50.0, -60.0, round(number * 0.625 - 700, 2)]

    write_series(tmp_path, phantom(8), edit=rounded)
    assert read_ct(tmp_path).spacing_mm[0] == pytest.approx(0.625, abs=0.001)


def test_a_difference_of_exactly_a_hundredth_is_allowed(tmp_path):
    """0.51 - 0.50 is 0.010000000000000009 in binary, and must not be more than 0.01 mm."""
    edit = moved_slices(s3=(0, 0, 0.01))
    write_series(tmp_path, phantom(8), first=(-50, -60, 0), step=(0, 0, 0.5), edit=edit)
    assert read_ct(tmp_path).spacing_mm[0] == pytest.approx(0.5)


def test_a_slice_shifted_sideways_is_refused(tmp_path):
    write_series(tmp_path, phantom(8), edit=moved_slices(s3=(0.2, 0, 0)))
    with pytest.raises(VolumeError, match=r"slice_3\.dcm lies 0\.200 mm off the straight line"):
        read_ct(tmp_path)


@pytest.mark.parametrize("identical", [True, False], ids=["copied file", "other pixels"])
def test_two_slices_in_one_place_are_refused(tmp_path, identical):
    files = write_series(tmp_path, phantom())
    dataset = pydicom.dcmread(files[2])
    if not identical:
        dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(tmp_path / "slice_2_again.dcm")
    with pytest.raises(VolumeError, match=r"slice_2\.dcm and slice_2_again\.dcm lie in the same place"):
        read_ct(tmp_path)


# --- one series ------------------------------------------------------------------------------------------


def test_two_series_are_refused_and_both_listed(tmp_path):
    def named(dataset, _):
        dataset.SeriesDescription = "lung kernel"

    write_series(tmp_path, phantom(5))
    names = [f"b{i}.dcm" for i in range(3)]
    write_series(tmp_path, phantom(3), series="9.9", names=names, edit=named)
    with pytest.raises(
        VolumeError, match=r"(?s)holds 2 series.*3 files \(such as b0\.dcm\): 'lung kernel'.*9\.9"
    ) as info:
        read_ct(tmp_path)
    assert "5 files (such as slice_0.dcm)" in str(info.value)
    assert "1.2.3.4" in str(info.value)
    assert "folder of its own" in str(info.value)


def test_a_localizer_beside_the_scan_is_refused_and_named(tmp_path):
    def localizer(dataset, _):
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_series(tmp_path, phantom(5))
    scout = {"orientation": (1, 0, 0, 0, 0, -1), "names": ["scout.dcm"], "edit": localizer}
    write_series(tmp_path, phantom(1), **scout)
    with pytest.raises(VolumeError, match=r"(?s)holds 2 series.*1 files \(such as scout\.dcm\): localizer"):
        read_ct(tmp_path)
    write_series(tmp_path / "alone", phantom(1), **scout)
    with pytest.raises(VolumeError, match="holds a localizer, which is not a scan"):
        read_ct(tmp_path / "alone")


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"stored": phantom(2, 8, 7)}, "8x7"),
        ({"stored": phantom(2, 6, 9)}, "6x9"),
        ({"pixel_spacing": (0.8, 0.75)}, "0.8x0.75 mm"),
        ({"orientation": (1, 0, 0, 0, 0.995, 0.0998)}, "0.995"),
    ],
    ids=["rows", "columns", "pixel spacing", "orientation"],
)
def test_slices_of_one_series_that_do_not_stack_are_refused(tmp_path, change, shown):
    write_series(tmp_path, phantom(4))
    other = {"stored": phantom(2), "first": (-50, -60, -690), "names": ["a.dcm", "b.dcm"], **change}
    write_series(tmp_path, **other)
    with pytest.raises(VolumeError, match="holds 2 series or kinds of slices") as info:
        read_ct(tmp_path)
    assert shown in str(info.value)


def test_orientations_that_differ_by_rounding_are_one_series(tmp_path):
    def jitter(dataset, number):
        dataset.ImageOrientationPatient = [1, 0.0005 + (-1) ** number * 1e-6, 0, 0, 1, 0]

    write_series(tmp_path, phantom(), edit=jitter)
    assert read_ct(tmp_path).shape == (5, 6, 7)


@pytest.mark.parametrize("modality", ["MR", "PT", "SEG", ""])
def test_another_modality_is_refused_by_name(tmp_path, modality):
    def edit(dataset, number):
        dataset.Modality = modality if number == 2 else "CT"

    write_series(tmp_path, phantom(), edit=edit)
    name = modality or "unknown"
    with pytest.raises(VolumeError, match=rf"4 of modality CT, 1 of modality {name}; for example slice_2\.dcm"):
        read_ct(tmp_path)
