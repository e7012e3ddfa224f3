"""LiTS17 on tiny trees of the release and of the Decathlon's copy."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from tapct.errors import TapctError
from tapct.tasks import SplitTable, TaskData, segmentation, task_class
from tapct.tasks.checks import cases_of, examine
from tapct.tasks.findings import findings
from tests.data import lits17
from tests.data.abdomen import spl
from tests.tasks.end_to_end import run, write_split
from tests.tasks.shipped import SPLITS, reference
from tools.splits.segmentation_splits import voco_table

LiTS17 = task_class("lits17")
WRONG_SPACING = {f"volume-{n}" for n in range(28, 48)}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "lits17"


def split_file(tmp_path):
    train, val = ["volume-0", "volume-28", "volume-130"], ["volume-10"]
    return write_split(tmp_path / "split.csv", train=train, val=val, test=["volume-14"])


def test_the_shipped_split_holds_all_131_scans():
    """eva's class cannot reach 128 to 130, and drops 68 and 69."""
    table = SplitTable.read(SPLITS / "lits17.csv")
    assert table.counts == {"train": 99, "val": 9, "test": 23}
    assert {c for cases in table.cases.values() for c in cases} == {f"volume-{n}" for n in range(131)}
    assert table.cases["test"].keys() >= {"volume-2", "volume-14", "volume-126"}


def test_the_split_is_what_its_script_makes_of_vocos_list():
    assert voco_table("lits17", reference()) == (SPLITS / "lits17.csv").read_text(encoding="utf-8")


def test_the_scans_of_the_wrong_spacing_change_only_the_training(tmp_path):
    datasets = {split: LiTS17(tmp_path, split) for split in ("train", "val", "test")}
    assert {split: len(d) for split, d in datasets.items()} == {"train": 79, "val": 9, "test": 23}
    assert LiTS17.split_counts() == (79, 9, 23)
    assert datasets["train"].excluded.keys() == WRONG_SPACING
    assert SplitTable.read(SPLITS / "lits17.csv").cases["train"].keys() > WRONG_SPACING


def test_plain_gzipped_and_scattered_files_are_found_and_read(root, tmp_path):
    """eva's class finds no .nii.gz."""
    blocks = lits17.write(root)
    for split, cases in (("train", ["volume-0", "volume-130"]), ("val", ["volume-10"]), ("test", ["volume-14"])):
        dataset = LiTS17(root, split, split_file(tmp_path))
        dataset.validate()
        assert dataset.cases == cases, "volume-28 is excluded whatever the split file says"
        for index, case in enumerate(cases):
            volume, mask, _ = dataset[index]
            assert np.array_equal(np.asarray(volume[:, 0]), spl(blocks[case].hu))
            assert np.array_equal(np.asarray(mask[:, 0]), spl(lits17.labels(case, blocks[case])))


def test_the_decathlons_names_are_the_same_cases(root, tmp_path):
    blocks = lits17.write_decathlon(root)
    dataset = LiTS17(root, "test", split_file(tmp_path))
    dataset.validate()
    volume, mask, metadata = dataset[0]
    assert metadata["case"] == "volume-14"
    assert np.array_equal(np.asarray(volume[:, 0]), spl(blocks["volume-14"].hu))
    assert np.array_equal(np.asarray(mask[:, 0]), spl(lits17.labels("volume-14", blocks["volume-14"])))


def test_a_second_file_of_the_same_name_is_never_taken_by_chance(root, tmp_path):
    lits17.write(root)
    predicted = root / "predictions" / "segmentation-14.nii"
    predicted.parent.mkdir()
    predicted.write_bytes((root / "Training_Batch1" / "segmentation-14.nii").read_bytes())
    with pytest.raises(TapctError, match=r"segmentation-14.nii 2 times: Training_Batch1/.*, predictions/"):
        LiTS17(root, "test", split_file(tmp_path)).validate()
    *_, (status, message, _) = findings("lits17", str(tmp_path))
    assert (status, "2 times" in message) == ("fail", True)


def test_a_mask_without_a_place_of_another_shape_is_refused(root, tmp_path):
    """It borrows its scan's affine, but only voxel for voxel."""
    lits17.write(root)
    path = root / "Training_Batch1" / "segmentation-14.nii"
    image = nib.load(path)
    short = nib.Nifti1Image(np.array(image.dataobj)[:, :, 1:], None, image.header)  # a copy: plain files are mapped
    nib.save(short, path)
    with pytest.raises(TapctError, match=r"case volume-14: .*segmentation-14.nii has neither an sform nor a qform"):
        LiTS17(root, "test", split_file(tmp_path))[0]


@pytest.mark.thorough
def test_the_task_runs_through_eva(root, tmp_path):
    lits17.write(root)
    record = run("segmentation/lits17.yaml", tmp_path, split_file(tmp_path), tmp_path, "segmentation")
    (case,) = record.runs[0].cases["test"]
    assert (case.case, list(case.dice["native"])) == ("volume-14", ["liver", "lesion"])
    assert [c.case for c in record.runs[0].cases["val"]] == ["volume-10"]
    assert record.task.cases == {"train": 2, "val": 1, "test": 1}
    assert record.task.excluded.keys() == WRONG_SPACING


def test_the_doctor_reports_the_wrong_spacing_and_the_archives(root, tmp_path):
    lits17.write(root)
    (root / "Training_Batch2.zip").write_bytes(b"PK")
    report = list(findings("lits17", str(tmp_path)))
    warned = [message for status, message, _ in report if status == "warn"]
    (left_out,) = warned  # one reason, one line
    named = left_out.partition(" and ")[0].split(", ")
    assert named == sorted(WRONG_SPACING)[: len(named)]
    assert f"({len(WRONG_SPACING)} cases) are left out: " in left_out
    assert "spacing of 1 x 1 x 1 mm" in left_out
    failed = [(message, fix) for status, message, fix in report if status == "fail"]
    assert [m.split(";")[0] for m, _ in failed] == ["4 of 111 cases are there"]
    assert "unpack Training_Batch2.zip" in failed[0][1]


def test_bad_files_are_named_with_their_case_before_a_run(root, tmp_path):
    lits17.write(root)
    scan = root / "Training_Batch1" / "volume-10.nii.gz"
    whole = scan.read_bytes()
    scan.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TapctError, match=r"case volume-10: .*volume-10.nii.gz"):
        TaskData("lits17", str(tmp_path), split_file=str(split_file(tmp_path))).setup("fit")
    scan.write_bytes(gzip.compress(b"<html>quota exceeded</html>"))
    with pytest.raises(TapctError, match=r"case volume-10: .*volume-10.nii.gz cannot be read as NIfTI"):
        TaskData("lits17", str(tmp_path), split_file=str(split_file(tmp_path))).setup("fit")
    (root / "Training_Batch2" / "segmentation-130.nii").unlink()
    with pytest.raises(TapctError, match=r"1 of 2 cases .*'train' lack files .*segmentation-130.nii"):
        LiTS17(root, "train", split_file(tmp_path)).validate()


def test_the_doctor_goes_on_after_a_header_that_claims_too_much_and_after_full_memory(root, tmp_path, monkeypatch):
    lits17.write(root)
    path = LiTS17(root, "train").ct_path("volume-0")
    raw = bytearray(path.read_bytes())
    raw[42:48] = np.array([30000] * 3, "<i2").tobytes()  # the header's dim
    path.write_bytes(raw)
    whole = segmentation.read_labels
    full = LiTS17(root, "val").label_path("volume-10")

    def read_labels(path, reference):
        if path == full:
            raise MemoryError("40 GB")
        return whole(path, reference)

    monkeypatch.setattr(segmentation, "read_labels", read_labels)
    parts = [LiTS17(root, part, split_file(tmp_path)) for part in ("train", "val", "test")]
    broken = [check.broken for check in examine(cases_of(parts)) if check.broken]
    assert len(broken) == 2
    assert "lits17, case volume-0: " in broken[0]
    assert "has a header of (30000, 30000, 30000) voxels" in broken[0]
    assert broken[1].startswith("lits17, case volume-10: there is not enough memory to read it")
