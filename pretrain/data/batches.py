"""Micro-batches: volumes read and decoded by workers, cropped and augmented on the device.

A micro-batch is a function of the config, the store, the step and its number in the step; workers, ranks and restarts
change nothing in it. Workers send one sample at a time: the block that holds its crops, int16, through shared memory.
The device pads the blocks to one tensor, cuts and resizes all crops of a view at once, and augments; on a GPU on a
stream of its own, next to the training step.
"""

import itertools
import logging
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pretrain.config import Config
from pretrain.data.augment import augment, draw_augmentation
from pretrain.data.counters import Stream, generator
from pretrain.data.crops import crop_depth, cut_crops
from pretrain.data.identity import StoreIdentity
from pretrain.data.locations import open_store
from pretrain.data.reader import ATTEMPTS, LostSample, ReadJob, Sample, SamplePart, SampleReader, Visit, jobs_of
from pretrain.data.store import Store
from pretrain.errors import PretrainError, StoreError
from pretrain.setting_types import is_url

PATIENCE_S = 600
"""A worker that gives nothing for so long is stuck on its disk."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """The unit of training. Crops are view-major: the first view of all b samples, then the second, and so on.

    Attributes:
        step: Optimizer step.
        index: Number in the step.
        global_crops: (2b, 1, [D,] H, W) float32, normalised.
        local_crops: (Lb, 1, [D,] H, W) float32, normalised.
        masks: (2b, N) bool over the patches of the global crops, True where masked.
        samples: Where the b samples come from; as text where the micro-batch was read from a dump.
        num_masked: True values in the masks; None where they must be counted, for which a GPU is waited.
    """

    step: int
    index: int
    global_crops: Tensor
    local_crops: Tensor
    masks: Tensor
    samples: Sequence[Sample | str]
    num_masked: int | None = None


class Batches:
    """The micro-batches of a run.

    Attributes:
        store: Where the volumes come from.
        identity: Which store that is; its `digest` says whether two runs saw the same.
        unreadable: Ids of volumes that could not be read so far, with the reason.
    """

    def __init__(self, config: Config, device: torch.device | str) -> None:
        """Opens the store.

        Raises:
            PretrainError: The store does not fit the config: clipped more narrowly, or with volumes thinner than a
                crop.
        """
        self.store = open_store(config.data)
        self.unreadable: dict[str, str] = {}
        self._config = config
        self._device = torch.device(device)
        self._side = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self.identity = StoreIdentity.of(self.store)
        self._reader = SampleReader(config, self.identity)
        self._streams: list[Iterator[MicroBatch]] = []
        _check(self.store, config)
        if is_url(config.data.store) and self.store[0].shard is None:
            _log.info(
                "%s holds volumes in files of their own, so each visit that reads from the network costs a request "
                "more, and to copy them one or more a volume. `python -m pretrain.prepare ... --shard-gb 4` packs them "
                "in the folder that was copied",
                self.store.location,
            )

    def get(self, step: int, index: int) -> MicroBatch:
        """Makes one micro-batch here and now, as the stream gives it.

        Raises:
            PretrainError: Too many volumes cannot be read.
        """
        jobs = jobs_of(step, index, self._config.run.micro_batch_size)
        return self._wait(*self._assemble(step, index, [self._reader[job] for job in jobs]))

    def stream(self, start_step: int, indices: Sequence[int]) -> Iterator[MicroBatch]:
        """Gives the micro-batches of a process one after the other, read ahead by the workers.

        Args:
            start_step: The first step.
            indices: Numbers of the process's micro-batches within every step.

        Yields:
            Those of the first step in the order of `indices`, then those of the next, without end.

        Raises:
            PretrainError: Too many volumes cannot be read, or a worker died.
        """
        stream = self._stream(start_step, list(indices))
        self._streams.append(stream)
        return stream

    def close(self) -> None:
        """Ends the workers."""
        for stream in self._streams:
            stream.close()  # type: ignore[attr-defined]
        self._streams.clear()

    def _stream(self, start_step: int, indices: list[int]) -> Iterator[MicroBatch]:
        size = self._config.run.micro_batch_size
        order, upcoming = itertools.tee(_order(start_step, indices))
        items = iter(self._loader(job for step, index in upcoming for job in jobs_of(step, index, size)))
        ready: deque[tuple[MicroBatch, torch.cuda.Event | None]] = deque()
        # On a GPU, the crops of the next micro-batch are cut while this one is trained on.
        ahead = 0 if self._side is None else 1
        for step, index in order:
            parts = [self._receive(items) for _ in range(1 + size)]
            ready.append(self._assemble(step, index, parts))
            if len(ready) > ahead:
                yield self._wait(*ready.popleft())

    def _loader(self, jobs: Iterator[ReadJob]) -> DataLoader[SamplePart]:
        data = self._config.data
        parallel: dict[str, Any] = {}
        if data.workers:
            context = get_context("forkserver")
            context.set_forkserver_preload(["pretrain.data.reader"])
            in_flight = data.prefetch * (1 + self._config.run.micro_batch_size)
            parallel = {
                "multiprocessing_context": context,
                "prefetch_factor": max(2, math.ceil(in_flight / data.workers)),
                "worker_init_fn": _one_thread,
                "timeout": PATIENCE_S,
            }
        return DataLoader(
            self._reader,
            batch_size=None,
            sampler=jobs,
            num_workers=data.workers,
            collate_fn=_as_it_is,
            pin_memory=self._side is not None,
            generator=torch.Generator(),  # else it draws from the process's own
            **parallel,
        )

    def _receive(self, items: Iterator[SamplePart]) -> "SamplePart":
        try:
            part = next(items)
        except (RuntimeError, OSError, EOFError) as error:  # a worker died, or gave nothing for PATIENCE_S
            raise PretrainError(
                f"the workers that read {self.store.location} failed ({' '.join(str(error).split())}). If one was "
                "killed, memory or shared memory (/dev/shm) ran out: lower data.workers or data.prefetch, or give a "
                "container more with --shm-size. If none answers, its disk does not. The run can be resumed."
            ) from error
        _check_store(part)
        return part

    def _assemble(
        self, step: int, index: int, parts: Sequence[SamplePart]
    ) -> tuple[MicroBatch, "torch.cuda.Event | None"]:
        """Puts the parts of a micro-batch together on the device; the event marks when that is done."""
        self._account(parts)
        masks, *rest = parts
        assert isinstance(masks, Tensor)
        visits = [part for part in rest if isinstance(part, Visit)]
        if self._side is None:
            return self._on_device(step, index, masks, visits), None
        with torch.cuda.stream(self._side):
            return self._on_device(step, index, masks, visits), self._side.record_event()

    def _wait(self, batch: MicroBatch, event: "torch.cuda.Event | None") -> MicroBatch:
        """Makes the step that follows wait for the crops, on the device."""
        if event is not None:
            here = torch.cuda.current_stream(self._device)
            here.wait_event(event)
            for tensor in (batch.global_crops, batch.local_crops, batch.masks):
                tensor.record_stream(here)
        return batch

    def _on_device(self, step: int, index: int, masks: Tensor, visits: Sequence[Visit]) -> MicroBatch:
        crops = self._config.crops
        slabs = _padded([visit.slab for visit in visits], self._device)
        boxes = torch.from_numpy(np.stack([visit.boxes for visit in visits], axis=1))
        flips = torch.from_numpy(np.stack([visit.sample.plan.flips for visit in visits], axis=1))
        views = crops.num_global + crops.num_local
        chances = torch.tensor([*crops.blur_probability[:2], *[crops.blur_probability[2]] * crops.num_local])
        augmentation = draw_augmentation(
            chances.repeat_interleave(len(visits)),
            crops,
            generator(self._config.run.seed, step, index, Stream.AUGMENT),
        )
        done = []
        for first, last, size in (
            (0, crops.num_global, crops.global_size),
            (crops.num_global, views, crops.local_size),
        ):
            cut = torch.cat(
                [
                    cut_crops(slabs, boxes[view], flips[view], size, antialias=self._config.data.antialias)
                    for view in range(first, last)
                ]
            )
            part = slice(first * len(visits), last * len(visits))
            chosen = replace(augmentation, gamma=augmentation.gamma[part], sigma=augmentation.sigma[part])
            values = self._normalised(augment(self._unit(cut), chosen))
            done.append(values.unsqueeze(1) if len(size) == 3 else values)
        return MicroBatch(
            step=step,
            index=index,
            global_crops=done[0],
            local_crops=done[1],
            masks=masks.to(self._device, non_blocking=True),
            samples=[visit.sample for visit in visits],
            num_masked=int(masks.sum()),
        )

    def _unit(self, hu: Tensor) -> Tensor:
        low, high = self._config.data.clip_hu
        return (hu.clamp(low, high) - low) / (high - low)

    def _normalised(self, unit: Tensor) -> Tensor:
        data = self._config.data
        low, high = data.clip_hu
        return unit * ((high - low) / data.std_hu) + (low - data.mean_hu) / data.std_hu

    def _account(self, parts: Sequence[SamplePart]) -> None:
        """Reports what could not be read, and stops when it is too much."""
        for part in parts:
            _check_store(part)
        failures = {
            id_: reason for part in parts if not isinstance(part, Tensor) for id_, reason in part.failures.items()
        }
        for volume in failures.keys() - self.unreadable.keys():
            _log.warning("unreadable volume, the next one takes its place: %s", failures[volume])
        self.unreadable.update(failures)
        allowed = self._config.data.max_quarantined_fraction * len(self.store)
        if len(self.unreadable) > allowed:
            raise PretrainError(
                f"{len(self.unreadable)} of {len(self.store)} volumes cannot be read, and "
                f"data.max_quarantined_fraction {self._config.data.max_quarantined_fraction:g} allows {int(allowed)}. "
                f"The last: {next(reversed(self.unreadable.values()))}"
            )
        if any(isinstance(part, LostSample) for part in parts):
            raise PretrainError(
                f"{ATTEMPTS} volumes in a row cannot be read: is the disk of {self.store.location} gone? The last: "
                f"{next(reversed(failures.values()))}"
            )


def _order(start_step: int, indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Step and number of the micro-batches of a process, without end."""
    for step in itertools.count(start_step):
        yield from ((step, index) for index in indices)


def _padded(slabs: Sequence[Tensor], device: torch.device) -> Tensor:
    """(b, D, H, W) on the device. What pads is not set, since no crop reaches it."""
    shape = [max(sizes) for sizes in zip(*(slab.shape for slab in slabs), strict=True)]
    padded = torch.empty(len(slabs), *shape, dtype=torch.int16, device=device)
    for place, slab in zip(padded, slabs, strict=True):
        depth, height, width = slab.shape
        place[:depth, :height, :width].copy_(slab, non_blocking=True)
    return padded


def _check(store: Store, config: Config) -> None:
    low, high = config.data.clip_hu
    if low < store.clip_hu[0] or high > store.clip_hu[1]:
        raise PretrainError(
            f"data.clip_hu {config.data.clip_hu} reaches beyond the values of {store.location}, which are clipped to "
            f"{store.clip_hu}. Prepare the scans again with --clip-hu {low:g} {high:g}, into another folder."
        )
    depth = max(crop_depth(config.crops.global_size), crop_depth(config.crops.local_size))
    thin = store.thinner_than(depth)
    if thin:
        first = store[thin[0]]
        raise PretrainError(
            f"{len(thin)} volumes of {store.location} have fewer than the {depth} slices of a crop, such as "
            f"{first.source} with {first.shape[0]}. Prepare a store with --min-slices {depth}."
        )


def _check_store(part: SamplePart) -> None:
    if isinstance(part, LostSample) and part.store_fault is not None:
        raise StoreError(part.store_fault)


def _as_it_is(item: Any) -> Any:
    return item


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)
