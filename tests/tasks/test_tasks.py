import shutil

import eva
import jsonargparse
import nibabel
import numpy as np
import pytest
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from torch.utils.data import default_collate
from torchvision import tv_tensors

from tapct.errors import TaskError, VolumeError
from tapct.tasks import CTDataset, Quickstart, SplitTable, TaskData, list_tasks, task_class, task_root
from tapct.tasks.quickstart import SPEC
from tapct.tasks.splits import stratified


@pytest.fixture
def copy(tmp_path, quickstart_root):
    """A data root with the quickstart's files, for spoiling."""
    shutil.copytree(quickstart_root, tmp_path / "quickstart", copy_function=shutil.copyfile)
    return tmp_path


def test_the_quickstart_has_two_patients_on_two_sides():
    datasets = {split: Quickstart(Quickstart.shipped_root, split) for split in ("train", "val", "test")}
    assert {split: d.cases for split, d in datasets.items()} == {"train": ["abdomen"], "val": [], "test": ["chest"]}
    assert "not a benchmark" in SPEC.notice


@pytest.mark.parametrize(
    ("split", "shape", "spacing"), [("train", (112, 101, 122), (3, 3, 3)), ("test", (20, 512, 512), (2, 0.977, 0.977))]
)
def test_quickstart_cases_are_hu_with_every_organ(split, shape, spacing):
    dataset = Quickstart(Quickstart.shipped_root, split)
    dataset.setup()
    volume, mask, metadata = dataset[0]
    assert isinstance(volume, eva_tv_tensors.Volume)
    assert volume.shape == mask.shape == (shape[0], 1, *shape[1:])
    assert volume.dtype == torch.float32
    assert volume.min() < -900
    assert set(mask.unique().tolist()) == set(range(12)), "every organ of the task is in both scans"
    assert np.allclose(np.linalg.norm(metadata["affine"][:3, :3].numpy(), axis=0), spacing, atol=1e-3)
    assert torch.equal(volume.affine, metadata["affine"])
    # Liver is on the patient's right (low x in SPL: x grows to the left), spleen on the left.
    liver, spleen = (torch.nonzero(mask[:, 0] == c)[:, 2].float().mean() for c in (2, 1))
    assert liver < spleen


def test_collating_keeps_the_affine():
    """eva's collate turns a Volume into a plain tensor: affine and spacing must travel in the metadata."""
    sample = Quickstart(Quickstart.shipped_root, "train")[0]
    data, _, metadata = default_collate([sample])
    assert not hasattr(data, "affine") or data.affine is None
    assert torch.equal(metadata["affine"][0], sample[2]["affine"])
    assert metadata["case"] == ["abdomen"]


def test_unknown_task_names_the_nearest():
    assert list_tasks()[0] == "quickstart"
    with pytest.raises(TaskError, match="Did you mean 'quickstart'"):
        task_class("quikstart")


def test_a_data_root_without_the_task_says_how_to_get_it(tmp_path):
    with pytest.raises(TaskError, match=r"no folder .*quickstart.*leave DATA_ROOT unset"):
        task_root("quickstart", tmp_path)


def test_a_missing_scan_is_named_before_any_work(copy):
    (copy / "quickstart" / "abdomen" / "ct.nii.gz").unlink()
    data = TaskData("quickstart", str(copy))
    with pytest.raises(TaskError, match=r"1 of 1 cases of the split 'train' lack files .*abdomen/ct.nii.gz"):
        data.setup("fit")


def rewrite(path, change, affine=None):
    image = nibabel.load(path)
    voxels = change(np.asanyarray(image.dataobj).copy())
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine if affine is None else affine), path)


def test_an_unknown_label_is_named_with_its_file(copy):
    organs = copy / "quickstart" / "abdomen" / "organs.nii.gz"
    rewrite(organs, lambda v: np.where(v == 5, 200, v).astype(np.uint8))
    with pytest.raises(TaskError, match=r"organs.nii.gz holds labels over 117"):
        Quickstart(copy / "quickstart", "train")[0]


def test_a_mask_on_another_grid_is_refused(copy):
    organs = copy / "quickstart" / "abdomen" / "organs.nii.gz"
    shifted = nibabel.load(organs).affine.copy()
    shifted[0, 3] += 6
    rewrite(organs, lambda v: v, shifted)
    with pytest.raises(VolumeError, match=r"organs.nii.gz does not lie on the grid of .*6 mm apart"):
        Quickstart(copy / "quickstart", "train")[0]
    rewrite(organs, lambda v: v[:-1])
    with pytest.raises(VolumeError, match=r"does not lie on the grid"):
        Quickstart(copy / "quickstart", "train")[0]


def test_a_truncated_scan_and_one_with_nan_are_refused(copy):
    ct = copy / "quickstart" / "abdomen" / "ct.nii.gz"
    whole = ct.read_bytes()
    ct.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VolumeError, match=r"ct.nii.gz"):
        Quickstart(copy / "quickstart", "train")[0]
    ct.write_bytes(whole)
    rewrite(ct, lambda v: np.where(v > 1000, np.nan, v).astype(np.float32))
    with pytest.raises(VolumeError, match="NaN or infinite"):
        Quickstart(copy / "quickstart", "train")[0]


def test_the_split_hash_follows_the_rows_and_not_the_comments(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("case,patient,split\na,p,train\nb,q,test\n")
    before = SplitTable.read(path).sha256
    path.write_text("# from there\ncase,patient,split\nb,q,test\na,p,train\n")
    assert SplitTable.read(path).sha256 == before
    path.write_text("case,patient,split\na,p,train\nb,q,val\n")
    assert SplitTable.read(path).sha256 != before


def test_our_own_split_is_by_patient_and_stratified():
    patients = {f"scan{i}": f"p{i // 2}" for i in range(400)}  # two scans a patient
    strata = {f"p{i}": "sick" if i % 5 == 0 else "well" for i in range(200)}
    table = stratified(patients, strata, "toy v1", "toy")
    assert table.counts == {"train": 280, "val": 40, "test": 80}
    for cases in table.cases.values():
        sick = sum(strata[p] == "sick" for p in cases.values())
        assert abs(sick - len(cases) / 5) <= 2
    again = stratified(dict(reversed(patients.items())), strata, "toy v1", "toy")
    assert again.sha256 == table.sha256
    assert stratified(patients, strata, "toy v2", "toy").sha256 != table.sha256


def test_a_broken_case_stops_the_run_before_anything_is_encoded_and_is_named(copy):
    data = TaskData("quickstart", str(copy))
    data.setup("fit")  # valid, and remembered as such
    organs = copy / "quickstart" / "chest" / "organs.nii.gz"
    rewrite(organs, lambda v: np.where(v == 5, 200, v).astype(np.uint8))
    with pytest.raises(TaskError, match=r"1 cases cannot be used:\n  quickstart, case chest: .*organs.nii.gz"):
        TaskData("quickstart", str(copy)).setup("fit")


def test_a_scan_of_three_slices_is_a_broken_export(copy):
    for name in ("ct", "organs"):
        rewrite(copy / "quickstart" / "abdomen" / f"{name}.nii.gz", lambda v: v[:, :, :3])
    with pytest.raises(TaskError, match=r"case abdomen: .*has 3 slices"):
        Quickstart(copy / "quickstart", "train")[0]


def test_an_unknown_option_of_a_task_names_the_nearest():
    with pytest.raises(TaskError, match="quickstart has no option 's1'"):
        TaskData("quickstart", options={"s1": "sacrum"})


def test_the_datasets_work_in_the_data_module_of_any_eva_config(tmp_path):
    """They are not derived from eva's classes (their import takes seconds); eva takes them all the same."""
    root = str(Quickstart.shipped_root)
    parts = {
        split: {"class_path": "tapct.tasks.Quickstart", "init_args": {"root": root, "split": split}}
        for split in ("train", "test")
    }
    parser = jsonargparse.ArgumentParser()
    parser.add_subclass_arguments(eva.DataModule, "data")
    init = {"datasets": {"class_path": "eva.DatasetsSchema", "init_args": parts}}
    asked = parser.parse_object({"data": {"class_path": "eva.DataModule", "init_args": init}})
    data = parser.instantiate_classes(asked).data
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    (loader,) = data.test_dataloader()
    volume, mask, metadata = next(iter(loader))
    assert volume.shape == mask.shape == (1, 20, 1, 512, 512)
    assert metadata["case"] == ["chest"]
    image, labels, _ = data.datasets.test[0]
    assert (type(image), type(labels)) == (eva_tv_tensors.Volume, tv_tensors.Mask)
    missing = {"init_args": {"root": str(tmp_path), "split": "test"}, "class_path": "tapct.tasks.Quickstart"}
    init["datasets"]["init_args"]["test"] = missing
    asked = parser.parse_object({"data": {"class_path": "eva.DataModule", "init_args": init}})
    with pytest.raises(TaskError, match="1 of 1 cases of the split 'test' lack files"):
        parser.instantiate_classes(asked).data.setup("test")


def test_tasks_of_one_release_know_its_scans_by_the_same_names():
    specs = [task_class(name).spec for name in list_tasks()]
    known: dict[str, dict[str, tuple[str, ...]]] = {}
    for spec in specs:
        known.setdefault(spec.folder, {})[spec.name] = spec.source_data
    assert "totalsegmentator_sex" in known["totalsegmentator"]
    assert [of for of in known.values() if len(set(of.values())) > 1] == []


def test_each_task_names_the_data_that_hold_its_scans():
    # Of a demonstration nothing is ranked.
    demonstrations = [name for name in list_tasks() if task_class(name).shipped_root is not None]
    assert [name for name in list_tasks() if not task_class(name).spec.source_data] == demonstrations


def test_an_old_name_in_a_task_is_refused_and_not_passed_over():
    with pytest.raises(TaskError, match="Mine sets `answers`, which is called `strata` now"):
        type("Mine", (CTDataset,), {"answers": None})
