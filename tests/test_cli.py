"""The `tapct` command as a user starts it: in a process of its own where that makes a difference, else in this one."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from torch._utils import ExceptionWrapper

from tapct.arguments import commands_below
from tapct.cli import app, main
from tapct.encoders import list_declared, list_encoders
from tapct.errors import EncoderError, VolumeError, in_one_message
from tapct.probes.config_errors import say_mistakes_in_one_message


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


def test_encoders_fit_80_columns_with_names_whole(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["tapct", "list", "encoders"])
    with pytest.raises(SystemExit):
        main()
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if line.strip()} >= {*list_encoders(), *list_declared()}
    assert max(len(line.rstrip()) for line in lines) <= 80


def test_a_stream_without_the_letters_of_a_table_ends_no_command(monkeypatch):
    """As Python opens stdout in such a locale."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    monkeypatch.setattr(sys, "argv", ["tapct", "list", "encoders"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert b"87.1 M" in written.getvalue()


@pytest.mark.thorough
def test_a_locale_without_the_letters_of_a_table_ends_no_command():
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    listed = tapct("list", "encoders", **ascii_only)
    assert listed.returncode == 0, listed.stderr
    assert "87.1 M" in listed.stdout


def test_doctor_demands_that_the_telemetry_is_off_and_says_how(here, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    assert_telemetry_is_demanded(*here("doctor", "--json"))


@pytest.mark.thorough
def test_doctor_demands_it_in_a_process_of_its_own():
    without = tapct("doctor", "--json", FORCE_COLOR="1")
    assert_telemetry_is_demanded(without.returncode, without.stdout)


def assert_telemetry_is_demanded(status: int, printed: str) -> None:
    (check,) = (c for c in json.loads(printed) if c["name"] == "telemetry")
    assert check["status"] == "fail"
    assert "export ORT_DISABLE_TELEMETRY=1" in check["fix"]
    assert status == 1


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


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["lst", "tasks"], 'tapct: Unknown command "lst". Did you mean "list"?'),
        (["cache", "verfy"], 'tapct cache: Unknown command "verfy". Did you mean "verify"?'),
        (["cache"], "tapct cache: name one of ls, verify, rm"),
        (["list", "task"], 'tapct list: Invalid value "task" for WHAT. Choose from: "encoders", "tasks", "suites".'),
        (["doctor", "--taks", "x"], "tapct doctor: Unknown option: --taks. Did you mean --task?"),
        (["run", "--gpus", "x"], "tapct run: Invalid value for --gpus: a whole number is needed, not 'x'"),
        (["run", "--runs", "2.5"], "tapct run: Invalid value for --runs: a whole number is needed, not '2.5'"),
        (["run", "--fractions", "a,1"], "tapct run: Invalid value for --fractions: comma-separated numbers are needed"),
        (["doctor", "--options", "[1]"], "tapct doctor: Invalid value for --options: a JSON object is needed"),
        (["embed", "scan.nii.gz"], "tapct embed: -e ENCODER and -o OUT must be given"),
        (["embed", "scan.nii.gz", "-o"], "tapct embed: -o takes a value"),
        (["cite"], "tapct cite: RECORDS must be given"),
        (["compare", "curia", "suprem"], "tapct compare: -t TASK must be given"),
        (["status", "more"], "tapct status: 'more' is one too many"),
    ],
)
def test_a_wrong_command_line_is_one_message_in_the_words_that_were_typed(monkeypatch, capsys, typed, said):
    monkeypatch.setattr(sys, "argv", ["tapct", *typed])
    with pytest.raises(SystemExit) as ended:
        main()
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert lines[0].startswith(said)
    command = said.partition(":")[0]
    assert lines[1:] == [f"See: {command} --help"]


def test_without_a_command_the_first_five_are_shown_and_each_of_them_parses(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tapct"])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = re.findall(r"^  (tapct .*?)  ", capsys.readouterr().err, re.MULTILINE)
    assert ended.value.code == 2
    assert len(shown) == 5
    for line in shown:
        command, _, _ = app.parse_args(line.split()[1:])
        assert command == app[line.split()[1]].default_command


def test_the_version_is_that_of_the_package(here):
    assert here("--version") == (0, f"tapct {version('tapct-bench')}\n")


def test_help_has_options_in_their_order_and_no_types_of_python(here):
    status, shown = here("run", "--help")
    assert status == 0
    places = [shown.index(f"\n  {option}") for option in ("-e ENCODERS", "-t TASKS", "--suite", "--launcher", "--json")]
    assert places == sorted(places)
    assert "(one of local, slurm; default: local)" in " ".join(shown.split())
    assert not [
        word for word in ("type:", "None", "null)", "Literal", "Optional", "STR", "INT", "CHOICE") if word in shown
    ]
    assert "(required)" in here("embed", "--help")[1]
    assert "(default: 0.0)" in here("embed", "--help")[1]


def test_help_fits_80_columns_and_says_what_each_command_and_option_is(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    for path, _ in commands_below(app):
        monkeypatch.setattr(sys, "argv", ["tapct", *path, "--help"])
        with pytest.raises(SystemExit):
            main()
        shown = capsys.readouterr().out
        assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80
        listed = re.findall(r"^  (?=\S)(.*(?:\n {10,}.*)*)", shown, re.MULTILINE)
        assert [entry for entry in listed if not re.search(r"\s{2,}\S", entry)] == []


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_options_and_names(here, tmp_path, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here")
    status, script = here("completion", shell)
    assert status == 0
    asked = {
        "tapct ru": "run",
        "tapct cache ": "ls verify rm",
        "tapct run -e curia": "curia curia-2",
        "tapct run --encoders chance,cora": "chance,coralbay",
        "tapct doctor -t luna16_d": "luna16_detection",
        "tapct run --launcher ": "local slurm",
        "tapct run -e chance --la": "--launcher",
        "tapct list enc": "encoders",
    }
    try_all = "".join(
        f"COMP_WORDS=({words}{' ' * (not words.endswith(' '))}{repr('') if words.endswith(' ') else ''}); "
        'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _tapct; echo "${COMPREPLY[*]}"\n'
        for words in asked
    )
    if shell == "zsh":  # calls the function as its bashcompinit does
        try_all = f"_try() {{ emulate -L sh; {try_all} }}; _try"
    (tmp_path / "try.sh").write_text(script + try_all, encoding="utf-8")
    command = [*{"bash": ["bash", "--norc"], "zsh": ["zsh", "-f"]}[shell], str(tmp_path / "try.sh")]
    env = os.environ | {"HOME": str(tmp_path), "ZDOTDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, env=env, timeout=60)
    found = dict(zip(asked, done.stdout.splitlines(), strict=True))
    if shell == "bash":
        assert found == asked
    for words, expected in asked.items():  # zsh leaves out itself what does not begin as what was typed
        assert set(expected.split()) <= set(found[words].split())


def test_a_mistake_is_one_message_where_eva_is_the_command(monkeypatch, capsys):
    """What our trainer sets up once eva imports it, asked as Python asks it at the end of a process."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/eva", "fit"])
    mistake = EncoderError("there is no encoder 'crua'")
    say_mistakes_in_one_message()
    sys.excepthook(EncoderError, mistake, None)
    assert capsys.readouterr().err == "tapct: there is no encoder 'crua'\n"
    sys.excepthook(KeyError, KeyError("ours"), None)
    assert "KeyError: 'ours'" in capsys.readouterr().err
    monkeypatch.setenv("TAPCT_TRACEBACK", "1")
    sys.excepthook(EncoderError, mistake, None)
    assert "tapct.errors.EncoderError: there is no encoder 'crua'" in capsys.readouterr().err


@pytest.mark.parametrize("program", ["/somewhere/bin/tapct", "notebook.py"])
def test_traces_of_other_programs_are_left_alone(program, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(sys, "argv", [program])
    say_mistakes_in_one_message()
    assert sys.excepthook is sys.__excepthook__


@pytest.mark.thorough
def test_a_mistake_is_one_message_through_eva_as_well(tmp_path):
    config = Path(__file__).parents[1] / "eva_configs" / "quickstart.yaml"
    env = os.environ | {"ENCODER": "crua", "ORT_DISABLE_TELEMETRY": "1", "OUTPUT_ROOT": str(tmp_path)}
    command = [sys.executable, "-m", "eva", "fit", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=env, check=False, timeout=300)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("tapct: there is no encoder 'crua'. Did you mean 'curia'")


def test_the_trace_can_be_had(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tapct", "describe", "crua"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code.startswith("tapct: there is no encoder 'crua'")
    monkeypatch.setenv("TAPCT_TRACEBACK", "1")
    with pytest.raises(EncoderError, match="there is no encoder 'crua'"):
        main()


def test_the_message_of_a_process_that_reads_is_its_own_and_not_its_trace():
    try:
        raise VolumeError("case_7/ct.nii.gz is cut off.\nCopy it again")
    except VolumeError:
        passed_on = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(VolumeError, match="Original Traceback") as raised:
        passed_on.reraise()
    assert in_one_message(raised.value) == "tapct: case_7/ct.nii.gz is cut off.\nCopy it again"
    assert in_one_message(VolumeError("ct.nii.gz is cut off")) == "tapct: ct.nii.gz is cut off"


THOROUGH = (["cite", "curia"], ["--help"], ["--version"], ["list", "encoders"])


@pytest.mark.parametrize("words", [["record-schema"], *(pytest.param(w, marks=pytest.mark.thorough) for w in THOROUGH)])
def test_a_reader_that_has_had_enough_is_no_error(words):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "tapct.cli", *words]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, encoding="utf-8", check=False, timeout=120)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
