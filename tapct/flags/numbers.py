"""What a record says in numbers, for records that are the same to the bit."""

import hashlib
import json

import pyarrow as pa
import pyarrow.compute as pc

from tapct.records import Recorded
from tapct.records.cases import COLUMNS

_OF_RUNS = ("case", "class", "loss", "dice_native", "dice_paper", "logit", "probability")


def numbers(record: Recorded) -> list[str]:
    """Returns, for each run, a hash of what it gave for the reported cases."""
    table = record.table()
    own = [name for name in table.column_names if name not in COLUMNS.names]  # of the outcome
    found = []
    for run in record.runs:
        of_run = table.filter(pc.equal(table["run"], run.run))
        rows = next((rows for split in ("test", "val") if len(rows := _of_split(of_run, split, own))), None)
        if rows is not None:
            found.append(hashlib.sha256(json.dumps(rows.to_pydict()).encode()).hexdigest())
    return found


def _of_split(table: pa.Table, split: str, own: list[str]) -> pa.Table:
    rows = table.filter(pc.equal(table["split"], split)).select([*_OF_RUNS, *own])
    return rows.sort_by([("case", "ascending"), ("class", "ascending")])
