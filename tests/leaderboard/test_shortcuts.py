"""The shortcut audit on the board: a picture per model, tables and files, and never a rank."""

import csv
import io
import json

import numpy as np
import pytest

from tapct.leaderboard import site
from tapct.leaderboard.assembly import assemble
from tapct.leaderboard.page import shortcuts as section
from tapct.leaderboard.page.sections import DrawnTask, Figure
from tapct.probes.audited import Audited
from tapct.probes.shortcuts import audit
from tapct.probes.solved import PooledCases
from tapct.records import read_records, write_record
from tests.leaderboard.test_retrieval import TASK, model

SCANS = 60


def audited(disease: float, scanner: float):
    """The audit of a model whose features know so much of the disease and of the scanner."""
    truth, noise = np.random.default_rng(0), np.random.default_rng(1)
    tumor, ge = truth.random(SCANS) < 0.4, truth.random(SCANS) < 0.5
    features = noise.normal(size=(SCANS, 12))
    features[:, 0] += disease * (2 * tumor - 1)
    features[:, 1] += scanner * (2 * ge - 1)
    names = [str(row) for row in range(SCANS)]
    targets = np.stack([tumor, truth.random(SCANS) < 0.2], axis=1).astype(float)
    said = [
        {"manufacturer": "ge" if one else "siemens", "kvp": "120" if place else "80"} for place, one in enumerate(ge)
    ]
    of = Audited(
        reported=PooledCases(names, names, features, targets),
        train=None,
        selection=None,
        folds=None,
        labels=("tumor", "trauma"),
        titles={"manufacturer": "manufacturer", "kvp": "tube voltage in kV", "sex": "recorded sex"},
        levels={name: {**levels, "sex": None} for name, levels in zip(names, said, strict=True)},
        scale=True,
        key="audited:1",
    )
    return audit(of, "mean", {"age": "meta.csv is not there"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    for name, knows in {"good": (2.0, 0.0), "fooled": (0.3, 2.0), "old": (1.0, 0.0)}.items():
        record = model(name, *knows)
        if name != "old":
            record = record.model_copy(update={"shortcuts": audited(*knows)})
        write_record(record, root / TASK["name"] / name)
    return root


@pytest.fixture(scope="module")
def shown(folder):
    (own,) = assemble({folder: read_records(folder)}, resamples=200).own
    return DrawnTask(of=own.board.tasks[0], drawn=own.board.models)


def test_a_record_keeps_its_audit(folder):
    records = read_records(folder).valid
    assert {path.parent.name: record.shortcuts is not None for path, record in records.items()} == {
        "good": True,
        "fooled": True,
        "old": False,
    }


def test_numbers_stand_beside_chance_with_intervals(shown):
    picture, shares, read = section.pictures(shown)
    assert isinstance(picture, Figure)
    rows = {row[0]: dict(zip(shares.heads, row[1:], strict=True)) for row in shares.rows}
    assert set(rows) == {"label", "manufacturer", "kvp"}
    share, low, _, high = rows["manufacturer"]["Fooled"].replace("(", "").replace(")", "").split()
    assert 0.75 < float(low) <= float(share) <= float(high) <= 1
    assert float(rows["label"]["Good"].split()[0]) > float(rows["label"]["chance"]) + 0.1
    assert "Old" not in rows["label"]
    assert "age, meta.csv is not there." in shares.note
    assert "sex, of the reported scans nothing is known." in shares.note
    rows = {row[0]: dict(zip(read.heads, row[1:], strict=True)) for row in read.rows}
    assert float(rows["shortcut:manufacturer"]["Fooled"].split()[0]) > 0.9
    assert float(rows["label"]["Good"].split()[0]) > float(rows["label"]["Fooled"].split()[0])
    assert rows["– ge"]["patients: training, reported"].count(", ") == 1
    assert rows["– 80"]["patients: training, reported"] == "not read: 0 training patients have it; 5 are needed"


def test_the_picture_has_a_panel_for_each_model_with_an_audit(shown):
    picture = next(iter(section.pictures(shown)))
    for text in ("Good", "Fooled", "manufacturer", "label"):
        assert f">{text}<" in picture.svg
    assert ">Old<" not in picture.svg


def test_files_have_a_row_for_each_shortcut_and_none_is_ranked(folder, tmp_path):
    assert site.build([folder], tmp_path, resamples=200) == 0
    found = list(csv.DictReader(io.StringIO((tmp_path / "shortcuts.csv").read_text(encoding="utf-8"))))
    rows = {(row["model"], row["row"]): row for row in found}
    names = {"label", "shortcut:manufacturer", "shortcut:kvp", "shortcut:sex", "shortcut:age"}
    assert {name for _, name in rows} == names
    assert {model for model, _ in rows} == {"Good", "Fooled"}
    assert float(rows["Fooled", "shortcut:manufacturer"]["auroc"]) > float(
        rows["Good", "shortcut:manufacturer"]["auroc"]
    )
    assert rows["Good", "shortcut:sex"]["reason"] == "of the reported scans nothing is known"
    board = json.loads((tmp_path / "leaderboard.json").read_text(encoding="utf-8"))
    assert len(board["shortcuts"]) == len(found)
    assert not any("shortcut" in json.dumps(row) for row in board["rows"])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "What the nearest scan shares, and what can be read" in page
    assert "Never ranked." in page


def test_a_stale_file_goes_with_the_last_audit(folder, tmp_path):
    (tmp_path / "shortcuts.csv").write_text("row\n")
    write_record(model("old", 1.0, 0.0), tmp_path / "results" / TASK["name"] / "old")
    assert site.build([tmp_path / "results"], tmp_path, resamples=200) == 0
    assert not (tmp_path / "shortcuts.csv").exists()
