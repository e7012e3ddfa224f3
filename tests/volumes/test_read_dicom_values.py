"""`read_ct` on the values of DICOM slices: how they are coded, how they become HU, and files that hold others."""

import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from loguru import logger
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)

from tapct.errors import VolumeError
from tapct.volumes.read import read_ct
from tests.volumes.dicom_files import assert_equals_itk, phantom, write_series
from tests.volumes.real_scans import CHEST_CT

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

    stored = phantom() // 2 - 1024
    write_series(tmp_path / "hu", stored, signed=True, edit=strip)
    np.testing.assert_array_equal(read_ct(tmp_path / "hu").hu, stored)
    write_series(tmp_path / "stored", phantom(), edit=strip)
    with pytest.raises(VolumeError, match=r"stored has values .*RescaleIntercept"):
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
    values = phantom() // 2 - 1024 if signed else phantom()
    files = write_series(tmp_path, (values & 0x0FFF) | unused, signed=signed, intercept=0.0 if signed else -1024.0)
    np.testing.assert_array_equal(read_ct(tmp_path).hu, values if signed else values - 1024)
    assert_equals_itk(tmp_path, files)


def test_sixteen_signed_bits(tmp_path):
    values = phantom() - 1000
    files = write_series(tmp_path, values, signed=True, bits_stored=16, intercept=-24.0)
    np.testing.assert_array_equal(read_ct(tmp_path).hu, values - 24)
    assert_equals_itk(tmp_path, files)


def test_a_jpeg_2000_stream_that_hides_the_sign_is_sign_extended(tmp_path):
    """As in RSNA's abdominal trauma set: 12 signed bits inside a stream that declares 16 unsigned ones."""
    from openjpeg.utils import encode_array

    values = phantom(5, 32, 32) // 2 - 1024
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
    values = phantom(3, 32, 40) // 2 - (1024 if signed else 0)

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


def test_stored_values_without_intercept_are_refused(tmp_path):
    write_series(tmp_path, phantom(), intercept=0.0)
    with pytest.raises(VolumeError, match=r"has values from \d+ to \d+.*RescaleIntercept"):
        read_ct(tmp_path)


# --- MONOCHROME1 -----------------------------------------------------------------------------------------


def body(slices: int = 4) -> np.ndarray:
    """HU of a body of water in air, with fat around it and a bone that moves from slice to slice."""
    rows, columns = np.mgrid[:32, :32]
    radius = np.hypot(rows - 15.5, columns - 15.5)
    hu = np.full((slices, 32, 32), -1000)
    hu[:, radius < 14] = -100
    hu[:, radius < 12] = 40
    for number in range(slices):
        hu[number, 10:14, 10 + number : 14 + number] = 700
    return hu + np.random.default_rng(0).integers(-15, 16, size=hu.shape)


@pytest.mark.parametrize("few", [(2,), (0, 1), (1, 2, 3)], ids=len)
@pytest.mark.parametrize(("usual", "other"), [(-1024, 0), (0, -1024)], ids=["lost", "twice"])
def test_slices_with_another_intercept_than_their_values_have_are_refused(tmp_path, few, usual, other):
    def edit(dataset, number):
        dataset.RescaleIntercept = other if number in few else usual

    write_series(tmp_path, body(7) - usual, signed=True, bits_stored=16, edit=edit)
    with pytest.raises(VolumeError, match=rf"{len(few)} of 7 slices.* RescaleIntercept of {other}, the others of "):
        read_ct(tmp_path)


def test_slices_with_another_intercept_that_their_values_have_are_read(tmp_path):
    """Also where some hold nothing but air, which would be no scan by themselves."""
    hu = body(7)
    hu[0] = np.random.default_rng(1).normal(-1000, 10, hu[0].shape)
    intercepts = np.array([0, -1024, -1024, -1024, -1024, -1000, -1000])

    def edit(dataset, number):
        dataset.RescaleIntercept = int(intercepts[number])

    write_series(tmp_path, hu - intercepts[:, None, None], signed=True, bits_stored=16, edit=edit)
    np.testing.assert_array_equal(read_ct(tmp_path).hu, hu)


def monochrome1(dataset, _):
    dataset.PhotometricInterpretation = "MONOCHROME1"


CODINGS = [
    pytest.param(False, 12, -1024, id="12 bits"),
    pytest.param(False, 16, -1024, id="16 bits"),
    pytest.param(True, 12, 0, id="12 signed bits"),
    pytest.param(True, 16, -1024, id="16 signed bits"),
]


@pytest.fixture
def said():
    """What was said aloud."""
    messages: list[str] = []
    sink = logger.add(messages.append, level="WARNING", format="{message}")
    yield messages
    logger.remove(sink)


@pytest.mark.parametrize(("signed", "bits", "intercept"), CODINGS)
def test_monochrome1_is_for_the_display(tmp_path, said, signed, bits, intercept):
    """HU are slope times stored value plus intercept (DICOM PS3.3 C.7.6.3.1.2), where ITK inverts."""
    options = {"signed": signed, "bits_stored": bits, "intercept": intercept}
    write_series(tmp_path, body() - intercept, **options, edit=monochrome1)
    volume = read_ct(tmp_path)
    np.testing.assert_array_equal(volume.hu, body())
    assert volume.notes == ()
    assert not said


@pytest.mark.parametrize("some", [False, True], ids=["all slices", "some slices"])
@pytest.mark.parametrize("slope", [1.0, 0.5])
@pytest.mark.parametrize(("signed", "bits", "intercept"), CODINGS)
def test_what_can_be_hu_only_when_inverted_is_inverted_aloud(tmp_path, said, signed, bits, intercept, slope, some):
    stored = np.rint((body() - intercept) / slope).astype(int)
    expected = stored * slope + intercept
    dark = [number for number in range(4) if not some or number > 1]
    stored[dark] = -1 - stored[dark] if signed else 2**bits - 1 - stored[dark]

    def edit(dataset, number):
        if number in dark:
            monochrome1(dataset, number)

    write_series(tmp_path, stored, signed=signed, bits_stored=bits, slope=slope, intercept=intercept, edit=edit)
    volume = read_ct(tmp_path)
    np.testing.assert_array_equal(volume.hu, expected)
    (note,) = volume.notes
    assert f"{len(dark)} slices are MONOCHROME1 and were inverted" in note
    assert len([message for message in said if note in message]) == 1
    read_ct(tmp_path)
    assert len([message for message in said if note in message]) == 1, "said again of the same scan"


def test_monochrome1_that_cannot_be_hu_either_way_is_refused(tmp_path):
    write_series(tmp_path, body() + 2000, intercept=0.0, edit=monochrome1)
    with pytest.raises(VolumeError, match="has values from"):
        read_ct(tmp_path)


# --- damaged files --------------------------------------------------------------------------------------


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
        ("SamplesPerPixel", 3, "colours"),
        ("PhotometricInterpretation", "PALETTE COLOR", "no grey values"),
        ("PhotometricInterpretation", None, "no grey values"),
        ("BitsAllocated", 12, "BitsAllocated 12, BitsStored 12, PixelRepresentation 0 make no number"),
        ("BitsAllocated", None, "BitsAllocated None"),
        ("BitsStored", 17, "BitsStored 17"),
        ("BitsStored", 0, "BitsStored 0"),
        ("PixelRepresentation", 2, "PixelRepresentation 2"),
        ("HighBit", 15, "BitsStored 12 and HighBit 15 do not fit"),
        ("RescaleSlope", 0, "RescaleSlope 0.0"),
        ("RescaleType", "Z_EFF", "RescaleType Z_EFF, not HU"),
        ("RescaleType", "MGML", "RescaleType MGML, not HU"),
        ("RescaleType", "HU_DENSITY", "RescaleType HU_DENSITY, not HU"),
        ("ModalityLUTSequence", [pydicom.Dataset()], "a table"),
    ],
)
def test_a_header_that_is_no_ct_slice_is_refused_by_name(tmp_path, tag, value, message):
    def edit(dataset, number):
        if number == 2:
            setattr(dataset, tag, value)

    write_series(tmp_path, phantom(), edit=edit)
    with pytest.raises(VolumeError, match=rf"slice_2\.dcm is not a slice of a CT scan in HU \(.*({message})"):
        read_ct(tmp_path)


@pytest.mark.parametrize(
    "unit", ["HU", "hu", " HU ", "Hounsfield Unit", "HOUNSFIELD UNITS", "Hounsfield", "Hounsfield_Units (HU)", "US", ""]
)
def test_hu_is_hu_however_it_is_spelt(tmp_path, unit):
    write_series(tmp_path, phantom(), edit=lambda dataset, _: setattr(dataset, "RescaleType", unit))
    np.testing.assert_array_equal(read_ct(tmp_path).hu, phantom() - 1024)


@pytest.mark.parametrize("lacking", [(), ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")])
@pytest.mark.parametrize(("tag", "value"), [("NumberOfFrames", 20), ("SOPClassUID", EnhancedCTImageStorage)])
def test_several_frames_are_to_be_converted(tmp_path, tag, value, lacking):
    """Where an enhanced CT keeps its spacing is not where a slice has it: that it lacks one is not the matter."""

    def edit(dataset, _):
        setattr(dataset, tag, value)
        for other in lacking:
            delattr(dataset, other)

    write_series(tmp_path, phantom(1), edit=edit)
    with pytest.raises(VolumeError, match=r"slice_0\.dcm holds several frames .*convert it to NIfTI"):
        read_ct(tmp_path)


# --- headers that claim other pixels than the file holds -------------------------------------------------


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian], ids=lambda uid: uid.name)
@pytest.mark.parametrize(("rows", "columns"), [(65535, 65535), (6, 65535), (65535, 7)])
def test_more_pixels_than_the_file_can_hold_are_refused_before_room_is_made(tmp_path, rows, columns, syntax):
    def edit(dataset, number):
        dataset.Rows, dataset.Columns = rows, columns
        dataset.file_meta.TransferSyntaxUID = syntax

    write_series(tmp_path, phantom(), edit=edit)
    with pytest.raises(VolumeError, match=r"slice_0\.dcm.*(can hold no more than|cannot be decoded)"):
        read_ct(tmp_path)


def test_compressed_pixels_of_another_size_are_refused(tmp_path):
    def edit(dataset, _):
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
        dataset.Rows, dataset.Columns = 4096, 4096

    write_series(tmp_path, phantom(3, 32, 32), edit=edit)
    with pytest.raises(VolumeError, match=r"slice_0\.dcm"):
        read_ct(tmp_path)


def test_a_series_beyond_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tapct.volumes.sizes.available_memory", lambda: 1000)
    write_series(tmp_path, phantom())
    with pytest.raises(VolumeError, match=r"\(5, 6, 7\) voxels.*memory"):
        read_ct(tmp_path)


@pytest.mark.parametrize(("tag", "value"), [("Rows", 3), ("Rows", 5), ("BitsAllocated", 8)])
def test_fewer_pixels_than_the_file_holds_are_refused(tmp_path, tag, value):
    def edit(dataset, _):
        setattr(dataset, tag, value)
        dataset.BitsStored = 8
        dataset.HighBit = 7

    write_series(tmp_path, phantom(), edit=edit)
    with pytest.raises(VolumeError, match=r"slice_0\.dcm holds more pixels than the \d rows of 7 columns"):
        read_ct(tmp_path)


@pytest.mark.filterwarnings("ignore:The pixel data is .* excess padding")
def test_padding_after_the_pixels_is_allowed(tmp_path):
    def edit(dataset, _):
        dataset.PixelData = dataset.PixelData + b"\0\0\0\0"

    write_series(tmp_path, phantom(), edit=edit)
    np.testing.assert_array_equal(read_ct(tmp_path).hu, phantom() - 1024)
