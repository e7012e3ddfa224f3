"""`read_ct` on DICOM slices of more than one scan, or of which every n-th is there, and on scans that look so."""

import re

import numpy as np
import pytest

from tapct.errors import VolumeError
from tapct.volumes.read import read_ct
from tests.volumes.dicom_files import Edit, phantom, write_series

SLICES = 8


def told(tag: str, values: list) -> Edit:
    """An edit that gives each slice its own value of a tag; None leaves it out."""

    def edit(dataset, number):
        if values[number] is None:
            if tag in dataset:
                delattr(dataset, tag)
        else:
            setattr(dataset, tag, values[number])

    return edit


HALVES = [0, 0, 0, 0, 1, 1, 1, 1]
TURNS = [0, 1, 0, 1, 0, 1, 0, 1]
ONE_AMONG = [0, 0, 0, 1, 0, 0, 0, 0]

# --- two scans in one stack ------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [HALVES, TURNS, ONE_AMONG], ids=["halves", "taking turns", "one among others"])
@pytest.mark.parametrize(
    ("tag", "one", "other"),
    [
        ("PatientID", "P1", "P2"),
        ("PatientName", "Doe^Jane", "Doe^John"),
        ("PatientBirthDate", "19500101", "19610203"),
        ("FrameOfReferenceUID", "1.2.3.1", "1.2.3.2"),
        ("SeriesNumber", 2, 3),
        ("ConvolutionKernel", "B30f", "B70f"),
        ("ConvolutionKernel", ["Br38f", "3"], ["Br64f", "3"]),
        ("ConvolutionKernel", ["Br38f", "3"], ["Br38f", "4"]),
        ("KVP", 80, 140),
        ("SliceThickness", 2.5, 5),
        ("AcquisitionNumber", 1, 2),
        ("AcquisitionUID", "1.2.4.1", "1.2.4.2"),
        ("TemporalPositionIdentifier", 1, 2),
        ("NominalPercentageOfCardiacPhase", 30.0, 70.0),
    ],
)
def test_what_differs_within_one_scan_is_two(tmp_path, tag, one, other, which):
    write_series(tmp_path, phantom(SLICES), edit=told(tag, [(one, other)[index] for index in which]))
    with pytest.raises(VolumeError, match=rf"holds slices of more than one scan: {tag} is ") as info:
        read_ct(tmp_path)
    for value, index in ((one, 0), (other, 1)):
        text = (
            "\\\\".join(value) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else str(value)
        )
        assert re.search(rf"'{re.escape(text)}( mm)?' in slice_{which.index(index)}\.dcm", str(info.value))


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        pytest.param(
            "PatientID", ["P1", None, "", "P1", "P1", " P1 ", "P1", "p1"], id="lacking, empty, spelt otherwise"
        ),
        pytest.param("PatientID", ["", None] * 4, id="anonymous"),
        pytest.param("PatientName", ["Doe^Jane", "Doe^Jane^^^", *["Doe^Jane"] * 6], id="name with empty components"),
        pytest.param("FrameOfReferenceUID", [None, *["1.2.3.1"] * 7], id="frame of reference lacking once"),
        pytest.param("ConvolutionKernel", [["Br38f", "3"], *[None] * 6, ["Br38f", "3"]], id="kernel in some files"),
        pytest.param("ConvolutionKernel", ["STANDARD", "Standard", "standard ", *["STANDARD"] * 5], id="kernel spelt"),
        pytest.param("KVP", ["120", "120.0", "120.00", 120, 120.0, "1.2e2", None, "120"], id="one number"),
        pytest.param("SliceThickness", [2.5, 2.5001, 2.49, 2.5, None, 2.5, 2.51, 2.5], id="rounded thickness"),
        pytest.param("StudyInstanceUID", [f"1.2.{number}" for number in range(SLICES)], id="study drawn anew"),
        pytest.param("SOPInstanceUID", [f"1.2.{number}" for number in range(SLICES)], id="instances"),
        pytest.param("AcquisitionTime", [f"1200{number:02d}" for number in range(SLICES)], id="time of each slice"),
        pytest.param("AcquisitionNumber", list(range(1, 9)), id="a rotation a slice"),
        pytest.param("AcquisitionNumber", [4, 4, 4, 3, 3, 3, 2, 2], id="steps of the table, downwards"),
        pytest.param("AcquisitionNumber", [1, 1, 2, 2, 3, 3, 4, 4], id="steps of the table"),
        pytest.param("AcquisitionNumber", [1, 1, None, 1, None, 1, 1, 1], id="number in some files"),
        pytest.param("IrradiationEventUID", [f"1.2.{number}" for number in range(SLICES)], id="event drawn anew"),
    ],
)
def test_what_may_differ_within_one_scan(tmp_path, tag, values):
    write_series(tmp_path, phantom(SLICES), edit=told(tag, values))
    np.testing.assert_array_equal(read_ct(tmp_path).hu, phantom(SLICES) - 1024)


@pytest.mark.parametrize(
    ("times", "one_scan"),
    [
        (("120000.0", "120002.5"), True),
        (("235959", "000001"), True),
        (("120002.5", "120000.0"), True),
        (("120000.0", "120045.0"), False),
        (("120000.0", ""), False),
        (("120000.0", "noon"), False),
    ],
)
def test_two_acquisitions_that_follow_each_other_at_once_are_one_scan(tmp_path, times, one_scan):
    """Two steps of a wide detector; two breath-holds, or before and after contrast, lie further apart."""

    def edit(dataset, number):
        dataset.AcquisitionNumber = 1 + HALVES[number]
        dataset.add_new("AcquisitionTime", "LO", times[HALVES[number]])  # LO takes any text

    write_series(tmp_path, phantom(SLICES), edit=edit)
    if one_scan:
        assert read_ct(tmp_path).shape[0] == SLICES
    else:
        with pytest.raises(VolumeError, match=r"AcquisitionNumber is '1' in slice_0\.dcm and '2' in slice_4\.dcm"):
            read_ct(tmp_path)


def test_phases_that_lie_in_each_other_are_refused(tmp_path):
    """Arterial slices at 0, 5, 10 mm and venous ones at 2.5, 7.5 mm make a regular grid of neither."""
    write_series(tmp_path, phantom(5), edit=told("AcquisitionNumber", [1, 2, 1, 2, 1]))
    with pytest.raises(VolumeError, match="more than one scan: AcquisitionNumber"):
        read_ct(tmp_path)


# --- every n-th slice ------------------------------------------------------------------------------------


def numbered(numbers: list[int | None], thickness: float | None = 2.5, spacing: float | None = None) -> Edit:
    def edit(dataset, index):
        dataset.InstanceNumber = numbers[index]
        dataset.SliceThickness = thickness
        if spacing is not None:
            dataset.SpacingBetweenSlices = spacing

    return edit


@pytest.mark.parametrize(
    ("every", "thickness", "step_mm", "spacing"),
    [
        pytest.param(2, 2.5, 5.0, None, id="every second"),
        pytest.param(3, 2.5, 7.5, None, id="every third"),
        pytest.param(5, 1.0, 5.0, None, id="every fifth"),
        pytest.param(2, 3.0, 4.0, None, id="of slices that overlapped"),
        pytest.param(2, 5.0, 5.0, 2.5, id="of slices that overlapped by half, which SpacingBetweenSlices tells"),
        pytest.param(2, None, 5.0, 2.5, id="without SliceThickness"),
        pytest.param(2, 1.0, 10.0, 5.0, id="of slices with gaps"),
        pytest.param(2, 0.63, 1.25, None, id="rounded"),
    ],
)
@pytest.mark.parametrize(("first", "sign"), [(1, 1), (157, -1)], ids=["upwards", "downwards"])
def test_only_every_nth_slice_is_refused(tmp_path, every, thickness, step_mm, spacing, first, sign):
    edit = numbered([first + sign * every * number for number in range(SLICES)], thickness, spacing)
    write_series(tmp_path, phantom(SLICES), step=(0, 0, step_mm), edit=edit)
    with pytest.raises(VolumeError, match=rf"only every {every}\. slice is there: InstanceNumber.*steps of {every}"):
        read_ct(tmp_path)


def test_numbers_and_thickness_in_some_files_tell_as_well(tmp_path):
    def edit(dataset, index):
        dataset.InstanceNumber = None if index in (0, 3) else 2 * index
        dataset.SliceThickness = None if index < 3 else 2.5

    write_series(tmp_path, phantom(SLICES), step=(0, 0, 5.0), edit=edit)
    with pytest.raises(VolumeError, match=r"only every 2\. slice is there: .*2 \(slice_1.dcm\) to 4 \(slice_2.dcm\)"):
        read_ct(tmp_path)


def test_every_second_file_deleted_of_a_tilted_scan_is_refused(tmp_path):
    tilt = np.deg2rad(25)
    orientation = (1, 0, 0, 0, np.cos(tilt), np.sin(tilt))
    for path in write_series(tmp_path, phantom(SLICES), orientation=orientation)[1::2]:
        path.unlink()
    with pytest.raises(VolumeError, match=r"only every 2\. slice is there"):
        read_ct(tmp_path)


@pytest.mark.parametrize(
    ("numbers", "thickness", "step_mm", "spacing"),
    [
        pytest.param(range(1, 9), 1.0, 10.0, None, id="gaps by design"),
        pytest.param(range(1, 9), 1.0, 2.0, None, id="gaps by design, twice the thickness"),
        pytest.param(range(1, 9), 5.0, 2.5, None, id="overlap"),
        pytest.param(range(57, 65), 2.5, 2.5, None, id="numbers from 57"),
        pytest.param(range(64, 56, -1), 2.5, 2.5, None, id="numbers downwards"),
        pytest.param([1] * 8, 2.5, 5.0, None, id="one number for all"),
        pytest.param([None] * 8, 2.5, 5.0, None, id="no numbers"),
        pytest.param([1, *[None] * 7], 2.5, 5.0, None, id="one number"),
        pytest.param([1, None, 6, *[None] * 5], 2.5, 5.0, None, id="no whole step"),
        pytest.param([1, 3, 5, 8, 9, 10, 12, 14], 2.5, 5.0, None, id="numbers without a step"),
        pytest.param(range(1, 16, 2), 2.5, 2.5, None, id="numbers shared with another reconstruction"),
        pytest.param(range(1, 16, 2), 2.5, 2.5, 2.5, id="likewise, and said so"),
        pytest.param(range(1, 16, 2), 5.0, 2.5, None, id="likewise, with overlap"),
        pytest.param(range(1, 16, 2), 1.0, 10.0, 10.0, id="likewise, with gaps by design"),
        pytest.param(range(0, 800, 100), 2.5, 5.0, None, id="numbers in hundreds"),
        pytest.param(range(1, 16, 2), None, 5.0, None, id="nothing to compare with"),
    ],
)
def test_scans_that_look_like_every_nth_slice(tmp_path, numbers, thickness, step_mm, spacing):
    write_series(tmp_path, phantom(SLICES), step=(0, 0, step_mm), edit=numbered(list(numbers), thickness, spacing))
    assert read_ct(tmp_path).spacing_mm[0] == pytest.approx(step_mm)


@pytest.mark.parametrize("tag", ["NumberOfSeriesRelatedInstances", "ImagesInAcquisition"])
def test_an_excerpt_is_read_and_noted(tmp_path, tag):
    """Slices that were lost at an end leave no trace but a count; excerpts are made on purpose as well."""
    paths = write_series(tmp_path, phantom(SLICES), edit=told(tag, [SLICES] * SLICES))
    assert read_ct(tmp_path).notes == ()
    paths[-1].unlink()
    (note,) = read_ct(tmp_path).notes
    assert "8 slices" in note
    assert "7 are there" in note
