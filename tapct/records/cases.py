"""The cases of a record as a table: Parquet, which pandas, Polars, DuckDB and R read without our code.

The record is the source of truth; the table is made of it, and carries its fingerprint to show of which.
"""

import functools
import math
import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from tapct import kinds
from tapct.errors import RecordError
from tapct.records.case import ClassMetric
from tapct.records.models import model_id
from tapct.records.record import Record, Recorded

if TYPE_CHECKING:
    import pandas as pd

CASES_FILE = "cases.parquet"

CLASS_METRICS: tuple[ClassMetric, ...] = ("dice_native", "dice_paper", "nsd_native", "hd95_mm_native")

COLUMNS = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("encoder", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("run", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("case", pa.string(), nullable=False),
        pa.field("patient", pa.string(), nullable=False),
        pa.field("class", pa.string()),
        pa.field("loss", pa.float64(), nullable=False),
        *(pa.field(metric, pa.float64()) for metric in CLASS_METRICS),
        pa.field("logit", pa.float64()),
        pa.field("probability", pa.float64()),
        pa.field("target", pa.int8()),
        pa.field("voxels", pa.int64()),
        pa.field("reference_voxels", pa.int64()),
        *(pa.field(f"padding_{axis}", pa.int32(), nullable=False) for axis in "zyx"),
    ]
)
"""One row per run, split, case and class; the same columns in every file, so that files of several experiments join.

Kinds of task whose records hold an outcome (`tapct.kinds`) have a column more for each of its fields (`columns`). What
is of the case (`loss`, `voxels`, `padding_*`) stands in each of its rows. `class` is null in the one row of a case
without classes. What a task has not, or is undefined, is null. Rows are in the order of the record.
"""


@functools.cache
def columns(kind: str | None) -> pa.Schema:
    """Returns the columns of the table of a record of a kind: `COLUMNS`, and the fields of its outcome."""
    if kind is None or not kinds.kind(kind).outcome:
        return COLUMNS
    many = pa.list_(pa.field("element", pa.float64()))  # the name that Parquet gives it, in whose type it comes back
    own = [
        pa.field(field.name, many, nullable=False) if field.many else pa.field(field.name, pa.float64())
        for field in kinds.kind(kind).fields
    ]
    return pa.schema([*COLUMNS, *own])


FINGERPRINT, SCHEMA = b"tapct.fingerprint", b"tapct.schema_version"
"""Metadata of the file: of which record it is."""


_PADDING = ("padding_z", "padding_y", "padding_x")
_OF_CASES = frozenset(
    {
        *("task", "encoder", "model", "run", "seed", "split"),
        *("case", "patient", "class", "loss", "voxels", *_PADDING),
    }
)
"""Columns that say which row it is, and those of which each row of a case has the same."""


def to_table(record: Record) -> pa.Table:
    """Returns the cases of a record, with the `columns` of its kind and the record's fingerprint in the metadata."""
    schema = columns(record.task.kind)
    of_record = {"task": record.task.name, "encoder": record.encoder.card.name, "model": model_id(record)}
    of_classes = [name for name in schema.names if name not in _OF_CASES]
    found: dict[str, list[Any]] = {name: [] for name in schema.names}
    for run in record.runs:
        for split, cases in run.cases.items():
            of_run = {**of_record, "run": run.run, "seed": run.seed, "split": split}
            for case in cases:
                by_class = case.by_field
                names: list[str | None] = list(dict.fromkeys(name for row in by_class.values() for name in row)) or [
                    None
                ]
                padding = dict(zip(_PADDING, case.padding_voxels, strict=True))
                of_case = {"case": case.case, "patient": case.patient, "loss": case.loss, "voxels": case.voxels}
                for column, value in {**of_run, **of_case, **padding}.items():
                    found[column] += [value] * len(names)
                found["class"] += names
                for column in of_classes:
                    row: dict[Any, Any] = by_class.get(column, {})
                    found[column] += [row.get(name) for name in names]
    metadata = {FINGERPRINT: record.fingerprint.encode(), SCHEMA: str(record.schema_version).encode()}
    return pa.Table.from_pydict(found, schema).replace_schema_metadata(metadata)


def to_frame(record: Recorded) -> "pd.DataFrame":
    """Returns the cases of a record for pandas, one row a case, class, seed and protocol.

    It has the columns of `COLUMNS`, but for the four numbers by class: `protocol` ("native", "paper"; None where it
    makes no difference) with `dice`, `nsd` and `hd95_mm` (native alone) take their place. What tells the experiment
    from others comes last: `display_name`, `weights`, `adaptor`, `train_fraction`, `train_draw`, `perturbation`,
    `record` (the fingerprint).
    """
    import pandas as pd  # takes a second

    wide = record.table().to_pandas()
    wide.insert(wide.columns.get_loc("loss"), "protocol", None)
    has_protocols = record.task.kind is None or kinds.kind(record.task.kind).on_paper_grid is not None
    of_classes = wide["target"].isna() & wide["class"].notna() & has_protocols
    native = wide.assign(dice=wide["dice_native"], nsd=wide["nsd_native"], hd95_mm=wide["hd95_mm_native"])
    native["protocol"] = native["protocol"].astype(object).mask(of_classes, "native")
    paper = wide.assign(dice=wide["dice_paper"], nsd=math.nan, hd95_mm=math.nan, protocol="paper")[of_classes]
    table = pd.concat([native, paper] if len(paper) else [native]).sort_index(kind="stable")
    about = {
        "display_name": record.encoder.full_name,
        "weights": record.encoder.weights_name,
        "adaptor": record.probe.adaptor,
        "train_fraction": record.task.train_fraction,
        "train_draw": record.task.train_draw,
        "perturbation": record.task.perturbation,
        "record": record.fingerprint,
    }
    return table.drop(columns=list(CLASS_METRICS)).assign(**about).reset_index(drop=True)


def load_results(folder: str | Path) -> "pd.DataFrame":
    """Returns the cases of all records of a results folder for pandas: `Record.to_frame` of each, one after the other.

    What cannot be used is told by a warning, and stands in the frame's `attrs["left_out"]`: path to reason.

    Args:
        folder: RESULTS, which holds RESULTS/TASK/EXPERIMENT/record.json.

    Raises:
        RecordError: If the folder is not there, or none of its records can be used.
    """
    import pandas as pd

    from tapct.records.stored import find_records

    found = find_records(folder)
    frames, left_out = [], {str(path): reason for path, reason in found.invalid.items()}
    for path, record in found.valid.items():
        try:
            frames.append(to_frame(record))
        except RecordError as error:
            left_out[str(path)] = str(error)
    if not frames:
        raise RecordError(f"there is no finished record in {folder} ({len(left_out)} cannot be used)")
    if left_out:
        first = next(iter(left_out.values()))
        warnings.warn(f"{len(left_out)} records are left out, such as: {first}", stacklevel=2)
    table = pd.concat(frames, ignore_index=True)
    table.attrs["left_out"] = left_out
    return table


def read_cases(record: Record, folder: Path) -> pa.Table:
    """Reads the table next to a record.

    Args:
        record: The record.
        folder: Its folder.

    Raises:
        RecordError: If there is none, it cannot be read, or it is of another record.
    """
    path = folder / CASES_FILE
    try:
        table = pq.read_table(BytesIO(path.read_bytes()))
    except (OSError, pa.ArrowException) as error:
        raise RecordError(f"{path} cannot be read: {error}. {FIX}") from error
    found = (table.schema.metadata or {}).get(FINGERPRINT, b"").decode()
    if found != record.fingerprint:
        raise RecordError(f"{path} is of another record ({found[:12] or 'none'}, not {record.fingerprint[:12]}). {FIX}")
    return table


FIX = "`tapct.records.write_record(record, folder)` makes it anew from the record"
