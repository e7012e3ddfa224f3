"""MSD Pancreas on a tiny Task07_Pancreas."""

import nibabel as nib
import numpy as np
import pytest

from tapct.errors import TapctError
from tapct.tasks import SplitTable, TaskData, task_class
from tapct.tasks.findings import findings
from tests.data import msd_pancreas
from tests.data.abdomen import spl
from tests.tasks.end_to_end import run, write_split
from tests.tasks.shipped import SPLITS, reference
from tools.splits.segmentation_splits import voco_table

MSDPancreas = task_class("msd_pancreas")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "msd_pancreas"


def split_file(tmp_path):
    return write_split(tmp_path / "split.csv", train=["pancreas_001"], val=["pancreas_004"], test=["pancreas_012"])


def test_the_shipped_split_is_pinned():
    table = SplitTable.read(SPLITS / "msd_pancreas.csv")
    assert table.counts == {"train": 231, "val": 26, "test": 24}
    assert len({p for cases in table.cases.values() for p in cases.values()}) == 281


def test_the_split_is_what_its_script_makes_of_vocos_list():
    assert voco_table("msd_pancreas", reference()) == (SPLITS / "msd_pancreas.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("top", ["", "Task07_Pancreas"])
@pytest.mark.parametrize("suffix", ["", "_0000"])
def test_both_namings_are_read(root, tmp_path, top, suffix):
    """eva's class refuses the release's own names."""
    blocks = msd_pancreas.write(root / top, suffix)
    for split in ("train", "val", "test"):
        dataset = MSDPancreas(root, split, split_file(tmp_path))
        dataset.validate()
        volume, mask, metadata = dataset[0]
        block = blocks[metadata["case"]]
        assert np.array_equal(np.asarray(volume[:, 0]), spl(block.hu))
        assert np.array_equal(np.asarray(mask[:, 0]), spl(msd_pancreas.labels(block)))
        assert set(np.unique(mask)) == {0, 1, 2}


def test_the_task_runs_through_eva(root, tmp_path):
    msd_pancreas.write(root)
    record = run("segmentation/msd_pancreas.yaml", tmp_path, split_file(tmp_path), tmp_path, "segmentation")
    (case,) = record.runs[0].cases["test"]
    assert (case.case, list(case.dice["native"])) == ("pancreas_012", ["pancreas", "cancer"])
    assert None not in case.dice["native"].values()
    assert [c.case for c in record.runs[0].cases["val"]] == ["pancreas_004"]


def test_the_doctor_passes_over_shadow_files_and_unlabelled_scans(root, tmp_path):
    msd_pancreas.write(root)
    report = [f"{status}: {message}" for status, message, _ in findings("msd_pancreas", str(tmp_path))]
    assert any(line.startswith("fail: 3 of 281 cases are there") for line in report)
    assert not any("in no split" in line for line in report)


def test_bad_files_are_named_with_their_case_before_a_run(root, tmp_path):
    msd_pancreas.write(root)
    scan = root / "imagesTr" / "pancreas_001.nii.gz"
    image = nib.load(scan)
    hu = np.asanyarray(image.dataobj)
    nib.save(nib.Nifti1Image(np.stack([hu, hu], axis=-1), image.affine), scan)
    with pytest.raises(TapctError, match=r"case pancreas_001: .*pancreas_001.nii.gz is 4-D"):
        TaskData("msd_pancreas", str(tmp_path), split_file=str(split_file(tmp_path))).setup("fit")
    nib.save(nib.Nifti1Image(hu[:, :, :3], image.affine), scan)
    with pytest.raises(TapctError, match=r"case pancreas_001: .*has 3 slices"):
        TaskData("msd_pancreas", str(tmp_path), split_file=str(split_file(tmp_path))).setup("fit")
    scan.unlink()
    with pytest.raises(TapctError, match=r"lack files .*imagesTr/pancreas_001.nii.gz"):
        MSDPancreas(root, "train", split_file(tmp_path)).validate()
