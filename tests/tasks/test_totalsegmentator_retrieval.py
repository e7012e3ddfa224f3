"""Retrieval in TotalSegmentator: the real table, a tiny tree of the release, and the whole way through eva."""

import csv
import json
import math
from collections import Counter

import numpy as np
import pytest
import torch

from tapct.errors import TapctError, TaskError
from tapct.report.page import write_report
from tapct.tasks.totalsegmentator_retrieval import (
    PATHOLOGIES,
    STUDY_TYPES,
    TotalSegmentatorRetrieval,
    TotalSegmentatorStudyRetrieval,
)
from tests.data import totalsegmentator as release
from tests.tasks.end_to_end import run, write_split
from tests.tasks.shipped import reference

INTENSITY = {"class_path": "baselines.intensity.Intensity"}
CONFIG = "retrieval/totalsegmentator_retrieval.yaml"
GALLERY = [*release.PATIENTS]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    release.write_patients(folder / "totalsegmentator")
    release.write_about(folder / "totalsegmentator")
    write_split(folder / "split.csv", test=GALLERY)
    return folder


@pytest.fixture(scope="module")
def record(root):
    return run(CONFIG, root, root / "split.csv", root, "retrieval", encoder=INTENSITY)


def test_every_row_of_the_real_table_has_a_target(tmp_path):
    path = reference() / "labels" / "totalsegmentator_v201_meta.csv"
    (tmp_path / "meta.csv").write_bytes(path.read_bytes())
    rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines(), delimiter=";"))
    for task, column, names in (
        (TotalSegmentatorRetrieval, "pathology", PATHOLOGIES),
        (TotalSegmentatorStudyRetrieval, "study_type", STUDY_TYPES),
    ):
        assert task.split_counts() == (0, 0, 1228)
        dataset = task(tmp_path, "test")
        assert {*dataset.cases} == {row["image_id"] for row in rows}
        assert (len(task(tmp_path, "train")), len(task(tmp_path, "val"))) == (0, 0)
        targets = torch.stack([dataset.target(case) for case in dataset.cases])
        counts = Counter(" ".join(row[column].split()) for row in rows)
        assert targets.nansum(dim=0).tolist() == [counts[name] for name in names]
        assert min(counts[name] for name in names) >= 20


def test_every_row_of_the_real_table_says_what_scans_may_be_sorted_by(tmp_path):
    path = reference() / "labels" / "totalsegmentator_v201_meta.csv"
    (tmp_path / "meta.csv").write_bytes(path.read_bytes())
    rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines(), delimiter=";"))
    dataset = TotalSegmentatorRetrieval(tmp_path, "test")
    said = {case: dataset.levels(case, dataset.spec.shortcuts) for case in dataset.cases}
    for column, of_meta in {"institute": "institute", "kvp": "kvp", "sex": "gender", "age": "age"}.items():
        levels = Counter(levels[column] for levels in said.values())
        assert levels[None] == sum(not row[of_meta] for row in rows)
        if column != "age":
            assert {level or "": number for level, number in levels.items()} == Counter(
                row[of_meta].casefold() for row in rows
            )
    assert {levels["manufacturer"] for levels in said.values()} == {None, "siemens", "philips", "ge"}
    assert said["s0245"] == {
        "institute": "i",
        "manufacturer": "siemens",
        "scanner_model": "somatom definition flash",
        "kvp": "100",
        "sex": "m",
        "age": "70 to 80 years",
    }


def test_what_is_unclear_is_not_known(root):
    dataset = TotalSegmentatorRetrieval(root / "totalsegmentator", "test", root / "split.csv")
    assert dataset.target("s0001").tolist() == [1, 0, 0, 0]
    assert dataset.target("s0011").tolist() == [0, 0, 0, 0]
    assert dataset.target("s0013").isnan().all()
    levels = dataset.levels("s0029", dataset.spec.shortcuts)
    assert {name for name, level in levels.items() if level is not None} == {"scanner_model", "sex", "age"}
    study = TotalSegmentatorStudyRetrieval(root / "totalsegmentator", "test", root / "split.csv")
    of_case = {case: study.target(case) for case in GALLERY}
    found = [STUDY_TYPES[int(of_case[case].argmax())] for case in ("s0001", "s0011")]
    assert found == ["ct abdomen", "ct intervention"]
    assert of_case["s0013"].tolist() == [0] * len(STUDY_TYPES)  # a rare one: in the gallery, and no query


def test_a_word_that_the_release_does_not_have_is_refused(root, tmp_path):
    release.write_about(tmp_path)
    text = (tmp_path / "meta.csv").read_text(encoding="utf-8-sig")
    (tmp_path / "meta.csv").write_text(text.replace("trauma", "traumatic"), encoding="utf-8")
    dataset = TotalSegmentatorRetrieval(tmp_path, "test", root / "split.csv")
    with pytest.raises(TaskError, match=r"s0004: pathology is 'traumatic'"):
        dataset.target("s0004")


def test_eva_fit_leaves_a_record_like_any_other(root, record):
    assert record.task.cases == {"train": 0, "val": 0, "test": 7}
    assert (record.probe.adaptor, record.probe.pooling) == ("cosine", "mean")
    assert record.task.metric == "mAP"
    (one,) = record.runs
    by_case = {case.case: case.outcome for case in one.cases["test"]}
    assert by_case["s0001"]["relevant"]["tumor"] == 2
    assert by_case["s0001"]["items"]["tumor"] == 4  # without itself, and two of which nothing is known
    assert by_case["s0004"]["relevant"]["trauma"] == 0
    assert by_case["s0004"]["average_precision"]["trauma"] is None
    assert by_case["s0011"]["relevant"]["tumor"] is None
    assert one.metrics["test"]["UndefinedQueries"] == 1
    tumors = [by_case[case]["average_precision"]["tumor"] for case in ("s0001", "s0002", "s0235")]
    assert one.metrics["test"]["mAP"] == pytest.approx(np.mean(tumors))
    (path,) = root.glob("logs/totalsegmentator_retrieval/*/record.json")
    results = json.loads((path.parent / "results.json").read_text(encoding="utf-8"))["metrics"]["test"][0]
    assert results["test/mAP"]["mean"] == pytest.approx(one.metrics["test"]["mAP"])


def test_the_record_holds_what_the_nearest_scan_shares(record):
    audit = record.shortcuts
    assert audit.pooling == "mean"
    assert audit.left_out["spacing_xy"].startswith("of the reported scans all are")
    institute = audit.columns["institute"]
    assert (institute.known, institute.levels) == (6, {"b": 2, "i": 4})
    # Four of the other five of institute I are of I for three of them, and one of five is of B for the two of B.
    assert institute.shared.scans == institute.shared.patients == 6
    assert institute.shared.chance == pytest.approx((4 * 3 / 5 + 2 * 1 / 5) / 6)
    # By label: of tumors three of I, each with two others of I; trauma is nobody else's, and two scans have none.
    assert institute.shared.by_label == pytest.approx((3 * 1 + 1 / 5 + 1 / 5 + 3 / 5) / 6)
    assert audit.label.levels == {"tumor": 3, "vascular": 0, "trauma": 1, "inflammation": 0}
    assert audit.label.shared.chance == pytest.approx((3 * 2 / 4 + 0) / 4)
    assert institute.read is None
    assert institute.left_out == {
        "b": "1 training patients have it; 5 are needed",
        "i": "4 training patients have it; 5 are needed",
    }
    assert set(audit.columns) == {"institute", "manufacturer", "kvp", "sex", "age"}


def test_the_report_shows_labels_and_what_neighbours_share(root, record):
    (path,) = root.glob("logs/totalsegmentator_retrieval/*/record.json")
    page = write_report(path).read_text(encoding="utf-8")
    for text in ("mAP of each label", "What the nearest scan shares", "manufacturer", "institute"):
        assert text in page


def test_constant_features_are_at_chance_and_flagged(root, tmp_path):
    split = write_split(tmp_path / "split.csv", test=GALLERY)
    record = run(CONFIG, root, split, tmp_path, "retrieval", encoder="chance")
    tumor = {case.case: case.outcome["hit_1"]["tumor"] for case in record.runs[0].cases["test"]}
    assert tumor["s0001"] == pytest.approx(2 / 4)
    assert "chance-level" in {flag.id for flag in record.flags}


def test_scans_of_the_querys_patient_are_no_answer(root, tmp_path):
    rows = [f"{case},{'both' if case in ('s0001', 's0002') else case},test" for case in GALLERY]
    (tmp_path / "split.csv").write_text("\n".join(["case,patient,split", *rows, ""]), encoding="utf-8")
    record = run(CONFIG, root, tmp_path / "split.csv", tmp_path, "retrieval", encoder=INTENSITY)
    by_case = {case.case: case.outcome for case in record.runs[0].cases["test"]}
    assert [by_case[case]["relevant"]["tumor"] for case in ("s0001", "s0002", "s0235")] == [1, 1, 2]
    assert by_case["s0001"]["items"]["tumor"] == 3


def test_one_patient_alone_has_nothing_to_find(root, tmp_path):
    split = write_split(tmp_path / "split.csv", test=["s0001"])
    with pytest.raises(TapctError, match="all reported scans are of its patient"):
        run(CONFIG, root, split, tmp_path, "retrieval", encoder=INTENSITY)


def test_nothing_trains_so_no_part_of_it_can(root, tmp_path, monkeypatch):
    monkeypatch.setenv("TRAIN_FRACTION", "0.5")
    split = write_split(tmp_path / "split.csv", test=GALLERY)
    with pytest.raises(TapctError, match="no training cases of which to take a part"):
        run(CONFIG, root, split, tmp_path, "retrieval", encoder=INTENSITY)


def test_numbers_are_those_of_the_pooled_features(root, record):
    from baselines.intensity import Intensity
    from tapct.features import extract
    from tapct.probes.adaptors import pooled

    dataset = TotalSegmentatorRetrieval(root / "totalsegmentator", "test", root / "split.csv")
    encoder, scans = Intensity(), [dataset.scan(case) for case in dataset.cases]
    vectors = np.stack(
        [pooled(extract(encoder, torch.from_numpy(scan.hu), scan.grid), "mean").numpy() for scan in scans]
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known = [case for case in dataset.cases if case not in ("s0013", "s0029", "s0001")]
    place = {case: i for i, case in enumerate(dataset.cases)}
    order = sorted(known, key=lambda case: -vectors[place[case]] @ vectors[place["s0001"]])
    hits = [case in ("s0002", "s0235") for case in order]
    at = [sum(hits[: i + 1]) / (i + 1) for i in range(4) if hits[i]]
    (found,) = (case for case in record.runs[0].cases["test"] if case.case == "s0001")
    assert found.outcome["average_precision"]["tumor"] == pytest.approx(math.fsum(at) / 2)
