"""LUNG1: the release's folders and table, and what is wrong with them."""

import math
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from tapct.errors import TapctError, TaskError
from tapct.leaderboard.overlap import known_overlap
from tapct.tasks.findings import findings
from tapct.tasks.lung1_survival import CLINICAL_FILE, RELEASE, LUNG1Survival
from tapct.tasks.splits import FoldTable, read_split
from tests.data import lung1
from tests.data.lung1 import Patient
from tests.data.slabs import slab
from tools.splits import lung1_folds


def folds(path: Path, patients: list[Patient]) -> Path:
    rows = [f"{patient.name},{patient.name},{place % 2}" for place, patient in enumerate(patients)]
    path.write_text("\n".join(["case,patient,fold_0", *rows, ""]), encoding="utf-8")
    return path


def dataset(root: Path, patients: list[Patient]) -> LUNG1Survival:
    return LUNG1Survival(root, "test", folds(root.parent / "folds.csv", patients))


def test_scans_targets_tables_and_masks_are_those_of_the_release(tmp_path):
    patients = lung1.cohort(4)
    lung1.write(tmp_path / "lung1_survival", patients)
    part = dataset(tmp_path / "lung1_survival", patients)
    part.validate()
    assert part.cases == [patient.name for patient in patients]
    for patient in patients:
        ct, target = part.read(patient.name)
        assert np.array_equal(ct.hu, slab(patient.number % 5).hu)
        assert target.tolist() == [float(patient.time), float(patient.event)]
        mask = part.mask(patient.name, part.scan_grid(patient.name))
        assert np.array_equal(mask.inside, lung1.voxels(patient))
        assert part.value(patient.name, "volume") == pytest.approx(
            math.log10(lung1.voxels(patient).sum() * 3 * 6 * 6 / 1000)
        )
    assert part.read_value("LUNG1-001", "age") == pytest.approx(float(patients[0].age))
    assert part.read_value("LUNG1-002", "age") is None
    third = [part.read_value("LUNG1-003", column) for column in ("histology", "t_stage", "n_stage", "stage")]
    assert third == [None, None, "0", "IIIa"]
    numbers = part.values("LUNG1-003", part.spec.table)
    assert np.isnan(numbers[3]), "the T stage"
    assert np.isnan(numbers[5:8]).all(), "three numbers of four histologies"
    assert numbers[1:3] == [1.0, 2.0], "male; the third of four stages"


def test_a_segmentation_takes_the_place_of_contours_that_are_not_there(tmp_path):
    patients = [Patient(1, drawn=("SEG",)), Patient(2, drawn=("RTSTRUCT",))]
    lung1.write(tmp_path / "lung1_survival", patients)
    part = dataset(tmp_path / "lung1_survival", patients)
    for patient, kind in zip(patients, ("Segmentation", "0.000000-NA-00502"), strict=True):
        assert kind in str(part.tumour_path(patient.name))
        mask = part.mask(patient.name, part.scan_grid(patient.name))
        assert np.array_equal(mask.inside, lung1.voxels(patient))


def test_of_several_scans_the_one_that_was_drawn_on_is_taken(tmp_path):
    root, patient = tmp_path / "lung1_survival", Patient(1)
    lung1.write(root, [patient, Patient(2)])
    study = next((root / RELEASE / patient.name).iterdir())
    lung1.write_dicom(study / "1.000000-NA-00077", 3, "1.2.3.77")
    assert dataset(root, [patient, Patient(2)]).ct_path(patient.name).name == "0.000000-NA-00001"
    for path in study.glob("*/1-1.dcm"):
        path.unlink()
    with pytest.raises(TaskError, match="several CT series"):
        dataset(root, [patient, Patient(2)]).ct_path(patient.name)


def test_a_patient_without_a_time_is_left_out_and_listed(tmp_path):
    patients = [Patient(1), Patient(2, time="NA"), Patient(3)]
    lung1.write(tmp_path / "lung1_survival", patients)
    part = dataset(tmp_path / "lung1_survival", patients)
    assert part.cases == ["LUNG1-001", "LUNG1-003"]
    assert "not known" in part.excluded["LUNG1-002"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"time": "-3"}, "Survival.time is -3, and a value in days lies between 1 and"),
        ({"time": "0"}, "Survival.time is 0, and a value in days"),
        ({"time": "4,5"}, "line 2 has 11 values"),
        ({"event": "2"}, "deadstatus.event is '2', but must be 0 or 1"),
        ({"event": "NA"}, "deadstatus.event is 'NA', but must be 0 or 1"),
        ({"age": "nan"}, "age is 'nan', which is not a number"),
    ],
)
def test_a_table_with_impossible_values_is_refused(tmp_path, wrong, message):
    patients = [replace(Patient(1), **wrong), Patient(2)]
    lung1.write_clinical(tmp_path / "lung1_survival", patients)
    with pytest.raises(TaskError, match=message):
        dataset(tmp_path / "lung1_survival", patients)


def test_a_level_that_the_table_does_not_have_is_refused_when_it_is_asked_for(tmp_path):
    patients = [Patient(1, stage="IV"), Patient(2)]
    lung1.write(tmp_path / "lung1_survival", patients)
    part = dataset(tmp_path / "lung1_survival", patients)
    (stage,) = (column for column in part.spec.table if column.name == "stage")
    with pytest.raises(
        TaskError, match="lung1_survival, case LUNG1-001: overall stage is 'IV', and must be one of I, II, IIIa, IIIb"
    ):
        part.values("LUNG1-001", [stage])


@pytest.mark.parametrize(
    ("patients", "message"),
    [
        ([Patient(1, event="0"), Patient(2, event="0")], "all 2 patients of 'test' are censored"),
        ([Patient(1, time="1200"), Patient(2, time="2000")], "the first death of 'test' is after 1200 days"),
        ([Patient(1, time="13"), Patient(2, time="98")], "nobody of 'test' is followed for more than 98 days"),
    ],
)
def test_a_cohort_in_which_nothing_can_be_predicted_is_refused(tmp_path, patients, message):
    lung1.write(tmp_path / "lung1_survival", patients)
    with pytest.raises(TaskError, match=message):
        dataset(tmp_path / "lung1_survival", patients).validate()
    split = folds(tmp_path / "folds.csv", patients)
    found = findings("lung1_survival", str(tmp_path), split_file=str(split))
    assert any(message.replace("'test'", "'train'") in said for status, said, _ in found if status == "fail")


def test_contours_without_the_tumour_are_an_error_that_names_what_there_is(tmp_path):
    patients = [Patient(1, tumour="gtv-pre-op"), Patient(2)]
    lung1.write(tmp_path / "lung1_survival", patients)
    part = dataset(tmp_path / "lung1_survival", patients)
    with pytest.raises(TapctError, match=r"LUNG1-001: .*draws GTV-1 0 times; what it draws: Lung-Left, gtv-pre-op"):
        part.value("LUNG1-001", "volume")


def test_missing_files_are_named(tmp_path):
    root, patients = tmp_path / "lung1_survival", [Patient(1), Patient(2, drawn=())]
    lung1.write(root, [patients[1]])
    lung1.write_clinical(root, patients)
    part = dataset(root, patients)
    with pytest.raises(TaskError, match=r"1 of 2 cases of the split 'test' lack files.*LUNG1-001/CT.nii.gz"):
        part.validate()
    with pytest.raises(TaskError, match="2 masks of the split 'test' are not there"):
        part.require_masks()
    (root / CLINICAL_FILE).unlink()
    with pytest.raises(TaskError, match=f"there is no clinical table .*{CLINICAL_FILE}"):
        dataset(root, patients)


def test_the_folds_that_ship_are_stratified_and_leave_out_who_has_no_tumour():
    table = LUNG1Survival.shipped_split()
    assert isinstance(table, FoldTable)
    assert (table.repeats, table.number) == (10, 5)
    assert LUNG1Survival.split_counts() == (421, 0, 421)
    assert "LUNG1-128" not in table.cases["test"]
    assert set(LUNG1Survival.shipped_exclusions()) == {"LUNG1-128"}
    for of_repeat in table.folds:
        assert sorted(np.bincount(list(of_repeat.values()))) == [84, 84, 84, 84, 85]
    assert len({tuple(of.values()) for of in table.folds}) == 10
    shipped = Path(str(files("tapct.tasks"))) / "splits" / "lung1_survival_folds.csv"
    assert read_split(shipped).sha256 == table.sha256


def test_the_rule_of_the_folds_shares_out_events_and_times(tmp_path):
    patients = lung1.cohort(60)
    table = lung1_folds.table(lung1.write_clinical(tmp_path, patients))
    by_name = {patient.name: patient for patient in patients}
    for of_repeat in table.folds:
        deaths = [sum(by_name[p].event == "1" for p, fold in of_repeat.items() if fold == k) for k in range(5)]
        assert max(deaths) - min(deaths) <= 1
    (tmp_path / "again.csv").write_text(table.to_csv("where it is from"), encoding="utf-8")
    assert read_split(tmp_path / "again.csv").sha256 == table.sha256


def test_the_folder_may_hold_nifti_files(tmp_path):
    import nibabel as nib

    root, patient = tmp_path / "lung1_survival", Patient(1)
    lung1.write_clinical(root, [patient, Patient(2)])
    ct = slab(1)
    xyz = ct.affine @ np.eye(4)[[2, 1, 0, 3]]
    for name, voxels in (("CT", ct.hu.astype(np.int16)), ("GTV-1", lung1.voxels(patient).astype(np.uint8))):
        (root / patient.name).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels.transpose(2, 1, 0), xyz), root / patient.name / f"{name}.nii.gz")
    part = dataset(root, [patient, Patient(2)])
    scan = part.read_scan(patient.name)
    assert np.array_equal(scan.hu, ct.hu)
    assert np.array_equal(part.mask(patient.name, scan.grid).inside, lung1.voxels(patient))


def test_models_that_have_seen_the_collection_are_marked():
    assert known_overlap("lung1_survival", ["NSCLC-Radiomics", "LUNG1", "NLST"]) == ("NSCLC-Radiomics", "LUNG1")
    assert known_overlap("lung1_survival", ["NSCLC-Radiomics-Genomics", "NSCLC-Radiogenomics"]) == ()


def test_the_doctor_says_of_how_many_patients_each_column_is_known(tmp_path):
    patients = [Patient(1), Patient(2, age="NA"), Patient(3, drawn=())]
    lung1.write(tmp_path / "lung1_survival", patients)
    split = folds(tmp_path / "folds.csv", patients)
    found = {message: status for status, message, _ in findings("lung1_survival", str(tmp_path), split_file=str(split))}
    known = next(message for message in found if message.startswith("columns of a table"))
    assert found[known] == "ok"
    assert "of 3 in which it is known: " in known
    assert {"age (2)", "sex (3)", "stage (3)", "spacing_z (3)"} <= set(known.partition("known: ")[2].split(", "))
    volume = next(message for message in found if message.startswith("the column 'volume'"))
    assert found[volume] == "warn"
    assert "1 files that it is read from are not there, such as" in volume
    assert any(message.startswith("columns that are known of no case") and "kvp" in message for message in found)
