"""Reports through the commands: a cell of each adaptor, the board and the page."""

import os
from unittest import mock

from tapct.leaderboard import site as leaderboard
from tapct.records import read_record
from tapct.sweep import commands
from tapct.sweep.cell import LANGUAGE_MODEL_CONTENT, READER_CONTENT
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
        cells = asked.cells()
        settings = cells[0].settings()
        reader.weights.write_bytes(reader.weights.read_bytes() + b" ")
        assert cells[0].settings()[READER_CONTENT] != settings[READER_CONTENT]  # another reader is another cell
    records = [read_record(cell.folder / "record.json") for cell in cells]
    assert [record.probe.adaptor for record in records] == ["nearest", "vote"]
    assert leaderboard.build([results], tmp_path / "site", resamples=200) == 0
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    for text in ("Beside what knows nothing of the scan", "most common report", "Intensity statistics, vote"):
        assert text in page


def test_a_language_model_is_named_and_another_one_behind_its_name_is_another_cell(tmp_path):
    folder, results = tiny.write(tmp_path / "model"), str(tmp_path / "results")
    of = {"encoders": "intensity", "tasks": "ct_rate_report", "results": results}
    with mock.patch.dict(os.environ, {"DATA_ROOT": str(tmp_path), "LANGUAGE_MODEL": str(folder)}):
        assert len(commands.Sweep(**of, adaptors="all").cells()) == 2  # nearest and vote
        (cell,) = commands.Sweep(**of, adaptors="generated").cells()
        assert cell.variables["LANGUAGE_MODEL"] == str(folder)
        before = cell.settings()[LANGUAGE_MODEL_CONTENT]
        tiny.write(folder, seed=1)
        assert cell.settings()[LANGUAGE_MODEL_CONTENT] != before
