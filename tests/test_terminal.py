"""What goes to stdout is what was asked for, whatever the terminal and the variables about it."""

import os
import pty
import subprocess
import sys

import pytest
from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tapct._utils import terminal
from tapct.checks import Check, print_table
from tapct.cli import main

SCRIPT = """
from tapct._utils import terminal
for item in terminal.track(range(3), "reading", total=3):
    print(item)
terminal.notices().print("a notice")
terminal.output().print("the end")
"""


def ran(*, stderr_is_terminal: bool, **variables: str) -> tuple[str, str]:
    """Returns what the script wrote to a pipe as stdout, and to stderr."""
    reader, writer = pty.openpty() if stderr_is_terminal else os.pipe()
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=writer, env=os.environ | variables) as process:
        out, _ = process.communicate(timeout=60)
    os.close(writer)
    with os.fdopen(reader, "rb", buffering=0) as file:
        said = file.read(2**16)
    return out.decode(), said.decode()


@pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1"}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
@pytest.mark.parametrize("stderr_is_terminal", [True, False])
def test_a_pipe_gets_what_was_asked_for_and_nothing_else(stderr_is_terminal, variables):
    out, said = ran(stderr_is_terminal=stderr_is_terminal, **{"TERM": "xterm", **variables})
    assert out == "0\n1\n2\nthe end\n"
    assert "a notice" in said
    # A bar is for a terminal that can move its cursor; FORCE_COLOR makes none of a file.
    drawn = stderr_is_terminal and variables.get("TERM") != "dumb"
    assert ("reading" in said, "\x1b[2K" in said) == (drawn, drawn)


def test_a_table_in_a_file_is_not_cut(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert terminal.output().width == terminal.WIDE
    monkeypatch.setenv("COLUMNS", "70")
    assert terminal.output().width == 70


def test_addresses_and_paths_of_checks_are_whole_on_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    address, path = "https://huggingface.co/a-group/" + "x" * 70, "/a/very/long/" + "y" * 60
    print_table([Check("fail", "weights", f"{address} is gated", f"put it into {path} by hand")])
    printed = capsys.readouterr().out
    assert address in printed
    assert path in printed


def test_no_name_in_a_table_is_cut_on_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    name = "tap-b-3d+in_plane_size=512+precision=fp32"
    table = Table("encoder", "what")
    table.add_row(escape(name), "what it is in [red]several[/] words")
    grid = Table("", "amos22, native")
    grid.columns[1].no_wrap = True
    grid.add_row(Text(name), "done (older protocol)")
    terminal.output().print(Group(grid, "a line"))
    terminal.output().print(table)
    printed = capsys.readouterr().out
    assert printed.count(name) == 2
    assert "done (older protocol)" in printed
    assert "…" not in printed


def test_columns_that_do_not_fit_follow_below_each_time_behind_the_first(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "44")
    table = terminal.Columns(
        "", *(f"task-{number}" for number in range(8)), title="all", caption="read so", box=box.SIMPLE
    )
    for encoder in ("curia", "tap-b-3d+in_plane_size=512"):
        table.add_row(encoder, *(f"{encoder[0]}{number}" for number in range(8)))
    terminal.output().print(Group(table, "a line"))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 44
    assert (shown.count("tap-b-3d+in_plane_size=512"), shown.count("all"), shown.count("read so")) == (8, 1, 1)
    assert [shown.count(f"{letter}{number}") for letter in "ct" for number in range(8)] == [1] * 16
    monkeypatch.setenv("COLUMNS", "200")
    terminal.output().print(table)
    assert capsys.readouterr().out.count("tap-b-3d+in_plane_size=512") == 1


@pytest.mark.parametrize("command", ["", "list encoders", "list tasks", "list suites", "list suites paper", "config"])
def test_what_a_newcomer_types_fits_a_terminal_of_80_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["tapct", *command.split()])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr()
    assert max(map(len, (shown.out + shown.err).splitlines())) <= 80
    assert "…" not in shown.out
