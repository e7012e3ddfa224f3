"""RSNA 2023 on a tiny release of its layout, with real slices and invented labels."""

import shutil

import pydicom
import pytest
from pydicom.uid import RLELossless

from tapct.errors import TapctError, TaskError
from tapct.tasks import SplitTable, TaskData
from tapct.tasks.findings import findings
from tapct.tasks.rsna2023 import RSNA2023
from tests.data.rsna2023 import HEADER, RELEASE, SERIES_HEADER, label_row, write_labels, write_release
from tests.data.slabs import assert_is_slab, edited, write_dicom
from tests.tasks.end_to_end import SMALL, run

PATCHES = {**SMALL, "class_path": "tests.small.Drifting"}
"""Random class tokens are all alike (LayerScale starts at 1e-5); random patch features are not."""

SPLIT = """case,patient,split
900001/1,900001,train
900001/2,900001,train
900002/3,900002,val
900003/4,900003,train
900004/5,900004,test
900004/7,900004,test
900005/8,900005,test
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    write_release(folder)
    return folder


@pytest.fixture
def root(release, tmp_path):
    return shutil.copytree(release, tmp_path / "data" / "rsna2023")


@pytest.fixture
def few(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text(SPLIT)
    return path


@pytest.mark.thorough
def test_the_whole_task_runs_in_eva(root, few, tmp_path):
    record = run("classification/rsna2023.yaml", root.parent, few, tmp_path, "classification", encoder=PATCHES)
    cases = {case.case: case for case in record.runs[0].cases["test"]}
    injured, healthy = (dict.fromkeys(("kidney", "liver", "spleen"), value) for value in (1, 0))
    assert {name: case.target for name, case in cases.items()} == {
        "900004/5": injured,
        "900004/7": injured,
        "900005/8": healthy,
    }
    assert {case.patient for case in cases.values()} == {"900004", "900005"}
    assert len({str(case.probabilities) for case in cases.values()}) == 3
    assert record.task.metric == "MicroAUROC"
    assert 0 <= record.runs[0].metrics["test"]["MicroAUROC"] <= 1
    assert "incomplete_organ" in record.task.options["series"]


@pytest.mark.parametrize("folder", ["", RELEASE])
def test_series_are_read_run_length_encoded_and_signed(folder, few, tmp_path):
    cases = write_release(tmp_path / "root" / folder)
    headers = [
        pydicom.dcmread(tmp_path / "root" / folder / "train_images" / case / "1.dcm", stop_before_pixels=True)
        for case in cases[:2]
    ]
    assert [header.file_meta.TransferSyntaxUID for header in headers] == [RLELossless] * 2
    assert [header.PixelRepresentation for header in headers] == [0, 1]
    for split in ("train", "val", "test"):
        dataset = RSNA2023(tmp_path / "root", split, few)
        dataset.validate()
        for index, case in enumerate(dataset.cases):
            assert_is_slab(dataset[index], cases.index(case))


def test_labels_are_of_the_patient_and_an_injury_of_any_grade_counts(root, few):
    dataset = RSNA2023(root, "train", few)
    assert [dataset[index][1].tolist() for index in range(3)] == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert RSNA2023(root, "val", few)[0][1].tolist() == [0, 1, 1], "of a high and a low grade"
    assert dataset.classes == ["kidney", "liver", "spleen"]
    assert [case for case, incomplete in dataset.series.items() if incomplete] == ["900003/4"]


# --- the split ---------------------------------------------------------------------------------------------


def test_the_split_of_the_release_is_pinned():
    assert RSNA2023.split_counts() == (3307, 466, 938)
    assert sum(RSNA2023.split_counts()) == 4711


def test_the_split_is_by_patient_and_stratified_by_the_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(RSNA2023, "split_pin", None)
    patients = [str(100 + number) for number in range(200)]
    rows = [label_row(patient, liver="low" if i % 10 == 0 else "healthy") for i, patient in enumerate(patients)]
    series = [f"{patient},{i}{phase},100.0,0" for i, patient in enumerate(patients) for phase in range(1 + i % 2)]
    write_labels(tmp_path, rows, series)
    table = RSNA2023(tmp_path, "test").table
    assert sum(table.counts.values()) == 300
    by_split = {split: set(cases.values()) for split, cases in table.cases.items()}
    assert {split: len(patients) for split, patients in by_split.items()} == {"train": 140, "val": 20, "test": 40}
    labels = RSNA2023(tmp_path, "test").labels
    assert [sum(labels[p][1] for p in patients) for patients in by_split.values()] == [14, 2, 4]
    (tmp_path / "again.csv").write_text(table.to_csv("ours"))
    assert SplitTable.read(tmp_path / "again.csv").sha256 == table.sha256, "no patient is on two sides"


def test_other_label_files_than_the_release_are_refused(root):
    with pytest.raises(TaskError, match=r"gives another split .*instead of \(3307, 466, 938\)"):
        RSNA2023(root, "test")


@pytest.mark.parametrize(("name", "header"), [("train", HEADER), ("train_series_meta", SERIES_HEADER)])
def test_the_headers_are_the_official_ones(name, header, shared_data):
    official = shared_data.parent / "reference" / "labels" / f"rsna2023_{name}.header.csv"
    assert official.read_text(encoding="utf-8").strip() == header


# --- what can be wrong -------------------------------------------------------------------------------------


def no_series_table(root):
    (root / "train_series_meta.csv").unlink()


def no_labels(root):
    (root / "train.csv").unlink()


def two_grades(root):
    edited(root / "train.csv", lambda text: text.replace(label_row("900003"), label_row("900003")[:-7] + "1,0,1,0"))


def no_labels_of_a_patient(root):
    edited(root / "train.csv", lambda text: text.replace("900004,", "900074,"))


def series_twice(root):
    edited(root / "train_series_meta.csv", lambda text: text + "900004,5,99.5,0\n")


def no_row(root):
    edited(root / "train_series_meta.csv", lambda text: text.replace("900004,5", "900004,6"))


def empty_folder(root):
    for path in (root / "train_images" / "900004" / "5").iterdir():
        path.unlink()


def two_series_in_a_folder(root):
    for path in write_dicom(root / "train_images" / "900004" / "x", 1, "1.9"):
        path.rename(root / "train_images" / "900004" / "5" / f"x{path.name}")
    (root / "train_images" / "900004" / "x").rmdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_labels, r"lack files .*train\.csv"),
        (no_series_table, r"lack files .*train_series_meta\.csv"),
        (two_grades, r"patient 900003: spleen is not exactly one of healthy, low, high"),
        (no_labels_of_a_patient, r"series 900004/5: the patient has no row in .*train\.csv"),
        (series_twice, r"series 900004/5: it is there twice"),
        (no_row, r"case 900004/5: it has no row in .*train_series_meta\.csv"),
        (empty_folder, r"case 900004/5: .*has no DICOM file"),
        (two_series_in_a_folder, r"case 900004/5: .*holds 2 series"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_data_stops_before_anything_is_encoded_and_is_named(spoil, message, root, few):
    spoil(root)
    with pytest.raises(TapctError, match=message):
        TaskData("rsna2023", str(root.parent), split_file=str(few)).setup("fit")


def test_the_doctor_counts_series_and_names_what_is_missing_and_unexpected(root, monkeypatch):
    monkeypatch.setattr(RSNA2023, "split_pin", None)
    found = list(findings("rsna2023", str(root.parent)))
    assert ("ok", "all 7 cases can be read, scan and target", "") in found
    assert {status for status, _, _ in found} == {"ok"}
    (root / "train_images" / "900004" / "5").rename(root / "train_images" / "900004" / "6")
    messages = {message: status for status, message, _ in findings("rsna2023", str(root.parent))}
    assert messages["6 of 7 cases are there; missing: 900004/5 (5)"] == "fail"
    assert messages["1 scans are in no split of the task: train_images/900004/6"] == "warn"


def test_the_doctor_follows_links_to_another_disk(root, tmp_path, monkeypatch):
    """460 GB often lie elsewhere; an unexpected scan there is named by its path under the task's folder."""
    monkeypatch.setattr(RSNA2023, "split_pin", None)
    (root / "train_images").rename(tmp_path / "disk")
    (root / "train_images").symlink_to(tmp_path / "disk")
    write_dicom(root / "train_images" / "1" / "2", 0, "1.9")
    messages = {message: status for status, message, _ in findings("rsna2023", str(root.parent))}
    assert messages["1 scans are in no split of the task: train_images/1/2"] == "warn"
