"""docs/tasks.md and the shipped configs against what the tasks themselves say."""

import inspect
import re
from pathlib import Path

import jsonargparse
import pytest
from eva.core import interface

from tapct.encoders import list_encoders
from tapct.kinds import kind
from tapct.tasks import SPLITS, EvaTask, SplitTable, core_tasks, list_tasks, task_class
from tapct.tasks.shortcuts import GEOMETRY
from tapct.tasks.splits import SELECTION_SHARE, FoldTable, read_exclusions, stratified
from tests.tasks.shipped import SPLITS as SHIPPED

REPOSITORY = Path(__file__).parents[2]
GUIDE = (REPOSITORY / "docs" / "tasks.md").read_text(encoding="utf-8")
CONFIGS = REPOSITORY / "eva_configs"
DEMONSTRATIONS = [name for name in list_tasks() if task_class(name).shipped_root is not None]
TASKS = [name for name in list_tasks() if name not in DEMONSTRATIONS]
ROWS = {
    patches[0].split("`")[1]: patches
    for patches in ([patch.strip() for patch in line.strip("| ").split("|")] for line in GUIDE.splitlines())
    if patches[0].startswith("[`")
}

BY_HASH = ["70 %", "10 %", "20 %"]
"""Of tasks whose cases only the data tell: what each side gets."""

OF_PARTS = {
    "ct_rate": ["90 %", "10 %", "100 %"],
    "rad_chest_ct": ["100 %", "100 %", "100 %"],
    "merlin_findings": ["100 %", "100 %", "100 %"],
    "ct_rate_retrieval": ["0 %", "0 %", "100 %"],
    "ct_rate_report": ["90 %", "10 %", "100 %"],
    "ct_rate_reconstructions": ["0 %", "0 %", "100 %"],
}
"""Of those whose release has parts: how much of its part each side gets."""


def parsed(config: Path, monkeypatch, **variables: str) -> dict[str, object]:
    """A config as `eva fit --config` parses it, before anything is built: dotted key to value."""
    with monkeypatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        parser = jsonargparse.ArgumentParser(parser_mode="omegaconf", exit_on_error=False)
        parser.add_method_arguments(interface.Interface, "fit", fail_untyped=False)
        namespace = parser.parse_path(config)
    return {key: value for key, value in namespace.items() if not isinstance(value, jsonargparse.Namespace)}


def config_of(task: str) -> Path:
    return CONFIGS / task_class(task).spec.kind / f"{task}.yaml"


def test_the_table_has_each_task_once_and_a_chapter_for_it():
    assert len(core_tasks()) == 10
    assert TASKS[:10] == core_tasks()
    assert list(ROWS) == TASKS
    assert [chapter for chapter in re.findall(r"^## (\w+)$", GUIDE, re.MULTILINE) if chapter in TASKS] == TASKS


@pytest.mark.parametrize("task", TASKS)
def test_the_counts_are_those_of_the_split(task):
    counts = task_class(task).split_counts()
    assert ROWS[task][3:6] == (OF_PARTS.get(task, BY_HASH) if counts is None else [*map(str, counts)])
    assert ROWS[task][2] == f"`{task_class(task).spec.metric}`"


@pytest.mark.parametrize("task", TASKS)
def test_the_patients_are_those_of_the_split(task):
    files = [SHIPPED / f"{name}.csv" for name in (task, task_class(task).spec.folder)]  # its own, or its release's
    shipped = next((file for file in files if file.is_file()), files[-1])
    if task_class(task).split_rule is not None:
        assert ROWS[task][6] in ("by hash", "by name", "in its table", "one a study")
        return
    if ROWS[task][6] in ("one a scan", "one a study"):
        patients = task_class(task).split_counts()
    else:
        patients = tuple(map(int, ROWS[task][6].split(", ")))
    if isinstance(task_class(task).shipped_split(), FoldTable):  # all train, and all are reported
        assert patients[1:] == (0, patients[0])
    elif getattr(task_class(task), "whole_release", False):  # nothing is trained, and all are reported
        table = SplitTable.read(shipped)
        assert patients == (0, 0, sum(len(set(of.values())) for of in table.cases.values()))
    elif shipped.is_file():
        table = SplitTable.read(shipped).without(read_exclusions(SHIPPED.parent / "exclusions" / f"{task}.csv"))
        assert patients == tuple(len(set(table.cases[split].values())) for split in SPLITS)
    elif issubclass(task_class(task), EvaTask):  # of eva's train, a tenth of the patients selects
        assert patients[1] == round(sum(patients[:2]) / SELECTION_SHARE)
    else:  # dealt out by our rule, which takes every patient of the release's table in turn
        names = {str(number): str(number) for number in range(sum(patients))}
        assert patients == tuple(stratified(names, names, task, "toy").counts.values())


def test_there_is_a_config_for_each_task_and_no_other():
    found = {path for path in CONFIGS.rglob("*.yaml") if path.parent != CONFIGS}
    found -= {path for path in found if path.parent == CONFIGS / "suites"}
    assert found == {config_of(task) for task in TASKS}
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(DEMONSTRATIONS)


@pytest.mark.parametrize("task", TASKS)
def test_a_config_is_of_its_task_and_the_encoder_is_one_setting(task, monkeypatch):
    first, second = (parsed(config_of(task), monkeypatch, ENCODER=name) for name in ("curia", "vista3d"))
    assert first["data.init_args.task"] == task
    assert Path(first["trainer.init_args.default_root_dir"]).name == task
    probe = kind(task_class(task).spec.kind).probe.partition(":")[2]
    assert first["model.class_path"] == f"tapct.probes.{probe}"
    changed = {key: (first.get(key), second.get(key)) for key in first | second if first.get(key) != second.get(key)}
    assert changed == {"model.init_args.encoder": ("curia", "vista3d")}
    assert {"curia", "vista3d"} < set(list_encoders())


@pytest.mark.parametrize("task", TASKS)
def test_the_numbers_in_a_configs_head_are_those_of_the_split(task):
    """Each begins with a sentence like "180 scans train the probe, 20 select rate and step, 100 are reported"."""
    head = " ".join(
        line.lstrip("# ") for line in config_of(task).read_text(encoding="utf-8").splitlines() if line.startswith("#")
    )
    counts = task_class(task).split_counts()
    number = r"(\d+ %)" if counts is None else r"(\d+)"
    found = re.search(rf"{number}(?: \w+)? train the probe, {number} select.*?, {number} are reported", head)
    assert [*found.groups()] == (OF_PARTS.get(task, BY_HASH) if counts is None else [*map(str, counts)])


def test_the_guide_names_every_option_with_its_default():
    options = {
        (task, name): parameter.default
        for task in TASKS
        for name, parameter in inspect.signature(task_class(task).__init__).parameters.items()
        if name not in ("self", "root", "split", "split_file")
    }
    assert len(options) == 7
    for (task, option), default in options.items():
        chapter = GUIDE.split(f"\n## {task}\n")[1].split("\n## ")[0]
        assert f"* **Option** `{option}`: `{default}` (default)" in " ".join(chapter.split())


def test_the_guide_names_the_columns_of_each_task_and_configs_the_rows_to_beat():
    chapter = GUIDE.partition("\n## Tables\n")[2].partition("\n## ")[0]
    rows = [re.findall(r"`(\w+)`", line) for line in chapter.splitlines() if line.startswith("| `")]
    said = {task: columns for task, *columns in rows}
    geometry = {column.name for column in GEOMETRY}
    for task in TASKS:
        spec = task_class(task).spec
        own = [name for name in spec.columns if name not in geometry]
        if own and (spec.of_kind.table_head or spec.kind == "retrieval"):
            assert said.pop(task) == own
        if spec.of_kind.table_head:
            above = config_of(task).read_text(encoding="utf-8").partition("trainer:")[0].replace("\n# ", " ")
            asked = [word.partition("table=")[2] for word in re.findall(r"\w+:[\w&]*table=[\w+]+", above)]
            others = re.findall(r"[\w+]+", above.partition("(or ")[2].partition(")")[0])
            named = {frozenset(row.split("+")) for row in asked + others}
            assert named == {frozenset(row) for row in spec.rows_to_beat}
    assert not said
