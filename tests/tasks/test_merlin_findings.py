"""Merlin Abdominal CT on a tiny release of its layout and quirks, with real slices and invented labels."""

import gzip

import pytest

from tapct.encoders import card_of, list_encoders
from tapct.errors import TapctError, TaskError
from tapct.leaderboard.overlap import known_overlap
from tapct.tasks import SPLITS, TaskData
from tapct.tasks.ct_rate_scans import MACHINE_READ
from tapct.tasks.findings import findings
from tapct.tasks.merlin_findings import MerlinFindings
from tapct.tasks.merlin_release import FINDINGS, LABELS, METADATA, SHEET
from tests.data import merlin_findings as release
from tests.data.slabs import edited
from tests.tasks.end_to_end import SMALL, run

TOP = "merlinabdominalctdataset"
PATCHES = {**SMALL, "class_path": "tests.small.Drifting"}
HEADER = ["study id", "Findings", "Split", "Few Shot"]
TEST = ["AC42139c4", "AC4214054", "AC4214e53"]


@pytest.fixture
def root(tmp_path):
    return release.write(tmp_path / "data" / "merlin_findings")


def parts(root):
    return {split: MerlinFindings(root, split) for split in SPLITS}


def sheet(root, *rows, header=HEADER):
    """Writes the spreadsheet anew, with further rows."""
    studies = [[study, release.REPORT, part, 0.0] for study, part in release.PARTS.items()]
    release.write_sheet(root / TOP / SHEET, [header, *studies, *rows])


@pytest.mark.thorough
def test_the_whole_task_runs_in_eva(root, tmp_path):
    record = run("classification/merlin_findings.yaml", root.parent, None, tmp_path, "classification", encoder=PATCHES)
    cases = {case.case: case for case in record.runs[0].cases["test"]}
    assert sorted(cases) == TEST
    for study, case in cases.items():
        stated = [None if label == -1 else label for label in release.labels(study)]
        assert case.target == dict(zip(FINDINGS, stated, strict=True))
        assert case.patient == study
    assert record.task.cases == {"train": 4, "val": 2, "test": 3}
    assert record.task.excluded == {"AC423bfa9": f"{LABELS} does not have it"}
    assert record.task.split == MerlinFindings.split_rule
    assert record.notice.startswith(MACHINE_READ)
    assert "each counts as its own" in record.notice
    assert record.runs[0].metrics["test"]["UndefinedLabels"] >= 1  # the first is never stated


def test_what_is_not_stated_is_neither_positive_nor_negative(root):
    part = parts(root)["train"]
    for study in part.cases:
        for label, target in zip(release.labels(study), part.target(study).tolist(), strict=True):
            assert (target != target) if label == -1 else (target == label)
    assert part.targets("AC421360a")[0] is None


def test_the_parts_are_the_releases_and_the_folder_of_the_download_may_be_left_out(root, tmp_path):
    wanted = {split: (part.table.sha256, part.cases) for split, part in parts(root).items()}
    assert wanted["test"][1] == TEST
    (root / TOP).rename(tmp_path / "bare")
    assert {split: (p.table.sha256, p.cases) for split, p in parts(tmp_path / "bare").items()} == wanted
    for path in (tmp_path / "bare" / "merlin_data").glob("*.nii.gz"):  # as the documentation calls them
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    for part in parts(tmp_path / "bare").values():
        part.validate()


def test_ids_are_the_same_however_a_table_writes_them(root):
    """Excel takes digits for a number, pandas writes it with a point, and people name the file."""
    for old, new in (("AC42139c4", "1234567"), ("AC4214054", "7654321")):
        (root / TOP / "merlin_data" / f"{old}.nii.gz").rename(root / TOP / "merlin_data" / f"{new}.nii.gz")
    edited(
        root / TOP / LABELS,
        lambda text: (
            text.replace("AC42139c4", "1234567.0")
            .replace("AC4214054", " 7654321")
            .replace("AC4214e53", "AC4214e53.nii.gz")
        ),
    )
    rows = [[study, "", part, 0] for study, part in release.PARTS.items() if study not in TEST]
    named = [[1234567, "", "Test ", 0], [7654321.0, "", "test", 0], ["AC4214e53", "", "test", 0]]
    release.write_sheet(root / TOP / SHEET, [HEADER, *rows, *named])
    part = MerlinFindings(root, "test")
    part.validate()
    assert sorted(part.cases) == ["1234567", "7654321", "AC4214e53"]
    assert [None if n == -1 else n for n in release.labels("AC42139c4")] == list(part.targets("1234567"))


def test_a_column_of_patients_is_used_where_there_is_one(root):
    rows = [[study, "", part, 0, f"p{number // 2}"] for number, (study, part) in enumerate(release.PARTS.items())]
    release.write_sheet(root / TOP / SHEET, [[*HEADER, "Patient_ID"], *rows[:8]])
    assert MerlinFindings(root, "train").patients == ["p0", "p1"]
    rows[8][4] = "p0"
    release.write_sheet(root / TOP / SHEET, [[*HEADER, "Patient_ID"], *rows])
    with pytest.raises(TaskError, match=r"patient p0 is in train and in test"):
        MerlinFindings(root, "train")
    rows[8][4] = None
    release.write_sheet(root / TOP / SHEET, [[*HEADER, "Patient_ID"], *rows])
    with pytest.raises(TaskError, match=r"a row without a study or patient"):
        MerlinFindings(root, "train")


def test_a_study_is_left_out_with_the_reason_and_no_row_wins_by_its_place(root):
    sheet(root, ["AC42139c4", "", "train", 0], ["AC4214054", "", "test", 0], ["AC4214fcd", "", None, 0])
    never = ",".join(["AC421390e", *["-1"] * len(FINDINGS)])
    edited(
        root / TOP / LABELS,
        lambda text: "\r\n".join(
            never if row.startswith("AC421390e") else row
            for row in [*text.splitlines(), f"AC421360a{',1' * len(FINDINGS)}"]
        ),
    )
    of = parts(root)
    assert of["test"].excluded == {
        "AC42139c4": f"two rows of {SHEET} have it, and differ",
        "AC4214fcd": f"{SHEET} names no part of it",
        "AC421360a": f"two rows of {LABELS} have it, and differ",
        "AC421390e": "none of the findings is stated of it",
    }
    assert {split: len(part) for split, part in of.items()} == {"train": 3, "val": 1, "test": 2}


def test_the_metadata_say_what_took_a_scan_and_of_whom(root):
    part = MerlinFindings(root, "train")
    ge, siemens = (part.levels(study) for study in ("AC421360a", "AC421361b"))
    assert ge == {
        **{"manufacturer": "ge", "scanner_model": "discovery ct750 hd", "kvp": "120", "phase": "portal venous"},
        **{"slice_thickness": "0.95 to 1.4 mm", "sex": None, "age": "40 to 50 years"},
    }
    assert (siemens["manufacturer"], siemens["kvp"], siemens["sex"]) == ("siemens", None, "female")
    (root / TOP / METADATA).unlink()
    with pytest.raises(TaskError, match=r"the column 'kvp' is read from are not there, such as .*metadata\.csv"):
        MerlinFindings(root, "train").table_columns(["kvp"])
    assert set(MerlinFindings(root, "train").levels("AC421360a").values()) == {None}
    MerlinFindings(root, "train").validate()


def test_models_that_saw_it_are_marked():
    seen = {name for name in list_encoders() if known_overlap("merlin_findings", card_of(name).pretraining_data)}
    assert seen == {"merlin", "astra", "spectre"}


# --- what can be wrong -------------------------------------------------------------------------------------


def no_scan(root):
    (root / TOP / "merlin_data" / "AC4214e53.nii.gz").unlink()


def two_scans(root):
    path = root / TOP / "merlin_data" / "AC4214e53.nii.gz"
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))


def uncertain(root):
    edited(root / TOP / LABELS, lambda text: text.replace("AC4214e53,-1", "AC4214e53,-2"))


def another_part(root):
    sheet(root, ["AC4214fcd", "", "holdout", 0])


def no_labels(root):
    (root / TOP / LABELS).unlink()


def no_sheet(root):
    (root / TOP / SHEET).unlink()


def metadata_of_nothing(root):
    edited(root / TOP / METADATA, lambda text: text.replace("study id", "accession"))


def two_scanners(root):
    edited(root / TOP / METADATA, lambda text: text + "AC421360a,40,,,,SIEMENS,,,,\r\n")


def fewer_findings(root):
    edited(root / TOP / LABELS, lambda text: text.replace("fracture", "fractures", 1))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_scan, r"1 of 3 cases of the split 'test' lack files .*AC4214e53\.nii"),
        (two_scans, r"holds AC4214e53\.nii.* 2 times"),
        (uncertain, r"AC4214e53: submucosal_edema is '-2', but must be 1, 0, or -1 where it is not stated"),
        (another_part, r"AC4214fcd: Split is 'holdout', and must be one of train, val"),
        (no_labels, r"there is no label file .*zero_shot_findings_disease_cls\.csv"),
        (no_sheet, r"there is no spreadsheet .*reports_final\.xlsx"),
        (metadata_of_nothing, r"metadata\.csv lacks the columns study id"),
        (two_scanners, r"metadata\.csv, AC421360a: two rows have it, and differ"),
        (fewer_findings, r"lacks the columns fracture"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_data_stops_before_anything_is_encoded_and_is_named(spoil, message, root):
    spoil(root)
    with pytest.raises(TapctError, match=message):
        TaskData("merlin_findings", str(root.parent)).setup("fit")


def test_the_doctor_counts_against_the_release_and_names_what_does_not_fit(root):
    release.write_scan(root / TOP, "AC4240770", 0)
    found = {message: status for status, message, _ in findings("merlin_findings", str(root.parent))}
    assert found["all 9 cases can be read, scan and target"] == "ok"
    assert found["test: 4 studies, and the release has 5,125"] == "warn"
    assert found["1 studies have no labels: AC423bfa9"] == "warn"
    assert found[f"1 studies have labels and no part: {release.WITHOUT_PART}"] == "warn"
    assert found[f"1 scans are in no split of the task: {TOP}/merlin_data/AC4240770.nii.gz"] == "warn"
    assert found[f"{SHEET} has no column of patients"] == "ok"
    assert found[f"{METADATA} does not have 1 studies: what took them is not known"] == "warn"
    assert "fail" not in found.values()
    no_scan(root)
    found = {message: status for status, message, _ in findings("merlin_findings", str(root.parent))}
    assert next(message for message, status in found.items() if status == "fail").startswith("8 of 9 cases are there")
