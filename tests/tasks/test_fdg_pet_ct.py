"""FDG-PET-CT-Lesions on a tiny release of its layout, with real slices and invented labels."""

import shutil

import nibabel
import numpy as np
import pytest

from tapct.errors import TapctError, TaskError
from tapct.tasks import TaskData
from tapct.tasks.fdg_pet_ct import FDGPETCT
from tapct.tasks.findings import findings
from tests.data.fdg_pet_ct import HEADER, RELEASE, STUDIES, TABLE, study_folder, write_release, write_table
from tests.data.slabs import assert_is_slab, edited, slab
from tests.tasks.end_to_end import SMALL, run

CASES = list(STUDIES)

PATCHES = {**SMALL, "class_path": "tests.small.Drifting"}
"""Random class tokens are all alike (LayerScale starts at 1e-5); random patch features are not."""


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    write_release(folder)
    return folder


@pytest.fixture
def root(release, tmp_path):
    return shutil.copytree(release, tmp_path / "data" / "fdg_pet_ct")


@pytest.fixture
def few(tmp_path):
    """A split of all seven studies, the patient with differing diagnoses among the reported."""
    sides = ["test", "test", "val", "val", "val", "train", "train"]
    rows = [f"{case},{case.split('/')[0]},{side}" for case, side in zip(CASES, sides, strict=True)]
    path = tmp_path / "split.csv"
    path.write_text("\n".join(["case,patient,split", *rows, ""]))
    return path


@pytest.mark.thorough
def test_the_whole_task_runs_in_eva(root, few, tmp_path):
    record = run("classification/fdg_pet_ct.yaml", root.parent, few, tmp_path, "classification", encoder=PATCHES)
    cases = record.runs[0].cases["test"]
    assert [(case.case, case.target) for case in cases] == [(CASES[0], {"tumour": 1}), (CASES[1], {"tumour": 0})]
    assert {case.patient for case in cases} == {"PETCT_zz00000001"}
    assert record.task.options == {"ct_file": "CT.nii.gz"}
    assert record.task.metric == "MicroAUROC"
    assert record.runs[0].metrics["test"]["MicroAUROC"] in (0, 1), "one pair is in order or not"


@pytest.mark.thorough
def test_the_ct_on_the_grid_of_the_pet_is_an_option_and_recorded(root, few, tmp_path):
    for path in root.glob("*/*/CT.nii.gz"):
        path.unlink()
    record = run("classification/fdg_pet_ct.yaml", root.parent, few, tmp_path, "classification", ct_file="CTres.nii.gz")
    assert record.task.options == {"ct_file": "CTres.nii.gz"}


def test_the_ct_on_the_grid_of_the_pet_is_read_where_it_is_asked_for_alone(root, few):
    for path in root.glob("*/*/CT.nii.gz"):
        path.unlink()
    asked = TaskData("fdg_pet_ct", str(root.parent), split_file=str(few), options={"ct_file": "CTres.nii.gz"})
    asked.setup("fit")
    assert asked.describe()["options"] == {"ct_file": "CTres.nii.gz"}
    with pytest.raises(TaskError, match=r"have a CTres\.nii\.gz but no CT\.nii\.gz.*set data\.init_args\.options"):
        TaskData("fdg_pet_ct", str(root.parent), split_file=str(few)).setup("fit")
    with pytest.raises(TaskError, match=r"ct_file is 'CT\.nii', but must be one of CT\.nii\.gz, CTres\.nii\.gz"):
        TaskData("fdg_pet_ct", str(root.parent), split_file=str(few), options={"ct_file": "CT.nii"})


@pytest.mark.parametrize("folder", ["", RELEASE])
@pytest.mark.parametrize(
    "table", [TABLE, "Clinical-Metadata-FDG-PET_CT-Lesions.csv", "fdg_metadata.csv", "home/someone/fdg_metadata.csv"]
)
def test_both_layouts_and_every_name_of_the_table_are_read(folder, table, few, tmp_path):
    root = tmp_path / "root"
    write_release(root / folder)
    (root / table).parent.mkdir(parents=True, exist_ok=True)
    (root / folder / TABLE).rename(root / table)
    dataset = FDGPETCT(root, "test", few)
    dataset.validate()
    for index in range(2):
        assert_is_slab(dataset[index], index)
    assert [dataset[index][1].tolist() for index in range(2)] == [[1], [0]]


# --- the split ---------------------------------------------------------------------------------------------


def test_the_split_of_the_release_is_pinned():
    assert FDGPETCT.split_counts() == (711, 104, 199)
    assert sum(FDGPETCT.split_counts()) == 1014


def test_the_split_is_by_patient_and_stratified_by_any_tumour(tmp_path, monkeypatch):
    """The table has three rows a study, patients have several studies, and some of these differ."""
    monkeypatch.setattr(FDGPETCT, "split_pin", None)
    studies = {}
    for number in range(100):
        subject = f"PETCT_{number:010x}"
        studies[f"{subject}/{study_folder(2 * number)}"] = "NEGATIVE"
        if number % 2:
            studies[f"{subject}/{study_folder(2 * number + 1)}"] = "LYMPHOMA" if number % 10 == 1 else "NEGATIVE"
    write_table(tmp_path, studies)
    dataset = FDGPETCT(tmp_path, "test")
    assert sum(dataset.table.counts.values()) == 150
    patients = {split: set(cases.values()) for split, cases in dataset.table.cases.items()}
    assert {split: len(names) for split, names in patients.items()} == {"train": 70, "val": 10, "test": 20}
    sick = [sum(dataset.labels[case] for case in cases) for cases in dataset.table.cases.values()]
    assert sick == [7, 1, 2]


def test_another_table_than_the_release_is_refused(root):
    with pytest.raises(TaskError, match=r"gives another split .*instead of \(711, 104, 199\)"):
        FDGPETCT(root, "test")


def test_the_header_is_the_official_one(shared_data):
    official = shared_data.parent / "reference" / "labels" / "fdg_clinical_metadata.header.csv"
    assert official.read_text(encoding="utf-8").strip() == HEADER


# --- what can be wrong -------------------------------------------------------------------------------------


def no_table(root):
    (root / TABLE).unlink()


def lower_case(root):
    """A label that is not NEGATIVE is not thereby a tumour."""
    edited(root / TABLE, lambda text: text.replace("NEGATIVE", "negative"))


def no_diagnosis(root):
    edited(root / TABLE, lambda text: text.replace("MELANOMA", ""))


def two_diagnoses(root):
    edited(root / TABLE, lambda text: text.replace("MELANOMA", "LYMPHOMA", 1))


def no_path(root):
    edited(root / TABLE, lambda text: text.replace(f"./{RELEASE}/PETCT_zz00000001/", "PETCT_zz00000001 "))


def no_row(root):
    edited(root / TABLE, lambda text: text.replace(study_folder(0), study_folder(9)))


def no_study(root):
    (root / CASES[5]).rename(root / "elsewhere")


def single_spaces(root):
    (root / CASES[5]).rename(root / CASES[5].replace("  ", " "))


def cut_short(root):
    path = root / CASES[0] / "CT.nii.gz"
    path.write_bytes(path.read_bytes()[:-2000])


def suv_for_ct(root):
    (root / CASES[0] / "SUV.nii.gz").replace(root / CASES[0] / "CT.nii.gz")


def with_nan(root):
    ct = slab(0)
    hu = np.where(ct.hu > 500, np.nan, ct.hu).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(hu.T, ct.affine[:, [2, 1, 0, 3]]), root / CASES[0] / "CT.nii.gz")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_table, r"lack files .*Clinical Metadata FDG PET_CT Lesions\.csv"),
        (lower_case, r"row \d+: unknown diagnosis 'negative'; known: NEGATIVE, "),
        (no_diagnosis, r"row 1: unknown diagnosis ''"),
        (two_diagnoses, r"row 2: PETCT_zz00000001/.* has two diagnoses"),
        (no_path, r"row 1: no study of PETCT_zz00000001 in the path"),
        (no_row, r"case PETCT_zz00000001/01-01-2000-.*10000: it has no row in "),
        (no_study, r"1 of 2 cases of the split 'train' lack files .*PETCT_zz00000004/.*CT\.nii\.gz"),
        (single_spaces, r"1 of 2 cases of the split 'train' lack files .*PETCT_zz00000004/.*Ganzkoerper  primaer"),
        (cut_short, r"case PETCT_zz00000001/.*CT\.nii\.gz"),
        (suv_for_ct, r"case PETCT_zz00000001/.*CT\.nii\.gz has values from 0 to 0"),
        (with_nan, r"case PETCT_zz00000001/.*NaN or infinite"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_data_stops_before_anything_is_encoded_and_is_named(spoil, message, root, few):
    spoil(root)
    with pytest.raises(TapctError, match=message):
        TaskData("fdg_pet_ct", str(root.parent), split_file=str(few)).setup("fit")


def test_the_doctor_counts_studies_and_names_what_is_missing_and_unexpected(root, monkeypatch):
    monkeypatch.setattr(FDGPETCT, "split_pin", None)
    found = list(findings("fdg_pet_ct", str(root.parent)))
    assert ("ok", "all 7 cases can be read, scan and target", "") in found
    assert {status for status, _, _ in found} == {"ok"}
    single_spaces(root)
    messages = {message: status for status, message, _ in findings("fdg_pet_ct", str(root.parent))}
    assert messages[f"6 of 7 cases are there; missing: {CASES[5]} (CT.nii.gz)"] == "fail"
    assert messages[f"1 scans are in no split of the task: {CASES[5].replace('  ', ' ')}/CT.nii.gz"] == "warn"
