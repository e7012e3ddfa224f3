"""The paper's Tables 2 to 5 as suites: their experiments, their settings, and what the paper leaves open."""

import json
import sys

import pytest

from tapct import cli
from tapct.encoders import encoder_class
from tapct.leaderboard import read_paper
from tapct.sweep import commands, suites
from tapct.sweep.experiment import SHIPPED_CONFIGS

ENCODERS = {"SuPReM": "suprem", "CT-FM": "ct-fm", "VISTA3D": "vista3d", "VoCo": "voco-b", "FMCiB": "fmcib"}


def experiments(suite, **asked):
    return commands.Sweep(suite=suite, results="r", **asked).experiments()


def of_the_paper(row):
    """What a row of the paper is in a sweep: encoder, pixels of a slice (None: its own grid), bag and task."""
    model, _, bag = row.model.partition(" (")
    pixels = next((n for n in (224, 512) if f"(z, {n}, {n})" in (row.settings or "")), None)
    if pixels is None and row.table in (4, 5):  # which name the window only
        pixels = 512 if model == "Curia" else 224 if model.startswith("TAP") else None
    return ENCODERS.get(model, model.lower()), pixels, "patch" if bag else "auto", row.task


def of_a_sweep(experiment):
    """The same of an experiment, from what its config then says."""
    settings = experiment.settings()
    options = dict(
        word.split("=") for word in settings.get("model.init_args.encoder_options", "").split("+") if "=" in word
    )
    pixels = (
        int(options["in_plane_size"])
        if "in_plane_size" in options
        else encoder_class(experiment.encoder).card.in_plane_size
    )
    return experiment.encoder, pixels, settings.get("model.init_args.bag", "auto"), experiment.task


@pytest.mark.parametrize("table", [2, 3, 4, 5])
def test_a_suite_has_the_experiments_of_its_table_and_no_other(table):
    rows = [row for row in read_paper() if row.table == table and row.task != "average"]
    found = [of_a_sweep(experiment) for experiment in experiments(f"paper-table-{table}")]
    assert sorted(found, key=str) == sorted((of_the_paper(row) for row in rows if row.mean is not None), key=str)


def test_the_paper_is_its_tables_with_what_they_share_once_and_the_rest_is_what_it_left_empty():
    rows = [row for row in read_paper() if row.task != "average"]
    for suite, is_there in (("paper", True), ("paper-empty", False)):
        found = [of_a_sweep(experiment) for experiment in experiments(suite)]
        assert len(found) == len(set(found)), suite
        assert set(found) == {of_the_paper(row) for row in rows if (row.mean is not None) == is_there}, suite
    names = [experiment.name for experiment in experiments("paper")]
    assert set(names) == {
        experiment.name for table in (2, 3, 4, 5) for experiment in experiments(f"paper-table-{table}")
    }


def test_the_papers_batches_runs_and_heads():
    """Appendix C.1, and what Tables 2 to 5 say of heads and runs."""
    for experiment in experiments("paper"):
        settings = experiment.settings()
        batch = int(settings.get("data.init_args.batch_size", 1))
        is_dense = settings["model.class_path"].endswith("SegmentationProbe")
        together = 4 if is_dense else 64 if experiment.task.startswith("luna") else 16
        assert batch * int(settings["trainer.init_args.accumulate_grad_batches"]) == together, experiment.name
        assert batch == 1 or not is_dense, experiment.name
        assert settings["trainer.init_args.n_runs"] == "3", experiment.name
        assert is_dense or settings["model.init_args.adaptor"] == "abmil", experiment.name


def test_baselines_run_at_the_spacing_that_the_paper_names():
    for row in read_paper():
        if row.settings and row.settings.startswith("spacing"):
            spacing = json.loads(row.settings.removeprefix("spacing ").replace("(", "[").replace(")", "]"))
            card = encoder_class(ENCODERS[row.model]).card
            assert list(card.spacing_mm) == spacing, row.model


@pytest.mark.parametrize("table", [2, 3, 4, 5])
def test_what_the_paper_does_not_say_is_listed(table):
    said = dict(suites.read_suite(f"paper-table-{table}").unspecified)
    assert {"splits", "learning rates and optimizer", "steps", "feature scaling"} <= set(said)
    assert ("orientation of the baselines" in said) == (table in (2, 4))
    guide = (SHIPPED_CONFIGS.parent / "docs" / "reproduce-the-paper.md").read_text(encoding="utf-8")
    assert [what for what in said if what not in guide] == []


def test_some_of_a_table():
    some = experiments("paper-table-3", encoders="tap-b-3d,tap-s-2d+in_plane_size=512", tasks="kits23,totalsegmentator")
    assert {experiment.name for experiment in some} == {
        "tap-b-3d on kits23",
        "tap-b-3d+in_plane_size=512 on kits23",
        "tap-s-2d+in_plane_size=512 on kits23",
        "tap-b-3d on totalsegmentator",
    }


def test_suites_are_listed_with_their_experiments_and_what_is_not_said(monkeypatch, capsys):
    def listed(*arguments):
        monkeypatch.setattr(sys, "argv", ["tapct", "list", *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr().out

    status, out = listed("suites")
    rows = {words[0]: words[1:4] for words in map(str.split, out.splitlines()) if len(words) > 4}
    assert status == 0
    assert rows["paper"] == ["148", "12", "10"]
    assert rows["paper-table-3"] == ["54", "6", "5"]
    assert "paper-protocol" not in rows, "it has no experiments"
    status, out = listed("suites", "paper-table-3")
    assert status == 0
    assert "tap-b-3d+in_plane_size=512" in out
    assert "splits: Unpublished" in out
    assert listed("suites", "papr")[0].startswith("tapct: there is no suite 'papr'")
    assert listed("tasks", "paper")[0] == "tapct: tapct list tasks takes no name, such as 'paper'"
