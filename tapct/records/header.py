"""The header of a record: what a file says before its cases, read without them.

A record's cases are megabytes, and its state needs none of them. What only the whole file can tell, that nothing in it
was changed, `read_record` tells.
"""

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tapct.errors import RecordError
from tapct.records.encoder import EncoderRecord
from tapct.records.probe import ProbeRecord
from tapct.records.reading import first_fault, parsed
from tapct.records.record import Record
from tapct.records.schema import OlderSchema, migrated
from tapct.records.store import read_record
from tapct.records.task import TaskRecord
from tapct.records.types import AtLeast1, Count, Sha256, Text, shown

HEADER_BYTES = 1 << 16
"""Read at first; no encoder's or probe's settings of ours take a tenth of it."""

_CASES_FOLLOW = b'\n "runs": ['
"""Begins the part that is not read. A line break is never inside a string of JSON, and one blank is the outermost
level as `Record.to_json` indents it: nothing else in a file reads so."""

_KEYS = frozenset({"schema_version", "fingerprint", "runs_planned", "notice", "encoder", "task", "probe"})
_MOST_HEADER_BYTES = 1 << 22
_END_BYTES = 16


class RecordHeader(BaseModel):
    """What a record's file says before its runs.

    Attributes:
        fingerprint: As the file has it; it is not compared with what is signed.
        runs_planned: Runs that the session was to have.
        runs: Runs that ended.
        older_schema: The schema that the record was first written under, if it was an older one.
        notice: What a reader must know before any number.
        encoder: As in the record.
        task: As in the record.
        probe: As in the record.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    fingerprint: Sha256
    runs_planned: AtLeast1
    runs: Count
    older_schema: OlderSchema | None = None
    notice: Text | None
    encoder: EncoderRecord
    task: TaskRecord
    probe: ProbeRecord

    @property
    def complete(self) -> bool:
        """Whether every planned run has ended."""
        return self.runs == self.runs_planned

    @property
    def older_protocol(self) -> str | None:
        """The schema of an older protocol in words, None of today's."""
        return None if self.older_schema is None else f"schema {self.older_schema}"

    @classmethod
    def of(cls, record: Record) -> "RecordHeader":
        """Returns the header of a record that was read in full."""
        own = {"fingerprint": record.fingerprint, "runs": len(record.runs)}
        return cls.model_validate(own | {key: getattr(record, key) for key in cls.model_fields if key not in own})


def read_header(path: Path) -> RecordHeader:
    """Reads the header of a record.

    Args:
        path: The record's file. Where it is laid out otherwise than `write_record` does, it is read in full.

    Raises:
        RecordError: If it is not there, is cut off, of a newer schema, or its header is not one.
    """
    try:
        head = _before_the_cases(path)
    except FileNotFoundError as error:
        raise RecordError(f"there is no record at {path}") from error
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error}") from error
    try:
        content = None if head is None else parsed(head.decode())
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not a record: {shown(str(error), 500)}. Run the experiment again") from error
    # How many runs there are is not before them, unless all are; nor is much, where the keys are in another order.
    if content is None or content.get("complete") is not True or not content.keys() >= _KEYS:
        return RecordHeader.of(read_record(path))
    try:
        content["runs"] = content.get("runs_planned")
        return RecordHeader.model_validate(migrated(content))
    except ValidationError as error:
        raise RecordError(f"{path} is not a record: {first_fault(error)}") from error
    except ValueError as error:
        raise RecordError(f"{path} is not a record: {shown(str(error), 500)}") from error


def _before_the_cases(path: Path) -> bytes | None:
    """Returns what a file holds before its cases, as whole JSON; None if it is not laid out as ours are.

    Raises:
        RecordError: If the file is cut off.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
        while (end := head.find(_CASES_FOLLOW)) < 0 and len(head) < _MOST_HEADER_BYTES:
            if not (more := file.read(len(head))):
                return None
            head += more
        if end < 0:
            return None
        file.seek(-min(_END_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
        if not file.read().rstrip().endswith(b"\n}"):  # what ends inside the cases is indented
            raise RecordError(
                f"{path} is not a record: its end is missing. It may be truncated; run the experiment again"
            )
    return head[:end].rstrip().removesuffix(b",") + b"}"
