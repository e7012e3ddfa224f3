"""`tapct.evaluate`: the experiment of `tapct run`, asked for in Python."""

import os
from pathlib import Path

import pytest

import tapct
from tapct.errors import TapctError
from tapct.records import read_record
from tapct.sweep import evaluation, local
from tapct.sweep.lock import attempt
from tests.sweep.fakes import Lab

SETTINGS = {"max_steps": 2, "n_runs": 2, "accelerator": "cpu"}


def nobody(order, variables):
    raise AssertionError(f"{order.experiment.name} is not to be run")


@pytest.fixture
def lab(tmp_path, real_record, monkeypatch) -> Lab:
    found = Lab(tmp_path, real_record)
    monkeypatch.setattr(local, "POLL_S", 0.02)
    monkeypatch.setattr("tapct.sweep.ready.refused", lambda experiments: {})
    monkeypatch.setitem(evaluation.run_one.__kwdefaults__, "start", found.start)
    return found


def test_an_experiment_of_tapct_run_is_done_for_it_too(swept, monkeypatch):
    command, _ = swept
    monkeypatch.syspath_prepend(command.environment["PYTHONPATH"].partition(":")[0])
    monkeypatch.setenv("DATA_ROOT", command.environment["DATA_ROOT"])
    monkeypatch.setitem(evaluation.run_one.__kwdefaults__, "start", nobody)
    asked = {"encoder": "small-3d", "task": "quickstart", "weights": "random", "results": command.results}
    record = tapct.evaluate(**asked, **SETTINGS)
    assert record == read_record(command.results / "quickstart" / "small-3d" / "record.json")
    assert len(record.to_frame()) > 0
    with pytest.raises(TapctError, match=r"max_steps was 2, asked 3.*replace=True.*results="):
        tapct.evaluate(**asked, **{**SETTINGS, "max_steps": 3})
    with pytest.raises(TapctError, match=r"seed was absent, asked 1"):
        tapct.evaluate(**asked, **SETTINGS, seed=1)


def test_what_is_set_reaches_the_experiment_by_the_names_of_configs(lab, monkeypatch):
    monkeypatch.chdir(lab.results.parent)
    given = {"learning_rates": [0.001, 0.01], "overlays": 2, "split_file": "mine.csv", "num_workers": None}
    Path("mine.csv").touch()
    record = tapct.evaluate("curia", "amos22", "data", results="results", **SETTINGS, **given)
    assert record.encoder.card.name == "curia"
    (experiment,) = lab.results.glob("*/*/cell.json")
    about = tapct.sweep.state._json(experiment, settings=dict)["settings"]
    assert about["model.init_args.learning_rates"] == "[0.001, 0.01]"
    assert about["model.init_args.overlays"] == "2"
    assert about["data.init_args.split_file"] == str(Path("mine.csv").absolute())
    assert about["trainer.init_args.n_runs"] == "2"
    assert tapct.evaluate("curia", "amos22", "elsewhere", results="results", **SETTINGS, **given) == record
    assert lab.ran() == ["curia on amos22"], "where the data are decides nothing"
    os.environ["MAX_STEPS"] = "7"
    with pytest.raises(TapctError, match=r"max_steps was 2, asked 7"):
        tapct.evaluate("curia", "amos22", results="results", n_runs=2, **given)
    del os.environ["MAX_STEPS"]


def test_what_makes_an_experiment_of_its_own_does_so_here(lab):
    tapct.evaluate("curia@random", "amos22", results=lab.results, train_fraction=0.1, train_draw=2)
    tapct.evaluate("curia", "amos22", results=lab.results, perturbation="noise-30hu")
    tapct.evaluate("curia", "rsna2022", results=lab.results, adaptor="knn")
    assert lab.ran() == [
        "curia@random+fraction=0.1+draw=2 on amos22",
        "curia+perturbation=noise-30hu on amos22",
        "curia+adaptor=knn on rsna2022",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_stepz": 3}, r"amos22 has no setting 'max_stepz'. Did you mean 'max_steps'.*Known: .*learning_rates"),
        ({"encoder_options": "a=1"}, "options of an encoder are part of its name"),
        ({"default_root_dir": "logs"}, "results= names the folder"),
        ({"optimizer": object()}, "nothing that a config can hold"),
        ({"train_fraction": 0.1, "perturbation": "noise-30hu"}, "do not cross"),
        ({"encoder": "curia,ct-fm"}, "these are 2 experiments: use `tapct run`"),
        ({"encoder": "curai"}, "Did you mean 'curia'"),
        ({"task": "amos"}, "Did you mean 'amos22'"),
    ],
)
def test_a_mistake_is_said_before_anything_runs(lab, changes, message):
    with pytest.raises(TapctError, match=message):
        tapct.evaluate(**{"encoder": "curia", "task": "amos22", "results": lab.results, **changes})
    assert lab.ran() == []


def test_why_there_is_no_record_is_the_error(lab, monkeypatch):
    lab.fails = {"curia on amos22"}
    with pytest.raises(TapctError, match=r"curia on amos22 failed: .*fell off the bus\. Log: .*log\.txt"):
        tapct.evaluate("curia", "amos22", results=lab.results)
    with (
        attempt(lab.results / "lits17" / "curia"),
        pytest.raises(TapctError, match=r"is running elsewhere: attempt 1 on "),
    ):
        tapct.evaluate("curia", "lits17", results=lab.results)
    monkeypatch.setattr(
        "tapct.sweep.ready.refused", lambda experiments: {experiment.name: "no weights" for experiment in experiments}
    )
    with pytest.raises(TapctError, match="curia on kits23: no weights"):
        tapct.evaluate("curia", "kits23", results=lab.results)
    assert lab.ran() == ["curia on amos22"]
