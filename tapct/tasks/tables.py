"""Reading tables as CSV: label files of releases and splits, which people fetch, edit and save again."""

import csv
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Literal, TextIO, TypeVar

from tapct.errors import TaskError

SEPARATORS = {",": "commas", ";": "semicolons"}

_Row = TypeVar("_Row")


def read_table(
    path: Path,
    columns: Collection[str],
    *,
    what: str = "label file",
    comments: bool = False,
    separator: Literal[",", ";"] = ",",
) -> list[dict[str, str]]:
    """Returns the rows of a CSV file.

    A byte order mark, Windows line ends, blank lines and quoted values do not matter; other columns are passed over.

    Args:
        path: The file.
        columns: Columns that are needed.
        what: What it is, for errors.
        comments: Whether lines that start with # may stand before the header, to say where it is from. After the header
            they are refused: a row that someone commented out is none, and a case may not vanish.
        separator: What the release separates values by.

    Raises:
        TaskError: If the file is missing, no CSV text, lacks a column or has it twice, has no rows, or has a row that
            is too short or too long (a truncated download, or a spreadsheet's idea of a CSV).
    """
    if not path.is_file():
        raise TaskError(f"there is no {what} {path}. Put it there")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, rows = _read(file, comments, separator)
    except (UnicodeDecodeError, csv.Error) as error:
        raise TaskError(f"{path} is not CSV text in UTF-8 ({error}). Fetch it again, or save it as such") from error
    if lacking := [name for name in columns if name not in header]:
        raise TaskError(
            f"{path} lacks the columns {', '.join(lacking)}; it has: {', '.join(header) or 'nothing'}. "
            f"Use the release's own file, separated by {SEPARATORS[separator]}"
        )
    if doubled := [name for name in columns if Counter(header)[name] > 1]:
        raise TaskError(f"{path} has the column {doubled[0]} twice. Leave the one that is meant")
    if not rows:
        raise TaskError(f"{path} has a header and no rows. Fetch it again")
    for number, row in rows:
        if comments and row[0].startswith("#"):
            raise TaskError(f"{path}: line {number} is a comment. Move it above the header, or delete it")
        if len(row) != len(header):
            raise TaskError(
                f"{path}: line {number} has {len(row)} values, and the header {len(header)}. Fix it, or fetch the "
                "file again"
            )
    places = {name: header.index(name) for name in columns}
    return [{name: row[place] for name, place in places.items()} for _, row in rows]


def by_name(rows: Iterable[tuple[str, _Row]], path: Path, what: str) -> dict[str, _Row]:
    """Returns the rows of a table by the name of each.

    Args:
        rows: Name and row.
        path: The table, for the error.
        what: What the names are of, such as "patient".

    Raises:
        TaskError: If one is there twice.
    """
    found: dict[str, _Row] = {}
    for name, row in rows:
        if name in found:
            raise TaskError(f"{path} has the {what} {name} twice. Use the release's own file")
        found[name] = row
    return found


def header_of(path: Path) -> list[str]:
    """Returns the names of the columns of a table above which # lines may stand; nothing where it cannot be read.

    What is wrong with it, `read_table` says.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _opened(file, comments=True)[1]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _read(file: TextIO, comments: bool, separator: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Returns the header, and the rows that are not blank with the numbers of their (last) lines."""
    reader, header, skipped = _opened(file, comments, separator)
    return header, [(reader.line_num + skipped, row) for row in reader if row]


def _opened(file: TextIO, comments: bool, separator: str = ",") -> tuple[Any, list[str], int]:
    """Returns the reader of a table behind its header, the header, and how many lines stand above it."""
    first, skipped = file.readline(), 0
    while comments and first and (first.startswith("#") or not first.strip()):
        first, skipped = file.readline(), skipped + 1
    reader = csv.reader(itertools.chain([first] if first else [], file), strict=True, delimiter=separator)
    return reader, next(reader, []), skipped


def flag(row: dict[str, str], column: str, where: str) -> int:
    """Returns a 0/1 value of a row; `where` names file and row in the error.

    Raises:
        TaskError: If it is anything else.
    """
    if row[column] not in ("0", "1"):
        raise TaskError(f"{where}: {column} is '{row[column]}', but must be 0 or 1. Use the release's own file")
    return int(row[column])


_PLAIN_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


MISSING = ("", "NA")
"""What tables write where nothing is known."""

OLDEST_YEARS = 120.0
"""No patient is older: what is beyond is in another unit."""


def number(row: dict[str, str], column: str, where: str, *, low: float, high: float, unit: str) -> float | None:
    """Returns a number of a row; None where nothing is known (`MISSING`).

    Args:
        row: As `read_table` gives it.
        column: The column.
        where: Names file and row in the error.
        low: The lowest value that can be; what lies beyond is most likely in another unit.
        high: The highest.
        unit: The unit of both, for the error.

    Raises:
        TaskError: If it is not a number (nan, a decimal comma), or beyond the limits.
    """
    text = row[column].strip()
    if text in MISSING:
        return None
    if _PLAIN_NUMBER.fullmatch(text) is None:
        comma = " with a decimal comma" if _PLAIN_NUMBER.fullmatch(text.replace(",", ".", 1)) else ""
        raise TaskError(
            f"{where}: {column} is '{text}', which is not a number{comma}. Write it with a point, and leave it empty "
            "where it is not known"
        )
    value = float(text)
    if not low <= value <= high:
        raise TaskError(
            f"{where}: {column} is {text}, and a value in {unit} lies between {low:g} and {high:g}. Is it in another "
            "unit?"
        )
    return value
