"""The shortcut audits of records as rows, never ranked: what the nearest scan shares, and what a linear probe reads."""

from collections.abc import Iterator, Mapping
from typing import Any

from tapct.leaderboard.board import Board, Task
from tapct.leaderboard.text import as_csv
from tapct.records import Recorded
from tapct.records.shortcuts import LABEL, Estimated, ShortcutRecord, ShortcutsRecord

FILE = "shortcuts.csv"

SHORTCUT = "shortcut:"
"""What the rows of columns are called by: `shortcut:manufacturer`."""


def audited(record: Recorded) -> dict[str, ShortcutRecord]:
    """Returns what a record says of the label and of each column, by the name of its row; nothing without an audit."""
    found = record.shortcuts
    if found is None:
        return {}
    label = {} if found.label is None else {LABEL: found.label}
    return {**label, **{f"{SHORTCUT}{name}": column for name, column in found.columns.items()}}


def rows(board: Board) -> list[dict[str, Any]]:
    """Returns a row per task, model and shortcut of a board, those of its sections of their own among them."""
    boards = [board, *(own.board for own in board.own)]
    return [row for each in boards for task in each.tasks for row in _of_task(each, task)]


def to_csv(board: Board) -> str | None:
    """Returns the rows as CSV; None where no record has an audit."""
    found = rows(board)
    return as_csv(found) if found else None


def _of_task(board: Board, task: Task) -> Iterator[dict[str, Any]]:
    for model in board.models:
        entry = model.entries.get(task.name)
        if entry is None or entry.record.shortcuts is None:
            continue
        found = entry.record.shortcuts
        of = {"task": task.name, "model": model.name, "pooling": found.pooling, "read_by": found.read_by}
        for name, one in audited(entry.record).items():
            yield {**of, "row": name, **_numbers(one)}
        for name, why in found.left_out.items():
            yield {**of, "row": f"{SHORTCUT}{name}", **_numbers(None), "reason": why}


def _numbers(one: ShortcutRecord | None) -> dict[str, Any]:
    shared, read = (None, None) if one is None else (one.shared, one.read)
    return {
        "known": 0 if one is None else one.known,
        "levels": 0 if one is None else len(one.levels),
        "chance": None if shared is None else shared.chance,
        "by_label": None if shared is None else shared.by_label,
        **_ends("nearest", None if shared is None else shared.nearest),
        **_ends("auroc", None if read is None else read.auroc),
        "levels_read": 0 if read is None else len(read.levels),
        "reason": "" if one is None else one.not_read or "",
    }


def _ends(name: str, one: Estimated | None) -> Mapping[str, float | None]:
    value, low, high = (None, None, None) if one is None else (one.value, one.low, one.high)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def reasons(found: ShortcutsRecord) -> str:
    """Returns which columns were not audited, and why, in a sentence; nothing where all were."""
    return "".join(f" Left out: {name}, {why}." for name, why in found.left_out.items())
