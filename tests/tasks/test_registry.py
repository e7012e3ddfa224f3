"""Third-party tasks: found by name, imported only when asked for, and refused with their package's name."""

import re
import sys
from importlib.metadata import entry_points

import pytest

from tapct.cli import main
from tapct.errors import TaskError
from tapct.leaderboard import site
from tapct.records import Record, write_record
from tapct.tasks import core_tasks, list_tasks, registry, task_class
from tapct.tasks.registry import FIRST, refused_tasks
from tests.leaderboard import test_regression as regression

GOOD = """
from tapct.tasks.quickstart import SPEC, Quickstart
from dataclasses import replace

class Mine(Quickstart):
    spec = replace(SPEC, name="mine", source_data=("our archive",))

class OtherName(Quickstart):
    spec = replace(SPEC, name="other")
"""
MODULES = {"good_tasks": GOOD, "raises_task": "raise ImportError('needs our-reader 3')", "no_task": "Task = 3"}
INSTALLED = {
    "good-pack": {"mine": "good_tasks:Mine"},
    "thief": {"amos22": "good_tasks:Mine", "odd": "good_tasks:OtherName"},
    "broken": {"raises": "raises_task:X", "wrong": "no_task:Task"},
    "one": {"twin": "good_tasks:Mine"},
    "two": {"twin": "good_tasks:Mine"},
}
WHY = {
    "raises": r"'raises' of broken 1\.2 cannot be imported \(raises_task:X\): ImportError: needs our-reader 3",
    "wrong": r"'wrong' of broken 1\.2 \(no_task:Task\) is not a subclass of `tapct.tasks.CTDataset` with a spec",
    "odd": r"'odd' of thief 1\.2 \(good_tasks:OtherName\) has a spec of another name, 'other'",
    "twin": r"two tasks have the name 'twin', of (one 1\.2 and two 1\.2|two 1\.2 and one 1\.2)",
}


@pytest.fixture(autouse=True)
def _third_parties(tmp_path, monkeypatch):
    """Installs packages of third parties, as pip lays them out."""
    for distribution, points in INSTALLED.items():
        info = tmp_path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[tapct.tasks]\n{lines}")
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "mine.csv").write_text(task_class("quickstart").shipped_split().to_csv())
    for name, code in MODULES.items():
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
    registry._loaded.cache_clear()  # the modules are made anew for each test
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "250")


@pytest.mark.parametrize("name", WHY)
def test_what_cannot_be_used_is_named_with_its_distribution(name):
    with pytest.raises(TaskError, match=WHY[name]):
        task_class(name)


def test_the_others_work_behind_ours_and_a_shipped_name_stays_ours():
    names = list_tasks()
    assert names[: len(FIRST)] == list(FIRST)
    assert "mine" in names[len(FIRST) :]
    assert "good_tasks" not in sys.modules
    assert core_tasks() == names[2:12], "behind the demonstrations"
    assert task_class("amos22").__module__ == "tapct.tasks.amos22"
    assert task_class("mine").split_counts() == task_class("quickstart").split_counts()
    assert (
        "the task 'amos22' of thief 1.2 is refused: the name ships with tapct-bench. Give it another" in refused_tasks()
    )


def test_the_list_shows_the_others_and_says_what_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tapct", "list", "tasks"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    out, said = capsys.readouterr()
    assert "mine" in out
    for name in ("raises", "wrong", "odd", "twin", "amos22"):
        assert f"left out: the task '{name}'" in said or f"name '{name}'" in said


def test_an_installation_that_is_older_than_the_code_is_named(monkeypatch):
    """As after `git pull`: else every task would be unknown, and a third party's could take a name of ours."""
    older = [point for point in entry_points(group="tapct.tasks") if point.name != "lung1_survival"]
    monkeypatch.setattr(registry, "entry_points", lambda group: older)
    with pytest.raises(TaskError, match=r"1 tasks of tapct-bench, such as lung1_survival.*pip install --no-deps -e \."):
        list_tasks()


def test_a_broken_task_does_not_take_the_page_of_the_others(tmp_path, capsys):
    of_task = {**regression.task("age"), "name": "raises"}
    for name, one in (("ages", regression.task("age")), ("raises", of_task)):
        made = regression.model("good", 0.5, "age").content() | {"task": one}
        write_record(Record.model_validate(made), tmp_path / "results" / name / "good")
    assert site.build([tmp_path / "results"], tmp_path / "site", resamples=200) == 0
    assert re.search(rf"section of its own: raises: the task {WHY['raises']}", capsys.readouterr().err)
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert page.count("age, years: predicted against true") >= 2
