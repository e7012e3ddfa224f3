"""Reports of CT-RATE on a tiny release of its layout and quirks, read by a tiny reader, the whole way through eva."""

import csv
import hashlib
import json
import sys

import numpy as np
import pytest
import yaml
from eva.__main__ import main

from tapct.errors import TapctError, TaskError
from tapct.kinds.report import COMMON, RANDOM, TEXT
from tapct.leaderboard.overlap import known_overlap
from tapct.records import read_record
from tapct.report.page import write_report
from tapct.tasks import SPLITS
from tapct.tasks.ct_rate import CTRATE
from tapct.tasks.ct_rate_release import FINDINGS
from tapct.tasks.ct_rate_report import READ_BY_MACHINE, CTRATEReport
from tapct.tasks.findings import findings
from tests.data import ct_rate, report_reader
from tests.data.slabs import edited
from tests.language_models import tiny
from tests.tasks.end_to_end import CONFIGS, run

CONFIG = "report/ct_rate_report.yaml"
INTENSITY = {"class_path": "baselines.intensity.Intensity"}
REPORTS = "dataset/radiology_text_reports/validation_reports.csv"
VOLUMES = (*ct_rate.train(), *ct_rate.VALID)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return report_reader.of_ct_rate(tmp_path_factory.mktemp("reader"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return ct_rate.write(tmp_path_factory.mktemp("data") / "ct_rate").parent


@pytest.fixture(autouse=True)
def _variables(reader, monkeypatch):
    monkeypatch.setenv("READER_WEIGHTS", str(reader.weights))
    monkeypatch.setenv("READER_BACKBONE", str(reader.backbone))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def record(data, folder, reader):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("READER_WEIGHTS", str(reader.weights))
        patch.setenv("READER_BACKBONE", str(reader.backbone))
        patch.setenv("TAPCT_CACHE", str(folder / "cache"))
        return run(CONFIG, data, None, folder, "report", encoder=INTENSITY)


@pytest.fixture
def root(tmp_path):
    """A release of which something can be spoilt, with tables alone."""
    return ct_rate.write(tmp_path / "data" / "ct_rate", volumes=False)


def test_reports_come_with_quotes_and_line_ends_on_one_line(root):
    part = CTRATEReport(root, "test")
    assert part.report("valid_1_a") == ct_rate.text("valid_1_a_1")
    assert part.report("valid_1_a").startswith('Trachea is "open", ')
    assert part.report("valid_1_a").endswith('""')
    assert "\n" in ct_rate.report("valid_1_a_1")[0]
    assert part.targets("valid_1_a") == tuple(ct_rate.findings("valid_1_a_1"))
    train = next(iter(CTRATEReport(root, "train").cases))
    assert part.report(train) == ct_rate.text(f"{train}_1")  # of whatever split
    with pytest.raises(TaskError, match="valid_9_a: it has no report"):
        part.report("valid_9_a")


def test_cases_patients_and_split_are_those_of_the_findings_task(root):
    for split in SPLITS:
        ours, other = CTRATEReport(root, split), CTRATE(root, split)
        assert (ours.cases, ours.patients, ours.table.sha256) == (other.cases, other.patients, other.table.sha256)
        assert ours.scan_cache_key(ours.cases[0]) == other.scan_cache_key(other.cases[0])  # its features serve both
    assert known_overlap("ct_rate_report", ["CT-RATE"]) == ("CT-RATE",)


def test_eva_fit_leaves_a_record_like_any_other(record):
    assert record.notice == READ_BY_MACHINE
    assert record.task.cases == {"train": 5, "val": 2, "test": 4}
    assert record.task.excluded == {"valid_2_a": "no_chest_valid.txt lists it: it is a head, not a chest"}
    assert (record.probe.adaptor, record.probe.reader.name, record.probe.reader_agreement) == ("nearest", "radbert", 1)
    (one,) = record.runs
    cases = {case.case: case for case in one.cases["test"]}
    assert {case: of.patient for case, of in cases.items()} == ct_rate.REPORTED
    for name, case in cases.items():
        given, true = (dict(zip(FINDINGS, ct_rate.findings(f"{of}_1"), strict=True)) for of in (case.report.of, name))
        outcome = {field: {f: of[f] for f in FINDINGS} for field, of in case.outcome.items()}
        assert (outcome["found"], outcome["reference"]) == (given, true)
        assert case.loss == pytest.approx(np.mean([given[f] != true[f] for f in FINDINGS]))
        assert case.report.sha256 == hashlib.sha256(ct_rate.text(f"{case.report.of}_1").encode()).hexdigest()
        assert case.report.reference_sha256 == hashlib.sha256(ct_rate.text(f"{name}_1").encode()).hexdigest()
    assert "another-reader" not in {flag.id for flag in record.flags}
    assert {*one.metrics["val"]} >= {"MacroF1", "MicroF1", "BLEU4", "ROUGE-L"}


def test_what_knows_nothing_is_of_the_training_reports(record, data):
    """By hand: of five training scans, four patients; the most frequent set of findings, and the share of each."""
    part = CTRATEReport(data / "ct_rate", "train")
    of = {case: ct_rate.findings(f"{case}_1") for case in part.cases}
    shares = np.mean(list(of.values()), axis=0)
    often = max(of.values(), key=list(of.values()).count)
    texts = [ct_rate.text(f"{case}_1") for case, found in of.items() if found == often]
    common = min(texts, key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    for case in record.runs[0].cases["test"]:
        assert [case.outcome["random"][f] for f in FINDINGS] == pytest.approx(shares)
        assert [case.outcome["common"][f] for f in FINDINGS] == often
        words = case.outcome["words"]
        assert words[COMMON] >= len(common.split())
        assert {*words} == {*FINDINGS, TEXT, COMMON, RANDOM}
        assert all(words[f] is None for f in FINDINGS)


def test_no_text_leaves_with_the_record(record, folder):
    (path,) = folder.glob("logs/ct_rate_report/*/record.json")
    for file in (path, path.parent / "cases.parquet", *path.parent.glob("run_0/*")):
        content = file.read_bytes()
        assert b"Trachea" not in content, file
        assert b"not seen" not in content, file
    assert not [*folder.rglob("texts.jsonl")]


def test_constant_features_hand_out_random_reports(data, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("TAPCT_CACHE", str(folder / "cache"))
    record = run(CONFIG, data, None, tmp_path, "report", encoder="chance")
    for case in record.runs[0].cases["test"]:
        for field in ("words", "matched_4", "rouge_l"):
            assert case.outcome[field][TEXT] == case.outcome[field][RANDOM]


def eva(command, data, folder, monkeypatch, **model):
    own = folder / f"{command}.yaml"
    own.write_text(yaml.safe_dump({"model": {"init_args": {"encoder": INTENSITY, "weights": None, **model}}}))
    for name, value in {"DATA_ROOT": data, "OUTPUT_ROOT": folder / command, "ACCELERATOR": "cpu"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("NUM_WORKERS", "0")
    monkeypatch.setattr(sys, "argv", ["eva", command, "--config", str(CONFIGS / CONFIG), "--config", str(own)])
    main()
    (path,) = (folder / command).rglob("record.json")
    return path


@pytest.mark.thorough
def test_a_head_is_reported_again_and_texts_are_written_if_asked(data, folder, monkeypatch, tmp_path, record):
    """A vote too, which is chosen on the training and the selection patients."""
    monkeypatch.setenv("TAPCT_CACHE", str(folder / "cache"))
    fitted = eva("fit", data, tmp_path, monkeypatch, adaptor="vote:max", write_texts=True)
    one = read_record(fitted).runs[0]
    assert one.selection.patients == 4 + 2
    rows = [json.loads(line) for line in (fitted.parent / "run_0" / "texts.jsonl").read_text("utf-8").splitlines()]
    assert {row["case"]: row["reference"] for row in rows} == {
        case: ct_rate.text(f"{case}_{2 if case == 'valid_2_b' else 1}") for case in ct_rate.REPORTED
    }
    for row, case in zip(rows, one.cases["test"], strict=True):
        assert hashlib.sha256(row["text"].encode()).hexdigest() == case.report.sha256
    tested = eva("test", data, tmp_path, monkeypatch, adaptor="vote:max", head=str(fitted.parent))
    assert read_record(tested).runs[0].cases["test"] == one.cases["test"]
    assert read_record(tested).probe.reader == record.probe.reader


@pytest.mark.thorough
def test_a_language_model_writes_by_the_shipped_config(data, folder, monkeypatch, tmp_path):
    """What it says is noise, of a model with random weights; what is reported again is the same."""
    monkeypatch.setenv("TAPCT_CACHE", str(folder / "cache"))
    monkeypatch.setenv("LANGUAGE_MODEL", str(tiny.write(tmp_path / "model", max_position_embeddings=1024)))
    monkeypatch.setenv("MAX_STEPS", "1")
    generator = {"tokens": 4, "width": 32, "heads": 4, "decoding": {"most_tokens": 12}}
    generator["language_model"] = str(tmp_path / "model")
    fitted = eva("fit", data, tmp_path, monkeypatch, adaptor="generated", generator=generator)
    record = read_record(fitted)
    assert (record.probe.adaptor, record.probe.language_model.name) == ("generated", "model")
    assert record.probe.cut_reports == record.task.cases["train"]
    settings = {"adaptor": "generated", "generator": generator}
    tested = eva("test", data, tmp_path, monkeypatch, head=str(fitted.parent), **settings)
    assert read_record(tested).runs[0].cases["test"] == record.runs[0].cases["test"]
    generator["language_model"] = str(tiny.write(tmp_path / "other" / "model", seed=1, max_position_embeddings=1024))
    with pytest.raises(TaskError, match="the head was trained with another generator"):
        eva("test", data, tmp_path / "other", monkeypatch, head=str(fitted.parent), **settings)


def test_the_report_shows_the_floor_and_each_finding(folder, record):
    (path,) = folder.glob("logs/ct_rate_report/*/record.json")
    page = write_report(path).read_text(encoding="utf-8")
    for text in (
        "Next to what knows nothing of the scan",
        COMMON,
        RANDOM,
        "F1 of each finding",
        "Cardiomegaly",
        "weak",
    ):
        assert text in page


# --- what can be wrong -------------------------------------------------------------------------------------


def rewritten(root, change):
    """Changes the rows of the reports of the part that is reported."""
    with (root / REPORTS).open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    with (root / REPORTS).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *(row for row in map(change, rows) if row)])


def test_scans_without_one_report_are_left_out_with_the_reason(root):
    def change(row):
        name = row[0].removesuffix(".nii.gz")
        if name == "valid_3_b_1":
            return None
        if name == "valid_3_a_1":
            return [*row[:3], " \n", ""]
        return [*row[:3], "Another report.", ""] if name == "valid_1_a_2" else row

    rewritten(root, change)
    part = CTRATEReport(root, "test")
    assert part.cases == ["valid_2_b"]
    assert {case: why for case, why in part.excluded.items() if case != "valid_2_a"} == {
        "valid_1_a": "its reconstructions have different reports",
        "valid_3_a": "its report is empty",
        "valid_3_b": "it has no report",
    }
    messages = {message: status for status, message, _ in findings("ct_rate_report", str(root.parent))}
    assert messages["valid: 1 volumes with labels and without a report: valid_3_b_1"] == "warn"
    assert messages["valid_3_a is left out: its report is empty"] == "warn"


def test_two_reports_of_one_volume_are_refused(root):
    edited(root / REPORTS, lambda text: text.replace("valid_1_a_2", "valid_1_a_1").replace("mm.", "cm.", 1))
    with pytest.raises(TaskError, match="valid_1_a_1 has two reports that differ"):
        CTRATEReport(root, "test")


def test_without_the_reports_the_doctor_says_what_is_missing(root):
    (root / REPORTS).unlink()
    (finding,) = findings("ct_rate_report", str(root.parent))
    assert finding[0] == "fail"
    assert "there is no file of reports" in finding[1]


def test_a_patient_on_both_sides_is_refused(root, tmp_path):
    train = CTRATEReport(root, "train").cases[0]
    (tmp_path / "split.csv").write_text(f"case,patient,split\n{train},p1,train\nvalid_1_a,p1,test\n", encoding="utf-8")
    with pytest.raises(TapctError, match="patient p1 is in"):
        CTRATEReport(root, "test", tmp_path / "split.csv")


def test_another_reader_shows_in_what_it_agrees_with(data, folder, monkeypatch, tmp_path):
    """Of the labels of the release it gives two thirds, for it says none."""
    known = {ct_rate.text(volume): [0] * 18 for volume in VOLUMES}
    other = report_reader.write(tmp_path / "other", known)
    monkeypatch.setenv("READER_WEIGHTS", str(other.weights))
    monkeypatch.setenv("READER_BACKBONE", str(other.backbone))
    monkeypatch.setenv("TAPCT_CACHE", str(folder / "cache"))
    record = run(CONFIG, data, None, tmp_path, "report", encoder=INTENSITY)
    part = CTRATEReport(data / "ct_rate", "train")
    labels = np.array([ct_rate.findings(f"{case}_1") for case in part.cases])
    assert record.probe.reader_agreement == pytest.approx((labels == 0).mean())
    assert "another-reader" in {flag.id for flag in record.flags}
    assert record.runs[0].metrics["test"].get("MacroF1") is None
    assert record.runs[0].metrics["test"]["FindingsNowhere"] == 18


def test_a_reader_that_is_not_there_stops_before_anything_is_encoded(data, monkeypatch, tmp_path):
    monkeypatch.setenv("READER_WEIGHTS", str(tmp_path / "none.pth"))
    with pytest.raises(TapctError, match=r"no file .*none\.pth"):
        run(CONFIG, data, None, tmp_path, "report", encoder=INTENSITY)
    assert not [*(tmp_path / "cache").rglob("*.safetensors")]
