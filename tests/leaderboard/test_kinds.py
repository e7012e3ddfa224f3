"""Tasks of several kinds on one board: each in its own metric, unit and direction, ranked together."""

import csv
import json
import re

import pytest

from tapct.leaderboard import site
from tapct.leaderboard.assembly import assemble
from tapct.records import find_records
from tests.leaderboard import results

TASKS = ("lits17", "luna16", "totalsegmentator_age")
ENCODERS = ("tap-b-3d", "curia", "suprem", "ct-fm")
"""From the best to the worst."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    for task in TASKS:
        for place, encoder in enumerate(ENCODERS):
            one = results.record(encoder, task, ability=1 - 0.3 * place, patients=60)
            results.write(root, encoder, one)
    return root


@pytest.fixture(scope="module")
def board(folder):
    return assemble({folder: find_records(folder)}, suite=TASKS, resamples=500)


@pytest.fixture(scope="module")
def built(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    assert site.build([folder], out, suite=TASKS) == 0
    return out


def test_a_lower_error_is_ranked_above_a_higher_one_and_enters_the_mean_rank(board):
    assert not board.own
    (ages,) = board.family("regression")
    summary = ages.summaries["native"]
    values = {one.name: one.estimate.value for one in summary.models}
    best, worst = min(values, key=values.get), max(values, key=values.get)
    assert ages.rank_interval(best, "native")[0] == 1
    assert ages.rank_interval(worst, "native")[1] == len(ENCODERS)
    assert all(
        one.better in (None, min(one.first, one.second, key=values.get)) for one in summary.comparison.differences
    )
    assert any(one.better for one in summary.comparison.differences)
    ranks = {name: model.mean_rank.value for name, model in board.overall["all", "native"].items()}
    assert ranks[best] == min(ranks.values())
    of_kind = board.overall["regression", "native"]
    assert of_kind[best].mean_rank.value == 1
    assert of_kind[best].mean_score.value == pytest.approx(values[best])


def test_there_is_no_mean_score_of_a_dice_an_area_and_years(board):
    for model in board.overall["all", "native"].values():
        assert model.mean_score.value is None
        assert "MAE in years" in model.mean_score.reason


def test_every_table_has_the_unit_and_the_direction(built):
    with (built / "leaderboard.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "record" and row["task"] in TASKS]
    found = {row["task"]: (row["family"], row["metric"], row["unit"], row["lower_is_better"]) for row in rows}
    assert found["totalsegmentator_age"] == ("regression", "MAE", "years", "True")
    assert found["luna16"] == ("classification", "MicroAUROC", "", "False")
    content = json.loads((built / "leaderboard.json").read_text(encoding="utf-8"))
    assert {row["unit"] for row in content["rows"] if row["task"] == "totalsegmentator_age"} == {"years"}
    for name in ("leaderboard.md", "leaderboard.tex"):
        text = (built / name).read_text(encoding="utf-8")
        assert "MAE, years" in text
        assert re.search(r"(## |caption\{)Regression", text)


def test_the_page_has_a_tab_and_a_colour_of_each_kind_and_sorts_the_best_first(built):
    page = (built / "index.html").read_text(encoding="utf-8")
    for family in ("segmentation", "classification", "regression"):
        assert f'data-family="{family}"' in page
        assert f"[data-family={family}] [data-f]:not([data-f={family}])" in page
    heads = dict(re.findall(r'data-sort="(\w+)" data-first="(\w+)"', page))
    assert heads["totalsegmentator_age"] == "ascending"
    assert heads["luna16"] == heads["lits17"] == "descending"
    assert "<small>MAE, years</small>" in page
    assert "RMSE, years" in page
