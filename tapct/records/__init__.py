"""Result records: their schema, how they are written, and where they were made."""

from tapct.records.cases import CASES_FILE, read_cases, to_table
from tapct.records.console import print_summary
from tapct.records.header import RecordHeader, read_header
from tapct.records.provenance import environment, git_state
from tapct.records.record import CaseResult, CellSize, ClassMetric, FeaturePack, Flag, Protocol, Record, RunRecord
from tapct.records.schema import SCHEMA_VERSION
from tapct.records.store import RECORD_FILE, RecordsFound, read_record, read_records, write_atomically, write_record

__all__ = [
    "CASES_FILE",
    "RECORD_FILE",
    "SCHEMA_VERSION",
    "CaseResult",
    "CellSize",
    "ClassMetric",
    "FeaturePack",
    "Flag",
    "Protocol",
    "Record",
    "RecordHeader",
    "RecordsFound",
    "RunRecord",
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
