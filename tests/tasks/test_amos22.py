"""AMOS22 on a tiny tree of the release, through the dataset, the doctor and the eva command line."""

import json

import nibabel as nib
import numpy as np
import pytest

from tapct.errors import TapctError
from tapct.tasks import SplitTable, TaskData, task_class
from tapct.tasks.findings import findings
from tests.data import amos22
from tests.data.abdomen import spl
from tests.tasks.end_to_end import run, write_split
from tests.tasks.shipped import SPLITS, reference
from tools.splits.segmentation_splits import voco_table

AMOS22 = task_class("amos22")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "amos22"


def split_file(tmp_path):
    return write_split(tmp_path / "split.csv", train=["amos_0001"], val=["amos_0006"], test=["amos_0008"])


def test_the_shipped_split_is_the_official_one():
    table = SplitTable.read(SPLITS / "amos22.csv")
    assert table.counts == {"train": 180, "val": 20, "test": 100}
    assert len({p for cases in table.cases.values() for p in cases.values()}) == 300


def test_the_split_is_what_its_script_makes_of_the_official_lists():
    assert voco_table("amos22", reference()) == (SPLITS / "amos22.csv").read_text(encoding="utf-8")
    official = json.loads((reference() / "amos22_ct_ids.json").read_text(encoding="utf-8"))
    cases = SplitTable.read(SPLITS / "amos22.csv").cases
    assert cases["test"].keys() == {f"amos_{n:04d}" for n in official["val"]}
    assert {*cases["train"], *cases["val"]} == {f"amos_{n:04d}" for n in official["train"]}


@pytest.mark.parametrize("top", ["", "amos22"])
def test_every_direction_is_read_to_the_same_order(root, tmp_path, top):
    blocks = amos22.write(root / top)
    for split in ("train", "val", "test"):
        dataset = AMOS22(root, split, split_file(tmp_path))
        dataset.validate()
        volume, mask, metadata = dataset[0]
        block = blocks[metadata["case"]]
        assert np.array_equal(np.asarray(volume[:, 0]), spl(block.hu))
        assert np.array_equal(np.asarray(mask[:, 0]), spl(block.labels(amos22.ORGANS)))
        right, left = (np.argwhere(np.asarray(mask[:, 0]) == label)[:, 2].mean() for label in (2, 3))
        assert right < left, "x grows to the patient's left"


@pytest.mark.thorough
def test_the_task_runs_through_eva(root, tmp_path):
    amos22.write(root)
    record = run("segmentation/amos22.yaml", tmp_path, split_file(tmp_path), tmp_path, "segmentation")
    (case,) = record.runs[0].cases["test"]
    assert case.case == "amos_0008"
    assert [c.case for c in record.runs[0].cases["val"]] == ["amos_0006"]
    assert list(case.dice["native"]) == list(case.dice["paper"]) == list(AMOS22.spec.classes[1:])
    assert case.dice["native"]["prostate/uterus"] in (None, 0), "not in this slab: undefined, or 0 if predicted"
    assert record.task.cases == {"train": 1, "val": 1, "test": 1}


def test_the_doctor_is_not_surprised_by_mri_and_unlabelled_scans(root, tmp_path):
    amos22.write(root)
    report = [f"{status}: {message}" for status, message, _ in findings("amos22", str(tmp_path))]
    assert any(line.startswith("fail: 3 of 300 cases are there; missing: amos_0004") for line in report)
    assert not any("in no split" in line for line in report)


def test_bad_files_are_named_with_their_case_before_a_run(root, tmp_path):
    amos22.write(root)
    labels = root / "labelsTr" / "amos_0001.nii.gz"
    image = nib.load(labels)
    voxels = np.asanyarray(image.dataobj).copy()
    voxels[0, 0, 0] = 16
    nib.save(nib.Nifti1Image(voxels, image.affine), labels)
    with pytest.raises(
        TapctError, match=r"case amos_0001: .*labelsTr/amos_0001.nii.gz holds the unknown labels \[16\]"
    ):
        TaskData("amos22", str(tmp_path), split_file=str(split_file(tmp_path))).setup("fit")
    nib.save(image.slicer[:, :, :-1], labels)
    with pytest.raises(TapctError, match=r"case amos_0001: .*does not lie on the grid"):
        TaskData("amos22", str(tmp_path), split_file=str(split_file(tmp_path))).setup("fit")
    labels.unlink()
    data = TaskData("amos22", str(tmp_path), split_file=str(split_file(tmp_path)))
    with pytest.raises(TapctError, match=r"1 of 1 cases .* lack files .*labelsTr/amos_0001.nii.gz.*zenodo"):
        data.setup("fit")


def test_an_mri_that_a_split_file_names_is_refused(root, tmp_path):
    amos22.write(root)
    dataset = AMOS22(root, "train", write_split(tmp_path / "mri.csv", train=["amos_0507"]))
    with pytest.raises(TapctError, match=r"case amos_0507: .*not a CT in HU"):
        dataset[0]


def test_two_releases_side_by_side_are_refused(root, tmp_path):
    for top in ("amos22", "amos22_old"):
        amos22.write(root / top)
    with pytest.raises(TapctError, match=r"2 times: amos22/imagesTr/amos_0001.nii.gz, amos22_old/imagesTr/"):
        AMOS22(root, "train", split_file(tmp_path))[0]
