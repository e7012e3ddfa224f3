"""Reading tables as spreadsheets (.xlsx): lists of releases, in which Excel has given every cell a type."""

import functools
import warnings
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from tapct.errors import TaskError

FORMULA_ERRORS = ("#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!")

_BROKEN = (OSError, zipfile.BadZipFile, KeyError, ValueError, SyntaxError)
"""What openpyxl raises of a file that is no workbook; SyntaxError is also that of XML."""


def read_sheet(
    path: Path, columns: Collection[str], *, optional: Collection[str] = (), what: str = "spreadsheet"
) -> list[dict[str, str]]:
    """Returns the rows of the only sheet of a workbook that has the columns.

    A number is read as its digits (an id that Excel took for a number is 12 and not 12.0), an empty cell as "". Blanks
    at the ends of a text and the case of a column's name do not matter. Passed over are other columns, and rows in
    which all of these are empty, which spreadsheets carry behind their table.

    Args:
        path: The file. It is read once, until its size or time changes.
        columns: Columns that are needed.
        optional: Columns that are read where the sheet has them; else no row has them.
        what: What it is, for errors.

    Raises:
        TaskError: If the file is missing or no workbook; no sheet, or several, have the columns; or the one that does
            has a column twice, no rows, or the error of a formula in a cell.
    """
    if not path.is_file():
        raise TaskError(f"there is no {what} {path}. Put it there")
    state = path.stat()
    rows = _read(path, (state.st_size, state.st_mtime_ns), tuple(columns), tuple(optional), what)
    return [dict(row) for row in rows]


@functools.lru_cache(maxsize=4)
def _read(
    path: Path, state: tuple[int, int], columns: tuple[str, ...], optional: tuple[str, ...], what: str
) -> list[dict[str, str]]:
    headers: dict[str, list[str]] = {}
    found: dict[str, list[dict[str, str]]] = {}
    try:
        for sheet, rows in _sheets(path):
            headers[sheet] = header = [_text(value) for value in next(rows, ())]
            if {name.casefold() for name in columns} <= {name.casefold() for name in header}:
                found[sheet] = _rows(rows, header, (*columns, *optional), f"{path}, sheet '{sheet}'")
    except _BROKEN as error:
        raise TaskError(f"{path} cannot be read as a {what} (.xlsx): {error}. Fetch it again") from error
    if not found:
        has = "; ".join(
            f"'{sheet}' has {', '.join(filter(None, header)) or 'nothing'}" for sheet, header in headers.items()
        )
        raise TaskError(f"no sheet of {path} has the columns {', '.join(columns)}: {has}. Use the release's own file")
    if len(found) > 1:
        raise TaskError(
            f"{len(found)} sheets of {path} have the columns {', '.join(columns)}: {', '.join(found)}. Leave the one "
            "that is meant"
        )
    return next(iter(found.values()))


def _sheets(path: Path) -> Iterator[tuple[str, Iterator[tuple[Any, ...]]]]:
    """Yields the sheets by name, with their rows that are not empty."""
    import openpyxl  # whoever lists tasks need not wait for it

    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")  # of styles and validation, which are not read
        book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
        for sheet in book.worksheets:
            sheet.reset_dimensions()  # the size that a file gives of itself may be wrong, and would cut rows off
            yield sheet.title, (row for row in sheet.iter_rows(values_only=True) if any(v is not None for v in row))


def _rows(
    rows: Iterator[tuple[Any, ...]], header: list[str], columns: tuple[str, ...], where: str
) -> list[dict[str, str]]:
    names = [name.casefold() for name in header]
    places: dict[str, int] = {}
    for column in columns:
        if names.count(column.casefold()) > 1:
            raise TaskError(f"{where} has the column {column} twice. Leave the one that is meant")
        if column.casefold() in names:
            places[column] = names.index(column.casefold())
    read = []
    for row in rows:
        cells = {name: _text(row[place]) if place < len(row) else "" for name, place in places.items()}
        if error := next((value for value in cells.values() if value in FORMULA_ERRORS), None):
            raise TaskError(f"{where} has a cell with {error}, the error of a formula. Use the release's own file")
        if any(cells.values()):
            read.append(cells)
    if not read:
        raise TaskError(f"{where} has a header and no rows. Fetch it again")
    return read


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()
