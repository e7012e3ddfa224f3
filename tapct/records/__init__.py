"""Result records: their schema, how they are written, and where they were made."""

from tapct.records.case import CaseResult, ClassMetric, Protocol
from tapct.records.cases import CASES_FILE, read_cases, to_table
from tapct.records.console import print_summary
from tapct.records.encoder import CardRecord, EncoderRecord, IdentityRecord, InputSheetRecord, VerificationRecord
from tapct.records.execution import Execution, GitState
from tapct.records.header import RecordHeader, read_header
from tapct.records.imported import ImportedRecord, Predictions
from tapct.records.probe import ProbeRecord
from tapct.records.provenance import environment, git_state
from tapct.records.record import (
    FeaturePack,
    Flag,
    PatchSize,
    Record,
    Recorded,
    RecordedSplit,
    RunRecord,
)
from tapct.records.schema import SCHEMA_VERSION
from tapct.records.selection import FoldedSelection, RateScores, Selection, SolvedSelection, SteppedSelection
from tapct.records.store import RECORD_FILE, RecordsFound, read_record, read_records, write_atomically, write_record
from tapct.records.stored import StoredRecord, find_records, read_stored
from tapct.records.task import TaskRecord

__all__ = [
    "CASES_FILE",
    "RECORD_FILE",
    "SCHEMA_VERSION",
    "CardRecord",
    "CaseResult",
    "ClassMetric",
    "EncoderRecord",
    "Execution",
    "FeaturePack",
    "Flag",
    "FoldedSelection",
    "GitState",
    "IdentityRecord",
    "ImportedRecord",
    "InputSheetRecord",
    "PatchSize",
    "Predictions",
    "ProbeRecord",
    "Protocol",
    "RateScores",
    "Record",
    "RecordHeader",
    "Recorded",
    "RecordedSplit",
    "RecordsFound",
    "RunRecord",
    "Selection",
    "SolvedSelection",
    "SteppedSelection",
    "StoredRecord",
    "TaskRecord",
    "VerificationRecord",
    "environment",
    "find_records",
    "git_state",
    "print_summary",
    "read_cases",
    "read_header",
    "read_record",
    "read_records",
    "read_stored",
    "to_table",
    "write_atomically",
    "write_record",
]
