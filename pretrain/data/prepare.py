"""Makes a store of CT scans for pretraining.

Every scan becomes one compressed file of int16 HU, clipped to the recipe's range. The same command again resumes where
it was stopped, whatever stopped it: nothing is ever half written, and what is there and unchanged is left alone. A scan
that cannot be read, has no body in it or too few slices is quarantined: listed with the reason, never replaced. What is
no CT at all (label maps, PET, other DICOM) is skipped.
"""

import functools
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console

from pretrain.data.encoding import encode
from pretrain.data.fingerprint import Fingerprint, foreground
from pretrain.data.identity import note_digest
from pretrain.data.index import StoredVolume, read_index, write_index
from pretrain.data.intensities import write_fingerprint
from pretrain.data.matching import content_of, follow_moves, ids_of, is_stored, name_patients
from pretrain.data.prepare_table import Tally, progress_beside, show
from pretrain.data.shards import groups_of, pack, tidy
from pretrain.data.skipping import known_skipped, what_else, write_skipped
from pretrain.data.sources import Source, patient_of_series
from pretrain.data.store import Store, read_settings, write_settings
from pretrain.errors import PretrainError
from pretrain.files import CannotWriteError, write
from tapct._utils import locks
from tapct.errors import VolumeError
from tapct.source_code import code_of
from tapct.volumes import read_ct

CLIP_HU = (-1008.0, 822.0)
"""0.5 and 99.5 percentiles of the foreground of the TAP-CT paper's dataset (Appendix B)."""
MIN_SLICES_OF_A_CROP = 12
"""Depth of the crops of TAP-CT 3D (section 3.1): a thinner scan cannot be cropped."""
SAVE_EVERY_S = 30.0
"""The index is written this often; a killed run repeats at most so much of its work."""
_SAVING = 20
"""But no more often than this many times what it takes: a million rows take most of a minute."""


@dataclass(frozen=True)
class PrepareSettings:
    """What the conversion of one scan needs.

    Attributes:
        store: The folder of the store.
        clip_hu: Range to which HU are clipped.
        min_slices: Fewer are too thin.
        patient_given: Whether the patient comes from the path, whatever DICOM says.
        shard_bytes: Size of the files into which volumes are packed; None leaves them as they are.
    """

    store: Path
    clip_hu: tuple[float, float]
    min_slices: int
    patient_given: bool
    shard_bytes: int | None = None


class _NotCT(PretrainError):
    """What was found is not a CT at all: nothing is wrong with it."""


def prepare(
    sources: Sequence[Source],
    settings: PrepareSettings,
    workers: int,
    *,
    verify: bool = False,
    console: Console | None = None,
) -> dict[str, str]:
    """Brings scans into a store.

    Args:
        sources: The scans.
        settings: Where and how.
        workers: Number of processes; with 1, this one does the work.
        verify: Compare what is there with its checksums first.
        console: Where progress and the table are shown.

    Returns:
        The quarantined scans: path to reason.

    Raises:
        PretrainError: The store has other settings, is being written by another process or cannot be written, or a
            worker died.
    """
    console = console or Console(quiet=True)
    started = time.monotonic()
    with _sole_writer(settings.store):
        _begin(settings)
        rows = read_index(settings.store)
        tidy(settings.store, rows)
        note_digest(settings.store)
        moved = follow_moves(sources, rows, lambda source: _patient(source, settings))
        name_patients(sources, rows)
        tally = Tally(moved=moved, skipped=known_skipped(settings.store, sources))
        ct = [source for source in sources if str(source.path) not in tally.skipped]
        todo = _still_to_do(ct, rows, settings.store, verify=verify, console=console)
        tally.present = len(ct) - len(todo) - moved
        _convert_all(todo, settings, workers, rows, tally, console)
        if settings.shard_bytes is not None:
            groups = groups_of(settings.store, rows, settings.shard_bytes, finish=True)
            if groups:
                with progress_beside(console) as progress:
                    pack(settings.store, rows, progress.track(groups, description="packing shards"))
        tally.added = len(todo) - len(tally.refused) - len(set(tally.skipped) & {str(source.path) for source in todo})
        _write_list(settings.store / "quarantine.jsonl", tally.refused, "reason")
        write_skipped(settings.store, sources, tally.skipped)
        if not rows and not tally.refused:
            listed = settings.store / "skipped.jsonl"
            raise PretrainError(f"none of the {len(sources)} files and folders is a CT; {listed} says what they are.")
        fingerprint = None
        if rows:
            histograms = Store(settings.store).histograms()
            with progress_beside(console) as progress:
                fingerprint = Fingerprint.of(progress.track(histograms, total=len(rows), description="fingerprint"))
            write_fingerprint(settings.store, fingerprint)
            note_digest(settings.store)
    show(console, settings.store, rows, tally, time.monotonic() - started, fingerprint, _code_sha256())
    return tally.refused


def convert(source: Source, settings: PrepareSettings, id_: str) -> StoredVolume:
    """Reads one scan and stores it under an id.

    Returns:
        Its row of the index.

    Raises:
        VolumeError: The scan cannot be read, or is not a CT in HU.
        _NotCT: It is not a CT at all.
        PretrainError: It has too few slices or shows no body; or the store cannot be written.
    """
    before = content_of(source)
    try:
        scan = read_ct(source.path)
    except VolumeError:
        if (what := what_else(source)) is None:
            raise
        raise _NotCT(what) from None
    if before is None or content_of(source) != before:
        raise PretrainError(f"{source.path} changed while it was read; run again when it is at rest.")
    if scan.shape[0] < settings.min_slices:
        raise PretrainError(f"{source.path} has {scan.shape[0]} slices, fewer than --min-slices {settings.min_slices}.")
    body = foreground(scan.hu)
    if body is None:
        raise PretrainError(f"{source.path} shows no body: nothing but air, or single voxels above it.")
    content = encode(scan.hu, settings.clip_hu, scan.affine, body.histogram)
    row = StoredVolume(
        id=id_,
        source=str(source.path),
        source_bytes=source.bytes,
        source_mtime_ns=source.mtime_ns,
        patient=_patient(source, settings),
        shape=scan.shape,
        spacing_mm=scan.spacing_mm,
        foreground_slices=body.slices,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        notes=scan.notes,
        source_sha256=before,
        code_sha256=_code_sha256(),
    )
    write(settings.store / row.file, content)
    return row


def _convert_all(
    todo: Sequence[Source],
    settings: PrepareSettings,
    workers: int,
    rows: dict[str, StoredVolume],
    tally: Tally,
    console: Console,
) -> None:
    """Converts what is to be done, adding to `rows`; and to `tally` what was refused or skipped."""
    ids = ids_of(todo, rows)
    for source in todo:  # what was stored of them is stale
        rows.pop(ids[source.path], None)
    save_at = time.monotonic() + SAVE_EVERY_S
    pool = _pool(min(workers, len(todo)))
    try:
        running = {pool.submit(convert, source, settings, ids[source.path]): source for source in todo}
        with progress_beside(console) as progress:
            bar = progress.add_task("preparing", total=len(todo))
            for future in as_completed(running):
                source = running[future]
                row = _outcome(future, source, tally)
                if row is not None:
                    rows[row.id] = row
                if (started := time.monotonic()) > save_at:
                    _save(settings, rows)
                    took = time.monotonic() - started
                    save_at = started + took + max(SAVE_EVERY_S, _SAVING * took)
                progress.update(bar, advance=1, description=f"preparing ({len(tally.refused)} quarantined)")
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        write_index(settings.store, rows)


def _save(settings: PrepareSettings, rows: dict[str, StoredVolume]) -> None:
    """Writes the index, and packs what fills shards: there are never many more files than there will be."""
    if settings.shard_bytes is None:
        write_index(settings.store, rows)
    else:
        pack(settings.store, rows, groups_of(settings.store, rows, settings.shard_bytes, finish=False))


def _outcome(future: "Future[StoredVolume]", source: Source, tally: Tally) -> StoredVolume | None:
    """The row of a scan; or None, and its reason in `tally`; or an error that stops the run."""
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, _NotCT):
        tally.skipped[str(source.path)] = str(error)
        return None
    if isinstance(error, BrokenProcessPool | MemoryError):
        raise PretrainError(
            "a worker was killed, most likely because memory ran out. What is done is kept: run the same command again "
            "with fewer --workers."
        ) from error
    if isinstance(error, CannotWriteError) or not isinstance(error, Exception):
        raise error
    expected = isinstance(error, VolumeError | PretrainError)
    tally.refused[str(source.path)] = str(error) if expected else f"{source.path}: {type(error).__name__}: {error}"
    return None


def _still_to_do(
    sources: Sequence[Source], rows: dict[str, StoredVolume], store: Path, *, verify: bool, console: Console
) -> list[Source]:
    """The scans that are not in the store, changed since, or whose file is gone or damaged."""
    code_sha256 = _code_sha256() if verify else None
    stored = {row.source: row for row in rows.values()}
    with progress_beside(console) as progress:
        watched = progress.track(sources, description="verifying" if verify else "looking at the store")
        return [s for s in watched if not is_stored(s, stored.get(str(s.path)), store, code_sha256)]


def _patient(source: Source, settings: PrepareSettings) -> str:
    return source.patient if settings.patient_given else patient_of_series(source.path) or source.patient


@functools.cache
def _code_sha256() -> str:
    """Returns a hash of the code that makes a stored volume of a scan."""
    return code_of("pretrain.data.encoding", "pretrain.data.fingerprint", "tapct.volumes.read").sha256


def _begin(settings: PrepareSettings) -> None:
    if not (settings.store / "store.json").exists():
        if (settings.store / "index.jsonl").exists():
            raise PretrainError(f"{settings.store} has an index and no store.json. Prepare into an empty folder.")
        write_settings(settings.store, settings.clip_hu)
    stored = read_settings(settings.store)
    if stored != settings.clip_hu:
        raise PretrainError(
            f"{settings.store} is clipped to {stored} HU, and {settings.clip_hu} was asked for. "
            f"Give --clip-hu {stored[0]:g} {stored[1]:g}, or prepare into another folder."
        )


@contextmanager
def _sole_writer(store: Path) -> Iterator[None]:
    """Holds the store's lock, which the system lets go of however the process ends."""
    with ExitStack() as held:
        try:
            lock = held.enter_context(locks.hold(store / ".lock", 0))
        except OSError as error:
            raise PretrainError(
                f"{store} cannot be written ({error.strerror or error}). Give another folder with -o."
            ) from error
        if lock is None:
            raise PretrainError(f"another process is preparing {store}. Wait for it, or end it.")
        yield


def _pool(workers: int) -> Executor:
    """Processes that start clean (a forked one may hang on a lock that a thread of ours held), or this one."""
    if workers <= 1:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _write_list(path: Path, entries: Mapping[str, str], name: str) -> None:
    """Lists what this run did not store, and why."""
    lines = (json.dumps({"source": source, name: entries[source]}, ensure_ascii=False) for source in sorted(entries))
    write(path, "".join(line + "\n" for line in lines))
