"""Survival through the commands: experiments of a table and an encoder, the page, a report and the doctor."""

import os
from unittest import mock

import pytest

from tapct.leaderboard import site as leaderboard
from tapct.records import read_record
from tapct.report import commands as reports
from tapct.sweep import commands
from tests.data import lung1
from tests.sweep.fakes import Here

ADAPTORS = "cox:mean,cox:table=age+stage,cox:mean&table=age+stage,linear:mean"
LABELS = ["chance", "chance+adaptor=cox-table-age-stage", "chance+adaptor=cox-mean-table-age-stage"]


@pytest.fixture
def folds(tmp_path):
    patients = lung1.cohort(24)
    lung1.write(tmp_path / "lung1_survival", patients)
    rows = [f"{one.name},{one.name},{place % 3},{place // 2 % 3}" for place, one in enumerate(patients)]
    (tmp_path / "folds.csv").write_text("\n".join(["case,patient,fold_0,fold_1", *rows, ""]), encoding="utf-8")
    return tmp_path / "folds.csv"


@pytest.mark.thorough
def test_from_scans_to_the_page(folds, tmp_path, monkeypatch, capsys):
    results = tmp_path / "results"
    monkeypatch.setattr("sys.argv", ["tapct"])
    options = {"jobs": 1}
    asked = commands.Sweep(
        encoders="chance", tasks="lung1_survival", results=str(results), runs=2, accelerator="cpu", adaptors=ADAPTORS
    )
    variables = {"DATA_ROOT": str(tmp_path), "SPLIT_FILE": str(folds), "NUM_WORKERS": "0"}
    with mock.patch.dict(os.environ, variables):
        assert commands.run(asked, **options, start=Here) == 0
        experiments = asked.experiments()
    assert "left out: linear:mean on lung1_survival: its probe takes cox" in capsys.readouterr().err
    assert [experiment.label for experiment in experiments] == LABELS
    chance, alone, both = (read_record(experiment.folder / "record.json") for experiment in experiments)
    assert (alone.probe.pooling, both.probe.pooling) == ("none", "mean")
    assert chance.runs[0].metrics["test"]["UnoC"] == 0.5
    assert both.runs[0].metrics["test"] == pytest.approx(alone.runs[0].metrics["test"]), "constants add nothing"
    assert leaderboard.build([results], tmp_path / "site", resamples=200) == 0
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "Kaplan-Meier" in page
    assert "What encoders add to tables" in page
    assert reports.report(str(experiments[1].folder / "record.json"), out=str(tmp_path / "report.html")) == 0
    assert "Kaplan-Meier" in (tmp_path / "report.html").read_text(encoding="utf-8")
