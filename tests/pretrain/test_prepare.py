import gzip
import json
import multiprocessing
import os
import re
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import MediaStorageDirectoryStorage

from pretrain import files
from pretrain.data import prepare as module
from pretrain.data.index import read_index
from pretrain.data.sources import find_scans
from pretrain.data.store import Box, Store
from pretrain.errors import PretrainError
from pretrain.prepare import main
from tests.conftest import QUICKSTART
from tests.pretrain.runs import start
from tests.volumes.dicom_files import write_series

AFFINE = np.diag([-1.5, -1.5, 2.0, 1.0])


def scan(shape=(20, 40, 40), seed=0):
    """A cylinder of tissue in air, (z, y, x)."""
    _, y, x = np.mgrid[tuple(slice(n) for n in shape)]
    inside = (y - shape[1] / 2) ** 2 + (x - shape[2] / 2) ** 2 < (0.4 * shape[1]) ** 2
    noise = np.random.default_rng(seed).normal(0, 20, shape)
    return (np.where(inside, 40, -1000) + noise).astype(np.int16)


def write(path, array=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image((scan() if array is None else array).transpose(2, 1, 0), AFFINE), path)
    return path


def run(*arguments):
    return main([*map(str, arguments), "--workers", "1"])


def quarantine(store):
    lines = (store / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    return {os.path.basename(row["source"]): row["reason"] for row in map(json.loads, lines)}  # noqa: PTH119


def rows(store):
    return sorted(read_index(store).values(), key=lambda row: row.source)


def test_the_quickstarts_scans_become_a_store_with_a_table(tmp_path, capsys):
    assert run(QUICKSTART, "-o", tmp_path, "--exclude", "*organs*") == 0
    printed = capsys.readouterr().out
    assert "volumes, patients" in printed
    assert "99.5 percentiles" in printed
    stored = rows(tmp_path)
    assert [(row.patient, row.shape) for row in stored] == [("abdomen", (112, 101, 122)), ("chest", (20, 512, 512))]
    for row in stored:
        assert (tmp_path / row.file).stat().st_size == row.size_bytes
        Store(tmp_path).verify(row)
    fingerprint = json.loads((tmp_path / "fingerprint.json").read_text(encoding="utf-8"))
    assert fingerprint["volumes"] == 2
    assert -400 < fingerprint["mean_hu"] < 100
    assert fingerprint["percentile_00_5_hu"] < -900


def test_nifti_and_metaimage_give_the_same_voxels(tmp_path):
    array = scan()
    write(tmp_path / "in" / "a.nii.gz", array)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.5, 1.5, 2.0))
    sitk.WriteImage(image, tmp_path / "in" / "b.mha")
    assert run(tmp_path / "in", "-o", tmp_path / "store") == 0
    store = Store(tmp_path / "store")
    # NIfTI with -x -y affine is stored as LPS, as MetaImage is.
    first, second = (store.read(store[number], Box(0, 0, 0, *array.shape)) for number in range(2))
    assert np.array_equal(first, array.clip(-1008, 822))
    assert np.array_equal(first, second)


def test_broken_and_thin_scans_are_quarantined_with_the_reason(tmp_path, capsys):
    source = tmp_path / "in"
    write(source / "good.nii.gz")
    write(source / "thin.nii.gz", scan((11, 40, 40)))
    write(source / "air.nii.gz", np.full((20, 40, 40), -1000, np.int16))
    specks = np.full((20, 40, 40), -1000, np.int16)
    specks[::4, ::8, ::8] = 40
    write(source / "specks.nii.gz", specks)
    write(source / "windowed.nii.gz", ((scan() + 1000) / 5).clip(0, 255).astype(np.int16))
    whole = write(source / "cut.nii.gz").read_bytes()
    (source / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (source / "page.nii.gz").write_bytes(gzip.compress(b"<html>not found</html>"))
    assert run(source, "-o", tmp_path / "store") == 3
    reasons = quarantine(tmp_path / "store")
    expected = {
        "thin.nii.gz": "11 slices, fewer than --min-slices 12",
        "air.nii.gz": "all the same, so there is no scan in it",
        "specks.nii.gz": "no body",
        "windowed.nii.gz": "another slope or window",
        "cut.nii.gz": "download was interrupted",
        "page.nii.gz": "cannot be read as NIfTI",
    }
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in reasons[name]
        assert str(source / name) in reasons[name]
    assert [os.path.basename(row.source) for row in rows(tmp_path / "store")] == ["good.nii.gz"]  # noqa: PTH119
    assert "6 quarantined" in capsys.readouterr().out


def test_the_same_command_again_does_only_what_is_missing(tmp_path, monkeypatch):
    source, store = tmp_path / "in", tmp_path / "store"
    for name in "abcd":
        write(source / f"{name}.nii.gz", scan(seed=ord(name)))
    (source / "e.nii.gz").write_bytes(b"")
    assert run(source, "-o", store) == 3
    before = {row.source: row for row in rows(store)}
    (store / rows(store)[1].file).unlink()  # b vanished
    write(source / "c.nii.gz", scan((30, 40, 40)))  # c has changed
    write(source / "e.nii.gz")  # e is fixed
    done = []
    convert = module.convert
    monkeypatch.setattr(module, "convert", lambda *args: done.append(args[0].path.name) or convert(*args))
    assert run(source, "-o", store) == 0
    assert sorted(done) == ["b.nii.gz", "c.nii.gz", "e.nii.gz"]
    after = {row.source: row for row in rows(store)}
    assert {name for name, row in after.items() if row != before.get(name)} == {
        str(source / name) for name in ("c.nii.gz", "e.nii.gz")
    }
    assert quarantine(store) == {}
    done.clear()
    assert run(source, "-o", store) == 0
    assert done == []
    (source / "c.nii.gz").write_bytes(b"")  # c broke: what was made of it is not used any more
    assert run(source, "-o", store) == 3
    assert str(source / "c.nii.gz") not in {row.source for row in rows(store)}


def test_a_scan_is_made_again_when_any_of_its_files_changed(tmp_path, monkeypatch):
    source, store = tmp_path / "in", tmp_path / "store"
    image = sitk.GetImageFromArray(scan())
    image.SetSpacing((1.5, 1.5, 2.0))
    source.mkdir()
    sitk.WriteImage(image, source / "a.mhd")
    header = (source / "a.mhd").read_text(encoding="utf-8").replace("a.raw", "voxels.bin")
    (source / "a.mhd").write_text(header, encoding="utf-8")
    voxels = (source / "a.raw").rename(source / "voxels.bin")
    write(source / "b.nii.gz")
    assert run(source, "-o", store) == 0
    before = Store(store)
    done = []
    convert = module.convert
    monkeypatch.setattr(module, "convert", lambda *args: done.append(args[0].path.name) or convert(*args))
    for path in source.iterdir():
        path.touch()
    assert run(source, "-o", store) == 0
    assert done == []
    assert Store(store).index_sha256 == before.index_sha256
    stat = voxels.stat()
    scan(seed=1).tofile(voxels)
    os.utime(voxels, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run(source, "-o", store) == 0
    assert done == ["a.mhd"]


def test_a_store_of_before_files_were_hashed_is_gone_on_with(tmp_path, monkeypatch):
    source, store = tmp_path / "in", tmp_path / "store"
    write(source / "a.nii.gz")
    assert run(source, "-o", store) == 0
    lines = [json.loads(line) for line in (store / "index.jsonl").read_text(encoding="utf-8").splitlines()]
    for line in lines:
        del line["source_sha256"], line["code_sha256"]
    (store / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    monkeypatch.setattr(module, "convert", lambda *_: pytest.fail("made again"))
    assert run(source, "-o", store) == 0


def test_volumes_of_other_code_are_said_and_made_again_on_demand(tmp_path, monkeypatch, capsys):
    source, store = tmp_path / "in", tmp_path / "store"
    write(source / "a.nii.gz")
    assert run(source, "-o", store) == 0
    assert "other code" not in capsys.readouterr().out
    monkeypatch.setattr(module, "_code_sha256", lambda: "another")
    assert run(source, "-o", store) == 0
    assert "made by other code than today's" in capsys.readouterr().out
    assert run(source, "-o", store, "--verify") == 0
    assert [row.code_sha256 for row in rows(store)] == ["another"]


def test_verify_makes_damaged_files_again(tmp_path):
    source, store = tmp_path / "in", tmp_path / "store"
    write(source / "a.nii.gz")
    assert run(source, "-o", store) == 0
    path = store / rows(store)[0].file
    content = path.read_bytes()
    path.write_bytes(content[:1000] + bytes(50) + content[1050:])
    assert run(source, "-o", store) == 0
    assert path.read_bytes() != content  # the size is right, so nobody looked inside
    assert run(source, "-o", store, "--verify") == 0
    assert path.read_bytes() == content
    path.write_bytes(content[:-50] + bytes(50))  # where its metadata are, which the fingerprint needs
    assert run(source, "-o", store) == 1
    assert run(source, "-o", store, "--verify") == 0


@pytest.mark.parametrize("method", ["forkserver", pytest.param("spawn", marks=pytest.mark.thorough)])
def test_one_worker_and_two_give_the_same_store(tmp_path, monkeypatch, method):
    """Workers import everything anew, as users' do, in CI alone."""
    monkeypatch.setattr(module, "get_context", lambda _: multiprocessing.get_context(method))
    source = tmp_path / "in"
    for name in "abc":
        write(source / name / "ct.nii.gz", scan(seed=ord(name)))
    (source / "d.nii").write_bytes(b"broken")
    stores = tmp_path / "one", tmp_path / "two"
    assert main([str(source), "-o", str(stores[0]), "--workers", "1"]) == 3
    assert main([str(source), "-o", str(stores[1]), "--workers", "2"]) == 3
    for path in (path for path in stores[0].rglob("*") if path.is_file()):
        assert path.read_bytes() == (stores[1] / path.relative_to(stores[0])).read_bytes()
    assert [row.patient for row in rows(stores[1])] == ["a", "b", "c"]


def _save_after_each(*arguments) -> None:
    module.SAVE_EVERY_S = 0.0
    sys.exit(run(*arguments))


def test_a_killed_run_leaves_a_good_store_and_can_go_on(tmp_path):
    source, store = tmp_path / "in", tmp_path / "store"
    for number in range(20):
        write(source / f"{number:02}.nii.gz", scan((40, 96, 96), seed=number))
    process = start(_save_after_each, source, "-o", store)
    deadline = time.monotonic() + 60
    while len(list(store.glob("volumes/*/*.b2nd"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    left = Store(store)
    assert 0 < len(left) < 20
    for number in range(len(left)):
        left.verify(left[number])
    assert run(source, "-o", store) == 0
    assert len(Store(store)) == 20
    assert not list(store.glob("volumes/*/.*"))


def test_patients_come_from_dicom_the_folder_the_name_or_a_pattern(tmp_path):
    source = tmp_path / "in"
    write(source / "p1" / "ct.nii.gz")
    write(source / "many" / "p2.nii.gz")
    write(source / "many" / "p3.nii.gz")
    patients = {s.path.name: s.patient for s in find_scans([source], ["*"], [])}
    assert patients == {"ct.nii.gz": "p1", "p2.nii.gz": "p2", "p3.nii.gz": "p3"}
    found = find_scans([source], ["*/many/*"], ["*p3*"], re.compile(r"in/([a-z]+)/"))
    assert [(s.path.name, s.patient) for s in found] == [("p2.nii.gz", "many")]
    with pytest.raises(PretrainError, match="finds no patient"):
        find_scans([source], ["*"], [], re.compile("nobody-(.)"))


def test_links_are_followed_and_a_link_back_ends(tmp_path):
    write(tmp_path / "elsewhere" / "a.nii.gz")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    assert [s.path.name for s in find_scans([tmp_path / "in"], ["*"], [])] == ["a.nii.gz"]


def test_patients_of_dicom_series(tmp_path):
    series = tmp_path / "in" / "study" / "series"
    series.mkdir(parents=True)
    for path in (QUICKSTART / "chest" / "ct_dicom").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PatientID = "Jane^0042"
        dataset.save_as(series / path.name)
    assert run(tmp_path / "in", "-o", tmp_path / "store") == 0
    assert [row.patient for row in rows(tmp_path / "store")] == ["Jane^0042"]


def test_dicom_folders_are_found_as_the_reader_reads_them(tmp_path):
    """A directory of media does not hide the patient, and what is left of a series is quarantined by name."""

    def of_patient_7(dataset, _):
        dataset.PatientID = "P7"

    source = tmp_path / "in"
    for name in ("whole", "cut", "lost"):
        write_series(source / name, scan().astype(int) + 1200, intercept=-1200.0, edit=of_patient_7)
    directory = pydicom.dcmread(source / "whole" / "slice_0.dcm")
    directory.SOPClassUID = directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    del directory.Modality, directory.PatientID, directory.PixelData
    for folder in ("whole", "directory"):  # as on a CD, also in a folder without slices
        (source / folder).mkdir(exist_ok=True)
        directory.save_as(source / folder / "DIRFILE")
    for path in (source / "lost").iterdir():
        path.write_bytes(b"")
    (source / "cut" / "slice_19.dcm").rename(source / "cut" / "slice_19.dcm.part")
    (source / "texts").mkdir()
    (source / "texts" / "README").write_text("no scan", encoding="utf-8")
    assert run(source, "-o", tmp_path / "store") == 3
    assert [(Path(row.source).name, row.patient) for row in rows(tmp_path / "store")] == [("whole", "P7")]
    refused = quarantine(tmp_path / "store")
    assert sorted(refused) == ["cut", "lost"]
    assert "slice_19.dcm.part lies among 19 slices" in refused["cut"]
    assert "slice_0.dcm is not a DICOM file: it is empty" in refused["lost"]


def test_scans_that_may_not_be_read_are_quarantined(tmp_path, monkeypatch):
    source = tmp_path / "in"
    write(source / "a.nii.gz")
    (source / "series").mkdir()
    (source / "series" / "1").write_bytes(b"")

    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("tapct.volumes.dicom_files._head", forbidden)
    assert run(source, "-o", tmp_path / "store") == 3
    assert list(quarantine(tmp_path / "store")) == ["series"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["empty"], "no scan found"),
        (["in", "--clip-hu", "-1000", "1000"], "is clipped to (-1008.0, 822.0) HU"),
        (["in", "--patient", "("], "is not a regular expression"),
    ],
)
def test_what_cannot_be_done_is_said_with_status_1(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "in" / "a.nii.gz")
    assert run("in", "-o", "store") == 0
    assert run(*arguments, "-o", "store") == 1
    assert message in " ".join(capsys.readouterr().err.split())


def test_two_writers_at_a_time_are_refused(tmp_path, capsys):
    write(tmp_path / "in" / "a.nii.gz")
    with module._sole_writer(tmp_path / "store"):
        assert run(tmp_path / "in", "-o", tmp_path / "store") == 1
    assert "another process is preparing" in " ".join(capsys.readouterr().err.split())


def test_a_full_disk_stops_the_run_and_keeps_what_is_done(tmp_path, monkeypatch, capsys):
    source, store = tmp_path / "in", tmp_path / "store"
    for name in "abc":
        write(source / f"{name}.nii.gz", scan(seed=ord(name)))
    real = files.write_atomically

    def full(path, content):
        if path.suffix == ".b2nd" and len(list(store.glob("volumes/*/*.b2nd"))) == 1:
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(files, "write_atomically", full)
    assert run(source, "-o", store) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(r"store/volumes/\S+b2nd could not be written \(No space left on device\)", error)
    assert re.search(r"it takes [\d.]+ kB, and [\d.]+ GB are free there", error)
    assert "run the same command again" in error
    assert len(Store(store)) == 1
    monkeypatch.undo()
    assert run(source, "-o", store) == 0
    assert len(Store(store)) == 3


def test_what_is_no_ct_is_skipped_and_not_read_again(tmp_path, capsys, monkeypatch):
    source, store = tmp_path / "in", tmp_path / "store"
    write(source / "p1" / "ct.nii.gz")
    organs = np.kron(np.random.default_rng(0).integers(0, 5, (5, 8, 8)), np.ones((4, 5, 5))).astype(np.int16)
    write(source / "p1" / "organs.nii.gz", organs)
    write(source / "p1" / "liver.nii.gz", (scan() > 0).astype(np.int16))
    suv = np.abs(np.random.default_rng(0).normal(0.3, 0.2, (20, 40, 40))) + 8 * (scan() > 50)
    nib.save(nib.Nifti1Image(suv.astype(np.float32), AFFINE), source / "p1" / "SUV.nii.gz")

    def of_pet(dataset, _):
        dataset.Modality = "PT"

    write_series(source / "p1" / "pet", scan().astype(int) + 1200, intercept=-1200.0, edit=of_pet)
    assert run(source, "-o", store) == 0
    assert [row.patient for row in rows(store)] == ["p1"]
    assert quarantine(store) == {}
    entries = [json.loads(line) for line in (store / "skipped.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {Path(entry["source"]).name: entry["what"].split(":")[0] for entry in entries} == {
        "organs.nii.gz": "a label map",
        "liver.nii.gz": "a label map",
        "SUV.nii.gz": "a PET, by its name",
        "pet": "DICOM of modality PT",
    }
    assert "skipped, no CT" in capsys.readouterr().out
    with monkeypatch.context() as patched:
        patched.setattr(module, "convert", lambda *_: pytest.fail("read again"))
        assert run(source, "-o", store) == 0
    write(source / "p1" / "liver.nii.gz", scan(seed=3))  # now it is one
    assert run(source, "-o", store) == 0
    assert len(rows(store)) == 2


def test_a_folder_of_other_things_is_no_store(tmp_path, capsys):
    write(tmp_path / "in" / "mask.nii.gz", (scan() > 0).astype(np.int16))
    assert run(tmp_path / "in", "-o", tmp_path / "store") == 1
    assert "none of the 1 files and folders is a CT" in " ".join(capsys.readouterr().err.split())


def test_a_scan_that_went_wrong_is_not_skipped(tmp_path):
    """Windowed to 8 bits, it repeats itself only where it was cut off."""
    write(tmp_path / "in" / "a.nii.gz", ((scan() + 1000) / 5).clip(0, 255).astype(np.int16))
    write(tmp_path / "in" / "b.nii.gz", ((scan() + 160) / 400 * 255).clip(0, 255).astype(np.int16))
    assert run(tmp_path / "in", "-o", tmp_path / "store") == 3
    assert len(quarantine(tmp_path / "store")) == 2


def test_patients_of_series_that_name_nobody_come_from_folders(tmp_path):
    def anonymous(dataset, _):
        dataset.PatientID = "ANONYMOUS"

    for name in ("one", "two"):
        write_series(tmp_path / "in" / name / "CT", scan().astype(int) + 1200, intercept=-1200.0, edit=anonymous)
    assert run(tmp_path / "in", "-o", tmp_path / "store") == 0
    assert [row.patient for row in rows(tmp_path / "store")] == ["one", "two"]


def test_patients_of_a_store_are_named_again(tmp_path):
    write(tmp_path / "in" / "p1" / "CT" / "a.nii.gz")
    write(tmp_path / "in" / "p2" / "CT" / "b.nii.gz")
    assert run(tmp_path / "in", "-o", tmp_path / "store") == 0
    index = tmp_path / "store" / "index.jsonl"
    index.write_text(re.sub('"p[12]"', '"CT"', index.read_text(encoding="utf-8")), encoding="utf-8")
    assert [row.patient for row in rows(tmp_path / "store")] == ["CT", "CT"], "as it was before"
    assert run(tmp_path / "in", "-o", tmp_path / "store") == 0
    assert [row.patient for row in rows(tmp_path / "store")] == ["p1", "p2"]


def test_how_a_scan_was_read_is_in_the_index_and_said(tmp_path, capsys):
    padded = scan()
    padded[:, :2] = -2000
    write(tmp_path / "in" / "padded.nii.gz", padded)
    write(tmp_path / "in" / "plain.nii.gz")
    assert run(tmp_path / "in", "-o", tmp_path / "store") == 0
    noted, plain = rows(tmp_path / "store")
    assert [note.split(",")[0] for note in noted.notes] == ["5.00% of the voxels lie below -1500 HU"]
    assert plain.notes == ()
    assert "with notes" in capsys.readouterr().out
