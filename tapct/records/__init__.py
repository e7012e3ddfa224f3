"""Result records: their schema, how they are written, and where they were made."""

from tapct.records.console import print_summary
from tapct.records.provenance import environment, git_state
from tapct.records.record import SCHEMA_VERSION, CaseResult, ClassMetric, Protocol, Record, RunRecord
from tapct.records.store import RECORD_FILE, read_record, write_atomically, write_record

__all__ = [
    "RECORD_FILE",
    "SCHEMA_VERSION",
    "CaseResult",
    "ClassMetric",
    "Protocol",
    "Record",
    "RunRecord",
    "environment",
    "git_state",
    "print_summary",
    "read_record",
    "write_atomically",
    "write_record",
]
