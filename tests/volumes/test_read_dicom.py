"""`read_ct` on DICOM, compared with ITK (its GDCM is other code), or with numbers worked out by hand."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, RLELossless

from tapct.errors import VolumeError
from tapct.volumes.read import read_ct
from tests.volumes.dicom_files import phantom, write_series
from tests.volumes.real_scans import CHEST_CT

HEAD_FIRST = (1, 0, 0, 0, 1, 0)


def itk_series(files: list[Path]) -> sitk.Image:
    """ITK's reading of slices that are given in order, oriented to LPS."""
    return sitk.DICOMOrient(sitk.ReadImage([str(path) for path in files]), "LPS")


def assert_equals_itk(folder: Path, files: list[Path]) -> None:
    volume, expected = read_ct(folder), itk_series(files)
    np.testing.assert_allclose(volume.hu, sitk.GetArrayFromImage(expected), atol=1e-3)
    assert volume.spacing_mm == pytest.approx(expected.GetSpacing()[::-1], abs=1e-3)
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(volume.shape) - 1)
    for corner, world in zip(corners.tolist(), volume.index_to_world(corners), strict=True):
        x, y, z = expected.TransformIndexToPhysicalPoint(corner[::-1])
        np.testing.assert_allclose(world, [-x, -y, z], atol=1e-3)


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
    with pytest.raises(VolumeError, match="holds a localizer, which is no scan"):
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


# --- values ----------------------------------------------------------------------------------------------


def test_slope_and_intercept_are_those_of_each_slice(tmp_path):
    stored = phantom()

    def edit(dataset, number):
        dataset.RescaleSlope = [1, 0.5, 2, 1.25, 0.1][number]
        dataset.RescaleIntercept = [-1024, -1000, 0, -500.5, -1][number]

    write_series(tmp_path, stored, edit=edit)
    expected = [
        stored[0] - 1024,
        stored[1] / 2 - 1000,
        stored[2] * 2,
        stored[3] * 1.25 - 500.5,
        stored[4] * 0.1 - 1,
    ]
    np.testing.assert_allclose(read_ct(tmp_path).hu, expected, rtol=1e-6)


def test_a_series_with_no_rescale_is_read_as_it_is_and_refused_if_that_is_no_hu(tmp_path):
    def strip(dataset, _):
        del dataset.RescaleSlope, dataset.RescaleIntercept

    stored = phantom() - 2048
    write_series(tmp_path / "hu", stored, signed=True, edit=strip)
    np.testing.assert_array_equal(read_ct(tmp_path / "hu").hu, stored)
    write_series(tmp_path / "stored", phantom(), edit=strip)
    with pytest.raises(VolumeError, match=r"stored has values .* none below -50.*RescaleIntercept"):
        read_ct(tmp_path / "stored")


def test_rescale_in_some_slices_only_is_refused(tmp_path):
    def strip(dataset, number):
        if number == 3:
            del dataset.RescaleIntercept

    write_series(tmp_path, phantom(), edit=strip)
    with pytest.raises(VolumeError, match=r"1 of 5 slices lack RescaleSlope or RescaleIntercept, such as slice_3"):
        read_ct(tmp_path)


@pytest.mark.parametrize("unused", [0x0000, 0x5000], ids=["zeros", "garbage"])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_only_the_twelve_stored_bits_count(tmp_path, signed, unused):
    """With PixelRepresentation 1 the value -1 is 0x0FFF, and the four bits above it mean nothing."""
    values = phantom() - (2048 if signed else 0)
    files = write_series(tmp_path, (values & 0x0FFF) | unused, signed=signed, intercept=0.0 if signed else -1024.0)
    np.testing.assert_array_equal(read_ct(tmp_path).hu, values if signed else values - 1024)
    assert_equals_itk(tmp_path, files)


def test_sixteen_signed_bits(tmp_path):
    values = phantom() * 3 - 6000
    files = write_series(tmp_path, values, signed=True, bits_stored=16, intercept=-24.0)
    np.testing.assert_array_equal(read_ct(tmp_path).hu, values - 24)
    assert_equals_itk(tmp_path, files)


def test_a_jpeg_2000_stream_that_hides_the_sign_is_sign_extended(tmp_path):
    """As in RSNA's abdominal trauma set: 12 signed bits inside a stream that declares 16 unsigned ones."""
    from openjpeg.utils import encode_array

    values = phantom(5, 32, 32) - 2048
    planes = iter(values)

    def compress(dataset, _):
        stream = encode_array((next(planes) & 0x0FFF).astype(np.uint16), bits_stored=16, photometric_interpretation=2)
        dataset.PixelData = encapsulate([bytes(stream)])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless

    write_series(tmp_path, values, signed=True, intercept=0.0, edit=compress)
    np.testing.assert_array_equal(read_ct(tmp_path).hu, values)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_compressed_pixels_equal_the_raw_ones_and_itk(tmp_path, syntax, signed):
    values = phantom(3, 32, 40) - (2048 if signed else 0)

    def compress(dataset, _):
        dataset.compress(syntax, generate_instance_uid=False)

    files = write_series(tmp_path, values, signed=signed, intercept=-100.0, edit=compress)
    np.testing.assert_array_equal(read_ct(tmp_path).hu, values - 100)
    assert_equals_itk(tmp_path, files)


@pytest.mark.parametrize(("compressor", "syntax"), [("JPEG", JPEGLosslessSV1), ("JPEG2000", JPEG2000Lossless)])
def test_what_itk_compressed_is_read(tmp_path, compressor, syntax):
    """The slices that GDCM encodes; lossless JPEG is what most archives send."""
    values = phantom(3, 32, 40)
    (tmp_path / "packed").mkdir()
    for path in write_series(tmp_path / "raw", values):
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.KeepOriginalImageUIDOn()
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.SetFileName(str(tmp_path / "packed" / path.name))
        writer.Execute(sitk.ReadImage(str(path)))
    assert pydicom.dcmread(tmp_path / "packed" / "slice_0.dcm").file_meta.TransferSyntaxUID == syntax
    packed, raw = read_ct(tmp_path / "packed"), read_ct(tmp_path / "raw")
    np.testing.assert_array_equal(packed.hu, values - 1024)
    np.testing.assert_allclose(packed.affine, raw.affine, atol=1e-9)


@pytest.mark.parametrize(("signed", "bits"), [(False, 12), (False, 16), (True, 16)])
def test_monochrome1_is_inverted_as_itk_does(tmp_path, signed, bits):
    """ITK cannot invert 12 signed bits, so those are left out."""

    def invert(dataset, _):
        dataset.PhotometricInterpretation = "MONOCHROME1"

    bright_is_high = phantom() - (2048 if signed else 0)
    stored = -1 - bright_is_high if signed else 2**bits - 1 - bright_is_high
    options = {"signed": signed, "bits_stored": bits, "intercept": -100.0}
    files = write_series(tmp_path, stored, **options, edit=invert)
    np.testing.assert_array_equal(read_ct(tmp_path).hu, bright_is_high - 100)
    assert_equals_itk(tmp_path, files)


def test_stored_values_without_intercept_are_refused(tmp_path):
    write_series(tmp_path, phantom(), intercept=0.0)
    with pytest.raises(VolumeError, match=r"has values from \d+ to \d+: none below -50"):
        read_ct(tmp_path)


# --- what else lies in a folder --------------------------------------------------------------------------


def test_other_files_in_the_folder_are_passed_over(tmp_path):
    write_series(tmp_path, phantom())
    expected = read_ct(tmp_path).hu
    for name in ["._slice_0.dcm", ".DS_Store", "notes.txt", "series.csv", "LICENSE", "ct.json"]:
        (tmp_path / name).write_text("not an image")
    shutil.copy(tmp_path / "slice_0.dcm", tmp_path / "DICOMDIR")
    shutil.copytree(tmp_path, tmp_path / "previous")
    np.testing.assert_array_equal(read_ct(tmp_path).hu, expected)


def test_a_folder_without_dicom_is_refused_and_says_what_it_has(tmp_path):
    with pytest.raises(VolumeError, match="has no DICOM file directly in it; it has: nothing"):
        read_ct(tmp_path)
    write_series(tmp_path / "series_1", phantom())
    (tmp_path / "notes.txt").write_text("a")
    with pytest.raises(VolumeError, match=r"has no DICOM file directly in it; it has: notes\.txt, series_1/"):
        read_ct(tmp_path)


@pytest.mark.parametrize("name", ["slice_5.dcm", "slice_5.IMA", "CT.1.2.840.5"])
@pytest.mark.parametrize("content", [b"", b"<html>" * 50], ids=["no bytes", "web page"])
def test_a_broken_slice_at_the_end_is_not_taken_for_a_shorter_scan(tmp_path, name, content):
    write_series(tmp_path, phantom())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VolumeError, match=rf"{name} is named like a DICOM slice and is none"):
        read_ct(tmp_path)


@pytest.mark.parametrize("size", [140, 400, -40])
def test_a_slice_cut_short_is_refused_by_name(tmp_path, size):
    files = write_series(tmp_path, phantom())
    files[2].write_bytes(files[2].read_bytes()[:size])
    with pytest.raises(VolumeError, match=r"slice_2\.dcm"):
        read_ct(tmp_path)


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_compressed_slice_cut_short_is_refused_by_name(tmp_path, keep):
    shutil.copytree(CHEST_CT, tmp_path / "ct")
    broken = tmp_path / "ct" / "07.dcm"
    content = broken.read_bytes()
    broken.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(VolumeError, match=r"07\.dcm.*(decoded \(transfer syntax JPEG 2000|cannot be read)"):
        read_ct(tmp_path / "ct")


def test_pixels_that_do_not_decode_are_refused_with_file_and_transfer_syntax(tmp_path):
    def garble(dataset, number):
        if number == 2:
            dataset.PixelData = encapsulate([b"no JPEG 2000 stream at all"])
            dataset["PixelData"].is_undefined_length = True
            dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless

    write_series(tmp_path, phantom(), edit=garble)
    with pytest.raises(VolumeError, match=r"slice_2\.dcm: its pixels cannot be decoded \(transfer syntax JPEG 2000"):
        read_ct(tmp_path)


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        ("ImagePositionPatient", None, "no ImagePositionPatient of 3 numbers"),
        ("PixelSpacing", None, "no PixelSpacing of 2 numbers"),
        ("PixelSpacing", [0.8, float("nan")], "place no pixel"),
        ("Rows", None, "int"),
        ("PixelSpacing", [0.8, 0], "place no pixel"),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "place no pixel"),
        ("NumberOfFrames", 3, "several frames"),
        ("SamplesPerPixel", 3, "several frames or colours"),
        ("HighBit", 15, "BitsStored 12 and HighBit 15 do not fit"),
        ("RescaleSlope", 0, "RescaleSlope 0.0"),
        ("RescaleType", "Z_EFF", "RescaleType Z_EFF, not HU"),
    ],
)
def test_a_header_that_is_no_ct_slice_is_refused_by_name(tmp_path, tag, value, message):
    def edit(dataset, number):
        if number == 2:
            setattr(dataset, tag, value)

    write_series(tmp_path, phantom(), edit=edit)
    with pytest.raises(VolumeError, match=rf"slice_2\.dcm is no slice of a CT scan in HU \(.*({message})"):
        read_ct(tmp_path)
