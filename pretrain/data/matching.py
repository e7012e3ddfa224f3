"""Which scans a store has already: known by what is in their files, wherever these lie now."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pretrain.data.index import StoredVolume
from pretrain.data.shards import bytes_of, is_whole
from pretrain.data.sources import Source
from tapct._utils.content_hashes import ContentHashes


def content_of(source: Source) -> str | None:
    """Returns a hash of what the source's files hold; None where one cannot be read, of which the reader says why."""
    try:
        return ContentHashes().of_files(source.files)
    except OSError:
        return None


def is_stored(source: Source, row: StoredVolume | None, store: Path, verify: str | None) -> bool:
    """Whether a scan needs no work.

    Args:
        source: The scan.
        row: What the store has of its path.
        store: The folder of the store.
        verify: None, or the hash of the code that should have made it: its checksum is compared then, too.
    """
    if row is None or not _is_of(row, source):
        return False
    if not is_whole(store, row):
        return False
    if verify is None:
        return True
    return row.code_sha256 == verify and hashlib.sha256(bytes_of(store, row)).hexdigest() == row.sha256


def follow_moves(sources: Sequence[Source], rows: dict[str, StoredVolume], patient_of: Callable[[Source], str]) -> int:
    """Gives the rows whose sources lie elsewhere now their new paths.

    Such a volume keeps its id, so its place among the samples. A copy of what still lies where it was is a scan of its
    own. Rows of before contents were hashed are not followed.

    Args:
        sources: The scans that were found.
        rows: The index by id; changed in place.
        patient_of: Names the patient of a scan.

    Returns:
        The number of scans that have moved.
    """
    here = {str(source.path): source for source in sources}
    stay = {row.source for row in rows.values() if row.source in here and _is_of(row, here[row.source])}
    lost = _lost(rows, here, stay)
    moved: dict[str, str] = {}
    for path, source in here.items() if lost else ():
        same = lost.get(content_of(source) or "") if path not in stay else None
        if same:
            moved[path] = same.pop().id
    for id_ in [row.id for row in rows.values() if row.source in moved and row.id not in moved.values()]:
        del rows[id_]  # what lay there before
    for path, id_ in moved.items():
        source = here[path]
        rows[id_] = replace(rows[id_], source=path, source_mtime_ns=source.mtime_ns, patient=patient_of(source))
    return len(moved)


def name_patients(sources: Sequence[Source], rows: dict[str, StoredVolume]) -> None:
    """Names the patients of stored files again, as the paths of all scans tell now; of DICOM, the series said it."""
    stored = {row.source: row for row in rows.values()}
    for source in sources:
        row = stored.get(str(source.path))
        if row is not None and not source.path.is_dir() and row.patient != source.patient:
            rows[row.id] = replace(row, patient=source.patient)


def ids_of(todo: Sequence[Source], rows: Mapping[str, StoredVolume]) -> dict[Path, str]:
    """Returns the id under which each scan is stored: that of its path's row, or a free one."""
    stored = {row.source: row.id for row in rows.values()}
    taken, ids = set(rows), {}
    for source in todo:
        path, number = str(source.path), 0
        if path not in stored:
            while source.id_of(number) in taken:  # by a scan that has moved
                number += 1
        ids[source.path] = stored.get(path) or source.id_of(number)
        taken.add(ids[source.path])
    return ids


def _lost(
    rows: Mapping[str, StoredVolume], here: Mapping[str, Source], stay: set[str]
) -> dict[str, list[StoredVolume]]:
    """The rows whose content is no longer where it was, by this content; the first path last."""
    lost: dict[str, list[StoredVolume]] = {}
    for row in sorted(rows.values(), key=lambda row: row.source, reverse=True):
        gone = row.source not in stay if row.source in here else not Path(row.source).exists()
        if gone and row.source_sha256 is not None:
            lost.setdefault(row.source_sha256, []).append(row)
    return lost


def _is_of(row: StoredVolume, source: Source) -> bool:
    """Whether a stored volume was made of what the source's files hold now."""
    if row.source_sha256 is None:  # of several files, the store of that time looked at one
        return len(source.files) == 1 and (row.source_bytes, row.source_mtime_ns) == (source.bytes, source.mtime_ns)
    return content_of(source) == row.source_sha256
