"""Reading the label files of releases: CSV tables that people fetch, edit and save again."""

import csv
from collections.abc import Collection
from pathlib import Path

from tapct.errors import TaskError


def read_table(path: Path, columns: Collection[str]) -> list[dict[str, str]]:
    """Returns the rows of a CSV file; a byte order mark and Windows line ends do not matter.

    Args:
        path: The file.
        columns: Columns that are needed; others are passed over.

    Raises:
        TaskError: If the file is missing, no CSV text, lacks a column, has no rows, or has a row that is too
            short or too long (a truncated download, or a spreadsheet's idea of a CSV).
    """
    if not path.is_file():
        raise TaskError(f"there is no label file {path}. It comes with the release; put it there")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            found, rows = reader.fieldnames or [], list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise TaskError(f"{path} is no CSV text ({error}). Fetch it again") from error
    if lacking := [name for name in columns if name not in found]:
        raise TaskError(
            f"{path} lacks the columns {', '.join(lacking)}; it has: {', '.join(found) or 'nothing'}. "
            "Use the release's own file, separated by commas"
        )
    if not rows:
        raise TaskError(f"{path} has a header and no rows. Fetch it again")
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise TaskError(f"{path}: row {number} has not {len(found)} values as the header. Fetch the file again")
    return [{name: row[name] for name in columns} for row in rows]


def flag(row: dict[str, str], column: str, where: str) -> int:
    """Returns a 0/1 value of a row; `where` names file and row in the error.

    Raises:
        TaskError: If it is anything else.
    """
    if row[column] not in ("0", "1"):
        raise TaskError(f"{where}: {column} is '{row[column]}', but must be 0 or 1. Use the release's own file")
    return int(row[column])
