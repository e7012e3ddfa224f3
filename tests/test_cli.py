"""The `tapct` command as a user starts it: in a process of its own where that makes a difference, else in this one."""

import json
import os
import subprocess
import sys

import pytest

from tapct.cli import main


@pytest.fixture
def here(monkeypatch, capsys):
    """Runs the command in this process; returns its exit status and what it printed to stdout."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tapct", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().out

    return run


def tapct(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | environment | {"COLUMNS": "120"}
    command = [sys.executable, "-m", "tapct.cli", *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=env, check=False, timeout=120)


def test_list_shows_encoders_and_tasks(here):
    (encoders, shown), (tasks, listed) = here("list", "encoders"), here("list", "tasks")
    assert encoders == tasks == 0
    assert "tap-b-3d" in shown
    assert "87.1 M" in shown
    assert "quickstart" in listed


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


def test_doctor_reads_a_task_and_loads_an_encoder(here, monkeypatch):
    for name, value in {"ENCODER_WEIGHTS": "random", "FORCE_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    status, printed = here("doctor", "--task", "quickstart", "--encoder", "tap-s-2d", "--json")
    assert status == 0
    checks = json.loads(printed)
    assert {c["status"] for c in checks} <= {"ok", "warn"}
    found = {c["name"]: c["message"] for c in checks}
    messages = [c["message"] for c in checks if c["name"] == "task quickstart"]
    assert any("all 2 cases are there (1 train, 1 test)" in m for m in messages)
    assert any("can be read" in m for m in messages)
    assert "21,480,192 parameters, weights random" in found["encoder tap-s-2d"]
    status, printed = here("doctor", "--task", "quikstart", "--encoder", "tap-s2d", "--json")
    assert status == 1
    found = {c["name"]: c["message"] for c in json.loads(printed) if c["status"] == "fail"}
    assert "Did you mean 'quickstart'" in found["task quikstart"]
    assert "Did you mean 'tap-s-2d'" in found["encoder tap-s2d"]


@pytest.mark.parametrize("arguments", [["lst", "tasks"], ["list", "task"], ["doctor", "--taks", "x"], []])
def test_a_wrong_command_line_ends_with_status_2(here, arguments):
    assert here(*arguments)[0] == 2
