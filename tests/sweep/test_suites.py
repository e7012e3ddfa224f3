"""Suites: what they name, and what a wrong file is told."""

from pathlib import Path

import pytest
import yaml

from tapct.sweep import commands, suites
from tapct.sweep.experiment import SweepError
from tapct.tasks import core_tasks

TEN = core_tasks()


def experiments(suite, **asked):
    return commands.Sweep(suite=str(suite), results="r", **asked).experiments()


def write(folder: Path, content: object, name: str = "mine") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


def shown(**changes):
    return {"title": "Mine", "experiments": [{"encoders": ["curia"], "tasks": ["amos22"]}], **changes}


# --- the others that ship -------------------------------------------------------------------------------


def test_core_is_the_default_board_and_quick_one_task_of_each_kind():
    whole = commands.Sweep(encoders="all", tasks="all", results="r").experiments()
    assert [experiment.name for experiment in experiments("core")] == [experiment.name for experiment in whole]
    quick = {experiment.task: experiment.config.parent.name for experiment in experiments("quick")}
    assert sorted(quick.values()) == ["classification", "segmentation"]


def test_suites_are_no_tasks():
    assert {experiment.task for experiment in experiments("core")} == set(TEN)
    with pytest.raises(SweepError, match="there is no task 'quick'"):
        commands.Sweep(encoders="curia", tasks="quick").experiments()


# --- what a suite says ----------------------------------------------------------------------------------


def test_a_suite_names_bags(tmp_path, monkeypatch):
    content = {"encoders": ["tap-b-3d", "suprem"], "tasks": ["fdg_pet_ct", "amos22"], "bags": ["auto", "patch"]}
    monkeypatch.setenv("BAG", "cls")
    assert [experiment.name for experiment in experiments(write(tmp_path, shown(experiments=[content])))] == [
        *("tap-b-3d on fdg_pet_ct", "tap-b-3d+bag=patch on fdg_pet_ct", "suprem on fdg_pet_ct"),
        *("tap-b-3d on amos22", "suprem on amos22"),
    ]
    with pytest.raises(SweepError, match=r"mine.yaml: experiments\[0\]: there is no bag 'pach'"):
        experiments(write(tmp_path, shown(experiments=[{**content, "bags": ["pach"]}])))
    with pytest.raises(SweepError, match="--bags: a suite says itself"):
        experiments("quick", bags="patch")


def test_a_file_from_before_says_cells(tmp_path):
    block = {"encoders": ["curia"], "tasks": ["amos22"]}
    assert [one.name for one in experiments(write(tmp_path, {"title": "Old", "cells": [block]}))] == ["curia on amos22"]


def test_a_file_of_somebody_elses_includes_others_by_name_and_by_path(tmp_path, monkeypatch):
    write(tmp_path, shown(title="Base", unspecified={"steps": "ours"}), "base")
    mine = write(
        tmp_path, shown(include=["base.yaml", "quick"], experiments=[{"encoders": ["suprem"], "tasks": ["rsna2022"]}])
    )
    monkeypatch.chdir(tmp_path.parent)
    names = [experiment.name for experiment in experiments(mine)]
    assert names[0] == "curia on amos22"
    assert names[-1] == "suprem on rsna2022"
    assert "tap-b-3d on lits17" in names
    monkeypatch.chdir(tmp_path)
    assert [experiment.name for experiment in experiments("mine.yaml")] == names
    assert suites.read_suite("mine.yaml").unspecified == (("steps", "ours"),)


def test_adaptors_cross_and_an_experiment_that_is_named_twice_is_one(tmp_path):
    asked = [
        {"encoders": ["curia", "ct-fm"], "tasks": ["rsna2022"], "adaptors": ["abmil", "linear"]},
        {"encoders": ["curia"], "tasks": ["rsna2022", "amos22"]},
    ]
    found = experiments(write(tmp_path, shown(experiments=asked)))
    assert [experiment.name for experiment in found] == [
        "curia on rsna2022",
        "curia+adaptor=linear on rsna2022",
        "ct-fm on rsna2022",
        "ct-fm+adaptor=linear on rsna2022",
        "curia on amos22",
    ]


def test_shares_cross_with_a_suite_and_its_adaptors_and_options_are_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTOR", "knn")
    monkeypatch.setenv("ENCODER_OPTIONS", "in_plane_size=256")
    nodules = write(tmp_path, shown(experiments=[{"encoders": ["curia"], "tasks": ["luna16"], "adaptors": ["abmil"]}]))
    found = experiments(nodules, fractions=(0.1, 1), draws=1)
    assert [experiment.label for experiment in found] == [
        "curia+adaptor=abmil",
        "curia+adaptor=abmil+fraction=0.1+draw=0",
    ]
    assert not any("ENCODER_OPTIONS" in experiment.environment for experiment in found)
    with pytest.raises(SweepError, match="--adaptors: a suite says itself"):
        experiments(nodules, adaptors="linear")


def test_encoders_and_tasks_beside_a_suite_are_some_of_its_own(tmp_path):
    asked = [
        {"encoders": ["curia", "curia@random", "ct-fm"], "tasks": ["kits23", "rsna2022"]},
        {"encoders": ["curia"], "tasks": ["luna16"], "adaptors": ["linear", "abmil"]},
    ]
    suite = write(tmp_path, shown(experiments=asked))
    some = experiments(suite, encoders="curia", tasks="kits23,luna16")
    assert {experiment.name for experiment in some} == {
        "curia on kits23",
        "curia@random on kits23",
        "curia on luna16",
        "curia+adaptor=abmil on luna16",
    }
    assert [experiment.label for experiment in experiments(suite, encoders="curia@random")] == ["curia@random"] * 2
    assert {experiment.encoder for experiment in experiments(suite, encoders="ct-fm,,")} == {"ct-fm"}
    with pytest.raises(SweepError, match="name at least one encoder"):
        experiments(suite, encoders="")
    with pytest.raises(SweepError, match=r"the suite mine has no encoder 'curai'\. Did you mean 'curia'"):
        experiments(suite, encoders="curai")
    with pytest.raises(SweepError, match="task in the suite mine, 'luna25'"):
        experiments(suite, tasks="luna25")
    with pytest.raises(SweepError, match="the suite mine has none of these encoders on these tasks"):
        experiments(suite, encoders="ct-fm", tasks="luna16")


def test_weights_are_for_any_encoder_of_the_suite(tmp_path):
    asked = [{"encoders": [name], "tasks": [task]} for name, task in (("curia", "amos22"), ("fmcib", "lits17"))]
    found = experiments(write(tmp_path, shown(experiments=asked)), weights="fmcib=/w.pt")  # not on every task
    assert [experiment.environment.get("ENCODER_WEIGHTS") for experiment in found] == [None, "/w.pt"]


# --- what is wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (shown(experimens=[]), r"mine\.yaml: unknown key experimens\. Did you mean 'experiments'"),
        (
            shown(experiments=[{"encodrs": ["curia"], "tasks": ["amos22"]}]),
            r"experiments\[0\]\.encodrs\. Did you mean 'encoders'",
        ),
        (shown(experiments=[{"encoders": ["curia"]}]), r"mine\.yaml: experiments\[0\]\.tasks is missing"),
        (shown(experiments=[{"encoders": "curia", "tasks": ["amos22"]}]), r"experiments\[0\]\.encoders: .*not 'curia'"),
        (shown(experiments=[{"encoders": [], "tasks": ["amos22"]}]), r"experiments\[0\]\.encoders: .*at least 1"),
        (
            shown(experiments=[{"encoders": ["curia,ct-fm"], "tasks": ["amos22"]}]),
            r"experiments\[0\]\.encoders\[0\]: .*pattern",
        ),
        (shown(unspecified={"steps": 5}), r"unspecified\.steps: .*not '5'"),
        ({"experiments": []}, r"mine\.yaml: title is missing"),
        ("title: a\ntitle: b\n", r"(?s)mine\.yaml cannot be read: .*duplicate key"),
        ("- title\n", r"mine\.yaml: the file: .*dictionary"),
        ("title: [", r"mine\.yaml cannot be read"),
        (
            shown(experiments=[{"encoders": ["curai"], "tasks": ["amos22"]}]),
            r"mine\.yaml: experiments\[0\]: .*Did you mean 'curia'",
        ),
        (
            shown(experiments=[{"encoders": ["curia"], "tasks": ["amos23"]}]),
            r"experiments\[0\]: .*Did you mean 'amos22'",
        ),
        (
            shown(experiments=[{"encoders": ["curia"], "tasks": ["luna16"], "adaptors": ["abmli"]}]),
            r"experiments\[0\]: there is no adaptor 'abmli'\. Did you mean 'abmil'",
        ),
        (shown(include=["quik"]), r"mine\.yaml: include\[0\]: there is no suite 'quik'.*Did you mean 'quick'"),
        (shown(include=["other.yaml"]), r"mine\.yaml: include\[0\]: there is no suite .*other\.yaml"),
        (shown(include=["mine.yaml"]), r"include: it includes itself, by mine -> mine"),
        ({"title": "Only what is not said"}, "mine.* names no experiments"),
    ],
)
def test_a_wrong_file_is_told_where_and_what(content, message, tmp_path):
    with pytest.raises(SweepError, match=message):
        experiments(write(tmp_path, content))


def test_circles_over_several_files_end(tmp_path):
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        write(tmp_path, shown(include=[f"{other}.yaml"]), name)
    with pytest.raises(SweepError, match="it includes itself, by a -> b -> c -> a"):
        experiments(tmp_path / "a.yaml")


def test_neither_a_suite_nor_encoders_and_tasks():
    for asked in ({}, {"encoders": "curia"}, {"tasks": "amos22"}):
        with pytest.raises(SweepError, match=r"name encoders and tasks \(-e and -t\), or a suite"):
            commands.Sweep(**asked).experiments()
    with pytest.raises(SweepError, match=r"there is no suite 'cor'.*Did you mean 'core'"):
        experiments("cor")


def test_tasks_of_a_suite_for_the_leaderboard(tmp_path):
    assert suites.tasks_of(" amos22 , quick,amos22", TEN) == ["amos22", "lits17", "luna16"]
    assert suites.tasks_of("core", TEN) == TEN
    assert suites.tasks_of(str(write(tmp_path, shown())), TEN) == ["amos22"]
    assert suites.tasks_of("", TEN) == []
