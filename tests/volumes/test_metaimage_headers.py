"""Headers of MetaImage that cannot be true, and those that look like them and are valid. The reference is ITK."""

import gzip
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from tapct.errors import VolumeError
from tapct.volumes import sizes
from tapct.volumes.metaimage import data_files, load_metaimage
from tapct.volumes.read import read_ct

SHAPE = (4, 5, 6)
VOXELS = np.random.default_rng(0).integers(-1000, 1500, SHAPE).astype("<i2")
HEADER = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "-1 0 0 0 -1 0 0 0 1",
    "Offset": "12.5 -80 33",
    "CenterOfRotation": "0 0 0",
    "AnatomicalOrientation": "RAI",
    "ElementSpacing": "0.7 0.7 2.5",
    "DimSize": "6 5 4",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "ct.raw",
}


def write(folder: Path, changes: dict[str, str | None] | None = None, voxels: bytes = VOXELS.tobytes()) -> Path:
    """A pair ct.mhd and ct.raw, its header changed; None takes a key out, and ElementDataFile stays the last."""
    fields = {**HEADER, **(changes or {})}
    fields["ElementDataFile"] = fields.pop("ElementDataFile")
    lines = [f"{key} = {value}\n" for key, value in fields.items() if value is not None]
    (folder / "ct.raw").write_bytes(voxels)
    path = folder / "ct.mhd"
    path.write_text("".join(lines), encoding="utf-8", newline="")
    return path


def equals_itk(path: Path) -> bool:
    volume, image = read_ct(path), sitk.ReadImage(str(path))
    expected = sitk.DICOMOrient(image, "LPS")
    first = np.array(expected.GetOrigin()) * [-1, -1, 1]
    return (
        np.array_equal(volume.hu, sitk.GetArrayFromImage(expected))
        and np.allclose(volume.spacing_mm, expected.GetSpacing()[::-1], rtol=1e-4)
        and np.allclose(volume.index_to_world(np.zeros((1, 3)))[0], first)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ElementSpacing": "0 0.7 2.5"}, "ElementSpacing is 0 0.7 2.5, and distances are above 0"),
        ({"ElementSpacing": "0.7 0.7 -2.5"}, "distances are above 0"),
        ({"ElementSpacing": "0,7 0,7 2,5"}, "ElementSpacing is '0,7 0,7 2,5', and must be 3 numbers"),
        ({"ElementSpacing": "0.7 0.7"}, "must be 3 numbers"),
        ({"ElementSpacing": "0.7 0.7 nan"}, "must be 3 numbers"),
        ({"ElementSpacing": None}, "no ElementSpacing, so the size of its voxels is unknown"),
        ({"ElementSize": "1 1 2.5"}, r"ElementSpacing is \[0.7, 0.7, 2.5\], but ElementSize is \[1.0, 1.0, 2.5\]"),
        ({"TransformMatrix": "-0.7 0 0 0 -0.7 0 0 0 2.5"}, r"ElementSpacing says .* lengths of \[0.7, 0.7, 2.5\]"),
        ({"TransformMatrix": "1 0 0 0 1 0"}, "TransformMatrix is '1 0 0 0 1 0', and must be 9 numbers"),
        ({"TransformMatrix": "0 0 0 0 0 0 0 0 0"}, r"lengths of \[0.0, 0.0, 0.0\] instead of 1"),
        ({"Rotation": "1 0 0 0 1 0 0 0 1"}, "TransformMatrix is -1 .*, but Rotation is 1 0 0"),
        ({"Position": "0 0 0"}, "contradicts itself: Offset is 12.5 -80 33, but Position is 0 0 0"),
        ({"ImagePosition": "0 0 0"}, "but ImagePosition is 0 0 0"),
        ({"ElementByteOrderMSB": "True"}, "BinaryDataByteOrderMSB is False, but ElementByteOrderMSB is True"),
        ({"CenterOfRotation": "10 0 0"}, "turns the scan about Offset for some readers"),
        ({"TransformMatrix": None, "AnatomicalOrientation": "LPI"}, "AnatomicalOrientation is LPI, but there is no"),
        ({"DistanceUnits": "cm"}, "DistanceUnits is cm; scale"),
        ({"ElementToIntensityFunctionOffset": "-1024"}, "slope 1 and offset -1024, which some readers apply"),
        ({"DimSize": "6 5 4.5"}, "must be whole numbers"),
        ({"DimSize": "6 5"}, "DimSize is '6 5', and must be 3 numbers"),
        ({"NDims": "0"}, "NDims is 0"),
        ({"ElementType": "MET_OTHER"}, "ElementType is 'MET_OTHER'"),
        ({"DimSize": "6 5 3"}, "the header claims 180 bytes, and the file has more"),
        ({"ElementType": "MET_UCHAR"}, "the header claims 120 bytes, and the file has more"),
        (
            {"TransformMatrix": None, "TransfomMatrix": "-1 0 0 0 -1 0 0 0 1"},
            "a key 'TransfomMatrix', .* write Transform",
        ),
        ({"CompressedData": "FalseTransformMatrix = 1 0 0"}, "must be True or False"),
        ({"Comment": "scanned\nOffset 12.5 -80 33", "Offset": None}, "the line of Offset has no '=' behind it"),
        ({"Offset": None, "Offsets": "12.5 -80 33"}, "a key 'Offsets', which MetaImage does not know; write Offset"),
        ({"CompressedData": None, "compressedData": "True"}, "write CompressedData"),
        ({"HeaderSize": "-2"}, "HeaderSize is -2"),
    ],
)
def test_a_header_that_cannot_be_true_is_refused(tmp_path, changes, message):
    with pytest.raises(VolumeError, match=rf"ct\.mhd cannot be read as MetaImage \(.*{message}"):
        read_ct(write(tmp_path, changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"DimSize": "6 5 5"},
            r"ct\.mhd has a header of \(6, 5, 5\) voxels, 300 bytes, but ct\.raw can hold no more than 240",
        ),
        ({"DimSize": "6 -5 -4"}, r"header of \(6, -5, -4\) voxels, which nothing can have"),
        ({"DimSize": "6 0 4"}, "is empty"),
        ({"DimSize": "4294967296 4294967296 4294967296"}, "ct.raw can hold no more than 240"),
        ({"HeaderSize": "8"}, "ct.raw can hold no more than 232"),
        ({"CompressedData": "True", "DimSize": "60000 6000 6000"}, "ct.raw can hold no more than 247,680"),
        ({"BinaryData": "False", "DimSize": "6 5 40"}, "ct.raw can hold no more than 240"),
    ],
)
def test_more_voxels_than_the_file_holds_are_refused_before_they_are_allocated(tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(np, "empty", None)  # whoever allocates fails
    with pytest.raises(VolumeError, match=message):
        read_ct(write(tmp_path, changes))


def test_more_voxels_than_memory_holds_are_refused(tmp_path, monkeypatch):
    path = write(tmp_path)
    monkeypatch.setattr(sizes, "available_memory", lambda: 120 * (2 + 4) - 1)
    with pytest.raises(VolumeError, match=r"ct\.mhd has \(6, 5, 4\) voxels, which take .* of memory are free"):
        read_ct(path)
    monkeypatch.setattr(sizes, "available_memory", lambda: 120 * (2 + 4))
    assert read_ct(path).shape == SHAPE


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"AnatomicalOrientation": None, "CenterOfRotation": None, "BinaryData": None, "CompressedData": None},
        {"TransformMatrix": "1 0 0 0 1 0 0 0 1", "CenterOfRotation": "10 0 0"},  # nothing is turned
        {"TransformMatrix": None, "AnatomicalOrientation": "RAI"},
        {"TransformMatrix": None, "AnatomicalOrientation": "???"},
        {"AnatomicalOrientation": "LPI"},
        {"TransformMatrix": "1 0 0 0 0 1 0 -1 0"},
        {"TransformMatrix": "0.999 0.045 0 -0.045 0.999 0 0 0 1"},  # three digits
        {"ElementSize": "0.7 0.7 2.5"},
        {"ElementSize": "0.7 0.7 5"},  # slices that overlap
        {"ElementSize": "0.7 0.7 2.5", "ElementSpacing": None},
        {"Position": "12.50001 -80 33"},
        {"Offset": None, "Origin": "12.5 -80 33"},
        {"DistanceUnits": "mm"},
        {"ElementToIntensityFunctionSlope": "1", "ElementToIntensityFunctionOffset": "0"},
        {"ElementByteOrderMSB": "False"},
        {"HeaderSize": "0"},
        {"HeaderSize": "-1"},
        {"Offsets": "1 2 3", "ITK_original_direction": "1 0 0 0 1 0 0 0 1"},  # next to the right one: a writer's own
        {"0008|0060": "CT", "dim[0]": "3", "dim[1]": "6", "Comment": "a: b = c"},
    ],
)
def test_a_valid_header_that_looks_similar_is_read_as_by_itk(tmp_path, changes):
    assert equals_itk(write(tmp_path, changes))


@pytest.mark.parametrize(
    ("name", "size"),
    [("CHAR", 1), ("UCHAR", 1), ("SHORT", 2), ("USHORT", 2), ("INT", 4), ("ULONG", 4), ("LONG_LONG", 8)],
)
@pytest.mark.parametrize("msb", ["True", "False"])
def test_numbers_of_either_byte_order_are_those_of_itk(tmp_path, name, size, msb):
    raw = np.random.default_rng(0).bytes(VOXELS.size * size)
    path = write(tmp_path, {"ElementType": f"MET_{name}", "BinaryDataByteOrderMSB": msb}, raw)
    np.testing.assert_array_equal(load_metaimage(path).array.T, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


def test_a_text_of_several_lines_is_passed_over(tmp_path):
    assert read_ct(write(tmp_path, {"Comment": "one\nand two"})).shape == SHAPE


def test_a_key_that_is_there_twice_must_say_the_same(tmp_path):
    path = write(tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text("ElementSpacing = 0.70 0.70 2.50\n" + text, encoding="utf-8")
    assert read_ct(path).spacing_mm == (2.5, 0.7, 0.7)
    path.write_text("ElementSpacing = 1 1 5\n" + text, encoding="utf-8")
    with pytest.raises(VolumeError, match=r"ElementSpacing is 1 1 5, but ElementSpacing is 0\.7 0\.7 2\.5"):
        read_ct(path)


def test_line_ends_and_mark_of_windows_do_not_matter(tmp_path):
    plain = read_ct(write(tmp_path)).hu
    path = tmp_path / "ct.mhd"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    np.testing.assert_array_equal(read_ct(path).hu, plain)
    local = path.read_bytes().replace(b"ct.raw", b"LOCAL") + VOXELS.tobytes()
    (tmp_path / "ct.mha").write_bytes(local)
    np.testing.assert_array_equal(read_ct(tmp_path / "ct.mha").hu, plain)


# --- compressed and written voxels -----------------------------------------------------------------------


def test_compressed_voxels_must_be_valid_and_as_many_as_the_header_says(tmp_path):
    """ITK writes "Uncompress failed" and continues with whatever its memory held."""
    compressed = {"CompressedData": "True"}
    packed = bytearray(zlib.compress(VOXELS.tobytes()))
    assert equals_itk(write(tmp_path, compressed, bytes(packed)))
    for bad, message in [
        (packed[: len(packed) // 2], "ends too early"),
        (packed[:-4] + b"\0\0\0\0", "incorrect data check"),
        (zlib.compress(VOXELS.tobytes() + b"\0"), "they are more than the 240 bytes"),
        (zlib.compress(VOXELS.tobytes()[:-2]), "they are 238 bytes, and DimSize and ElementType claim 240"),
        (VOXELS.tobytes(), "incorrect header check"),
    ]:
        with pytest.raises(VolumeError, match=rf"ct\.mhd cannot be read as MetaImage .*{message}"):
            read_ct(write(tmp_path, compressed, bytes(bad)))


def test_gzip_is_unpacked_too(tmp_path):
    assert equals_itk(write(tmp_path, {"CompressedData": "True"}, gzip.compress(VOXELS.tobytes())))


def test_numbers_written_as_text(tmp_path):
    written = " ".join(map(str, VOXELS.ravel())).encode()
    np.testing.assert_array_equal(load_metaimage(write(tmp_path, {"BinaryData": "False"}, written)).array.T, VOXELS)
    with pytest.raises(VolumeError, match="they are 119 numbers, and DimSize claims 120"):
        read_ct(write(tmp_path, {"BinaryData": "False"}, written.rpartition(b" ")[0]))


# --- files of voxels -------------------------------------------------------------------------------------


def write_slices(folder: Path, data: str, rows: str = "") -> Path:
    path = write(folder, {"ElementDataFile": data})
    path.write_text(path.read_text(encoding="utf-8") + rows, encoding="utf-8")
    for number, plane in enumerate(VOXELS, start=1):
        (folder / f"s {number:02d}.raw").write_bytes(plane.tobytes())
    return path


LISTED = "".join(f"s {number:02d}.raw\n" for number in range(1, 5))


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        ("LIST", LISTED),
        ("LIST 2", LISTED),
        ("s %02d.raw 1 4 1", ""),
        ("LIST", LISTED.rstrip()),  # ITK leaves out the last line where it does not end
        ("LIST", "\n" + LISTED + "\n"),
    ],
)
def test_a_file_for_each_slice(tmp_path, data, rows):
    path = write_slices(tmp_path, data, rows)
    assert data_files(path) == [tmp_path / f"s {number:02d}.raw" for number in range(1, 5)]
    whole = read_ct(write(tmp_path)).hu
    np.testing.assert_array_equal(read_ct(write_slices(tmp_path, data, rows)).hu, whole)


@pytest.mark.parametrize(
    ("data", "numbers"),
    [
        ("s%03d.raw", [1, 2, 3, 4]),
        ("s%03d.raw 5", [5, 6, 7, 8]),
        ("s%03d.raw 5 8", [5, 6, 7, 8]),
        ("s%03d.raw 0 9 3", [0, 3, 6, 9]),
    ],
)
def test_numbers_in_a_pattern(tmp_path, data, numbers):
    path = write(tmp_path, {"ElementDataFile": data})
    assert data_files(path) == [tmp_path / f"s{number:03d}.raw" for number in numbers]


@pytest.mark.parametrize(
    ("data", "rows", "message"),
    [
        ("LIST", LISTED[:-9], "it lists 3 files, but DimSize is 6 5 4"),
        ("LIST", LISTED + "s 05.raw\n", "it lists 5 files"),
        ("LIST 1", LISTED, "it lists 4 files"),
        ("s %02d.raw 1 5 1", "", "ElementDataFile is s %02d.raw 1 5 1, but DimSize has 4 slices"),
        ("s %02d.raw 1 2", "", "DimSize has 4 slices"),
        ("s %02d.raw 1 4 0", "", "DimSize has 4 slices"),
        ("s %02d.raw 4 1 1", "", "DimSize has 4 slices"),
        ("s %s.raw 1 4 1", "", "no pattern such as"),
        ("s %02d %02d.raw 1 4 1", "", "no pattern such as"),
        ("s %999999999d.raw 1 4 1", "", "no pattern such as"),
    ],
)
def test_another_number_of_files_than_slices_is_refused(tmp_path, data, rows, message):
    path = write_slices(tmp_path, data, rows)
    for function in (read_ct, data_files):
        with pytest.raises(VolumeError, match=message):
            function(path)


def test_each_file_of_a_list_must_be_there_and_whole(tmp_path):
    path = write_slices(tmp_path, "LIST", LISTED)
    (tmp_path / "s 03.raw").write_bytes(b"\0" * 58)
    with pytest.raises(VolumeError, match=r"header of \(6, 5\) voxels, 60 bytes, but s 03\.raw can hold no more"):
        read_ct(path)
    (tmp_path / "s 03.raw").unlink()
    with pytest.raises(VolumeError, match=r"keeps its voxels in 's 03\.raw', and there is no such file"):
        read_ct(path)


def test_voxels_in_another_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    plain = read_ct(write(tmp_path)).hu
    (tmp_path / "ct.raw").rename(tmp_path / "elsewhere" / "v.raw")
    for name in (str(tmp_path / "elsewhere" / "v.raw"), "elsewhere/v.raw"):
        path = tmp_path / "ct.mhd"
        path.write_text(path.read_text(encoding="utf-8").replace("ct.raw", name), encoding="utf-8")
        np.testing.assert_array_equal(read_ct(path).hu, plain)
        assert data_files(path) == [tmp_path / "elsewhere" / "v.raw"]
        path.write_text(path.read_text(encoding="utf-8").replace(name, "ct.raw"), encoding="utf-8")


def test_voxels_behind_the_header_are_in_no_other_file(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(tmp_path / "ct.mha"))
    assert data_files(tmp_path / "ct.mha") == []


# --- names beyond ASCII ----------------------------------------------------------------------------------


def named(text: str) -> str:
    """A name of UTF-8 bytes, also where the locale has tests take the names of files for ASCII."""
    return os.fsdecode(text.encode())


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_a_name_with_umlauts_is_found_whatever_wrote_the_header(tmp_path, encoding):
    folder = tmp_path / named("Schädel")
    folder.mkdir()
    path = write(folder)
    header = path.read_text(encoding="utf-8").replace("ct.raw", "Größe 1.raw")
    path.write_bytes(header.encode(encoding))
    voxels = (folder / "ct.raw").rename(folder / named("Größe 1.raw"))
    path = path.rename(folder / named("Müller.mhd"))
    assert data_files(path) == [voxels]
    assert read_ct(path).shape == SHAPE


@pytest.mark.thorough
def test_such_a_name_is_read_under_the_c_locale(tmp_path):
    path = write(tmp_path)
    (tmp_path / "ct.raw").rename(tmp_path / named("Größe.raw"))
    path.write_bytes(path.read_bytes().replace(b"ct.raw", "Größe.raw".encode()))
    program = f"from pathlib import Path; from tapct.volumes import read_ct; print(read_ct({str(path)!r}).shape)"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment.pop("PYTHONIOENCODING", None)
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == str(SHAPE), ran.stderr
