"""What is known of a case besides its scan: columns of tables, of headers, of the scan's grid."""

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tapct.errors import TapctError, TaskError
from tapct.tasks import shortcuts
from tapct.tasks.columns import Column, Value
from tapct.tasks.spec import TaskSpec
from tapct.volumes import Grid

_OF_GRID = frozenset(column.name for column in shortcuts.GEOMETRY)


class CaseColumns(abc.ABC):
    """The part of a task that reads columns of its cases."""

    spec: ClassVar[TaskSpec]

    _header: tuple[str, dict[str, Value]] | None = None
    """The case whose header was read last, and what it says."""

    _sizes: tuple[str, dict[str, float]] | None = None
    """The case whose grid was read last, and its columns."""

    @property
    @abc.abstractmethod
    def cases(self) -> list[str]:
        """The cases of the split, in order."""

    @abc.abstractmethod
    def ct_path(self, case: str) -> Path:
        """Returns the scan of a case: a file, or a folder of DICOM slices. It need not be there."""

    @abc.abstractmethod
    def scan_grid(self, case: str) -> Grid:
        """Returns the grid that `scan` gives a case."""

    def read_value(self, case: str, column: str) -> Value:
        """Returns what a column of `spec.table` or `spec.shortcuts` holds of a case; None where nothing is known.

        What every task has, `value` knows. Those of `tapct.tasks.shortcuts.DICOM` are in the headers of scans that are
        DICOM; a task with a table says here what that holds.

        Raises:
            TapctError: If it cannot be read.
        """
        if column in {one.name for one in shortcuts.DICOM}:
            if self._header is None or self._header[0] != case:
                self._header = (case, shortcuts.of_header(self.ct_path(case)))
            return self._header[1][column]
        raise NotImplementedError(f"{type(self).__name__} reads no '{column}', but its spec says that there is one")

    def value_paths(self, case: str, column: str) -> list[Path]:
        """Returns the files that `read_value` reads of a column, next to the scan; they need not be there."""
        return []

    def value(self, case: str, column: str) -> Value:
        """Returns what a column of `spec.columns` holds of a case; None where nothing is known.

        Raises:
            TapctError: If it cannot be read.
        """
        if column not in _OF_GRID:
            return self.read_value(case, column)
        if self._sizes is None or self._sizes[0] != case:
            self._sizes = (case, shortcuts.of_grid(self.scan_grid(case)))
        return self._sizes[1][column]

    def column_paths(self, case: str, column: str) -> list[Path]:
        """Returns the files that `value` reads of a column, next to the scan; they need not be there."""
        return [] if column in _OF_GRID else self.value_paths(case, column)

    def table_columns(self, names: Sequence[str]) -> list[Column]:
        """Returns the columns of `spec.columns` that have these names; see `TaskSpec.named`.

        Raises:
            TaskError: If there is none of such a name, or files that it is read from are not there.
        """
        columns = self.spec.named(names)
        for column in columns:
            paths = dict.fromkeys(path for case in self.cases for path in self.column_paths(case, column.name))
            if missing := [path for path in paths if not path.exists()]:
                raise TaskError(
                    f"{self.spec.name}: {len(missing)} files that the column '{column.name}' is read from are not "
                    f"there, such as {missing[0]}. To obtain the data: {self.spec.source}"
                )
        return columns

    def values(self, case: str, columns: Sequence[Column]) -> list[float]:
        """Returns what columns hold of a case, a number each (`Column.number`), NaN where nothing is known.

        Raises:
            TapctError: If a value cannot be read, or cannot be; the message names task and case.
        """
        try:
            return [column.number(self.value(case, column.name)) for column in columns]
        except TapctError as error:
            where = f"{self.spec.name}, case {case}"
            raise error if str(error).startswith(where) else type(error)(f"{where}: {error}") from error

    def levels(self, case: str, columns: Sequence[Column] | None = None) -> dict[str, str | None]:
        """Returns what a case is in columns of `spec.shortcuts`: by name its level, None where nothing is known.

        Args:
            case: The case.
            columns: The columns; all of them by default.

        Raises:
            TapctError: If a value cannot be read, or cannot be; the message names task and case.
        """
        chosen = self.spec.shortcuts if columns is None else columns
        try:
            return {column.name: column.level(self.value(case, column.name)) for column in chosen}
        except TapctError as error:
            raise type(error)(f"{self.spec.name}, case {case}: {error}") from error
