"""A check: what was looked at, what was found, and what to do about it; as a line of a table, or as JSON."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from tapct._utils import locks, terminal
from tapct._utils.files import innermost_existing
from tapct.errors import LockError

CheckStatus = Literal["ok", "warn", "fail"]
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        status: "fail" means that something is wrong (of an installation: that a run would fail or phone home), "warn"
            that somebody should know of it.
        name: What was looked at.
        message: What was found.
        fix: What to do about it; empty where nothing is to be done.
    """

    status: CheckStatus
    name: str
    message: str
    fix: str = ""


def as_json(checks: Iterable[Check]) -> list[dict[str, str]]:
    """Returns checks as JSON has them."""
    return [asdict(check) for check in checks]


def print_json(content: object) -> None:
    """Prints JSON."""
    print(json.dumps(content, indent=1))


def print_table(checks: Iterable[Check], title: str | None = None) -> None:
    """Prints a line for each check; addresses and paths are whole, however narrow the terminal: they are copied."""
    table = Table("status", "what was looked at, and found", box=box.SIMPLE, title=title, title_justify="left")
    for check in list(checks):  # first all of them, for looking shows bars
        found = f"[bold]{escape(check.name)}[/]: {escape(check.message)}"
        table.add_row(f"[{_COLOURS[check.status]}]{check.status}", "\n".join([found, *_to_do(check)]))
    terminal.output().print(table)


def _to_do(check: Check) -> list[str]:
    return [escape(f"To do: {check.fix}")] if check.fix else []


def exit_status(checks: Iterable[Check]) -> int:
    """Returns 1 if a check fails, else 0."""
    return int(any(check.status == "fail" for check in checks))


def locks_check(name: str, folder: Path, variable: str) -> Check:
    """Tries whether one process can keep others out of what it writes into a folder.

    Args:
        name: Of the check.
        folder: The folder, which need not be there yet.
        variable: What names another one, for the advice.
    """
    existing = innermost_existing(folder)
    elsewhere = f"or name a folder on another file system ({variable})"
    try:
        locks.require(existing)
    except LockError as error:
        return Check("fail", name, str(error), f"mount it as the message says, {elsewhere}")
    except OSError as error:
        return Check("fail", name, f"cannot write to {existing}: {error.strerror}", f"make it writable, {elsewhere}")
    if (option := locks.only_here(existing)) is not None:
        return Check(
            "warn",
            name,
            f"{folder}: locks hold on this machine alone (mount option {option})",
            f"use it from one machine at a time, mount it without {option}, {elsewhere}",
        )
    return Check("ok", name, f"{folder}: locks work")
