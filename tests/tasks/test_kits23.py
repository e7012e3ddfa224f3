"""KiTS23 on a tiny tree of the repository, with the scans of its script and of Hugging Face."""

import numpy as np
import pytest

from tapct.errors import TapctError
from tapct.tasks import SplitTable, TaskData, task_class
from tapct.tasks.findings import findings
from tests.data import kits23
from tests.data.abdomen import save, spl
from tests.tasks.end_to_end import run, write_split
from tests.tasks.shipped import SPLITS, reference
from tools.splits.segmentation_splits import voco_table

KiTS23 = task_class("kits23")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "kits23"


def split_file(tmp_path):
    train, val = ["case_00000", "case_00299", "case_00588"], ["case_00400"]
    return write_split(tmp_path / "split.csv", train=train, val=val, test=["case_00005"])


def test_the_shipped_split_holds_all_489_cases():
    """eva's class drops the 189 cases from 400 to 588."""
    table = SplitTable.read(SPLITS / "kits23.csv")
    assert table.counts == {"train": 419, "val": 46, "test": 24}
    cases = {c for part in table.cases.values() for c in part}
    assert cases == {f"case_{n:05d}" for n in (*range(300), *range(400, 589))}


def test_the_split_is_what_its_script_makes_of_vocos_list():
    assert voco_table("kits23", reference()) == (SPLITS / "kits23.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("hugging_face", [False, True])
def test_slices_on_the_first_axis_are_read_as_slices(root, tmp_path, hugging_face):
    blocks = kits23.write(root, hugging_face)
    dataset = KiTS23(root, "train", split_file(tmp_path))
    dataset.validate()
    for index, case in enumerate(dataset.cases):
        volume, mask, metadata = dataset[index]
        assert np.array_equal(np.asarray(volume[:, 0]), spl(blocks[case].hu))
        assert np.array_equal(np.asarray(mask[:, 0]), spl(kits23.labels(blocks[case])))
        assert set(np.unique(mask)) == {0, 1, 2, 3}
        assert np.allclose(np.diag(metadata["affine"][:3, :3].numpy()[::-1]), (3, -3, -3))


def test_the_root_may_be_the_folder_dataset_itself(root, tmp_path):
    kits23.write(root)
    dataset = KiTS23(root / "dataset", "test", split_file(tmp_path))
    dataset.validate()
    assert all(dataset.ct_path(case).is_relative_to(root / "dataset") for case in dataset.cases)
    assert len(dataset.cases) > 0


@pytest.mark.thorough
def test_the_task_runs_through_eva(root, tmp_path):
    kits23.write(root)
    record = run("segmentation/kits23.yaml", tmp_path, split_file(tmp_path), tmp_path, "segmentation")
    (case,) = record.runs[0].cases["test"]
    assert (case.case, list(case.dice["native"])) == ("case_00005", ["kidney", "tumor", "cyst"])
    assert None not in case.dice["native"].values()
    assert record.task.cases == {"train": 3, "val": 1, "test": 1}


def test_the_doctor_counts_and_names_what_is_unexpected(root, tmp_path):
    kits23.write(root)
    hidden = root / "dataset" / "case_00589" / "imaging.nii.gz"
    hidden.parent.mkdir()
    hidden.write_bytes(b"")
    report = [f"{status}: {message}" for status, message, _ in findings("kits23", str(tmp_path))]
    assert any(line.startswith("fail: 5 of 489 cases are there") for line in report)
    assert any("1 scans are in no split" in line and "case_00589" in line for line in report)


def test_bad_files_are_named_with_their_case_before_a_run(root, tmp_path):
    blocks = kits23.write(root)
    folder = root / "dataset" / "case_00299"
    scan = folder / "imaging.nii.gz"
    whole = scan.read_bytes()
    scan.write_bytes(whole[:-2000])
    with pytest.raises(TapctError, match=r"case case_00299: .*imaging.nii.gz cannot be read .* Download it again"):
        TaskData("kits23", str(tmp_path), split_file=str(split_file(tmp_path))).setup("fit")
    scan.write_bytes(whole)
    swapped = blocks["case_00299"].organs.transpose(1, 0, 2).copy()  # a mask saved with its axes exchanged
    save(folder / "segmentation.nii.gz", swapped[:, :-1], blocks["case_00299"].affine, "IPL", qform=0, sform=2)
    with pytest.raises(TapctError, match=r"case case_00299: .*segmentation.nii.gz does not lie on the grid"):
        TaskData("kits23", str(tmp_path), split_file=str(split_file(tmp_path))).setup("fit")
    scan.unlink()
    with pytest.raises(TapctError, match=r"lack files .*case_00299/imaging.nii.gz.*kits23_download_data"):
        KiTS23(root, "train", split_file(tmp_path)).validate()
