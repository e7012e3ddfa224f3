"""A suite of all ten tasks through the real command line, on miniatures: two sizes of slices, two bags, three seeds."""

import os
import subprocess
import sys
import time
from unittest import mock

import pytest
import yaml

from tapct.records import read_record
from tapct.sweep import commands
from tests.data import miniatures
from tests.sweep.conftest import REPO, Installed
from tests.sweep.fakes import Here

SIZES = ["small-3d", "small-3d+in_plane_size=128"]
SUITE = {
    "title": "The paper's tables in small",
    "experiments": [
        {"encoders": SIZES, "tasks": list(miniatures.SEGMENTATION)},
        {
            "encoders": ["small-3d"],
            "tasks": list(miniatures.CLASSIFICATION),
            "adaptors": ["abmil"],
            "bags": ["auto", "patch"],
        },
    ],
}


def write_suite(folder, tasks):
    """Writes the suite's experiments of some tasks, and their data; returns it and the folder of the configs."""
    experiments = [
        {**block, "tasks": [task for task in block["tasks"] if task in tasks]} for block in SUITE["experiments"]
    ]
    some = {**SUITE, "experiments": [block for block in experiments if block["tasks"]]}
    (folder / "small.yaml").write_text(yaml.safe_dump(some), encoding="utf-8")
    return str(folder / "small.yaml"), str(miniatures.write(folder, tasks))


def assert_done(results, tasks):
    """Asserts that each experiment of the suite has a record of three runs, of the grid and bag that it is named by."""
    for task in tasks:
        is_dense = task in miniatures.SEGMENTATION
        adaptor = "+adaptor=abmil" if task.startswith("luna") else ""
        labels = SIZES if is_dense else [f"small-3d{adaptor}", f"small-3d+bag=patch{adaptor}"]
        assert {path.name for path in (results / task).iterdir()} == set(labels)
        records = {label: read_record(results / task / label / "record.json") for label in labels}
        assert all(record.complete and len(record.runs) == 3 for record in records.values()), task
        assert all(record.task.name == task for record in records.values())
        grids = [record.encoder.card.in_plane_size for record in records.values()]
        assert grids == ([64, 128] if is_dense else [64, 64]), task
        if not is_dense:
            assert [record.probe.adaptor for record in records.values()] == ["abmil", "abmil:patch"], task
        assert len({record.fingerprint for record in records.values()}) == 2, task


@pytest.mark.parametrize("tasks", [("luna16",), pytest.param(("amos22", "luna16"), marks=pytest.mark.thorough)])
def test_a_suite_of_one_task_of_each_kind(tasks, site, tmp_path, monkeypatch):
    suite, configs = write_suite(tmp_path, tasks)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr("sys.argv", ["tapct"])
    asked = commands.Sweep(
        suite=suite,
        configs=configs,
        weights="random",
        results=str(tmp_path / "results"),
        max_steps=1,
        accelerator="cpu",
    )
    options = {"jobs": 1}
    with mock.patch.dict(os.environ, {"DATA_ROOT": str(tmp_path), "NUM_WORKERS": "0"}):  # workers set more of them
        assert commands.run(asked, **options, start=Here) == 0
    assert_done(tmp_path / "results", tasks)


@pytest.mark.slow
def test_all_ten_tasks_resumed_after_a_kill(site, tmp_path):
    suite, configs = write_suite(tmp_path, list(miniatures.TASKS))
    tapct = Installed(site, tmp_path)
    tapct.environment["NUM_WORKERS"] = "0"
    options = ("--configs", configs, "--max-steps", "1", "--accelerator", "cpu", "-w", "random", "--jobs", "2")
    command = ("run", "--suite", suite, *options)
    dry = tapct(*command, "--dry-run")
    assert (dry.returncode, "20 to do" in dry.stdout) == (0, True), dry.stdout + dry.stderr
    _kill_once(tapct, command, done=5)
    kept = _written(tapct.results)
    again = tapct(*command)
    assert (again.returncode, "20 done" in again.stdout) == (0, True), again.stdout + again.stderr
    written = _written(tapct.results)
    assert len(written) == 20
    assert kept.items() <= written.items(), "what was done is left alone"
    assert_done(tapct.results, miniatures.TASKS)
    some = tapct(*command, "-e", "small-3d+in_plane_size=128", "-t", "amos22,kits23")
    assert (some.returncode, "2 done" in some.stdout) == (0, True), some.stdout + some.stderr
    assert _written(tapct.results) == written


def _kill_once(tapct, command, done):
    """Kills the launcher, as nothing can prevent, once so many experiments are done and others run."""
    with subprocess.Popen(
        [sys.executable, "-m", "tapct.cli", *command],
        env=tapct.environment,
        cwd=REPO,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as launcher:
        deadline = time.monotonic() + 900
        while len(_written(tapct.results)) < done and launcher.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert launcher.poll() is None, "it ended before it was killed"
        launcher.kill()
    assert done <= len(_written(tapct.results)) < 20


def _written(results):
    """Returns when each record was written."""
    return {path: path.stat().st_mtime_ns for path in results.glob("*/*/record.json")}
