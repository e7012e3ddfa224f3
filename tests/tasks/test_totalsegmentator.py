"""TotalSegmentator on a tiny tree of release 2.0.1, with all 117 masks of each case."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from tapct.errors import TapctError
from tapct.tasks import SplitTable, TaskData, task_class
from tapct.tasks.findings import findings
from tapct.tasks.totalsegmentator import STRUCTURES
from tests.data import totalsegmentator
from tests.data.abdomen import spl
from tests.tasks.end_to_end import run, write_split
from tests.tasks.shipped import SPLITS, reference
from tools.splits.segmentation_splits import totalsegmentator_table

TotalSegmentator = task_class("totalsegmentator")
CLASSES = list(TotalSegmentator.spec.classes)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A release, 351 masks that take seconds to write, and its blocks: to be read alone."""
    folder = tmp_path_factory.mktemp("release") / "totalsegmentator"
    return folder, totalsegmentator.write(folder)


@pytest.fixture
def release(written):
    return written[0]


@pytest.fixture
def blocks(written):
    return written[1]


@pytest.fixture
def root(release, tmp_path):
    """A copy of the release of which something can be spoilt."""
    return shutil.copytree(release, tmp_path / "totalsegmentator")


def split_file(tmp_path):
    return write_split(tmp_path / "split.csv", train=["s0001"], val=["s0029"], test=["s0013"])


def merged(block):
    """What the masks should become, from the ids of the 117 and the table of the classes."""
    label = {name: index for index, names in enumerate(STRUCTURES.values(), start=1) for name in names}
    return block.labels({number: label[name] for number, name in enumerate(totalsegmentator.NAMES, start=1)})


def test_the_shipped_split_is_the_official_one():
    table = SplitTable.read(SPLITS / "totalsegmentator.csv")
    assert table.counts == {"train": 1082, "val": 57, "test": 89}
    assert totalsegmentator_table(reference()) == (SPLITS / "totalsegmentator.csv").read_text(encoding="utf-8")


def test_every_mask_of_the_release_belongs_to_one_of_48_classes():
    names = [name for names in STRUCTURES.values() for name in names]
    assert (len(STRUCTURES), len(names)) == (48, 117)
    assert sorted(names) == sorted(totalsegmentator.NAMES)


def test_the_classes_are_those_of_table_8():
    table = json.loads((reference() / "totalseg_117_to_49.json").read_text(encoding="utf-8"))
    assert [name.lower() for name in table["table8"]] == CLASSES
    ours = {name: merged for merged, names in STRUCTURES.items() for name in names}
    assert ours == {name: merged.lower() for name, merged in table["name_to_merged"].items()}


@pytest.mark.parametrize("top", ["", "Totalsegmentator_dataset_v201"])
def test_117_masks_become_one_label_map(release, blocks, tmp_path, top):
    root = tmp_path / "data"
    shutil.copytree(release, root / top)
    for split in ("train", "val", "test"):
        dataset = TotalSegmentator(root, split, split_file(tmp_path))
        dataset.validate()
        volume, mask, metadata = dataset[0]
        block = blocks[metadata["case"]]
        assert np.array_equal(np.asarray(volume[:, 0]), spl(block.hu))
        assert np.array_equal(np.asarray(mask[:, 0]), spl(merged(block)))
        assert len(np.unique(mask)) > 10
    sheared = TotalSegmentator(root, "val", split_file(tmp_path))[0][2]["affine"].numpy()[:3, :3]
    assert abs(sheared[:, 1] @ sheared[:, 2]) > 0.1, "the axes are kept as they are, not orthonormalised"


def test_the_side_of_s1_is_an_option(release, tmp_path):
    masks = {
        s1: np.asarray(TotalSegmentator(release, "train", split_file(tmp_path), s1)[0][1]) for s1 in STRUCTURES_OF_S1
    }
    s1 = nib.load(release / "s0001" / "segmentations" / "vertebrae_S1.nii.gz")
    voxels = spl(np.asanyarray(s1.dataobj))[:, None] > 0
    assert voxels.any()
    for name, mask in masks.items():
        assert set(mask[voxels]) == {CLASSES.index(name)}
    assert np.array_equal(masks["vertebrae"][~voxels], masks["sacrum"][~voxels])
    with pytest.raises(TapctError, match="s1 is 'vertebrae' or 'sacrum', not 'sacrun'"):
        TaskData("totalsegmentator", str(release.parent), options={"s1": "sacrun"})


STRUCTURES_OF_S1 = ("vertebrae", "sacrum")


def test_where_masks_overlap_the_later_class_has_the_voxel(root, tmp_path):
    folder = root / "s0013" / "segmentations"
    liver = nib.load(folder / "liver.nii.gz")
    for earlier in ("spleen", "aorta"):  # before and behind the liver in the order of the classes
        nib.save(liver, folder / f"{earlier}.nii.gz")
    mask = np.asarray(TotalSegmentator(root, "test", split_file(tmp_path))[0][1])
    assert set(mask[spl(np.asanyarray(liver.dataobj))[:, None] > 0]) == {CLASSES.index("aorta")}


@pytest.mark.thorough
def test_the_task_runs_through_eva(release, tmp_path):
    config = "segmentation/totalsegmentator.yaml"
    record = run(config, release.parent, split_file(tmp_path), tmp_path, "segmentation", s1="sacrum")
    (case,) = record.runs[0].cases["test"]
    assert (case.case, list(case.dice["native"])) == ("s0013", CLASSES[1:])
    assert record.task.options == {"s1": "sacrum"}
    assert record.task.cases == {"train": 1, "val": 1, "test": 1}


def test_the_doctor_names_a_case_that_lacks_a_mask(root, tmp_path):
    (root / "s0013" / "segmentations" / "rib_left_7.nii.gz").unlink()
    report = [f"{status}: {message}" for status, message, _ in findings("totalsegmentator", str(tmp_path))]
    assert any(line.startswith("fail: 2 of 1228 cases are there") for line in report)
    with pytest.raises(TapctError, match=r"1 of 1 cases .* lack files .*s0013/segmentations/rib_left_7.nii.gz"):
        TotalSegmentator(root, "test", split_file(tmp_path)).validate()
    with pytest.raises(TapctError, match=r"case s0013: .*rib_left_7.nii.gz does not exist"):
        TotalSegmentator(root, "test", split_file(tmp_path))[0]


def test_a_mask_that_is_no_mask_is_refused(root, blocks, tmp_path):
    path = root / "s0013" / "segmentations" / "liver.nii.gz"
    affine = nib.load(path).affine
    nib.save(nib.Nifti1Image(blocks["s0013"].organs, affine), path)
    with pytest.raises(TapctError, match=r"case s0013: .*liver.nii.gz holds values up to \d+; a mask has 0 and 1"):
        TaskData("totalsegmentator", str(tmp_path), split_file=str(split_file(tmp_path))).setup("fit")
    nib.save(nib.Nifti1Image(np.full(blocks["s0013"].organs.shape, 0.4), affine), path)
    with pytest.raises(TapctError, match=r"case s0013: .*liver.nii.gz has .* values that are not whole numbers"):
        TaskData("totalsegmentator", str(tmp_path), split_file=str(split_file(tmp_path))).setup("fit")


def test_a_real_case_of_the_layout_is_read(shared_data, tmp_path):
    folder = shared_data / "totalsegmentator"
    dataset = TotalSegmentator(folder, "test", write_split(tmp_path / "split.csv", test=["s9001"]))
    dataset.validate()
    volume, mask, _ = dataset[0]
    assert volume.shape == mask.shape == (112, 1, 101, 122)
    assert len(np.unique(mask)) == 31
