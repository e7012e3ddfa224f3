"""A suite of all ten tasks through the real command line, on miniatures: two sizes of slices, two bags, three seeds."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from tapct.records import read_record
from tests.data import miniatures
from tests.sweep.conftest import REPO, Installed

SIZES = ["small-3d", "small-3d+in_plane_size=128"]
SUITE = {
    "title": "The paper's tables in small",
    "cells": [
        {"encoders": SIZES, "tasks": list(miniatures.SEGMENTATION)},
        {
            "encoders": ["small-3d"],
            "tasks": list(miniatures.CLASSIFICATION),
            "adaptors": ["abmil"],
            "bags": ["auto", "patch"],
        },
    ],
}


@pytest.fixture
def started(site, tmp_path):
    """The command with the small encoders, the arguments of a suite, and its cells by folder."""

    def start(*tasks):
        suite = {
            "title": "In small",
            "cells": [
                {**block, "tasks": [task for task in block["tasks"] if task in tasks]} for block in SUITE["cells"]
            ],
        }
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(suite), encoding="utf-8")
        configs = miniatures.write(tmp_path, tasks)
        options = ("--max-steps", "1", "--accelerator", "cpu", "-w", "random", "--configs", str(configs))
        tapct = Installed(site, tmp_path)
        tapct.environment["NUM_WORKERS"] = "0"
        return tapct, ("run", "--suite", str(tmp_path / "small.yaml"), *options)

    return start


def assert_done(results, tasks):
    """Asserts that each cell of the suite has a record of three runs, of the grid and bag that it is named by."""
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


def test_a_suite_of_one_task_of_each_kind(started):
    tasks = ("amos22", "luna16")
    tapct, suite = started(*tasks)
    dry = tapct.here(*suite, "--dry-run")
    assert (dry.returncode, "4 to do" in dry.stdout) == (0, True), dry.stdout + dry.stderr
    ran = tapct.here(*suite, "--jobs", "2")
    assert (ran.returncode, "4 done" in ran.stdout) == (0, True), ran.stdout + ran.stderr
    assert_done(tapct.results, tasks)


@pytest.mark.slow
def test_all_ten_tasks_resumed_after_a_kill(started):
    tasks = tuple(miniatures.TASKS)
    tapct, suite = started(*tasks)
    command = [sys.executable, "-m", "tapct.cli", *suite, "--jobs", "2"]
    launcher = subprocess.Popen(
        command, env=tapct.environment, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 300
        while len(before := list(tapct.results.glob("*/*/record.json"))) < 5:
            assert launcher.poll() is None, "the launcher ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        os.kill(launcher.pid, signal.SIGKILL)
        launcher.wait()
    kept = {path: path.stat().st_mtime_ns for path in before}
    again = tapct(*suite, "--jobs", "2")
    assert (again.returncode, "20 done" in again.stdout) == (0, True), again.stdout + again.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "what was done is left alone"
    assert_done(tapct.results, tasks)
    records = {path: path.stat().st_mtime_ns for path in tapct.results.glob("*/*/record.json")}
    assert len(records) == 20
    some = tapct(*suite, "-e", "small-3d+in_plane_size=128", "-t", "amos22,kits23")
    assert (some.returncode, "2 done" in some.stdout) == (0, True), some.stdout + some.stderr
    assert {path: path.stat().st_mtime_ns for path in records} == records
