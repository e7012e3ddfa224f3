"""Predicts the memory that a step takes on a GPU, without one: the step runs on tensors that have shapes and no values.

`python benchmarks/pretrain_step.py --predict-memory` prints the table. What is run is the step itself (forward,
backward, clipping, AdamW, teacher) under PyTorch's `FakeTensorMode`; every storage that lives is added up, in the 512
bytes that the caching allocator deals in. (PyTorch's `MemTracker` does so by module; it refuses blocks that are called
without their network, and takes no compiled code.) Where a GPU computes otherwise than the CPU whose code is
run here, its memory is put in place: attention is FlashAttention (output and one logarithm a row are held), products of
bfloat16 give float32 at once.

Compiled blocks hold for their backward pass what PyTorch's partitioner decides, the one that Inductor uses; but their
operations run one by one, so what exists for a moment inside a block is an upper bound. Compiled losses have no
intermediates, as their kernels. Not in the figures: the CUDA context and libraries (about 1 GB), the gaps that the
allocator leaves, NCCL's buffers, and what cutting the next crops takes for a moment.
"""

import gc
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from rich.table import Table
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from pretrain.config import Config
from pretrain.data.batches import MicroBatch
from pretrain.ssl.model import Pretrainer
from pretrain.ssl.prototypes import ChunkTerms
from pretrain.training.exchange import Flat
from pretrain.training.optim import apply_schedules, build_optimizer, clip_per_module
from pretrain.training.schedules import Schedules
from pretrain.training.selftest import masked_in_micro_batch

BLOCK_BYTES = 512
"""What the CUDA caching allocator rounds up to."""
SLAB_PIXELS = 512 * 512
"""Pixels of a slice in the slabs that wait for their crops."""


@dataclass(frozen=True)
class Prediction:
    """Bytes on the device.

    Attributes:
        held: Between the steps: weights, gradients, optimizer, teacher, centres.
        batches: Two micro-batches, one of them being trained on, and the slabs of the next.
        peak: The most at any moment, all together.
    """

    held: int
    batches: int
    peak: int


class LiveBytes(TorchDispatchMode):
    """Adds up the storages of all tensors that are made inside, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Or nothing would be compiled inside."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        size = -(-storage.nbytes() // BLOCK_BYTES) * BLOCK_BYTES
        self._known[storage] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, size)

    def _remove(self, size: int) -> None:
        self.now -= size


def predict(config: Config) -> Prediction:
    """Runs a step of two micro-batches of a config, compiled or not as it says, on tensors without values."""
    with ExitStack() as stack:
        torch.compiler.reset()
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        live = stack.enter_context(LiveBytes())
        stack.enter_context(_as_on_a_gpu())
        model = Pretrainer(config)
        optimizer, schedules = build_optimizer(model.student, config), Schedules(config)
        flat = Flat(list(model.student.parameters()), model.centre_statistics().numel(), 8)
        first = make_batch(config)
        model.forward_backward(first, teacher_temperature=0.05, scale=0.5)  # compiles
        update(model, optimizer, schedules, flat)  # makes the optimizer's states
        del first
        gc.collect()
        held = live.now
        batches, slabs = [make_batch(config) for _ in range(2)], make_slabs(config)
        added = live.now - held
        live.peak = live.now
        for batch in batches:
            model.forward_backward(batch, teacher_temperature=0.05, scale=0.5)
        update(model, optimizer, schedules, flat)
        del slabs
        return Prediction(held, added, live.peak)


def update(model: Pretrainer, optimizer: torch.optim.Optimizer, schedules: Schedules, flat: Flat) -> None:
    clip_per_module(model.student, model.config.optim.clip_norm)
    apply_schedules(optimizer, schedules, 1)
    optimizer.step()
    model.update_centres(model.centre_statistics().clone())
    model.update_teacher(schedules.momentum(1))
    flat.clear()


def make_batch(config: Config) -> MicroBatch:
    """A micro-batch without values."""
    size, crops = config.run.micro_batch_size, config.crops
    return MicroBatch(
        step=1,
        index=0,
        global_crops=torch.empty(crops.num_global * size, 1, *crops.global_size),
        local_crops=torch.empty(crops.num_local * size, 1, *crops.local_size),
        masks=torch.empty(crops.num_global * size, math.prod(config.global_grid), dtype=torch.bool),
        samples=[],
        num_masked=masked_in_micro_batch(config),
    )


def make_slabs(config: Config) -> Tensor:
    return torch.empty(config.run.micro_batch_size, config.data.slab_slices, SLAB_PIXELS, dtype=torch.int16)


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    """Puts the memory of a GPU's code in place of that of a CPU's."""
    compile_ = torch.compile

    def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        if getattr(function, "__name__", "") == "chunk_terms":
            return _terms_without_intermediates
        return compile_(function, backend="aot_eager_decomp_partition", **options)

    with (
        mock.patch("torch.compile", compiled),
        mock.patch("pretrain.ssl.prototypes._product", _product),
        mock.patch("tapct.vit.blocks.functional.scaled_dot_product_attention", _flash_attention),
    ):
        yield


def _flash_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]


def _product(a: Tensor, b: Tensor, dtype: torch.dtype, buffer: Tensor | None = None) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1], dtype=dtype) if buffer is None else buffer[: len(a)]


def _terms_without_intermediates(gradient: Tensor, student: Tensor, *_: Tensor) -> ChunkTerms:
    return ChunkTerms(student.new_zeros(()), student.new_zeros(()))


def by_phase(configs: dict[str, Config]) -> dict[str, Config]:
    """Returns the settings of each phase of runs, named by its first step where there are several."""
    return {
        f"{name}, from step {first:,}" if len(config.phases) > 1 else name: phase
        for name, config in configs.items()
        for first, phase in config.phases
    }


def predictions(configs: dict[str, Config]) -> list[dict[str, Any]]:
    """Predicts each config in the ways that it may be run."""
    ways = {"compiled": (True, True), "compiled, run.recompute=false": (True, False), "eager": (False, False)}
    rows = []
    for name, config in by_phase(configs).items():
        for way, (compiled, recompute) in ways.items():
            run = config.run.model_copy(update={"compile": compiled, "recompute": recompute})
            found = predict(config.model_copy(update={"run": run}))
            gib = {key: getattr(found, key) / 2**30 for key in ("held", "batches", "peak")}
            rows.append({"config": name, "way": way, "micro_batch_size": run.micro_batch_size, "gib": gib})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> Table:
    found = Table(title="predicted memory of a step on a GPU, GiB (not measured)")
    for column in ("config", "micro-batch", "way", "held", "two batches", "peak"):
        found.add_column(column, justify="left" if column in ("config", "way") else "right")
    for row in rows:
        sizes = (f"{row['gib'][key]:.1f}" for key in ("held", "batches", "peak"))
        found.add_row(row["config"], str(row["micro_batch_size"]), row["way"], *sizes)
    return found
