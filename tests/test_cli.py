"""The `tapct` command as a user starts it."""

import json
import os
import subprocess
import sys

import pytest


def tapct(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | environment | {"COLUMNS": "120"}
    command = [sys.executable, "-m", "tapct.cli", *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=env, check=False, timeout=120)


def test_list_shows_encoders_and_tasks():
    encoders, tasks = tapct("list", "encoders"), tapct("list", "tasks")
    assert encoders.returncode == tasks.returncode == 0
    assert "tap-b-3d" in encoders.stdout
    assert "87.1 M" in encoders.stdout
    assert "quickstart" in tasks.stdout


def test_a_locale_without_the_letters_of_a_table_ends_no_command():
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    listed = tapct("list", "encoders", **ascii_only)
    assert listed.returncode == 0, listed.stderr
    assert "87.1 M" in listed.stdout


def test_doctor_demands_that_the_telemetry_is_off_and_says_how():
    without = tapct("doctor", "--json", FORCE_COLOR="1")
    (check,) = (c for c in json.loads(without.stdout) if c["name"] == "telemetry")
    assert check["status"] == "fail"
    assert "export ORT_DISABLE_TELEMETRY=1" in check["mend"]
    assert without.returncode == 1


def test_doctor_reads_a_task_and_loads_an_encoder():
    settings = {"ORT_DISABLE_TELEMETRY": "1", "ENCODER_WEIGHTS": "random", "FORCE_COLOR": "1"}
    good = tapct("doctor", "--task", "quickstart", "--encoder", "tap-s-2d", "--json", **settings)
    assert good.returncode == 0
    checks = json.loads(good.stdout)
    assert {c["status"] for c in checks} <= {"ok", "warn"}
    found = {c["name"]: c["message"] for c in checks}
    messages = [c["message"] for c in checks if c["name"] == "task quickstart"]
    assert any("all 2 cases are there (1 train, 1 test)" in m for m in messages)
    assert any("can be read" in m for m in messages)
    assert "21,480,192 parameters, weights random" in found["encoder tap-s-2d"]
    bad = tapct("doctor", "--task", "quikstart", "--encoder", "tap-s2d", "--json", **settings)
    assert bad.returncode == 1
    found = {c["name"]: c["message"] for c in json.loads(bad.stdout) if c["status"] == "fail"}
    assert "Did you mean 'quickstart'" in found["task quikstart"]
    assert "Did you mean 'tap-s-2d'" in found["encoder tap-s2d"]


@pytest.mark.parametrize("arguments", [["lst", "tasks"], ["list", "task"], ["doctor", "--taks", "x"], []])
def test_a_wrong_command_line_ends_with_status_2(arguments):
    assert tapct(*arguments).returncode == 2
