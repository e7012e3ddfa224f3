"""Tables on the board: what encoders and tables add to each other, and which models a table is not beaten by."""

import csv
import re

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tapct.leaderboard import site
from tapct.leaderboard.assembly import assemble
from tapct.leaderboard.exports import by_score
from tapct.leaderboard.gains import gains
from tapct.leaderboard.page.beaten import beaten
from tapct.records import read_records
from tests.leaderboard import results

CELLS = {
    "linear": {
        ("curia", "linear"): 1.2,
        ("suprem", "linear"): 0.2,
        ("intensity", "linear"): -1.5,
        ("chance", "linear:table=age+sex"): 0.3,
        ("curia", "linear:own&table=sex+age"): 2.5,
        ("suprem", "linear:mean&table=age+sex"): 0.32,
    },
    "ridge": {
        ("curia", "ridge"): 1.0,
        ("intensity", "ridge"): 0.0,
        ("chance", "ridge:table=sex"): 0.7,
        ("curia", "ridge:own&table=sex"): 1.3,
    },
}
"""By head, of each encoder and adaptor how good it is."""

TASKS = {"linear": "luna25", "ridge": "totalsegmentator_age"}


def write(folder, head):
    for (encoder, adaptor), ability in CELLS[head].items():
        plain = adaptor.translate(str.maketrans(":&=+", "----"))
        cell = encoder if adaptor == head else f"{encoder}+adaptor={plain}"
        made = results.record(encoder, TASKS[head], ability=ability, patients=150, adaptor=adaptor)
        results.write(folder, cell, made)
    return assemble({folder: read_records(folder)}, resamples=300)


@pytest.fixture(scope="module", params=["linear", "ridge"])
def board(request, tmp_path_factory):
    return request.param, write(tmp_path_factory.mktemp(request.param), request.param)


def task_of(board):
    return next(task for task in board.tasks if task.summaries)


def test_gains_are_over_the_table_and_over_the_encoder_and_above_zero_is_better(board):
    head, board = board
    task = task_of(board)
    found = {one.model: one for one in gains(task.crossed, task.metric, 300)}
    curia = found["Curia"]
    sign = -1 if head == "ridge" else 1
    for part in (curia.over_table, curia.over_encoder):
        assert part.gain.value == pytest.approx(sign * (curia.together.value - part.alone.value))
        assert part.gain.low > 0
        assert part.gain.low < part.gain.value < part.gain.high
    numbers = {name: one.estimate.value for (name, adaptor), one in task.grid.experiments.items() if adaptor == head}
    assert curia.over_encoder.alone.value == pytest.approx(numbers["Curia"]), "own pooling is that of the plain cell"
    if head == "linear":
        suprem = found["SuPreM U-Net"]
        assert suprem.over_table.gain.low < 0 < suprem.over_table.gain.high
        cases = task.crossed["Chance", "linear:table=age+sex"].runs[0].cases["test"]
        pairs = [(case.target[name], case.logits[name]) for case in cases for name in case.target]
        assert suprem.over_table.alone.value == pytest.approx(roc_auc_score(*np.array(pairs).T), abs=0.02)


def test_a_table_stands_among_the_rows_to_beat(board):
    head, board = board
    task = task_of(board)
    models = by_score(task, [model for model in board.models if task.name in model.entries])
    table = beaten(task, models)
    name = "table: age + sex" if head == "linear" else "table: sex"
    lines = {row[0]: dict(zip(table.heads, row[1:], strict=True)) for row in table.rows}
    assert table.heads[-1] == name
    assert lines["Curia"][name].startswith("beats +"), "whichever way the metric runs"
    assert lines["Intensity statistics"][name].startswith("beaten -")
    assert lines[name]["Intensity statistics"].startswith("beats +")
    assert lines[name][name] == ""
    assert f"{head}:table=acquisition" in table.note, "nobody ran it"
    assert f"{head}:{name.replace('table: ', 'table=').replace(' + ', '+')}" not in table.note
    plain = beaten(task, [model for model in models if model.name == "Curia"])
    assert plain.heads == [name], "a table alone is a row to beat"


def test_the_page_says_what_is_gained(tmp_path):
    write(tmp_path / "results", "ridge")
    assert site.build([tmp_path / "results"], tmp_path / "site", resamples=200) == 0
    text = re.sub(r"<[^>]+>", " ", (tmp_path / "site" / "index.html").read_text(encoding="utf-8"))
    assert "What encoders add to tables, and tables to encoders (MAE, years)" in text
    number = r"-?\d+\.\d{3} \[.*?\]\s+"
    assert re.search(rf"sex\s+Curia, own\s+{3 * number}\+{number}\+\d+\.\d{{3}}", text)
    assert "table: sex" in text
    (row,) = csv.DictReader((tmp_path / "site" / "gains.csv").read_text(encoding="utf-8").splitlines())
    assert (row["task"], row["model"], row["adaptor"], row["table"]) == (
        *("totalsegmentator_age", "Curia", "ridge:own&table=sex", "sex"),
    )
    for part in ("table", "encoder"):
        names = ("both", f"{part}_alone", f"gain_over_{part}", f"gain_over_{part}_low")
        both, alone, gain, low = (float(row[name]) for name in names)
        assert gain == pytest.approx(alone - both), "MAE: less is better"
        assert 0 < low < gain
