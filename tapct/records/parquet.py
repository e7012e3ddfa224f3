"""`cases.parquet`: the whole record in one small file.

The cases of a board are gigabytes as JSON, and a hundredth of it as Parquet. The file holds the cases of a record as
columns, the rest of it as JSON in its metadata, the hash of the `record.json` that it was made of, and a hash of all
this: whoever finds them to agree need not parse the other file.
"""

import hashlib
import json
import math
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from tapct import kinds
from tapct.errors import RecordError
from tapct.records import arrow
from tapct.records.cases import FINGERPRINT, FIX, columns
from tapct.records.reading import first_fault, parsed
from tapct.records.record import Record
from tapct.records.types import CaseName, Name

HEADER, JSON_SHA256, SHA256 = b"tapct.record", b"tapct.json_sha256", b"tapct.sha256"
"""Metadata of `cases.parquet`: the record without its cases, the hash of `record.json`, and that of all the rest."""

_AT_LEAST_0 = ("run", "voxels", "reference_voxels", "padding_z", "padding_y", "padding_x")
_NAMES: TypeAdapter[list[str]] = TypeAdapter(list[Name])
_CASES: TypeAdapter[list[str]] = TypeAdapter(list[CaseName])


def cases_parquet(record: Record, text: str) -> bytes:
    """Returns the content of a record's `cases.parquet`.

    Args:
        record: The record.
        text: The content of its `record.json`.
    """
    # Of an older protocol a reader must see what only the whole record shows.
    header = None if record.older_protocol else header_content(record)
    return packed(record.table(), header, _sha256(text.encode()))


def packed(table: pa.Table, header: dict[str, Any] | None, json_sha256: str) -> bytes:
    """Returns the content of a `cases.parquet`.

    Args:
        table: The cases, with their record's fingerprint in the metadata.
        header: What the record says next to them; None if the file is to hold the cases alone.
        json_sha256: Hash of `record.json`.
    """
    if header is not None:
        own = {HEADER: json.dumps(header).encode(), JSON_SHA256: json_sha256.encode()}
        table = table.replace_schema_metadata({**table.schema.metadata, **own})
        table = table.replace_schema_metadata({**table.schema.metadata, SHA256: _content_sha256(table).encode()})
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def header_content(record: Record) -> dict[str, Any]:
    """Returns what a record says, as JSON has it, without its cases."""
    content = record.content()
    runs = [{key: value for key, value in run.items() if key != "cases"} for run in content["runs"]]
    return content | {"runs": runs}


def read_header(path: Path, json_file: Path) -> tuple[dict[str, Any], str] | None:
    """Returns what a record says, without its cases, and its fingerprint.

    Args:
        path: The table.
        json_file: The `record.json` that it must have been made of.

    Returns:
        None if it is not there, cannot be read, was made of another file, or says less than the record.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
        if HEADER not in metadata or metadata.get(JSON_SHA256) != _of_file(json_file).encode():
            return None
        return parsed(metadata[HEADER].decode()), metadata[FINGERPRINT].decode()
    except (OSError, KeyError, pa.ArrowException, ValueError):
        return None


def read_table(path: Path, fingerprint: str, kind: str | None) -> pa.Table | None:
    """Returns the table of a record; None where it is not there, is of another one, or says less than the record.

    Args:
        path: The table.
        fingerprint: Of the record.
        kind: Of the record's task, if it says it.

    Raises:
        RecordError: If it was changed after it was written, or holds what no record can.
    """
    try:
        # Not `pq.read_table`, which imports pandas, as does whatever makes an Arrow value of a Python one.
        table = pq.ParquetFile(BytesIO(path.read_bytes())).read()
    except (OSError, pa.ArrowException):
        return None
    metadata = table.schema.metadata or {}
    if metadata.get(FINGERPRINT) != fingerprint.encode() or HEADER not in metadata:
        return None
    if not table.schema.equals(columns(kind)) or metadata.get(SHA256) != _content_sha256(table).encode():
        raise RecordError(f"{path} was changed after it was written. {FIX}")
    if fault := _first_fault(table, kind):
        raise RecordError(f"{path} holds what no record can: {fault}. {FIX}")
    return table


def _ranges(kind: str | None) -> dict[str, tuple[float, float]]:
    """Returns the ranges of the types of records of a kind, for whole columns; two kinds may name a field alike."""
    names = ("segmentation", "classification") if kind is None else (kind,)  # older records do not say which
    fields = [field for name in names for field in kinds.kind(name).fields]
    return dict.fromkeys(_AT_LEAST_0, (0, math.inf)) | {field.name: (field.low, field.high) for field in fields}


def _first_fault(table: pa.Table, kind: str | None) -> str | None:
    """Returns what a record could not hold of a table, in words; None if it could be one's."""
    schema, ranges = columns(kind), _ranges(kind)
    for name in schema.names:
        field, column = schema.field(name), table[name]
        if not field.nullable and column.null_count:
            return f"{name} is missing"
        if pa.types.is_string(field.type):
            names = [one for one in arrow.coded(column)[0] if one is not None]
            try:
                (_CASES if name == "case" else _NAMES).validate_python(names)
            except ValidationError as error:
                return f"{name}: {first_fault(error)}"
            continue
        if pa.types.is_list(field.type):
            values = arrow.lists(column)[1]
        else:
            values = arrow.numbers(column)[~arrow.is_null(column)]
        least, most = ranges.get(name, (-math.inf, math.inf))
        fits = np.isfinite(values) & (least <= values) & (values <= most)
        if not fits.all():
            return f"{name} is {values[~fits][0]:g}"
    return None


def _content_sha256(table: pa.Table) -> str:
    """Returns a hash of the columns and metadata of a table, whatever wrote the file and however it is packed."""
    metadata = {key: value for key, value in (table.schema.metadata or {}).items() if key.startswith(b"tapct.")}
    digest = hashlib.sha256()
    for key in sorted(metadata.keys() - {SHA256}):
        digest.update(b"%b %d\n" % (key, len(metadata[key])) + metadata[key])
    for name, column in zip(table.column_names, table.columns, strict=True):
        digest.update(f"{name} {column.type} {len(column)}\n".encode())
        digest.update(np.packbits(arrow.is_null(column)).tobytes())
        if pa.types.is_string(column.type):
            texts, values = arrow.coded(column)
            digest.update(json.dumps(texts).encode())
        elif pa.types.is_list(column.type):
            lengths, values = arrow.lists(column)
            digest.update(lengths.astype("<i8").tobytes())
        else:
            values = arrow.numbers(column)
        digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
