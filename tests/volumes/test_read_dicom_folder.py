"""`read_ct` on folders of DICOM slices in which other files lie, or what was a slice."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import MediaStorageDirectoryStorage

from tapct.errors import VolumeError
from tapct.volumes.read import read_ct
from tests.volumes.dicom_files import phantom, write_series

NAMES = [f"IM{number:04d}" for number in range(1, 6)]  # as on many CDs: without a suffix


@pytest.fixture
def series(tmp_path):
    """Five slices in a folder of their own."""
    write_series(tmp_path / "series", phantom(), names=NAMES)
    return tmp_path / "series"


def copy_of(path: Path, **changes: object) -> pydicom.FileDataset:
    dataset = pydicom.dcmread(path)
    for tag, value in changes.items():
        setattr(dataset, tag, value)
    return dataset


def assert_refused(folder: Path, name: str, reason: str) -> None:
    with pytest.raises(VolumeError, match=rf"(?s){name} lies among \d slices and cannot be read as one.*{reason}"):
        read_ct(folder)


# --- lost slices -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["IM0006", "slice_5.dcm", "slice_5.IMA", "CT.1.2.840.5", "6", "anything.bin"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "it is empty", id="no bytes"),
        pytest.param(b"<html>" * 50, "it is a web page", id="web page"),
        pytest.param(bytes(5000), "it is 5,000 bytes long and lacks the mark DICM", id="room made, nothing written"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS", id="Git LFS"),
        pytest.param(b"\0" * 128 + b"DIC", "lacks the mark DICM", id="cut in the mark"),
    ],
)
def test_what_is_no_dicom_may_be_a_lost_slice(series, name, content, reason):
    (series / name).write_bytes(content)
    assert_refused(series, name, reason)


@pytest.mark.parametrize("emptied", [slice(2, 3), slice(3, None), slice(0, 4)], ids=["inside", "end", "all but one"])
def test_an_interrupted_copy_is_refused_and_all_its_files_counted(series, emptied):
    lost = NAMES[emptied]
    for name in lost:
        (series / name).write_bytes(b"")
    others = rf", nor can {len(lost) - 1} more \({lost[1]}" if len(lost) > 1 else ": it is empty"
    with pytest.raises(VolumeError, match=rf"{lost[0]} lies among {5 - len(lost)} slices.*{others}"):
        read_ct(series)
    with pytest.raises(VolumeError, match=rf"{lost[0]} lies among"):
        read_ct(series / next(name for name in NAMES if name not in lost))


@pytest.mark.parametrize("name", ["IM0006", "IM0006.dcm"])
def test_a_link_to_nowhere_is_a_lost_slice(series, name):
    (series / name).symlink_to(series.parent / "archive" / "IM0006")
    assert_refused(series, name, "it is a link to .*archive/IM0006, which is not there")


def test_a_link_to_a_slice_is_a_slice(series):
    expected = read_ct(series).hu
    (series / "IM0003").rename(series.parent / "elsewhere")
    (series / "IM0003").symlink_to(series.parent / "elsewhere")
    np.testing.assert_array_equal(read_ct(series).hu, expected)


@pytest.mark.parametrize("ending", [".part", ".crdownload", ".tmp", ".PART", ".download", ".aria2", ".partial"])
@pytest.mark.parametrize("share", [0.5, 1.0], ids=["a half", "all of it"])
def test_a_part_of_a_download_is_refused_by_its_name(series, ending, share):
    whole = series / "IM0003"
    content = whole.read_bytes()
    whole.unlink()
    (series / f"IM0003.dcm{ending}").write_bytes(content[: int(len(content) * share)])
    assert_refused(series, f"IM0003.dcm{ending}", "not yet whole")


def test_a_download_that_safari_keeps_in_a_folder_is_refused(series):
    (series / "IM0006.dcm.download").mkdir()
    assert_refused(series, "IM0006.dcm.download", "not yet whole")


def test_a_slice_that_rsync_still_hides_is_refused(series):
    (series / "IM0005").rename(series / ".IM0005.xY3kQz")
    assert_refused(series, r"\.IM0005\.xY3kQz", "not yet whole")


@pytest.mark.parametrize("name", ["IM0006.dcm.gz", "IM0006.gz", "IM0006"])
def test_a_packed_slice_is_refused(series, name):
    (series / name).write_bytes(gzip.compress((series / "IM0001").read_bytes()))
    assert_refused(series, name, "it is gzip: unpack it")


def test_an_archive_beside_slices_is_refused(series):
    shutil.make_archive(str(series.parent / "all"), "zip", series)
    shutil.move(series.parent / "all.zip", series / "all.zip")
    assert_refused(series, r"all\.zip", "it is a zip archive: unpack it")


@pytest.mark.parametrize(
    ("lost", "reason"), [(128, "lacks the mark DICM"), (132, "lacks the 128 bytes and the mark DICM in front")]
)
def test_dicom_without_preamble_is_refused_and_not_passed_over(series, lost, reason):
    (series / "IM0005").write_bytes((series / "IM0005").read_bytes()[lost:])
    assert_refused(series, "IM0005", reason)
    for name in NAMES[:4]:
        (series / name).write_bytes((series / name).read_bytes()[lost:])
    with pytest.raises(
        VolumeError, match=rf"has no DICOM file directly in it.*IM0001 is not a DICOM file: it .*{reason}"
    ):
        read_ct(series)


# --- what is known not to be a slice ------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"not an image"], ids=["empty", "text"])
def test_known_bystanders_are_passed_over(series, content):
    """Whatever is refused is named by the error."""
    for name in [
        *("README", "ReadMe.1st", "README.md", "LICENSE", "LICENCE.txt", "license-CC-BY", "COPYING", "VERSION"),
        *("notes.txt", "series.csv", "ct.json", "INDEX.HTM", "report.pdf", "header.xml", "slices.csv.gz", "run.log"),
        *("MD5SUMS", "md5sum.txt", "checksums", "SHA256SUMS", "series.sha256", "IM0001.md5"),
        *("Thumbs.db", "THUMBS.DB", "desktop.ini", "AUTORUN.INF", ".DS_Store", "._IM0001", ".hidden"),
        *("preview.jpg", "IM0001.png", "ct.nii.gz", "ct.mha", "viewer.exe", "IM0001:Zone.Identifier"),
    ]:
        (series / name).write_bytes(content)
    np.testing.assert_array_equal(read_ct(series).hu, phantom() - 1024)


def test_folders_hidden_copies_and_dicomdir_are_passed_over(series):
    shutil.copy(series / "IM0001", series / "DICOMDIR")
    shutil.copy(series / "IM0001", series / ".IM0001.xY3kQz")
    (series / "gone.txt").symlink_to(series / "nowhere.txt")
    shutil.copytree(series, series / "previous", symlinks=True)
    np.testing.assert_array_equal(read_ct(series).hu, phantom() - 1024)


@pytest.mark.parametrize("told_by", ["file meta", "data set", "both"])
@pytest.mark.parametrize("name", ["DIRFILE", "INDEX", "IM0000", "directory.dcm"])
def test_a_directory_of_media_is_known_by_its_class(series, name, told_by):
    dataset = copy_of(series / "IM0001")
    del dataset.Modality, dataset.PixelData, dataset.SOPClassUID
    if told_by != "data set":
        dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    if told_by != "file meta":
        dataset.SOPClassUID = MediaStorageDirectoryStorage
    dataset.save_as(series / name)
    for path in (series, series / name, series / "IM0002"):
        np.testing.assert_array_equal(read_ct(path).hu, phantom() - 1024)


def test_a_slice_with_the_name_of_a_text_is_a_slice(series):
    (series / "IM0003").rename(series / "IM0003.txt")
    np.testing.assert_array_equal(read_ct(series).hu, phantom() - 1024)


def test_a_folder_without_dicom_is_refused_and_says_what_it_has(tmp_path):
    with pytest.raises(VolumeError, match="has no DICOM file directly in it; it has: nothing"):
        read_ct(tmp_path)
    write_series(tmp_path / "series_1", phantom())
    (tmp_path / "notes.txt").write_text("a", encoding="utf-8")
    with pytest.raises(VolumeError, match=r"has no DICOM file directly in it; it has: notes\.txt, series_1/"):
        read_ct(tmp_path)


@pytest.mark.parametrize("modality", ["SR", "PR", "SEG"])
def test_other_objects_among_slices_are_refused_by_name(series, modality):
    copy_of(series / "IM0001", Modality=modality).save_as(series / "object")
    with pytest.raises(VolumeError, match=rf"5 of modality CT, 1 of modality {modality}; for example object"):
        read_ct(series)
