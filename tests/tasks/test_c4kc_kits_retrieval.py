"""C4KC-KiTS: the series that was drawn on, of TCIA or as a case of KiTS; grades, refusals, and the way through eva."""

from dataclasses import replace

import numpy as np
import pytest
from pydicom import dcmread

from tapct.errors import TaskError
from tapct.leaderboard.overlap import known_overlap
from tapct.tasks.c4kc_kits_retrieval import CLINICAL_FILE, C4KCKiTSRetrieval
from tapct.tasks.findings import findings
from tests.data import c4kc_kits as release
from tests.data.slabs import slab
from tests.data.tcia import box, write_ct, write_segmentation
from tests.tasks.end_to_end import run, write_split

CASES = [patient.name for patient in release.COHORT]
CONFIG = "retrieval/c4kc_kits_retrieval.yaml"
INTENSITY = {"class_path": "baselines.intensity.Intensity"}
LOW = [[0, 1], [1, 0], [1, 0], [0, 1], [1, 0]]
"""Targets of the cohort."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    release.write(folder / "c4kc_kits")
    write_split(folder / "split.csv", test=CASES)
    return folder


def dataset(root) -> C4KCKiTSRetrieval:
    return C4KCKiTSRetrieval(root / "c4kc_kits", "test", root / "split.csv")


def check(part: C4KCKiTSRetrieval) -> None:
    """Asserts that every case is the scan, the mask and the target of its patient."""
    part.validate()
    part.require_masks()
    for patient, target in zip(release.COHORT, LOW, strict=True):
        ct, found = part.read(patient.name)
        assert np.array_equal(ct.hu, slab(patient.number % 5).hu)
        assert found[:2].tolist() == target
        mask = part.mask(patient.name, ct.grid)
        assert np.array_equal(mask.inside, box(patient.number % 5))


def test_a_case_is_the_phase_that_was_drawn_on(root):
    part = dataset(root)
    check(part)
    assert all("arterial" in str(part.ct_path(case)) for case in CASES)


@pytest.mark.parametrize("name", ["kits.json", "kits23.json"])
def test_the_same_patients_are_cases_of_kits(tmp_path, name):
    release.write_kits(tmp_path / "c4kc_kits", name=name)
    write_split(tmp_path / "split.csv", test=CASES)
    part = dataset(tmp_path)
    check(part)
    assert part.label_file.name == name
    assert len(part.table_rows) == len(CASES), "case_00299 is none of C4KC's"
    path = part.ct_path(CASES[0])
    assert path.parts[-2:] == ("case_00000", "imaging.nii.gz")
    (tmp_path / "c4kc_kits" / "images").mkdir()
    path.rename(tmp_path / "c4kc_kits" / "images" / "case_00000.nii.gz")
    check(dataset(tmp_path))


def test_the_split_has_the_patients_of_the_release():
    assert C4KCKiTSRetrieval.split_counts() == (0, 0, 143)
    cases = C4KCKiTSRetrieval.shipped_split().cases["test"]
    assert "KiTS-00030" in cases, "whom FlexiCT's table lacks"
    assert all(f"KiTS-{number:05d}" not in cases for number in (1, 3, 40)), "papillary, chromophobe"
    assert sum(C4KCKiTSRetrieval.in_groups) == 143


@pytest.fixture
def one(tmp_path):
    """A release of one patient, and the folder of the study."""
    patient = release.COHORT[0]
    release.write(tmp_path / "c4kc_kits", [patient])
    write_split(tmp_path / "split.csv", test=[patient.name])
    return tmp_path, release.study_of(tmp_path / "c4kc_kits", patient)


def without(pattern):
    return lambda study: [path.unlink() for path in study.glob(f"{pattern}*/*")]


def drawn_again(study):
    write_segmentation(study, "KiTS-00000", "SEGMENTATION", 9, "1.2.3.0.7", {"Mass": box(0)})


def copied(study):
    write_ct(study.with_name("again"), "KiTS-00000", "arterial", 0, first=7)


def of_another(study):
    without("7.")(study)
    write_ct(study, "KiTS-00000", "arterial", 0, first=7)
    for path in (study / "7.000000-arterial-00000").iterdir():
        edited = dcmread(path)
        edited.PatientID = "KiTS-00009"
        edited.save_as(path)


def as_kits_too(study):
    release.write_kits(study.parents[3], [release.COHORT[0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("300."), r"KiTS-00000 has no segmentation 'segmentation', .*; its series: 2.000000-noncontrast"),
        (without("7."), r"was drawn on the series 1\.2\.3\.0\.7, which is there 0 times. CT series .*noncontrast"),
        (drawn_again, "KiTS-00000 has several segmentations: .*Leave the one to be used"),
        (copied, r"which is there 2 times"),
        (of_another, r"7.000000-arterial-00000 is of the patient KiTS-00009"),
        (as_kits_too, "KiTS-00000 is there twice: .*arterial.* and .*imaging.nii.gz"),
    ],
)
def test_a_series_is_never_taken_by_chance(one, change, message):
    root, study = one
    change(study)
    with pytest.raises(TaskError, match=message):
        dataset(root).validate()


def test_a_drawing_that_lies_elsewhere_is_found_before_anything_is_encoded(one):
    root, study = one
    without("300.")(study)
    write_segmentation(study, "KiTS-00000", "Segmentation", 1, "1.2.3.0.7", {"Kidney": ~box(1), "Mass": box(1)})
    part = dataset(root)
    part.read("KiTS-00000")  # whole scans need no drawing
    with pytest.raises(TaskError, match=r"1 masks of .* KiTS-00000: .*Mass reaches beyond the scan.*cosine:mean"):
        part.require_masks()
    found = [*findings("c4kc_kits_retrieval", str(root), split_file=str(root / "split.csv"))]
    assert any(status == "warn" and "1 of 1 masks cannot be used: c4kc_kits" in said for status, said, _ in found)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"subtype": "papillary"}, "its tumour is 'papillary', and only of clear-cell carcinomas"),
        ({"grade": "2.5"}, "tumor_isup_grade is '2.5', and must be 1, 2, 3 or 4"),
        ({"number": 3}, "has no row of KiTS-00000"),
    ],
)
def test_a_row_that_cannot_be_is_refused(one, wrong, message):
    root, _ = one
    release.write_clinical(root / "c4kc_kits", [replace(release.COHORT[0], **wrong)])
    with pytest.raises(TaskError, match=message):
        dataset(root).target("KiTS-00000")


def test_a_patient_who_is_there_twice_and_a_table_of_another_kind_are_refused(one):
    root, _ = one
    release.write_clinical(root / "c4kc_kits", [release.COHORT[0]] * 2)
    with pytest.raises(TaskError, match="has the patient KiTS-00000 twice"):
        dataset(root).target("KiTS-00000")
    (root / "c4kc_kits" / CLINICAL_FILE).unlink()
    with pytest.raises(TaskError, match=f"lack files .*{CLINICAL_FILE}"):
        dataset(root).validate()
    (root / "c4kc_kits" / "kits.json").write_text('{"case_id": 1}', encoding="utf-8")
    with pytest.raises(TaskError, match=r"kits.json is no list of the cases of KiTS"):
        dataset(root).target("KiTS-00000")


def test_a_grade_that_is_not_known_is_no_answer(one):
    root, _ = one
    release.write_clinical(root / "c4kc_kits", [replace(release.COHORT[0], grade="", age="NULL")])
    part = dataset(root)
    assert part.target("KiTS-00000").isnan().all()
    assert part.levels("KiTS-00000")["age"] is None


def test_scanner_and_patient_are_told_by_headers_and_table(root, tmp_path):
    levels = dataset(root).levels("KiTS-00004")
    assert (levels["manufacturer"], levels["sex"], levels["age"]) == ("ge", "male", "60 to 70 years")
    release.write_kits(tmp_path / "c4kc_kits")
    write_split(tmp_path / "split.csv", test=CASES)
    levels = dataset(tmp_path).levels("KiTS-00004")
    assert (levels["manufacturer"], levels["sex"]) == (None, "male"), "a NIfTI file does not say who made it"


@pytest.mark.thorough
def test_the_tumour_alone_is_ranked_and_the_whole_scan_is_another_adaptor(root, tmp_path, monkeypatch):
    record = run(CONFIG, root, root / "split.csv", tmp_path, "retrieval", encoder=INTENSITY)
    assert (record.probe.adaptor, record.probe.pooling) == ("cosine:mask", "mask")
    by_case = {case.case: case.outcome for case in record.runs[0].cases["test"]}
    assert by_case["KiTS-00000"]["relevant"]["ISUP 3-4"] == 1
    assert by_case["KiTS-00004"]["relevant"]["ISUP 1-2"] == 2
    assert by_case["KiTS-00004"]["items"]["ISUP 1-2"] == 4
    assert record.task.excluded == {}
    assert "volume" in {**record.shortcuts.columns, **record.shortcuts.left_out}
    monkeypatch.setenv("ADAPTOR", "cosine")
    whole = run(CONFIG, root, root / "split.csv", tmp_path, "retrieval", encoder=INTENSITY)
    assert whole.probe.pooling == "mean"
    assert whole.shortcuts.left_out["volume"] == "features are not pooled over the masks"
    assert whole.runs[0].metrics["test"]["mAP"] != record.runs[0].metrics["test"]["mAP"]


def test_the_doctor_counts_against_the_release(root):
    found = [*findings("c4kc_kits_retrieval", str(root), split_file=str(root / "split.csv"))]
    said = {message: status for status, message, _ in found}
    assert said[f"{CLINICAL_FILE} has 5 patients, and the release has 210"] == "warn"
    assert said["ISUP 3-4: 2 patients of the split, and the release has 46"] == "warn"
    assert said["all 5 cases can be read, scan and target"] == "ok"
    assert said["5 tumours lie on their scans"] == "ok"
    assert "fail" not in said.values()


def test_models_that_have_seen_the_scans_are_marked():
    known = ["C4KC-KiTS", "KiTS23", "AbdomenAtlas 1.1", "NLST"]
    assert known_overlap("c4kc_kits_retrieval", known) == ("C4KC-KiTS", "KiTS23", "AbdomenAtlas 1.1")
