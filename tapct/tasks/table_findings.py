"""What is known of cases besides their scans, for the doctor: columns that heads may be given, of how many cases."""

from collections.abc import Iterator, Sequence
from math import isnan

from tapct.errors import TapctError
from tapct.names import listed
from tapct.tasks.checks import CaseOf
from tapct.tasks.columns import Column
from tapct.tasks.dataset import DoctorFinding
from tapct.tasks.shortcuts import VOLUME

HINT = "rows of tables (HEAD:table=COLUMNS) and the shortcut audit lack it; nothing else does"


def table_findings(cases: Sequence[CaseOf]) -> Iterator[DoctorFinding]:
    """Yields of how many cases each column is known; of volumes, which take long to measure, whether masks are there.

    Args:
        cases: Of one task, whose files are there.
    """
    if not cases or cases[0].dataset.spec.of_kind.table_head is None:
        return
    known: dict[str, int] = {}
    measured: list[str] = []
    for column in cases[0].dataset.spec.columns.values():
        paths = dict.fromkeys(path for of in cases for path in of.dataset.column_paths(of.case, column.name))
        if missing := [path for path in paths if not path.exists()]:
            files = f"{len(missing)} files that it is read from are not there, such as {missing[0]}"
            yield "warn", f"the column '{column.name}': {files}", HINT
        elif column.unit == VOLUME.unit:
            measured.append(column.name)
        else:
            try:
                known[column.name] = sum(_is_known(of, column) for of in cases)
            except TapctError as error:
                yield "warn", f"the column '{column.name}' cannot be read: {error}", HINT
    if there := [f"{name} ({number:,})" for name, number in known.items() if number]:
        yield (
            "ok",
            f"columns of a table, each with the cases of {len(cases):,} in which it is known: {', '.join(there)}",
            "",
        )
    if measured:
        yield "ok", f"masks of {listed(measured)} are there; they are measured when a table asks for them", ""
    if unknown := [name for name, number in known.items() if not number]:
        yield "ok", f"columns that are known of no case, and no table can ask for: {', '.join(unknown)}", ""


def _is_known(of: CaseOf, column: Column) -> bool:
    (number,) = of.dataset.values(of.case, [column])
    return not isnan(number)
