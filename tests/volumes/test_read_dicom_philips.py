"""`read_ct` on a folder as a Philips CD gives it: a plastic head, upright and with the gantry tilted."""

import tarfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from tapct.errors import VolumeError
from tapct.volumes.read import read_ct
from tests.volumes.dicom_files import assert_equals_itk
from tests.volumes.real_scans import SHARED, needs_shared

pytestmark = needs_shared


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Path:
    """The folders of the two series and of the scouts, each with what lies in it."""
    folder = tmp_path_factory.mktemp("cd")
    with tarfile.open(SHARED / "dicom" / "philips_head_phantom.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "philips_head_phantom"


def slice_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("I*"), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])


def assert_equals_the_standard(folder: Path) -> None:
    """Compares values with slope times stored plus intercept, and places with equation C.7.6.2.1-1 of DICOM PS3.3."""
    volume = read_ct(folder)
    assert volume.shape == (len(slice_files(folder)), 512, 512)
    for number, path in enumerate(slice_files(folder)):
        header = pydicom.dcmread(path)
        stored = np.frombuffer(header.PixelData, dtype="<u2").reshape(512, 512)
        expected = stored * float(header.RescaleSlope) + float(header.RescaleIntercept)
        np.testing.assert_array_equal(volume.hu[number], expected)
        along_row, down_column = np.array(header.ImageOrientationPatient, dtype=float).reshape(2, 3)
        between_rows, between_columns = map(float, header.PixelSpacing)
        matrix = np.zeros((4, 4))
        matrix[:3, 0] = along_row * between_columns
        matrix[:3, 1] = down_column * between_rows
        matrix[:, 3] = [*map(float, header.ImagePositionPatient), 1]
        for row, column in [(0, 0), (511, 0), (0, 511), (300, 17)]:
            lps = (matrix @ [column, row, 0, 1])[:3]
            world = volume.index_to_world(np.array([[number, row, column]]))[0]
            np.testing.assert_allclose(world, lps * [-1, -1, 1], atol=1e-6)


@pytest.mark.parametrize("series", ["upright", "tilted"])
def test_each_series_is_read_as_it_lies(head, series):
    assert (head / series / "DIRFILE").is_file()
    assert_equals_the_standard(head / series)


def test_upright_equals_itk(head):
    assert_equals_itk(head / "upright", slice_files(head / "upright"))
    assert read_ct(head / "upright").notes == ()


def test_the_tilt_is_noted_and_its_angle_is_the_headers(head):
    (note,) = read_ct(head / "tilted").notes
    assert float(pydicom.dcmread(head / "tilted" / "I180").GantryDetectorTilt) == -18.5
    assert "gantry was tilted by 18.5 degrees" in note
    with_tilt = sitk.ReadImage([str(path) for path in slice_files(head / "tilted")])
    np.testing.assert_array_equal(read_ct(head / "tilted").hu, sitk.GetArrayFromImage(with_tilt))  # values, not places


@pytest.mark.parametrize("series", ["upright", "tilted"])
@pytest.mark.parametrize("lost", ["every second", "one inside", "an empty one"])
def test_lost_slices_are_refused(head, tmp_path, series, lost):
    copies = []
    for path in slice_files(head / series):
        (tmp_path / path.name).symlink_to(path)
        copies.append(tmp_path / path.name)
    (tmp_path / "DIRFILE").symlink_to(head / series / "DIRFILE")
    for path in {"every second": copies[1::2], "one inside": copies[5:6], "an empty one": copies[-1:]}[lost]:
        path.unlink()
        if lost == "an empty one":
            path.write_bytes(b"")
    with pytest.raises(VolumeError, match=r"only every 2\. slice|not evenly spaced|I\d+ lies among"):
        read_ct(tmp_path)


def test_scouts_are_no_scan(head, tmp_path):
    with pytest.raises(VolumeError, match="holds a localizer, which is not a scan"):
        read_ct(head / "scouts")
    for path in (*slice_files(head / "upright"), head / "scouts" / "I10"):
        (tmp_path / path.name).symlink_to(path)
    with pytest.raises(VolumeError, match=r"(?s)2 series or kinds of slices.*I10\): localizer.*localizers away"):
        read_ct(tmp_path)
