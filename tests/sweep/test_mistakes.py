"""`tapct run --mistakes ...`: experiments like any other, said where there is none, through to the page."""

import csv
import os
from unittest import mock

import pytest

from tapct.encoders.mistake_names import MISTAKE_NAMES, NO_EFFECT
from tapct.leaderboard import site as leaderboard
from tapct.leaderboard.mistakes import FILE
from tapct.records import read_record
from tapct.sweep import commands
from tapct.sweep.experiment import SweepError
from tests.data import quickstart
from tests.sweep.fakes import Here


def experiments(**asked):
    return {
        experiment.label: experiment
        for experiment in commands.Sweep(
            **{"encoders": "curia", "tasks": "amos22", "results": "r", **asked}
        ).experiments()
    }


def test_each_mistake_that_can_be_made_is_an_experiment_and_the_others_are_said(capsys):
    found = experiments(mistakes="all")
    cannot = {"upside-down", "spacing-1mm", "padding-after-normalising"}
    can = [name for name in MISTAKE_NAMES if name not in cannot]
    assert list(found) == ["curia", *(f"curia+mistake={name}" for name in can)]
    options = [experiment.settings().get("model.init_args.encoder_options") for experiment in found.values()]
    assert options == [None, *(f"mistake={name}" for name in can)] or options[0] == "null"
    said = capsys.readouterr().err
    for name, why in {"upside-down": "one slice", "spacing-1mm": "own spacing", "padding-after-": "padded"}.items():
        (line,) = [line for line in said.splitlines() if f"the mistake '{name}" in line]
        assert line.startswith("left out: curia cannot be given")
        assert why in line


def test_a_mistake_stands_among_the_other_options_and_beside_random_weights():
    found = experiments(encoders="tap-b-3d+window_size=24x224x224,curia@random", mistakes="mirrored")
    assert list(found) == [
        "tap-b-3d+window_size=24x224x224",
        "curia@random",
        "tap-b-3d+mistake=mirrored+window_size=24x224x224",
        "curia@random+mistake=mirrored",
    ]
    assert found["curia@random+mistake=mirrored"].environment["ENCODER_WEIGHTS"] == "random"


def test_mistakes_cross_with_adaptors_and_not_with_shares_and_perturbations(capsys):
    asked = {"tasks": "luna16", "adaptors": "linear,knn", "fractions": (0.1, 1), "draws": 1}
    found = experiments(**asked, perturbations="noise-30hu", mistakes="mirrored,mirrored-alone")
    assert [label for label in found if "mistake" in label] == [
        "curia+mistake=mirrored",
        "curia+mistake=mirrored+adaptor=knn",
    ]
    assert "left out: mirrored-alone on luna16: where its map lies is not read there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "has"), [("amos22", True), ("luna16_detection", True), ("rsna2023", False), ("lung1_survival", False)]
)
def test_where_a_map_lies_is_asked_where_maps_are_read(task, has):
    found = experiments(tasks=task, mistakes="mirrored,mirrored-alone")
    assert ("curia+mistake=mirrored-alone" in found) == has
    assert "curia+mistake=mirrored" in found


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"mistakes": "miror"}, "there is no mistake 'miror'. Did you mean 'mirrored'"),
        ({"mistakes": ","}, "name at least one mistake"),
        ({"mistakes": "mirrored,spacing-1mm"}, "no encoder can be run with the mistake 'spacing-1mm': curia"),
        ({"encoders": "curia+mistake=miror"}, "Did you mean 'mirrored'"),
        ({"encoders": "curia+mistake=upside-down"}, "one slice at a time"),
        ({"encoders": "curia+mistake=mirrored", "mistakes": "mirrored"}, "'mistake' is there twice"),
    ],
)
def test_what_cannot_be_is_refused(asked, words):
    with pytest.raises(SweepError, match=words):
        experiments(**asked)


def test_an_encoder_with_which_it_can_be_made_is_enough(capsys):
    assert [*experiments(encoders="curia,fmcib", mistakes="spacing-1mm")] == [
        "curia",
        "fmcib",
        "fmcib+mistake=spacing-1mm",
    ]
    assert "left out: curia cannot be given the mistake 'spacing-1mm'" in capsys.readouterr().err


@pytest.mark.thorough
def test_real_experiments_come_to_the_page_as_costs_and_in_no_ranking(site, tmp_path, monkeypatch):
    quickstart.write(tmp_path)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr("sys.argv", ["tapct"])
    asked = commands.Sweep(
        encoders="small-3d@random",
        tasks="quickstart",
        results=str(tmp_path / "results"),
        max_steps=2,
        runs=2,
        accelerator="cpu",
        mistakes="mirrored,padding-after-normalising",
    )
    options = {"jobs": 1}
    with mock.patch.dict(os.environ, {"DATA_ROOT": str(tmp_path), "NUM_WORKERS": "0"}):  # workers set more of them
        assert commands.run(asked, **options, start=Here) == 0
    folder = tmp_path / "results" / "quickstart"
    right, mirrored, padded = (
        read_record(folder / f"small-3d@random{of}" / "record.json")
        for of in ("", "+mistake=mirrored", "+mistake=padding-after-normalising")
    )
    assert (right.encoder.mistake, mirrored.encoder.options) == (None, {"mistake": "mirrored"})
    assert right.runs[0].metrics != mirrored.runs[0].metrics
    # Eight slices fill its windows, so that nothing is padded: the record says so of the case.
    (note,) = padded.runs[0].cases["test"][0].notes
    assert note.startswith(NO_EFFECT)

    out = tmp_path / "site"
    assert leaderboard.build([tmp_path / "results"], out) == 0
    rows = list(csv.DictReader((out / FILE).open()))
    assert [(row["mistake"], row["scans"], row["scans_unchanged"]) for row in rows] == [
        ("mirrored", "1", "0"),
        ("padding-after-normalising", "1", "1"),
    ]
    expected = [
        right.runs[k].metrics["test"]["dice_native"] - mirrored.runs[k].metrics["test"]["dice_native"] for k in (0, 1)
    ]
    assert float(rows[0]["lost"]) == pytest.approx(sum(expected) / 2)
    assert float(rows[1]["lost"]) == 0
    assert "a single patient" in rows[0]["reason"]
    board = list(csv.DictReader((out / "leaderboard.csv").open()))
    assert {row["model"] for row in board if row["source"] == "record"} == {"Small 3D (random weights)"}
    html = (out / "index.html").read_text(encoding="utf-8")
    assert "What each mistake costs" in html
    assert "left and right changed over" in html
