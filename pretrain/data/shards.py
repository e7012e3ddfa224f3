"""Files that hold many volumes: `STORE/shards/*.shard`, one stored file behind the other, each as it lay by itself.

A shared file system sees thousands of files instead of a million, and a volume is still read slab by slab: its row of
the index says in which shard it lies and at which byte. Volumes are stored one a file and packed afterwards, by the one
process that writes the index, so that a run that is killed leaves either of both:

1. the shard is written whole, under a name that follows from what it holds;
2. the index that points into it replaces the one before;
3. the files that nothing points at any more are removed.

A shard is never changed. Where most of what it holds is stale, what is left is packed again with what is new.
"""

import hashlib
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from pretrain.data.index import SHARDS, StoredVolume, write_index
from pretrain.errors import PretrainError
from pretrain.files import cannot_write

COMMIT_SHARDS = 128
"""The index is written after so many shards: until then, their volumes take twice their room."""
_COPY_BYTES = 1 << 23

log = logging.getLogger(__name__)


def is_whole(store: Path, volume: StoredVolume) -> bool:
    """Whether the file of a volume is there, and as long as it must be."""
    path = store / volume.file
    if not path.is_file():
        return False
    size = path.stat().st_size
    return size == volume.size_bytes if volume.shard is None else size >= volume.offset + volume.size_bytes


def bytes_of(store: Path, volume: StoredVolume) -> bytes:
    """Returns what is stored of a volume.

    Raises:
        OSError: It cannot be read.
    """
    return b"".join(_pieces(store, volume, rest=volume.shard is None))


def groups_of(
    store: Path, rows: dict[str, StoredVolume], shard_bytes: int, *, finish: bool
) -> list[list[StoredVolume]]:
    """Returns which volumes are to be packed together.

    Args:
        store: The folder of the store.
        rows: Its index, by id.
        shard_bytes: A shard is closed once it has grown to this size.
        finish: Pack also what does not fill a shard, and anew what is left of shards that are mostly stale or small.
    """
    ordered = [rows[id_] for id_ in sorted(rows)]
    loose = [row for row in ordered if row.shard is None]
    again = _sparse(store, ordered, shard_bytes) if finish else set()
    if len(again) == 1 and not loose and not _has_stale(store, ordered, *again):
        again = set()  # the last one, as it is
    todo = [row for row in ordered if (row.shard is None or row.shard in again) and _there(store, row)]
    groups, size = [list[StoredVolume]()], 0
    for row in todo:
        groups[-1].append(row)
        size += row.size_bytes
        if size >= shard_bytes:
            groups.append([])
            size = 0
    return groups[:-1] if not groups[-1] or not finish else groups


def pack(store: Path, rows: dict[str, StoredVolume], groups: Iterable[list[StoredVolume]]) -> None:
    """Packs volumes into shards, and writes the index.

    Args:
        store: The folder of the store.
        rows: Its index, by id; changed in place.
        groups: The volumes of each shard, see `groups_of`.

    Raises:
        CannotWriteError: A shard or the index cannot be written; what was packed before stays.
        PretrainError: A volume cannot be read.
    """
    stale: list[Path] = []
    for number, group in enumerate(groups, 1):
        name, offset = _write_shard(store, group), 0
        for row in group:
            if row.shard is None:
                stale.append(store / row.file)
            rows[row.id] = replace(row, shard=name, offset=offset)
            offset += row.size_bytes
        if number % COMMIT_SHARDS == 0:
            _commit(store, rows, stale)
    _commit(store, rows, stale)


def tidy(store: Path, rows: dict[str, StoredVolume]) -> None:
    """Removes what a run that was killed between writing and removing has left."""
    for leftover in [*store.glob("volumes/*/.*"), *store.glob(f"{SHARDS}/.*")]:
        leftover.unlink()
    if any(row.shard is not None for row in rows.values()):
        packed = {id_ for id_, row in rows.items() if row.shard is not None}
        _remove(store, rows, [path for path in store.glob("volumes/*/*.b2nd") if path.stem in packed])


def _commit(store: Path, rows: dict[str, StoredVolume], stale: list[Path]) -> None:
    write_index(store, rows)
    _remove(store, rows, stale)
    stale.clear()


def _remove(store: Path, rows: dict[str, StoredVolume], stale: list[Path]) -> None:
    """Removes files of single volumes, and the shards that no row points at."""
    for path in stale:
        path.unlink(missing_ok=True)
    used = {row.shard for row in rows.values()}
    for path in store.glob(f"{SHARDS}/*.shard"):
        if path.name not in used:
            path.unlink()


def _there(store: Path, row: StoredVolume) -> bool:
    if is_whole(store, row):
        return True
    log.warning("%s is missing or damaged, so it is not packed", store / row.file)
    return False


def _sparse(store: Path, rows: Iterable[StoredVolume], shard_bytes: int) -> set[str]:
    """The shards of which less than half a shard is used."""
    used: Counter[str] = Counter()
    for row in rows:
        if row.shard is not None:
            used[row.shard] += row.size_bytes
    return {name for name, size in used.items() if size < shard_bytes / 2 and (store / SHARDS / name).is_file()}


def _has_stale(store: Path, rows: Iterable[StoredVolume], shard: str) -> bool:
    used = sum(row.size_bytes for row in rows if row.shard == shard)
    return (store / SHARDS / shard).stat().st_size > used


def _write_shard(store: Path, group: list[StoredVolume]) -> str:
    """Writes a shard; returns its name, which is the same for the same volumes."""
    contents = "".join(f"{row.id} {row.sha256}\n" for row in group)
    name = f"{hashlib.blake2b(contents.encode(), digest_size=8).hexdigest()}.shard"
    path = store / SHARDS / name
    needed = sum(row.size_bytes for row in group)
    try:
        path.parent.mkdir(exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{name}.")
    except OSError as error:
        raise cannot_write(path, error, needed) from error
    try:
        with os.fdopen(handle, "wb") as file:
            for row in group:
                for piece in _readable(store, row):
                    file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise cannot_write(path, error, needed) from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return name


def _readable(store: Path, row: StoredVolume) -> Iterator[bytes]:
    size = 0
    try:
        for piece in _pieces(store, row):
            size += len(piece)
            yield piece
    except OSError as error:
        raise PretrainError(f"{store / row.file} cannot be read ({error.strerror}), so it is not packed") from error
    if size != row.size_bytes:
        raise PretrainError(f"{store / row.file} is shorter than its index says. Run the same command with --verify")


def _pieces(store: Path, row: StoredVolume, *, rest: bool = False) -> Iterator[bytes]:
    """What is stored of a volume, piece by piece; to the end of its file on demand, were it longer."""
    with (store / row.file).open("rb") as file:
        file.seek(row.offset)
        left = row.size_bytes
        while piece := file.read(_COPY_BYTES if rest else min(_COPY_BYTES, left)):
            left -= len(piece)
            yield piece
