"""Data sets that eva has classes for, as our tasks: its lists, and its scans where it reads them rightly."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from eva.vision.data import datasets as eva_datasets

from tapct.errors import TapctError, TaskError
from tapct.leaderboard.assembly import assemble
from tapct.records import read_records, write_record
from tapct.sweep.asked import Sweep
from tapct.sweep.experiment import SHIPPED_CONFIGS, choose_tasks, configs_by_task
from tapct.tasks import EvaTask, SegmentationDataset, SplitTable, TaskSpec, core_tasks, list_tasks, task_class
from tapct.tasks.anatomy import judge
from tapct.tasks.cc_ccii import CCCCII, EXTENT_MM, LUNG_WINDOW_HU
from tapct.tasks.eva_task import split_of
from tapct.tasks.findings import findings
from tapct.volumes import Volume
from tests.data import eva_tasks
from tests.data.abdomen import block, spl
from tests.leaderboard import results
from tests.tasks.end_to_end import run, write_split
from tests.tasks.shipped import SPLITS, reference
from tools.splits import eva_splits

SEGMENTATION = ("btcv", "flare22", "word")
FOLDERS = {"btcv": "BTCV", "flare22": "FLARE22Train", "word": "WORD-V0.1.0"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data root with the three segmentation tasks; not to be changed."""
    root = tmp_path_factory.mktemp("data")
    for task in SEGMENTATION:
        eva_tasks.write(root / task, task)
    return root


@pytest.fixture
def copy(data, tmp_path):
    """The same, for spoiling."""
    for task in SEGMENTATION:
        shutil.copytree(data / task, tmp_path / task)
    return tmp_path


def few(folder: Path, task: str) -> Path:
    train, val, test = eva_tasks.CASES[task]
    return write_split(folder / f"{task}.csv", train=[train], val=[val], test=[test])


def parts(data: Path, folder: Path, task: str) -> list:
    return [task_class(task)(data / task, part, few(folder, task)) for part in ("train", "val", "test")]


# -- The lists ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", eva_splits.RELEASES)
def test_the_shipped_tables_are_what_the_installed_eva_lists(task):
    """Test is eva's val, and train and val together are its train: asked of its own class on a whole release."""
    name = eva_splits.RELEASES[task].table
    assert eva_splits.segmentation_table(task) == (SPLITS / f"{name}.csv").read_text(encoding="utf-8")


def test_luna25s_table_is_what_eva_would_list():
    nodules = reference() / "labels" / "LUNA25_Public_Training_Development_Data.csv"
    assert eva_splits.luna25_table(nodules) == (SPLITS / "luna25-eva.csv").read_text(encoding="utf-8")


COUNTS = {
    "btcv": {"train": 22, "val": 2, "test": 6},
    "flare22": {"train": 35, "val": 4, "test": 11},
    "word": {"train": 90, "val": 10, "test": 20},
    "lits17-eva": {"train": 95, "val": 11, "test": 23},
    "kits23-eva": {"train": 248, "val": 28, "test": 24},
    "msd_pancreas-eva": {"train": 231, "val": 26, "test": 24},
    "luna25-eva": {"train": 3736, "val": 1223, "test": 1204},
}


@pytest.mark.parametrize("name", COUNTS)
def test_the_tables_have_these_numbers_and_no_patient_twice(name):
    table = SplitTable.read(SPLITS / f"{name}.csv")
    assert table.counts == COUNTS[name]
    patients = [set(cases.values()) for cases in table.cases.values()]
    assert sum(map(len, patients)) == len(set.union(*patients))


def test_eva_moves_its_lists_where_a_scan_is_missing_and_ours_names_the_scan(tmp_path):
    release = eva_splits.RELEASES["btcv"]
    release.write(tmp_path)
    whole = release.lists(tmp_path)
    (tmp_path / "imagesTr" / "img0003.nii.gz").unlink()
    moved = task_class("btcv").eva_files(tmp_path, "train")
    assert "img0003" in whole["train"]
    assert "img0035.nii.gz" in moved, "a scan that eva reports, without an error"
    with pytest.raises(TaskError, match=r"1 of 22 cases .* lack files .*imagesTr/img0003"):
        task_class("btcv")(tmp_path, "train").validate()


def test_eva_tasks_are_apart_from_the_ten():
    assert len(core_tasks()) == 10
    assert {"btcv", "flare22", "word", "cc_ccii"} <= set(list_tasks()) - set(core_tasks())
    configs = configs_by_task(SHIPPED_CONFIGS)
    assert set(choose_tasks("all", configs, SHIPPED_CONFIGS)) == set(core_tasks())
    assert choose_tasks("cc_ccii,btcv", configs, SHIPPED_CONFIGS) == ["cc_ccii", "btcv"]


# -- Segmentation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", SEGMENTATION)
@pytest.mark.parametrize("top", ["", "folder"])
def test_scans_and_labels_are_read_on_their_own_grid(data, tmp_path, task, top):
    if not top:  # the archive's folder as the root
        (tmp_path / "here").mkdir()
        (tmp_path / "here" / task).symlink_to(data / task / FOLDERS[task])
        data = tmp_path / "here"
    for part in parts(data, tmp_path, task):
        part.setup()
        volume, mask, about = part[0]
        slab = block(eva_tasks.CASES[task][about["case"]])
        assert np.array_equal(np.asarray(volume[:, 0]), spl(slab.hu))
        assert np.array_equal(np.asarray(mask[:, 0]), spl(slab.labels(eva_tasks.LABELS[task])))
        corner = about["affine"].numpy() @ [0, 0, 0, 1]
        x, y, _ = slab.hu.shape
        assert np.allclose(corner, slab.affine @ [x - 1, y - 1, 0, 1])


@pytest.mark.parametrize("task", SEGMENTATION)
def test_they_are_what_evas_class_reads(data, tmp_path, task):
    """Where it reads rightly: whole numbers, in the order that the header says."""
    ours = parts(data, tmp_path, task)[0]
    theirs = task_class(task).eva_dataset(data / task, "train")
    theirs._indices = list(range(len(theirs._samples)))  # its lists need the whole release
    index = [ours.case_of(theirs.filename(i)) for i in range(len(theirs))].index(ours.cases[0])
    volume, mask, _ = ours[0]
    assert torch.equal(torch.as_tensor(volume), torch.as_tensor(theirs.load_data(index)))
    assert torch.equal(torch.as_tensor(mask).long(), torch.as_tensor(theirs.load_target(index)))


@pytest.mark.parametrize("task", SEGMENTATION)
def test_names_fit_the_numbers_in_the_masks(data, tmp_path, task):
    """By where the organs lie. eva sorts the names of FLARE22 and WORD as text: 10 behind 1."""
    part = parts(data, tmp_path, task)[0]
    volume, mask, about = part[0]
    ct = Volume(np.asarray(volume[:, 0]), about["affine"].numpy(), about["source"])
    labels = np.asarray(mask[:, 0])
    found = judge(ct, labels, part.classes)
    assert (found.wrong, found.odd) == ("", "")
    assert found.judged
    evas = getattr(eva_datasets, type(part).eva_class.rpartition(".")[2])(root="").classes
    assert len(evas) == len(part.classes)
    by_evas = judge(ct, labels, [name.replace("_", " ").lower() for name in evas])
    assert bool(by_evas.wrong or by_evas.odd) == (task != "btcv")


def test_a_mask_of_broken_numbers_is_refused_where_eva_truncates_it(copy, tmp_path):
    path = copy / "btcv" / eva_tasks.paths("btcv", "img0001")[1]
    image = nib.load(path)
    labels = np.asanyarray(image.dataobj).astype(np.float32)
    nib.save(nib.Nifti1Image(np.where(labels > 0, labels - np.float32(0.01), 0), image.affine), path)
    theirs = task_class("btcv").eva_dataset(copy / "btcv", "train")
    assert int(theirs.load_target(0).max()) == int(labels.max()) - 1, "the highest label has become another organ"
    with pytest.raises(TapctError, match=r"btcv, case img0001: .* not whole numbers"):
        parts(copy, tmp_path, "btcv")[0][0]


def test_btcv_is_found_as_synapse_lays_it_out(data, tmp_path):
    for case in eva_tasks.CASES["btcv"]:
        scan, mask = (data / "btcv" / path for path in eva_tasks.paths("btcv", case))
        for path, folder in ((scan, "img"), (mask, "label")):
            to = tmp_path / "btcv" / "RawData" / "Training" / folder / path.name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
    for part in parts(tmp_path, tmp_path, "btcv"):
        part.setup()
        assert len(part) == 1


@pytest.mark.parametrize("task", SEGMENTATION)
def test_the_doctor_reads_them(data, tmp_path, task):
    found = list(findings(task, str(data), split_file=str(few(tmp_path, task))))
    assert {status for status, *_ in found} == {"ok"}, found
    messages = [message for status, message, _ in findings(task, str(data)) if status == "fail"]
    total = sum(task_class(task).split_counts())
    assert [message.split(";")[0] for message in messages] == [f"3 of {total} cases are there"]


@pytest.mark.thorough
def test_btcv_runs_through_eva(data, tmp_path):
    record = run("segmentation/btcv.yaml", data, few(tmp_path, "btcv"), tmp_path, "segmentation")
    (case,) = record.runs[0].cases["test"]
    assert case.case == "img0035"
    assert list(case.dice["native"]) == list(task_class("btcv").spec.classes[1:])


# -- CC-CCII -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ccii(tmp_path_factory):
    """A data root with a tiny CC-CCII, its stacks, and a split of it; not to be changed."""
    root = tmp_path_factory.mktemp("ccii")
    stacks = eva_tasks.write_cc_ccii(root / "cc_ccii")
    train, val = ["p2668-s3259", "p2668-s3260", "p364-s1880", "p1680-s840"], ["p11-s3161"]
    write_split(root / "split.csv", train=train, val=val, test=["p101-s1340", "p753-s188"])
    return root, stacks


def cc_ccii(root: Path, part: str = "train", **options) -> CCCCII:
    return CCCCII(root / "cc_ccii", part, root / "split.csv", **options)


def test_grey_values_become_hu_by_the_assumed_window(ccii):
    root, stacks = ccii
    dataset = cc_ccii(root)
    dataset.setup()
    volume, target, about = dataset[0]
    grey = stacks["p2668-s3259"].astype(np.float64)
    assert np.allclose(np.asarray(volume[:, 0]), -1350 + grey / 255 * 1500, atol=1e-3)
    assert target.tolist() == [0, 1, 0]
    assert np.allclose(np.linalg.norm(about["affine"][:3, :3].numpy(), axis=0) * grey.shape, EXTENT_MM)
    grid = dataset.scan_grid("p2668-s3259")
    assert grid.shape == grey.shape
    assert np.allclose(np.multiply(grid.spacing_mm, grid.shape), EXTENT_MM)
    assert about["notes"] == ""
    assert [dataset[i][1].argmax().item() for i in range(4)] == [1, 1, 2, 0]


def test_another_window_is_another_scan_and_is_in_the_record(ccii):
    root, stacks = ccii
    one, other = cc_ccii(root), cc_ccii(root, window_hu=[-1000, 400], extent_mm=(300, 400, 400))
    assert other.describe() == {"window_hu": [-1000.0, 400.0], "extent_mm": [300.0, 400.0, 400.0]}
    assert one.scan_cache_key("p364-s1880") != other.scan_cache_key("p364-s1880")
    grey = stacks["p364-s1880"].astype(np.float64)
    assert np.allclose(other.read_scan("p364-s1880").hu, -1000 + grey / 255 * 1400, atol=1e-3)


def test_a_scan_of_another_window_is_used_and_said(ccii, tmp_path):
    """Such as that of bone, in which soft tissue is dark."""
    shutil.copytree(ccii[0], tmp_path / "copy")
    path = tmp_path / "copy" / "cc_ccii" / "CC-CCII_public" / "data" / "p1680-s840.npy"
    np.save(path, eva_tasks.grey(block(60), -500, 1300))
    volume, _ = cc_ccii(tmp_path / "copy").read("p1680-s840")
    assert "Taken for -1350 to 150 HU it does not look like a CT" in "".join(volume.notes)
    found = findings("cc_ccii", str(tmp_path / "copy"), split_file=str(tmp_path / "copy" / "split.csv"))
    messages = [(status, message) for status, message, _ in found]
    assert [m[:30] for s, m in messages if s == "warn"] == ["how 1 of 7 cases are read: p16"]
    assert any(s == "ok" and "not in Hounsfield units" in m for s, m in messages)


def test_it_is_what_evas_class_reads(ccii):
    root, _ = ccii
    theirs = CCCCII.eva_dataset(root / "cc_ccii", "train")
    ours = cc_ccii(root)
    assert [ours.case_of(theirs.filename(i)) for i in range(len(theirs))] == ours.cases
    assert Path(theirs.filename(0)).is_absolute()
    assert ours.filename(0) == "CC-CCII_public/data/p2668-s3259.npy"
    black, white = LUNG_WINDOW_HU
    for index in range(len(theirs)):
        grey = (np.asarray(ours[index][0]) - black) * 255 / (white - black)
        assert np.allclose(grey, np.asarray(theirs.load_data(index)), atol=1e-3)
        assert ours[index][1].argmax() == theirs.load_target(index)


BROKEN = {
    "in HU": (np.linspace(-1000, 400, 8 * 16 * 16).reshape(8, 16, 16), "values from -1000 to 400, and not grey values"),
    "normalised": (np.linspace(0, 1, 8 * 16 * 16).reshape(8, 16, 16), "values from 0 to 1, and not grey values"),
    "not finite": (np.full((8, 16, 16), np.nan), "values from nan to nan, and not grey values"),
    "all the same": (np.full((8, 16, 16), 7, np.uint8), "values from 7 to 7, and not grey values"),
    "in colour": (np.zeros((8, 16, 16, 3), np.uint8), r"holds \(8, 16, 16, 3\) of uint8"),
    "objects": (np.array([None] * 8), "cannot be read as a NumPy array"),
    "four slices": (np.arange(4 * 16 * 16, dtype=np.uint8).reshape(4, 16, 16), "has 4 slices"),
}


@pytest.mark.parametrize(("array", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_stack_of_8_bit_slices_is_refused_by_name(ccii, tmp_path, array, message):
    shutil.copytree(ccii[0], tmp_path / "copy")
    np.save(tmp_path / "copy" / "cc_ccii" / "CC-CCII_public" / "data" / "p1680-s840.npy", array, allow_pickle=True)
    with pytest.raises(TapctError, match=rf"cc_ccii, case p1680-s840: .*{message}"):
        cc_ccii(tmp_path / "copy").read("p1680-s840")


@pytest.mark.parametrize(
    "options",
    [
        {"window_hu": [150, -1350]},
        {"window_hu": [0]},
        {"extent_mm": [300, 350]},
        {"window_hu": "lung"},
        {"extent_mm": [300, 350, float("nan")]},
    ],
)
def test_options_that_cannot_be_are_refused(ccii, options):
    with pytest.raises(TaskError, match="cc_ccii: "):
        cc_ccii(ccii[0], **options)


def test_its_split_is_made_of_evas_lists_by_patient_and_others_are_refused(ccii, monkeypatch):
    root, _ = ccii
    with pytest.raises(TaskError, match="gives another split than the release's"):
        CCCCII(root / "cc_ccii", "train")
    monkeypatch.setattr(CCCCII, "split_pin", None)
    table = CCCCII(root / "cc_ccii", "train").table
    assert table.cases["test"] == {"p11-s3161": "p11", "p101-s1340": "p101", "p753-s188": "p753"}
    assert table.cases["train"].keys() | table.cases["val"].keys() == {
        f"p{patient}-s{scan}" for part, patient, scan in eva_tasks.SCANS if part == "train"
    }


def test_lists_that_disagree_with_themselves_are_refused(ccii, tmp_path):
    shutil.copytree(ccii[0], tmp_path / "copy")
    path = tmp_path / "copy" / "cc_ccii" / "CC_CCII_fold0_train.csv"
    whole = path.read_text(encoding="utf-8")
    for changed, message in (
        (whole.replace(",2,NCP,", ",1,NCP,"), "the target '1' and the label 'NCP'"),
        (whole + whole.splitlines()[1] + "\n", "in the lists twice"),
    ):
        path.write_text(changed, encoding="utf-8")
        with pytest.raises(TaskError, match=message):
            cc_ccii(tmp_path / "copy").targets("p364-s1880")


@pytest.mark.thorough
def test_cc_ccii_runs_through_eva_and_says_what_it_assumes(ccii, tmp_path):
    root, _ = ccii
    record = run("classification/cc_ccii.yaml", root, root / "split.csv", tmp_path, "classification")
    assert record.task.options == {"window_hu": [-1350.0, 150.0], "extent_mm": [300.0, 350.0, 350.0]}
    assert "not in Hounsfield units" in record.notice
    assert [c.case for c in record.runs[0].cases["test"]] == ["p101-s1340", "p753-s188"]


# -- The lists of eva next to our own
# -----------------------------------------------------------------------------------


def test_luna25s_lists_deal_out_the_same_nodules_of_the_same_patients():
    own, evas = (SplitTable.read(SPLITS / f"{name}.csv").cases for name in ("luna25", "luna25-eva"))
    assert {c: p for cases in own.values() for c, p in cases.items()} == {
        c: p for cases in evas.values() for c, p in cases.items()
    }


@pytest.mark.parametrize("task", ["lits17", "kits23", "msd_pancreas"])
def test_evas_lists_are_one_setting(tmp_path, task):
    cls = task_class(task)
    own, evas = ({part: cls(tmp_path, part, split) for part in ("train", "val", "test")} for split in (None, "eva"))
    assert evas["test"].table.source == f"{task}-eva.csv"
    assert set(evas["test"].cases) == set(own["test"].cases), "what is reported is the same"
    same = own["train"].table.sha256 == evas["train"].table.sha256
    assert same == (task == "msd_pancreas")
    assert not set(own["train"].excluded) & set(evas["train"].cases)
    assert cls.alternative_splits()["eva"].sha256 == evas["train"].table.sha256


def test_a_sweep_takes_them_by_name(tmp_path, monkeypatch):
    (own,) = Sweep(encoders="intensity", tasks="lits17", results=str(tmp_path)).experiments()
    monkeypatch.setenv("SPLIT_FILE", "eva")
    (evas,) = Sweep(encoders="intensity", tasks="lits17", results=str(tmp_path)).experiments()
    assert evas.settings()["data.init_args.split_file"] == "eva"
    assert own.settings() != evas.settings(), "not the same patch: the other's record is in the way"


def test_a_task_without_such_lists_says_so(tmp_path):
    with pytest.raises(TaskError, match="amos22 ships no split 'eva' next to its own"):
        task_class("amos22")(tmp_path, "train", "eva")


# -- A data set of somebody's own --------------------------------------------------------------------------------------


class Mine(EvaTask, SegmentationDataset):
    """A third-party task of eva's BTCV, without a table of its own."""

    spec = TaskSpec(
        name="mine",
        display_name="Mine",
        kind="segmentation",
        version=1,
        classes=task_class("btcv").spec.classes,
        metric="dice_native",
        licence="none",
        source="nowhere",
    )
    eva_class = "eva.vision.data.datasets.BTCV"

    def ct_path(self, case: str) -> Path:
        return self.root / "imagesTr" / f"{case}.nii.gz"

    def label_path(self, case: str) -> Path:
        return self.root / "labelsTr" / f"{case.replace('img', 'label')}.nii.gz"


class Abstract(Mine):
    """A task of the class of eva that cannot be instantiated."""

    eva_class = "eva.vision.data.datasets.LUNA25"


def test_a_task_without_a_table_takes_evas_lists_from_the_folder(tmp_path):
    eva_splits.RELEASES["btcv"].write(tmp_path)
    found = {part: set(Mine(tmp_path, part).cases) for part in ("train", "val", "test")}
    assert {part: len(cases) for part, cases in found.items()} == COUNTS["btcv"]
    assert found["test"] == {f"img{number:04d}" for number in range(35, 41)}
    (tmp_path / "labelsTr" / "label0040.nii.gz").unlink()
    with pytest.raises(TaskError, match=r"mine: .*BTCV finds .* incomplete .* counts its lists by place"):
        Mine(tmp_path, "train")


class AllAlike(Mine):
    """A task that takes every file for one case."""

    @classmethod
    def case_of(cls, filename: str) -> str:
        return "ct"


def test_two_files_are_never_one_case(tmp_path):
    eva_splits.RELEASES["btcv"].write(tmp_path)
    with pytest.raises(TaskError, match=r"the train of .*BTCV has 24 files in .*, of 1 cases\. AllAlike\.case_of"):
        AllAlike(tmp_path, "train")


def test_a_class_that_cannot_be_instantiated_is_refused_by_name(tmp_path):
    with pytest.raises(TaskError, match=r"LUNA25 of the installed eva cannot be instantiated: it lacks filename"):
        Abstract(tmp_path, "train")


def test_with_a_test_list_evas_val_selects():
    lists = {"train": {"a": "p", "b": "p"}, "val": {"c": "q"}, "test": {"d": "r"}}
    assert split_of(lists, "seed", "", "here").counts == {"train": 2, "val": 1, "test": 1}
    with pytest.raises(TaskError, match="patient p is in train and in test"):
        split_of({"train": {"a": "p"}, "test": {"d": "p"}}, "seed", "", "here")


# -- On the board ------------------------------------------------------------------------------------------------------


def test_a_record_on_evas_lists_stands_apart_from_those_on_our_own(tmp_path):
    evas = task_class("lits17").alternative_splits()["eva"].sha256
    of_evas = {"split_sha256": evas, "split": "lits17-eva.csv"}
    results.write_all(tmp_path / "own", ["tap-s-3d", "curia"], ["lits17"])
    for encoder in ("tap-b-3d", "suprem"):
        write_record(results.record(encoder, "lits17", more_task=of_evas), tmp_path / "evas" / "lits17" / encoder)
    folders = (tmp_path / "own", tmp_path / "evas")
    board = assemble({folder: read_records(folder) for folder in folders}, resamples=300)
    (task,) = [task for task in board.tasks if task.summaries]
    assert {model.name for model in task.summaries["native"].models} == {"TAP-S-3D", "Curia"}
    (own,) = board.own
    assert own.why == "on another split that ships: split_file eva"
    assert {model.name for model in own.task.summaries["native"].models} == {"TAP-B-3D", "SuPreM U-Net"}


def test_evas_tasks_are_ranked_by_themselves_and_enter_no_mean_rank(tmp_path):
    results.write_all(tmp_path, ["tap-s-3d", "curia"], ["lits17", "btcv", "cc_ccii"])
    board = assemble({tmp_path: read_records(tmp_path)}, resamples=300)
    assert {task.name for task in board.tasks if task.summaries} == {"lits17", "btcv", "cc_ccii"}
    assert board.own == ()
    assert board.suite.tasks == ("lits17",)
    assert list(board.notices) == ["cc_ccii"]
