"""What a worker does: draws the crops of a sample, reads the block that holds them, and draws masks."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pretrain.config import Config
from pretrain.data.counters import Stream, generator
from pretrain.data.crops import CropPlan, plan_crops
from pretrain.data.identity import StoreIdentity
from pretrain.data.locations import open_store
from pretrain.data.masking import block_masks
from pretrain.data.sampling import SampleOrder
from pretrain.data.store import Store
from pretrain.errors import PretrainError, StoreError

ATTEMPTS = 10
"""Unreadable volumes in a row after which the disk is at fault, not the volumes."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Where a sample of a micro-batch comes from.

    Attributes:
        volume: Id of the volume in the store.
        source: What the volume was made from.
        plan: Its crops, in voxels of the volume.
        instead_of: Ids of the volumes whose turn it was, and which could not be read.
    """

    volume: str
    source: str
    plan: CropPlan
    instead_of: tuple[str, ...] = ()

    def __str__(self) -> str:
        instead = f", instead of {', '.join(self.instead_of)}" if self.instead_of else ""
        return f"{self.source} (volume {self.volume}{instead}), crops (z, y, x, d, h, w) {self.plan.boxes.tolist()}"


class ReadJob(NamedTuple):
    """What a worker does at a time: one sample; or, without one, the masks of a micro-batch."""

    step: int
    micro_batch: int
    sample: int | None


@dataclass(frozen=True, eq=False)
class Visit:
    """One sample as it comes from a worker.

    Attributes:
        slab: (D, H, W) int16 HU: the block that holds the crops.
        sample: Where it comes from, and its crops.
        failures: Volumes whose turn it was and that could not be read, with the reason.
    """

    slab: Tensor
    sample: Sample
    failures: dict[str, str]

    @property
    def boxes(self) -> np.ndarray:
        """(V, 6) int64, one `Box` a view, in voxels of the slab."""
        plan = self.sample.plan
        return plan.boxes - np.array([*plan.slab[:3], 0, 0, 0])

    def pin_memory(self) -> "Visit":
        """Called by the loader, so that the copy to the GPU need not be waited for."""
        return replace(self, slab=self.slab.pin_memory())


@dataclass(frozen=True)
class LostSample:
    """A sample for which no volume could be read.

    Attributes:
        failures: Volumes whose turn it was, with the reason.
        store_fault: What is wrong with the store as a whole, for which no other volume makes up.
    """

    failures: dict[str, str]
    store_fault: str | None = None


SamplePart = Tensor | Visit | LostSample


class SampleReader(Dataset[SamplePart]):
    """Does jobs, in a worker or here; opens the store when the first comes."""

    def __init__(self, config: Config, identity: StoreIdentity) -> None:
        self._config = config
        self._identity = identity
        self._opened: tuple[Store, SampleOrder] | None = None
        self._fault: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __getitem__(self, job: ReadJob) -> SamplePart:
        run = self._config.run
        if job.sample is None:
            masks = generator(run.seed, job.step, job.micro_batch, Stream.MASKS)
            return block_masks(2 * run.micro_batch_size, self._config.global_grid, self._config.masking, masks)
        if self._fault is None:
            try:
                return self._visit(job.step, job.micro_batch, job.sample)
            except StoreError as error:
                self._fault = str(error)  # every job would wait as long for the same
        return LostSample({}, self._fault)

    def _visit(self, step: int, index: int, number: int) -> Visit | LostSample:
        run = self._config.run
        store, order = self._open()
        sample = (step * run.micro_batches + index) * run.micro_batch_size + number
        failures: dict[str, str] = {}
        for attempt in range(ATTEMPTS):
            volume = store[order[sample + attempt]]
            if volume.id in failures:
                continue
            plan = plan_crops(
                volume.shape,
                volume.foreground_slices,
                self._config.data.slab_slices,
                self._config.crops,
                generator(run.seed, step, index, Stream.CROPS, number),
            )
            try:
                slab = torch.from_numpy(store.read(volume, plan.slab))
            except StoreError:
                raise
            except PretrainError as error:
                failures[volume.id] = str(error)
                continue
            return Visit(slab, Sample(volume.id, volume.source, plan, tuple(failures)), failures)
        return LostSample(failures)

    def _open(self) -> tuple[Store, SampleOrder]:
        if self._opened is None:
            store = open_store(self._config.data)
            if not self._identity.is_of(store):
                raise PretrainError(
                    f"the volumes of {store.location} were changed after the run had opened it. Resume the run, with "
                    "--run.adopt_store=true if it is to train on with them; prepare a store that is trained on into "
                    "another folder."
                )
            self._opened = store, SampleOrder(len(store), self._config.run.seed)
        return self._opened


def jobs_of(step: int, index: int, micro_batch_size: int) -> list[ReadJob]:
    """Returns the jobs of a micro-batch: its masks, then its samples."""
    return [ReadJob(step, index, sample) for sample in (None, *range(micro_batch_size))]
