"""The index of a store: what every volume is, in the order of the samples.

    STORE/index.jsonl      one `StoredVolume` a line, ordered by id
    STORE/index.offsets    where each of these lines begins, and the volumes' shapes: rows of a fixed width

The second follows from the first, and is there so that nobody has to parse it: a process that opens a million volumes
reads 24 bytes of each, once and block by block, and afterwards the line of the volume that it needs. All of it lies in
the page cache, which the processes of a node share, and none of it in their memory. They are plain reads: a memory map
of a file that another machine replaces on a network folder kills the reader without a message.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.errors import PretrainError
from pretrain.files import CannotWriteError, in_bytes, write

INDEX, OFFSETS = "index.jsonl", "index.offsets"
SHARDS = "shards"
"""Folder of the files that hold many volumes, see `pretrain.data.shards`."""
_FORMAT = 1
_HEADER_BYTES = 512
_ROW = np.dtype([("offset", "<u8"), ("bytes", "<u4"), ("shape", "<u4", 3)])
_BLOCK_ROWS = 1 << 15  # 768 KiB: what is read at a time
_MADE_ANEW = "Delete the index and prepare the store again."

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredVolume:
    """A line of the index.

    Attributes:
        id: Name of the volume: the digest of the source that it was first made of, also where that has moved since.
            The order of the index, so that of the samples, goes by it.
        source: The file or DICOM folder that was converted.
        source_bytes: Its size, all files together.
        source_mtime_ns: When it last changed.
        patient: The patient, see `pretrain.prepare`.
        shape: Voxels along (z, y, x).
        spacing_mm: Distance of neighbouring voxels along (z, y, x).
        foreground_slices: First slice that shows body, and the one after the last.
        size_bytes: Of the stored file.
        sha256: Checksum of the stored file.
        notes: What a user should know of how the scan was read.
        source_sha256: Hash of what the source's files held, which tells whether it must be converted again; None in
            stores of before it was kept.
        code_sha256: Hash of the code that read and stored it; None likewise.
        shard: File that holds it with others, see `pretrain.data.shards`; None where it has one of its own.
        offset: Byte of that file at which it begins.
    """

    id: str
    source: str
    source_bytes: int
    source_mtime_ns: int
    patient: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    foreground_slices: tuple[int, int]
    size_bytes: int
    sha256: str
    notes: tuple[str, ...] = ()
    source_sha256: str | None = None
    code_sha256: str | None = None
    shard: str | None = None
    offset: int = 0

    @property
    def file(self) -> str:
        """Path inside the store."""
        return f"volumes/{self.id[:2]}/{self.id}.b2nd" if self.shard is None else f"{SHARDS}/{self.shard}"

    def to_json(self) -> str:
        """Returns the line."""
        # Without shards, the line is what it was when there were none, also for versions that know none.
        names = _FIELDS if self.shard is not None else _OF_ITS_OWN
        return json.dumps({name: getattr(self, name) for name in names}, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str | bytes) -> "StoredVolume":
        """Reads a line.

        Raises:
            ValueError: It is not a line of an index.
        """
        try:
            fields: Any = json.loads(line, object_hook=_with_tuples)
            return cls(**fields)
        except TypeError as error:
            raise ValueError(str(error)) from error


_FIELDS = tuple(field.name for field in fields(StoredVolume))
_OF_ITS_OWN = tuple(name for name in _FIELDS if name not in ("shard", "offset"))


@dataclass(frozen=True)
class _Summary:
    """The head of `index.offsets`: of which index it is.

    Attributes:
        volumes: Number of lines.
        index_bytes: Size of the index.
        index_sha256: Its hash.
        digest: Of id, shape, foreground and checksum of each volume, in the order of the samples.
        rows_sha256: Hash of the rows that follow.
        format: Of the file.
    """

    volumes: int
    index_bytes: int
    index_sha256: str
    digest: str
    rows_sha256: str
    format: int = _FORMAT


class StoreIndex:
    """The index of a store, open.

    Attributes:
        path: Its file.
        sha256: Hash of this file.
        digest: Of what of it decides the samples: id, shape, foreground and checksum of each volume, in their order.
    """

    def __init__(self, folder: Path) -> None:
        """Opens an index; makes `index.offsets` where that is missing or of another index.

        Raises:
            PretrainError: There is none, it cannot be read, or it is damaged.
        """
        self.path = folder / INDEX
        self._lines = _opened(self.path)
        self._rows: FileIO | np.ndarray
        found = _read_offsets(folder / OFFSETS, self._lines)
        summary, self._rows = found if found is not None else _make_offsets(folder, self._lines)
        self._length, self.sha256, self.digest = summary.volumes, summary.index_sha256, summary.digest

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> StoredVolume:
        if not -self._length <= number < self._length:
            raise IndexError(f"{self.path} has {self._length} volumes, and number {number} was asked for")
        number %= self._length
        row = self._block(number, 1)[0]
        line = _read(self._lines, int(row["offset"]), int(row["bytes"]), self.path)
        return _volume(line, self.path, number)

    def shapes(self) -> Iterator[np.ndarray]:
        """Yields the shapes of all volumes, block by block: (n, 3) voxels along (z, y, x)."""
        for first in range(0, self._length, _BLOCK_ROWS):
            yield self._block(first, min(_BLOCK_ROWS, self._length - first))["shape"]

    def _block(self, first: int, number: int) -> np.ndarray:
        if isinstance(self._rows, np.ndarray):
            return self._rows[first : first + number]
        path = self.path.with_name(OFFSETS)
        content = _read(self._rows, _HEADER_BYTES + first * _ROW.itemsize, number * _ROW.itemsize, path)
        return np.frombuffer(content, _ROW)


def read_index(folder: Path) -> dict[str, StoredVolume]:
    """Returns the rows of a store's index by id; none where it has no index yet.

    Raises:
        PretrainError: The index is damaged.
    """
    path = folder / INDEX
    if not path.exists():
        return {}
    with path.open("rb") as lines:
        rows = (_volume(line, path, number) for number, line in enumerate(lines))
        return {row.id: row for row in rows}


def write_index(folder: Path, rows: dict[str, StoredVolume]) -> None:
    """Writes the index, ordered by id, and where its lines begin."""
    ordered = [rows[key] for key in sorted(rows)]
    lines = [(row.to_json() + "\n").encode() for row in ordered]
    path = folder / INDEX
    write(path, b"".join(lines))
    # Killed here, the offsets are those of the index before, which is noticed.
    _write_offsets(folder / OFFSETS, *_describe(zip(lines, ordered, strict=True)), path.stat().st_mtime_ns)


def _decisive(volume: StoredVolume) -> bytes:
    return json.dumps([volume.id, volume.shape, volume.foreground_slices, volume.sha256]).encode() + b"\n"


def _describe(lines: Iterable[tuple[bytes, StoredVolume]]) -> tuple[_Summary, np.ndarray]:
    """Returns what `index.offsets` holds of an index."""
    content, digest, offset = hashlib.sha256(), hashlib.sha256(), 0

    def rows() -> Iterator[tuple[int, int, tuple[int, int, int]]]:
        nonlocal offset
        for line, volume in lines:
            content.update(line)
            digest.update(_decisive(volume))
            yield offset, len(line), volume.shape
            offset += len(line)

    found = np.fromiter(rows(), _ROW)
    hashes = content.hexdigest(), digest.hexdigest(), hashlib.sha256(found.tobytes()).hexdigest()
    return _Summary(len(found), offset, *hashes), found


def _write_offsets(path: Path, summary: _Summary, rows: np.ndarray, index_mtime_ns: int) -> None:
    head = json.dumps({field.name: getattr(summary, field.name) for field in fields(_Summary)})
    write(path, head.ljust(_HEADER_BYTES - 1).encode() + b"\n" + rows.tobytes())
    os.utime(path, ns=(index_mtime_ns, index_mtime_ns))  # what tells that they belong together; copies keep it


def _make_offsets(folder: Path, lines: FileIO) -> tuple[_Summary, np.ndarray]:
    """Parses an index and writes where its lines begin; of a folder that cannot be written, they stay in memory."""
    path = folder / INDEX
    with os.fdopen(os.dup(lines.fileno()), "rb") as file:  # buffered
        summary, rows = _describe((line, _volume(line, path, number)) for number, line in enumerate(file))
    if not os.path.samestat(path.stat(), os.fstat(lines.fileno())):
        raise PretrainError(f"{path} was replaced while it was opened. Start the same command again.")
    try:
        _write_offsets(folder / OFFSETS, summary, rows, os.fstat(lines.fileno()).st_mtime_ns)
    except CannotWriteError as error:
        log.warning(
            "%s has no %s, which cannot be written there: every process parses the whole index and keeps %s of it in "
            "memory. Run `python -m pretrain.prepare` on it once, where it can be written. (%s)",
            *(folder, OFFSETS, in_bytes(rows.nbytes), error),
        )
    else:
        log.info("%s: wrote %s for the %d volumes of its index, once", folder, OFFSETS, len(rows))
    return summary, rows


def _read_offsets(path: Path, lines: FileIO) -> tuple[_Summary, FileIO] | None:
    """Opens where the lines of an index begin; None where that is missing, damaged, or of another index."""
    if not path.exists():
        return None
    rows = _opened(path)
    try:
        summary = _Summary(**json.loads(_read(rows, 0, _HEADER_BYTES, path)))
    except (PretrainError, ValueError, TypeError):
        return None
    size = os.fstat(rows.fileno()).st_size
    if summary.format != _FORMAT or size != _HEADER_BYTES + summary.volumes * _ROW.itemsize:
        return None
    stat = os.fstat(lines.fileno())
    if stat.st_size != summary.index_bytes or _sha256(rows, _HEADER_BYTES, path) != summary.rows_sha256:
        return None
    if stat.st_mtime_ns != os.fstat(rows.fileno()).st_mtime_ns:  # edited; or copied, without its times
        if _sha256(lines, 0, path.with_name(INDEX)) != summary.index_sha256:
            return None
        with suppress(OSError):  # a folder of others: it is hashed again the next time
            os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    return summary, rows


def _sha256(file: FileIO, offset: int, path: Path) -> str:
    """Returns the hash of the rest of a file, of which a block at a time is in memory."""
    size, step = os.fstat(file.fileno()).st_size, _BLOCK_ROWS * _ROW.itemsize
    found = hashlib.sha256()
    for first in range(offset, size, step):
        found.update(_read(file, first, min(step, size - first), path))
    return found.hexdigest()


def _opened(path: Path) -> FileIO:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise PretrainError(
            f"{path} cannot be read ({error.strerror}). Is this the folder of a store, and its disk mounted? "
            "`python -m pretrain.prepare SRC -o STORE` makes one."
        ) from error


def _read(file: FileIO, offset: int, size: int, path: Path) -> bytes:
    """Reads at a place, whatever the place of the file is: it is shared with those that were forked."""
    try:
        content = os.pread(file.fileno(), size, offset)
    except OSError as error:
        raise PretrainError(
            f"{path} cannot be read any more ({error.strerror}): it was replaced, or its disk is gone. Start the same "
            "command again."
        ) from error
    if len(content) != size:
        raise PretrainError(f"{path} is shorter than it was. {_MADE_ANEW}")
    return content


def _volume(line: bytes, path: Path, number: int) -> StoredVolume:
    try:
        return StoredVolume.from_json(line)
    except ValueError as error:
        raise PretrainError(f"{path}, line {number + 1}, is not a line of an index ({error}). {_MADE_ANEW}") from error


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
