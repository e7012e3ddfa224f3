"""Reliability through the commands: rows to beat on RIDER, the page, and `eva test` on other scans."""

import os
import sys
from unittest import mock

import pytest
import yaml
from eva.__main__ import main

from tapct.leaderboard import site as leaderboard
from tapct.records import read_record
from tapct.sweep import commands
from tests.data import rider
from tests.sweep.fakes import Here
from tests.tasks.end_to_end import CONFIGS, run

TASK = "rider_lung_retest"
ROWS = ("chance", "body-size", "random-pyramid")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rider.write(folder / TASK)
    rider.split(folder / "split.csv")
    return folder


@pytest.mark.thorough
def test_from_scans_to_the_page(data, tmp_path, monkeypatch):
    results = tmp_path / "results"
    monkeypatch.setattr("sys.argv", ["tapct"])
    options = {"jobs": 1}
    asked = commands.Sweep(encoders=",".join(ROWS), tasks=TASK, results=str(results), accelerator="cpu")
    with mock.patch.dict(
        os.environ, {"DATA_ROOT": str(data), "SPLIT_FILE": str(data / "split.csv"), "NUM_WORKERS": "0"}
    ):
        assert commands.run(asked, **options, start=Here) == 0
    records = {experiment.label: read_record(experiment.folder / "record.json") for experiment in asked.experiments()}
    metrics = {label: record.runs[0].metrics["test"] for label, record in records.items()}
    assert set(metrics) == {*ROWS}
    assert "MedianICC" not in metrics["chance"]
    assert metrics["chance"]["Identification"] == pytest.approx(1 / len(rider.PATIENTS))
    assert metrics["body-size"]["ConstantFeatures"] == 0
    assert metrics["body-size"]["MedianICC"] > 0.5, "the noise of a scanner leaves the size of the body as it is"
    assert metrics["random-pyramid"]["Identification"] == 1
    assert leaderboard.build([results], tmp_path / "site", resamples=200) == 0
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "ICC(2,1) over features" in page


def test_scans_are_reported_again_as_they_were_and_refused_for_others(data, tmp_path, monkeypatch):
    split = data / "split.csv"
    first = run(f"reliability/{TASK}.yaml", data, split, tmp_path, "reliability", encoder="intensity")
    (head,) = tmp_path.glob("logs/*/*/record.json")

    def tested(split: str) -> None:
        override = {"model": {"init_args": {"head": str(head.parent)}}, "data": {"init_args": {"num_workers": 0}}}
        (tmp_path / "head.yaml").write_text(yaml.safe_dump(override))
        for name, value in {"DATA_ROOT": data, "ENCODER": "intensity", "OUTPUT_ROOT": tmp_path / "again"}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("SPLIT_FILE", split)
        configs = [str(CONFIGS / "reliability" / f"{TASK}.yaml"), str(tmp_path / "head.yaml")]
        monkeypatch.setattr(sys, "argv", ["eva", "test", *(word for path in configs for word in ("--config", path))])
        main()

    tested(str(split))
    (path,) = tmp_path.glob("again/*/*/record.json")
    again = read_record(path)
    assert again.runs[0].metrics["test"] == pytest.approx(first.runs[0].metrics["test"])
    patients = list(rider.PATIENTS)[:2]
    rows = [f"{patient}_{one},{patient},test" for patient in patients for one in ("TEST", "RETEST")]
    (tmp_path / "few.csv").write_text("\n".join(["case,patient,split", *rows, ""]))
    with pytest.raises(Exception, match="the head holds 8 scans, and 4 are reported"):
        tested(str(tmp_path / "few.csv"))
