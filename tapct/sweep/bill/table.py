"""The bill as a table, and as JSON."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from tapct._utils.terminal import Columns
from tapct.checks import Check
from tapct.sweep.bill.count import Bill, BillRow
from tapct.sweep.bill.fit import free_bytes, gb
from tapct.sweep.bill.folder import Folder

COLUMNS = ("scans", "windows", "TFLOP", "time", "GB", "stored", "head GB")
UNKNOWN = "?"


def table(bill: Bill, jobs: int, checks: Sequence[Check], refused: Sequence[str]) -> Group:
    """Returns a line for each experiment, then the sums, what is known only roughly, and what is in the way."""
    grid = Columns("to do", *COLUMNS, box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for column in grid.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for task in dict.fromkeys(row.task for row in bill.rows):
        of_task = [row for row in bill.rows if row.task == task]
        grid.add_row(Text(f"{task}{' ~' * any(row.typical for row in of_task)}", style="bold"))
        for row in of_task:
            grid.add_row(f"  {escape(row.label)}", *_figures(row))
    red = [Text(why, style="red") for why in refused]
    return Group(grid, *_sums(bill, jobs), *_reasons(bill), *_in_the_way(checks), *red)


def as_json(bill: Bill, jobs: int, checks: Sequence[Check], refused: Sequence[str]) -> dict[str, Any]:
    """Returns the bill as JSON has it."""
    folders = [
        {
            "folder": str(folder.path),
            "missing_bytes": folder.missing_bytes,
            "peak_bytes": folder.peak_bytes(jobs),
            "stored_bytes": folder.stored.nbytes,
            "free_bytes": free_bytes(folder.path),
            "budget_gb": folder.budget_gb,
            "from_headers": folder.exact,
        }
        for folder in bill.folders
    ]
    total: dict[str, Any] = {"scans": bill.encoded, "windows": bill.windows, "tflop": bill.tflop, "hours": bill.hours}
    total["cells_not_counted"] = _uncounted(bill)
    return {
        "cells": [vars(row) for row in bill.rows],
        "total": {**total, "hours_on": bill.hours_on},
        "folders": folders,
        "checks": [vars(check) for check in checks],
        "refused": list(refused),
    }


def _uncounted(bill: Bill) -> int:
    """Returns of how many experiments nothing is known, which no sum holds."""
    return sum(row.scans is None for row in bill.rows)


def _figures(row: BillRow) -> list[str]:
    if row.scans is None:
        return [UNKNOWN] * len(COLUMNS)
    share = row.stored_scans / row.scans if row.scans else 0.0
    return [
        f"{row.scans:,}",
        _number(row.windows, "{:,}"),
        _number(row.tflop, "{:,.0f}"),
        _time(row.hours),
        _number(None if row.disk_bytes is None else row.disk_bytes / 1e9, "{:,.1f}"),
        f"{share:.0%}" if row.stored_scans else "",
        _number(None if row.head_bytes is None else row.head_bytes / 1e9, "{:,.1f}"),
    ]


def _number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else form.format(value)


def _sums(bill: Bill, jobs: int) -> list[RenderableType]:
    words = [
        f"in all {bill.encoded:,} scans to encode (those that experiments share once), {bill.windows:,} windows",
        f"{_number(bill.tflop, '{:,.0f}')} TFLOP",
    ]
    if uncounted := _uncounted(bill):
        words.append(f"{uncounted} of {len(bill.rows)} experiments are not in it ({UNKNOWN})")
    hours = "hours are not known: --measure measures each encoder here (20 s each), --card h100 estimates"
    if bill.hours is not None:
        hours = f"{_time(bill.hours)} of encoding on {bill.hours_on}; reading, heads and metrics come on top"
    lines = [Text("; ".join(words), style="bold"), Text(hours)]
    return [*lines, *(Text(_folder(folder, jobs)) for folder in bill.folders)]


def _folder(folder: Folder, jobs: int) -> str:
    budget = "" if folder.budget_gb is None else f", of a budget of {folder.budget_gb:g} GiB"
    missing, peak = folder.missing_bytes, folder.peak_bytes(jobs)
    at_once = "" if peak == missing else f", {gb(peak)} of it at once"
    return (
        f"{gb(missing)} to store in {folder.path}{at_once}; {gb(free_bytes(folder.path))} are free there, "
        f"{gb(folder.stored.nbytes)} are stored{budget}"
    )


def _reasons(bill: Bill) -> list[RenderableType]:
    typical = {row.task: row.typical for row in bill.rows if row.typical}
    lines = [f"~ {task}: typical sizes, since its scans are not there: {what}" for task, what in typical.items()]
    if guessed := sum(row.guessed_bytes for row in bill.rows):
        most = sum(row.disk_bytes or 0 for row in bill.rows)
        lines.append(
            f"~ {gb(guessed)} of {gb(most)} are labels by guess: how they compress is known once some are stored"
        )
    why: dict[str, list[str]] = {}
    for row in bill.rows:
        if row.why:
            why.setdefault(row.why, []).append(f"{row.label} on {row.task}")
    for reason, experiments in why.items():
        more = f" and {len(experiments) - 3} more" * (len(experiments) > 3)
        lines.append(f"{UNKNOWN} {', '.join(experiments[:3])}{more}: {reason}")
    return [Text(line, style="dim") for line in lines]


def _in_the_way(checks: Sequence[Check]) -> list[RenderableType]:
    """Returns how many checks are well, then what the others say, each once."""
    colours, said = {"warn": "yellow", "fail": "red"}, defaultdict[tuple[str, str, str], list[str]](list)
    for check in checks:
        if check.status != "ok":
            said[check.status, check.message, check.fix].append(check.name)
    valid = sum(check.status == "ok" for check in checks)
    lines = [Text(f"{valid} of {len(checks)} checks of weights, data and locks are well")] if checks else []
    for (status, message, fix), names in said.items():
        about = ", ".join([names[0], *(name.partition(" ")[2] for name in names[1:])])
        lines.append(Text(f"{about}: {message.rstrip('.')}; {fix}", style=colours[status]))
    return list(lines)


def _time(hours: float | None) -> str:
    if hours is None:
        return UNKNOWN
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:.1f} min" if hours >= 1 / 60 else f"{hours * 3600:.0f} s"
