"""Filling a store: cases that are missing are read, encoded and written, each by one of the processes that share it."""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from typing import NamedTuple

import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset, Sampler

from tapct._utils import terminal
from tapct.encoders import Encoder
from tapct.encoders.promises import require_parameters
from tapct.features.entries import StoredEntries
from tapct.features.extract import NamedScan, extract_many
from tapct.features.keeping import embeddings_key
from tapct.features.keys import FeatureKeys, KeyedCase
from tapct.features.store import CacheMode, TensorStore
from tapct.features.unwritten import EntriesOf, Unwritten
from tapct.volumes import Grid

WRITES_AT_ONCE = 4
"""Extracted cases that may wait to be written, each held in memory."""


class Extraction(NamedTuple):
    """How cases are encoded.

    Attributes:
        encoder: May be deferred; it is built only if something must be extracted.
        overlap: Share of overlap between windows.
        fit_windows: Whether windows shrink to small scans.
        num_workers: Processes that read scans.
        device: Where the encoder runs and labels are resampled.
    """

    encoder: Encoder
    overlap: float
    fit_windows: bool
    num_workers: int
    device: torch.device


class MissingEntries:
    """Says which entries of a case are to be computed."""

    def __init__(self, entries: StoredEntries, mode: CacheMode, without_map: Collection[str]) -> None:
        """Initializes it.

        Args:
            entries: What is stored.
            mode: What to do with it.
            without_map: Keys of features whose embeddings alone are enough.
        """
        self._entries, self._mode, self._without_map = entries, mode, without_map

    def __call__(self, keyed: KeyedCase) -> list[str]:
        """Returns the keys of a case's entries that are to be computed; of a damaged one it is said, once."""
        if self._mode is CacheMode.REFRESH:
            return list(keyed.keys)
        find, of = self._entries.find, keyed.title
        alone = embeddings_key(keyed.features_key)  # looked at first: to check a map is to read all of it
        spared = keyed.features_key in self._without_map and find(alone, of) is not None
        keys = [key for key in keyed.keys if not (spared and key == keyed.features_key)]
        return [key for key in keys if find(key, of) is None]


class Filling:
    """Extracts cases and writes their entries.

    Attributes:
        extracted: Cases that were encoded so far.
    """

    def __init__(
        self, extraction: Extraction, keys: FeatureKeys, store: TensorStore, missing: MissingEntries, *, with_maps: bool
    ) -> None:
        """Initializes the filling; nothing is read or written yet.

        Args:
            extraction: How cases are encoded.
            keys: Of their entries.
            store: Where these are written.
            missing: Says which of them are to be computed.
            with_maps: Whether cases are read with their maps.
        """
        self.extraction, self.keys, self.store, self.missing = extraction, keys, store, missing
        self.entries = EntriesOf(extraction.encoder, keys, store, with_maps=with_maps)
        self.extracted = 0

    def run(self, todo: Sequence[KeyedCase]) -> None:
        """Extracts cases, with a bar; those that another process holds come last, when it has let go of them.

        Raises:
            TapctError: If a case cannot be read, encoded or written.
        """
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        with (
            terminal.progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress,
            ThreadPoolExecutor(2) as writers,
        ):
            bar = progress.add_task("extracting", total=len(todo), rate="")

            def advance(cases: int) -> None:
                seconds = max(progress.tasks[0].elapsed or 0, 1e-6)
                rate = (progress.tasks[0].completed + cases) / seconds
                progress.update(bar, advance=cases, rate=f"{rate:.2f} volumes/s")

            busy = _Pass(self, todo, writers, advance, wait=False).run()
            # In one order everywhere: two processes that each hold what the other waits for would wait for ever.
            busy.sort(key=lambda keyed: keyed.features_key)
            if busy:
                _Pass(self, busy, writers, advance, wait=True).run()


class _Scans(Dataset):
    """Scans and targets as they are read, for the loader's workers."""

    def __init__(self, cases: Sequence[KeyedCase]) -> None:
        self._cases = cases

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, position: int) -> tuple[int, torch.Tensor, torch.Tensor, torch.Tensor, tuple[str, ...]]:
        keyed = self._cases[position]
        ct, target = keyed.dataset.read(keyed.case)
        return position, torch.from_numpy(ct.hu), torch.from_numpy(ct.affine), target, ct.notes


class _Unheld(Sampler):
    """Positions of the cases that no other process is extracting, each locked as it is handed out.

    Attributes:
        held: By features key, the lock and what is missing.
        busy: Cases that another process holds.
        found: Cases that another process has finished meanwhile.
    """

    def __init__(self, store: TensorStore, missing: MissingEntries, cases: Sequence[KeyedCase], wait: bool) -> None:
        self._store, self._missing, self._cases, self._wait = store, missing, cases, wait
        self.held: dict[str, tuple[ExitStack, list[str]]] = {}
        self.busy: list[KeyedCase] = []
        self.found = 0

    def __iter__(self) -> Iterator[int]:
        for position, keyed in enumerate(self._cases):
            lock = ExitStack()
            if not lock.enter_context(self._store.lock(keyed.features_key, wait=self._wait)):
                self.busy.append(keyed)
            elif missing := self._missing(keyed):
                self.held[keyed.features_key] = lock, missing
                yield position
            else:
                lock.close()
                self.found += 1


class _Pass:
    """Goes once over cases, and extracts those that no other process holds (or, waiting, all)."""

    def __init__(
        self,
        filling: Filling,
        todo: Sequence[KeyedCase],
        writers: ThreadPoolExecutor,
        advance: Callable[[int], None],
        *,
        wait: bool,
    ) -> None:
        self._filling, self._how, self._store = filling, filling.extraction, filling.store
        self._todo, self._writers, self._advance = todo, writers, advance
        self._order = _Unheld(filling.store, filling.missing, todo, wait)
        self._underway: deque[tuple[KeyedCase, torch.Tensor, Sequence[str]]] = deque()
        self._writes: deque[Future[None]] = deque()

    def run(self) -> list[KeyedCase]:
        """Extracts, and returns the cases that another process holds."""
        how, filling = self._how, self._filling
        try:
            scans = self._scans()
            for features in extract_many(how.encoder, scans, overlap=how.overlap, fit_windows=how.fit_windows):
                if not filling.extracted:
                    require_parameters(how.encoder)  # now that there is a network
                keyed, target, notes = self._underway.popleft()
                filling.extracted += 1
                entries = filling.entries.features(keyed, features, notes)
                self._finish(keyed, target, features.native_grid, entries)
                del features, entries  # or they would stay while the next scan is encoded
            for write in self._writes:
                write.result()
        finally:
            for lock, _ in self._order.held.values():
                lock.close()
        self._advance(self._order.found)
        return self._order.busy

    def _scans(self) -> Iterator[NamedScan]:
        """Yields the scans to encode, on the device; where only labels are missing, stores those and continues."""
        device = self._how.device
        loader = DataLoader(
            _Scans(self._todo),
            batch_size=None,
            sampler=self._order,
            num_workers=self._how.num_workers,
            pin_memory=device.type == "cuda",
        )
        for position, hu, affine, target, notes in loader:
            keyed, grid = self._todo[position], Grid.of(hu.shape, affine.numpy())
            if keyed.features_key in self._order.held[keyed.features_key][1]:
                self._underway.append((keyed, target, notes))
                yield NamedScan(keyed.title, hu.to(device, non_blocking=True), grid)
            else:
                self._finish(keyed, target, grid, [])

    def _finish(self, keyed: KeyedCase, target: torch.Tensor, grid: Grid, features: list[Unwritten]) -> None:
        """Has the missing entries of a case written in the background, the labels first: features are there last."""
        self._filling.keys.require_unchanged(keyed)
        missing = self._order.held[keyed.features_key][1]
        entries = []
        if keyed.labels_key in missing:
            entries.append(self._filling.entries.labels(keyed, target, grid, self._how.device))
        entries += features
        lock, _ = self._order.held.pop(keyed.features_key)
        self._writes.append(self._writers.submit(self._write, keyed, entries, lock))
        while len(self._writes) > WRITES_AT_ONCE:
            self._writes.popleft().result()
        self._advance(1)

    def _write(self, keyed: KeyedCase, entries: list[Unwritten], lock: ExitStack) -> None:
        with lock:
            for entry in entries:
                # Labels are shared by encoders of one grid, and so not covered by the lock of these features.
                with nullcontext() if entry.key == keyed.features_key else self._store.lock(entry.key):
                    self._store.save(*entry)
