"""Filling a store: cases that are missing are read, encoded and written, each by one of the processes that share it."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from tapct.encoders.promises import require_parameters
from tapct.features.extract import NamedScan, extract_many
from tapct.volumes import Grid

if TYPE_CHECKING:
    from tapct.features.bank import FeatureBank
    from tapct.tasks.dataset import CTDataset

WRITES_AT_ONCE = 4
"""Extracted cases that may wait to be written, each held in memory."""


@dataclass(frozen=True)
class CaseTask:
    """A case to extract.

    Attributes:
        dataset: Its dataset.
        index: Its index there.
        content: Hashes of its files: those of the scan, and in segmentation those of the target.
        features_key: Key of its features.
        labels_key: Key of its labels, in segmentation.
    """

    dataset: "CTDataset"
    index: int
    content: tuple[str, ...]
    features_key: str
    labels_key: str | None

    @property
    def case(self) -> str:
        """Its name."""
        return self.dataset.cases[self.index]

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of its entries, the labels' first."""
        return (self.features_key,) if self.labels_key is None else (self.labels_key, self.features_key)


class Unwritten(NamedTuple):
    """An entry that is to be stored."""

    key: str
    tensors: dict[str, torch.Tensor]
    about: dict[str, Any]
    compress: bool = False


class _Scans(Dataset):
    """Scans and targets as they are read, for the loader's workers."""

    def __init__(self, tasks: Sequence[CaseTask]) -> None:
        self._tasks = tasks

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, position: int) -> tuple[int, torch.Tensor, torch.Tensor, torch.Tensor, tuple[str, ...]]:
        task = self._tasks[position]
        ct, target = task.dataset.read(task.case)
        return position, torch.from_numpy(ct.hu), torch.from_numpy(ct.affine), target, ct.notes


class _Unheld(Sampler):
    """Positions of the cases that no other process is extracting, each locked as it is handed out.

    Attributes:
        held: By features key, the lock and what is missing.
        busy: Cases that another process holds.
        found: Cases that another process has finished meanwhile.
    """

    def __init__(self, bank: "FeatureBank", tasks: Sequence[CaseTask], wait: bool) -> None:
        self._bank, self._tasks, self._wait = bank, tasks, wait
        self.held: dict[str, tuple[ExitStack, list[str]]] = {}
        self.busy: list[CaseTask] = []
        self.found = 0

    def __iter__(self) -> Iterator[int]:
        for position, task in enumerate(self._tasks):
            lock = ExitStack()
            if not lock.enter_context(self._bank.store.lock(task.features_key, wait=self._wait)):
                self.busy.append(task)
            elif missing := self._bank.missing(task):
                self.held[task.features_key] = lock, missing
                yield position
            else:
                lock.close()
                self.found += 1


class Pass:
    """Goes once over cases, and extracts those that no other process holds (or, waiting, all)."""

    def __init__(
        self,
        bank: "FeatureBank",
        todo: Sequence[CaseTask],
        writers: ThreadPoolExecutor,
        advance: Callable[[int], None],
        *,
        wait: bool,
    ) -> None:
        self._bank, self._todo, self._writers, self._advance = bank, todo, writers, advance
        self._order = _Unheld(bank, todo, wait)
        self._underway: deque[tuple[CaseTask, torch.Tensor, Sequence[str]]] = deque()
        self._writes: deque[Future[None]] = deque()

    def run(self) -> list[CaseTask]:
        """Extracts, and returns the cases that another process holds."""
        bank = self._bank
        try:
            scans = self._scans()
            for features in extract_many(bank.encoder, scans, overlap=bank.overlap, fit_windows=bank.fit_windows):
                if not bank.extracted:
                    require_parameters(bank.encoder)  # now that there is a network
                task, target, notes = self._underway.popleft()
                bank.extracted += 1
                self._finish(task, target, features.native_grid, bank.features_entries(task, features, notes))
                del features  # or it would stay while the next scan is encoded
            for write in self._writes:
                write.result()
        finally:
            for lock, _ in self._order.held.values():
                lock.close()
        self._advance(self._order.found)
        return self._order.busy

    def _scans(self) -> Iterator[NamedScan]:
        """Yields the scans to encode, on the device; where only labels are missing, stores those and goes on."""
        device = self._bank.device
        loader = DataLoader(
            _Scans(self._todo),
            batch_size=None,
            sampler=self._order,
            num_workers=self._bank.num_workers,
            pin_memory=device.type == "cuda",
        )
        for position, hu, affine, target, notes in loader:
            task, grid = self._todo[position], Grid.of(hu.shape, affine.numpy())
            if task.features_key in self._order.held[task.features_key][1]:
                self._underway.append((task, target, notes))
                name = f"{task.dataset.spec.name}, case {task.case}"
                yield NamedScan(name, hu.to(device, non_blocking=True), grid)
            else:
                self._finish(task, target, grid, [])

    def _finish(self, task: CaseTask, target: torch.Tensor, grid: Grid, features: list[Unwritten]) -> None:
        """Has the missing entries of a case written in the background, the labels first: features are there last."""
        self._bank.require_unchanged(task)
        missing = self._order.held[task.features_key][1]
        entries = []
        if task.labels_key in missing:
            entries.append(self._bank.labels_entry(task, target, grid))
        entries += features
        lock, _ = self._order.held.pop(task.features_key)
        self._writes.append(self._writers.submit(self._write, task, entries, lock))
        while len(self._writes) > WRITES_AT_ONCE:
            self._writes.popleft().result()
        self._advance(1)

    def _write(self, task: CaseTask, entries: list[Unwritten], lock: ExitStack) -> None:
        store = self._bank.store
        with lock:
            for entry in entries:
                # Labels are shared by encoders of one grid, and so not covered by the lock of these features.
                with nullcontext() if entry.key == task.features_key else store.lock(entry.key):
                    store.save(*entry)
