"""RSNA 2022 on a tiny release of its layout, with real slices and invented labels."""

import shutil

import pydicom
import pytest
from pydicom.uid import JPEGLosslessSV1

from tapct.errors import TapctError, TaskError
from tapct.tasks import TaskData
from tapct.tasks.findings import findings
from tapct.tasks.rsna2022 import LABELS, RSNA2022
from tests.data.rsna2022 import HEADER, RELEASE, UID, label_rows, write_labels, write_release
from tests.data.slabs import assert_is_slab, edited, write_dicom
from tests.tasks.end_to_end import SMALL, run, write_split

PATCHES = {**SMALL, "class_path": "tests.small.Drifting"}
"""Random class tokens are all alike (LayerScale starts at 1e-5); random patch features are not."""

SIDES = {"train": [0, 1], "val": [2, 5], "test": [3, 4]}
"""The studies of a small split, by number; those of odd numbers have a fracture."""


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    write_release(folder)
    return folder


@pytest.fixture
def root(release, tmp_path):
    return shutil.copytree(release, tmp_path / "data" / "rsna2022")


@pytest.fixture
def few(tmp_path):
    """A split of six of the eight studies."""
    sides = {split: [f"{UID}.{900000 + n}" for n in numbers] for split, numbers in SIDES.items()}
    return write_split(tmp_path / "split.csv", **sides)


@pytest.mark.thorough
def test_the_whole_task_runs_in_eva(root, few, tmp_path):
    record = run("classification/rsna2022.yaml", root.parent, few, tmp_path, "classification", encoder=PATCHES)
    cases = {case.case: case for case in record.runs[0].cases["test"]}
    assert list(cases) == [f"{UID}.900003", f"{UID}.900004"]
    assert cases[f"{UID}.900003"].target == dict(zip(LABELS, (1, 0, 1, 0, 0, 0, 0, 0), strict=True))
    assert cases[f"{UID}.900004"].target == dict.fromkeys(LABELS, 0)
    assert len({str(case.probabilities) for case in cases.values()}) == 2
    assert record.task.metric == "MicroAP"
    assert record.runs[0].metrics["test"]["MicroAP"] > 0
    assert record.task.cases == {"train": 2, "val": 2, "test": 2}
    audit = record.shortcuts
    assert audit.columns["manufacturer"].levels == {"ge": 1, "siemens": 1}
    assert (audit.columns["manufacturer"].shared.nearest.value, audit.columns["manufacturer"].shared.chance) == (0, 0)
    assert audit.left_out["kvp"] == "of the reported scans all are '120'"
    assert audit.left_out["institute"] == "of the reported scans nothing is known"
    assert audit.left_out["spacing_z"] == "of the reported scans all are '2.8 to 4.4 mm'"
    assert list(record.task.excluded) == [f"{UID}.20574", f"{UID}.29952"]


@pytest.mark.parametrize("folder", ["", RELEASE])
def test_every_study_is_read_by_position_whatever_its_numbers_and_compression(folder, tmp_path, few):
    studies = write_release(tmp_path / "root" / folder)
    pixels = pydicom.dcmread(tmp_path / "root" / folder / "train_images" / studies[2] / "1.dcm")
    assert pixels.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    for split, numbers in SIDES.items():
        dataset = RSNA2022(tmp_path / "root", split, few)
        dataset.validate()
        for index, number in enumerate(numbers):
            assert_is_slab(dataset[index], number)


def test_labels_are_those_of_the_studys_row(root, few):
    dataset = RSNA2022(root, "test", few)
    assert dataset.classes == list(LABELS)
    assert [dataset.target(case).tolist() for case in dataset.cases] == [[1, 0, 1, 0, 0, 0, 0, 0], [0] * 8]


def test_reversed_names_make_the_same_scan(tmp_path):
    for study, first_is_top in ((f"{UID}.900000", True), (f"{UID}.900001", False)):
        write_dicom(tmp_path / "train_images" / study, 3, f"{study}.1", first_is_top=first_is_top)
    write_labels(tmp_path)
    both = write_split(tmp_path / "split.csv", train=[f"{UID}.900000", f"{UID}.900001"])
    dataset = RSNA2022(tmp_path, "train", both)
    for index in range(2):
        assert_is_slab(dataset[index], 3)


# --- the split ---------------------------------------------------------------------------------------------


def test_the_split_of_the_release_is_pinned():
    assert RSNA2022.split_counts() == (1412, 202, 403)
    assert sum(RSNA2022.split_counts()) == 2019 - 2


def test_the_split_comes_from_the_label_file_without_the_wrong_studies(tmp_path, monkeypatch):
    monkeypatch.setattr(RSNA2022, "split_pin", None)
    path = write_labels(tmp_path, studies=200)
    dataset = RSNA2022(tmp_path, "test")
    table = dataset.table
    assert table.counts == dataset.derive_split().counts == {"train": 140, "val": 20, "test": 40}
    assert not {f"{UID}.20574", f"{UID}.29952"} & {case for cases in table.cases.values() for case in cases}
    assert [sum(dataset.labels[c][0] for c in cases) for cases in table.cases.values()] == [70, 10, 20]
    path.write_text("\n".join([HEADER, *reversed(label_rows(200)), ""]))
    assert RSNA2022(tmp_path, "test").table.sha256 == table.sha256, "the order of the rows does not matter"


def test_another_label_file_than_the_release_is_refused(tmp_path):
    write_labels(tmp_path)
    with pytest.raises(TaskError, match=r"gives another split .*instead of \(1412, 202, 403\)"):
        RSNA2022(tmp_path, "test")


def test_the_header_is_the_official_one(shared_data):
    official = shared_data.parent / "reference" / "labels" / "rsna2022_train.header.csv"
    assert official.read_text(encoding="utf-8").strip() == HEADER


# --- what can be wrong -------------------------------------------------------------------------------------


def no_labels(root):
    (root / "train.csv").unlink()


def cut_short(root):
    edited(root / "train.csv", lambda text: text[:-30])


def semicolons(root):
    edited(root / "train.csv", lambda text: text.replace(",", ";"))


def no_level(root):
    edited(root / "train.csv", lambda text: text.replace(".900003,1,0,1,0", ".900003,1,0,0,0"))


def a_word(root):
    edited(root / "train.csv", lambda text: text.replace(".900003,1", ".900003,yes"))


def twice(root):
    edited(root / "train.csv", lambda text: text + f"{UID}.900003,0,0,0,0,0,0,0,0\n")


def no_row(root):
    edited(root / "train.csv", lambda text: text.replace(f"{UID}.900003,", f"{UID}.9,"))


def no_folder(root):
    (root / "train_images" / f"{UID}.900003").rename(root / f"{UID}.900003")


def empty_folder(root):
    for path in (root / "train_images" / f"{UID}.900003").iterdir():
        path.unlink()


def three_slices(root):
    for number in range(4, 13):
        (root / "train_images" / f"{UID}.900003" / f"{number}.dcm").unlink()


def a_gap(root):
    (root / "train_images" / f"{UID}.900003" / "5.dcm").unlink()


def a_cut_slice(root):
    path = root / "train_images" / f"{UID}.900003" / "5.dcm"
    path.write_bytes(path.read_bytes()[:-500])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_labels, r"lack files .*train\.csv"),
        (cut_short, r"train\.csv: line \d+ has \d values, and the header 9"),
        (semicolons, r"train\.csv lacks the columns StudyInstanceUID, .*separated by commas"),
        (no_level, r"900003: patient_overall is 1, but of C1 to C7 0 are fractured"),
        (a_word, r"900003: patient_overall is 'yes', but must be 0 or 1"),
        (twice, r"study .*900003: it is there twice"),
        (no_row, r"case .*900003: it has no row in .*train\.csv"),
        (no_folder, r"of the split 'test' lack files .*900003\. To obtain"),
        (empty_folder, r"case .*900003: .*has no DICOM file"),
        (three_slices, r"case .*900003: .*has 3 slices"),
        (a_gap, r"case .*900003: .*not evenly spaced"),
        (a_cut_slice, r"case .*900003: .*5\.dcm"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_data_stops_before_anything_is_encoded_and_is_named(spoil, message, root, few):
    spoil(root)
    with pytest.raises(TapctError, match=message):
        TaskData("rsna2022", str(root.parent), split_file=str(few)).setup("fit")


def test_the_doctor_counts_studies_and_names_what_is_missing_and_unexpected(root, monkeypatch):
    monkeypatch.setattr(RSNA2022, "split_pin", None)
    found = list(findings("rsna2022", str(root.parent)))
    assert ("ok", "all 8 cases can be read, scan and target", "") in found
    assert [status for status, _, _ in found if status == "fail"] == []
    assert any(f"{UID}.20574" in message and "left out: a wrong study" in message for _, message, _ in found)
    no_folder(root)
    write_dicom(root / "train_images" / "1.2.3", 0, "1.2.3.1")
    messages = {message: status for status, message, _ in findings("rsna2022", str(root.parent))}
    assert messages[f"7 of 8 cases are there; missing: {UID}.900003 ({UID}.900003)"] == "fail"
    assert messages["1 scans are in no split of the task: train_images/1.2.3"] == "warn"
