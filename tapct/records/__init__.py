"""Result records: their schema, how they are written, and where they were made."""

from tapct.records.cases import CASES_FILE, read_cases, to_table
from tapct.records.console import print_summary
from tapct.records.execution import Execution, GitState
from tapct.records.header import RecordHeader, read_header
from tapct.records.provenance import environment, git_state
from tapct.records.record import (
    CaseResult,
    CellSize,
    ClassMetric,
    FeaturePack,
    Flag,
    Protocol,
    Record,
    RunRecord,
    Split,
)
from tapct.records.schema import SCHEMA_VERSION
from tapct.records.sections import CardRecord, EncoderRecord, IdentityRecord, ProbeRecord, TaskRecord
from tapct.records.selection import Looks, Selection, SolvedSelection, SteppedSelection
from tapct.records.store import RECORD_FILE, RecordsFound, read_record, read_records, write_atomically, write_record

__all__ = [
    "CASES_FILE",
    "RECORD_FILE",
    "SCHEMA_VERSION",
    "CardRecord",
    "CaseResult",
    "CellSize",
    "ClassMetric",
    "EncoderRecord",
    "Execution",
    "FeaturePack",
    "Flag",
    "GitState",
    "IdentityRecord",
    "Looks",
    "ProbeRecord",
    "Protocol",
    "Record",
    "RecordHeader",
    "RecordsFound",
    "RunRecord",
    "Selection",
    "SolvedSelection",
    "Split",
    "SteppedSelection",
    "TaskRecord",
    "environment",
    "git_state",
    "print_summary",
    "read_cases",
    "read_header",
    "read_record",
    "read_records",
    "to_table",
    "write_atomically",
    "write_record",
]
