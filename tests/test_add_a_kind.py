"""docs/add-a-kind.md, followed: an eighth kind in a package of somebody's own, from scans to record to page."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from tapct import kinds
from tapct.cli import main
from tapct.errors import RecordError
from tapct.records import Record, find_records, write_record
from tests.data.abdomen import block, save
from tests.tasks.end_to_end import run
from tests.third_party import blocks, installed, lay_out

GUIDE = (Path(__file__).parents[1] / "docs" / "add-a-kind.md").read_text(encoding="utf-8")
CASES = [f"c{number:02}" for number in range(22)]
SPLIT = ["test" if number % 2 else "val" if number % 6 == 4 else "train" for number in range(22)]
GRADES = [number * 5 // 22 for number in range(22)]
"""From the pelvis to the chest: what intensities tell, and a constant does not."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A folder with the package of the guide, installed as pip lays it out, and scans."""
    folder = tmp_path_factory.mktemp("checkout")
    modules = dict(zip(("kind", "image_quality", "probe", "page"), blocks(GUIDE, "python"), strict=True))
    package = lay_out(folder, blocks(GUIDE, "toml")[0], modules)
    rows = [f"{case},{case},{split}" for case, split in zip(CASES, SPLIT, strict=True)]
    (package / "splits" / "image_quality.csv").write_text("\n".join(["case,patient,split", *rows, ""]))
    root = folder / "data" / "image_quality"
    for place, case in enumerate(CASES):
        slab = block(4 * place, slices=8)
        save(root / "scans" / f"{case}.nii.gz", slab.hu, slab.affine)
    graded = [f"{case},{grade}" for case, grade in zip(CASES, GRADES, strict=True)]
    (root / "grades.csv").write_text("\n".join(["case,grade", *graded, ""]))
    (folder / "image_quality.yaml").write_text(blocks(GUIDE, "yaml")[0])
    return folder


@pytest.fixture(scope="module")
def report(checkout) -> dict:
    """What the kind is where only the guide's steps were done."""
    config, data = checkout / "image_quality.yaml", checkout / "data"
    with installed(checkout) as patch:
        report = {"kinds": kinds.list_kinds()}
        for encoder in ("intensity", "chance"):
            record = run(config, data, None, checkout, "grading", encoder=encoder, runs=2)
            write_record(record, checkout / "results" / "image_quality" / encoder)
            report[encoder] = {
                "metrics": record.runs[0].metrics["test"],
                "selection": record.runs[0].selection.setting is not None,
                "flags": [flag.id for flag in record.flags],
                "cases": {case.case: case.outcome for case in record.runs[0].cases["test"]},
            }
        content = json.loads(record.to_json())
        content["runs"][0]["cases"]["test"][0]["outcome"]["predicted"]["quality"] = 4.5
        with pytest.raises(RecordError) as refused:
            Record.from_json(json.dumps(content), where="changed")
        report["refused"] = str(refused.value)
        (stored, *_) = find_records(checkout / "results").valid.values()
        report["columns"] = stored.table().column_names[-2:]
        patch.setattr("sys.argv", ["tapct", "leaderboard", "results", "-o", "site"])
        with pytest.raises(SystemExit) as ended:
            main()
        report["status"] = ended.value.code or 0
    return report


def test_the_kind_stands_behind_ours_and_its_fields_are_columns(report):
    assert report["kinds"][-1] == "grading"
    assert report["columns"] == ["predicted", "grade"]


def test_its_metrics_are_those_of_its_cases(report):
    for encoder in ("intensity", "chance"):
        cases = report[encoder]["cases"].values()
        predicted, grade = (np.array([case[name]["quality"] for case in cases]) for name in ("predicted", "grade"))
        kappa = cohen_kappa_score(grade.astype(int), np.rint(predicted).astype(int), weights="quadratic")
        assert report[encoder]["metrics"]["WeightedKappa"] == pytest.approx(kappa, abs=1e-12)
        assert report[encoder]["metrics"]["GradeError"] == pytest.approx(np.abs(predicted - grade).mean(), abs=1e-12)
        assert report[encoder]["selection"]
    assert {case: of["grade"]["quality"] for case, of in report["chance"]["cases"].items()} == {
        case: grade for case, grade, split in zip(CASES, GRADES, SPLIT, strict=True) if split == "test"
    }


def test_what_knows_nothing_of_the_scans_is_flagged_and_what_does_is_not(report):
    assert "chance-level" in report["chance"]["flags"]
    assert "chance-level" not in report["intensity"]["flags"]


def test_a_record_that_cannot_be_is_refused(report):
    assert "predicted of quality is 4.5, and must be from 0 to 4" in report["refused"]


def test_it_is_on_the_page_and_in_the_tables(report, checkout):
    assert report["status"] == 0
    site = checkout / "site"
    with (site / "leaderboard.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == "image_quality"]
    assert {row["family"] for row in rows} == {"grading"}
    assert {row["metric"] for row in rows} == {"WeightedKappa"}
    for row in rows:
        encoder = "chance" if row["model"] == "Chance" else "intensity"
        assert float(row["value"]) == pytest.approx(report[encoder]["metrics"]["WeightedKappa"], abs=1e-9)
    page = (site / "index.html").read_text(encoding="utf-8")
    for text in ("Image quality", "weighted kappa", "error, grades", "Predicted by grade", "grade 4"):
        assert text in page
    assert "weighted kappa" in (site / "leaderboard.md").read_text(encoding="utf-8")
