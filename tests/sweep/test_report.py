"""Reports through the commands: an experiment of each adaptor, the board and the page."""

import os
from unittest import mock

from tapct.leaderboard import site as leaderboard
from tapct.records import read_record
from tapct.sweep import commands
from tapct.sweep.experiment import LANGUAGE_MODEL_CONTENT, READER_CONTENT
from tests.data import ct_rate, report_reader
from tests.language_models import tiny
from tests.sweep.fakes import Here


def test_from_scans_to_the_page(tmp_path, monkeypatch):
    ct_rate.write(tmp_path / "ct_rate")
    reader, results = report_reader.of_ct_rate(tmp_path / "reader"), tmp_path / "results"
    variables = {"DATA_ROOT": str(tmp_path), "NUM_WORKERS": "0", "READER_BACKBONE": str(reader.backbone)}
    monkeypatch.setattr("sys.argv", ["tapct"])
    options = {"jobs": 1}
    asked = commands.Sweep(
        encoders="intensity", tasks="ct_rate_report", results=str(results), accelerator="cpu", adaptors="nearest,vote"
    )
    with mock.patch.dict(os.environ, {**variables, "READER_WEIGHTS": str(reader.weights)}):
        assert commands.run(asked, **options, start=Here) == 0
        experiments = asked.experiments()
        settings = experiments[0].settings()
        reader.weights.write_bytes(reader.weights.read_bytes() + b" ")
        assert (
            experiments[0].settings()[READER_CONTENT] != settings[READER_CONTENT]
        )  # another reader is another experiment
    records = [read_record(experiment.folder / "record.json") for experiment in experiments]
    assert [record.probe.adaptor for record in records] == ["nearest", "vote"]
    assert leaderboard.build([results], tmp_path / "site", resamples=200) == 0
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    for text in ("Next to what knows nothing of the scan", "most common report", "Intensity statistics, vote"):
        assert text in page


def test_a_language_model_is_named_and_another_one_behind_its_name_is_another_experiment(tmp_path):
    folder, results = tiny.write(tmp_path / "model"), str(tmp_path / "results")
    of = {"encoders": "intensity", "tasks": "ct_rate_report", "results": results}
    with mock.patch.dict(os.environ, {"DATA_ROOT": str(tmp_path), "LANGUAGE_MODEL": str(folder)}):
        assert len(commands.Sweep(**of, adaptors="all").experiments()) == 2  # nearest and vote
        (experiment,) = commands.Sweep(**of, adaptors="generated").experiments()
        assert experiment.variables["LANGUAGE_MODEL"] == str(folder)
        before = experiment.settings()[LANGUAGE_MODEL_CONTENT]
        tiny.write(folder, seed=1)
        assert experiment.settings()[LANGUAGE_MODEL_CONTENT] != before
