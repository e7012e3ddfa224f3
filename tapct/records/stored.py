"""Records as they are stored: everything but the cases at once, the cases as a table when they are asked for."""

from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import PrivateAttr, ValidationError

from tapct._utils import terminal
from tapct.errors import RecordError
from tapct.records import parquet
from tapct.records.cases import CASES_FILE
from tapct.records.reading import first_fault
from tapct.records.record import Record, Recorded
from tapct.records.store import RecordsFound, paths_of, read_record


class StoredRecord(Recorded):
    """A record of a results folder, of which only what is asked for is read."""

    _path: Path = PrivateAttr()
    _fingerprint: str = PrivateAttr()
    _older_protocol: str | None = PrivateAttr(None)

    @classmethod
    def of(cls, path: Path, content: dict[str, Any], fingerprint: str, older_protocol: str | None) -> "StoredRecord":
        """Returns the record of a file.

        Args:
            path: `record.json`.
            content: What it says, without cases.
            fingerprint: Its fingerprint.
            older_protocol: See `Recorded.older_protocol`.

        Raises:
            ValidationError: If the content is not that of a record.
        """
        record = cls.model_validate(content)
        record._path, record._fingerprint, record._older_protocol = path, fingerprint, older_protocol
        return record

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredRecord) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[Path, str]:
        return self._path, self._fingerprint

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides or is the result; without `execution` and `flags`."""
        return self._fingerprint

    @property
    def older_protocol(self) -> str | None:
        """How its numbers were made otherwise than today's; None if they were not."""
        return self._older_protocol

    def table(self) -> pa.Table:
        """Returns its cases, with the columns of `tapct.records.cases.columns`.

        Raises:
            RecordError: If they cannot be read, or have changed since the record was found.
        """
        table = parquet.read_table(self._path.parent / CASES_FILE, self._fingerprint, self.task.kind)
        return self._whole().table() if table is None else table

    def notes(self, split: str) -> list[tuple[str, ...]]:
        """Returns the notes of each case of a split, which the table does not hold: all of the record is read.

        Raises:
            RecordError: As `table`.
        """
        return self._whole().notes(split)

    def _whole(self) -> Record:
        record = read_record(self._path)
        if record.fingerprint != self._fingerprint:
            raise RecordError(f"{self._path} has changed while it was read; start again")
        return record


def find_records(results: str | Path, task: str = "*", *, bar: bool = False) -> RecordsFound[StoredRecord]:
    """Finds the published records of a results folder, as `read_records` does, but reads their cases only when asked.

    Args:
        results: The folder.
        task: Only this task's.
        bar: Whether to show how far it is.

    Raises:
        RecordError: If the folder is not there.
    """
    paths = paths_of(Path(results), task)
    return RecordsFound.of(terminal.track(paths, "records", len(paths)) if bar else paths, read_stored)


def read_stored(path: Path) -> StoredRecord:
    """Reads a record without its cases.

    Raises:
        RecordError: If it is not there, cannot be read, or is not valid.
    """
    found = parquet.read_header(path.parent / CASES_FILE, path)
    if found is not None:
        try:
            return StoredRecord.of(path, *found, older_protocol=None)
        except ValidationError as error:
            raise RecordError(f"{path} is not a record: {first_fault(error)}") from error
    record = read_record(path)
    return StoredRecord.of(path, parquet.header_content(record), record.fingerprint, record.older_protocol)
