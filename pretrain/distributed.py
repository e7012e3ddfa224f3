"""The processes of a run: one alone, or those that torchrun started on one or many nodes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pretrain.errors import PretrainError

T = TypeVar("T")

_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables that torchrun sets, and that joining needs."""

PATIENCE = timedelta(minutes=15)
"""A collective that waits longer than this for a process fails: that process is dead, or stuck on its data."""


@dataclass(frozen=True)
class World:
    """This process among those of the run.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.
        device: Where its model is.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes the files of the run."""
        return self.rank == 0

    def share(self, micro_batches: int) -> range:
        """Returns the micro-batches of a step that are this process's: rank, rank + size, ...

        Raises:
            PretrainError: If they cannot be shared equally.
        """
        if micro_batches % self.size:
            raise PretrainError(
                f"run.micro_batches = {micro_batches} cannot be shared equally by {self.size} processes. Start a "
                "number of processes that divides it: the micro-batches of a step stay, whoever computes them."
            )
        return range(self.rank, micro_batches, self.size)

    def sum_in_place(self, tensor: Tensor) -> None:
        """Replaces a tensor by its sum over the processes; every process gets the same bits."""
        if self.size > 1:
            with _others_answer():
                dist.all_reduce(tensor)

    def from_first(self, value: T) -> T:
        """Returns the object that the first process has."""
        if self.size == 1:
            return value
        box = [value]
        with _others_answer():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Returns the objects of all processes, by rank, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _others_answer():
            dist.all_gather_object(values, value)
        return values


@contextmanager
def _others_answer() -> Iterator[None]:
    """Says what it means when a collective fails.

    Raises:
        PretrainError: If another process is gone.
    """
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PretrainError(
            f"another process of the run is gone, or has stood still for {PATIENCE}; its own message says why. The "
            f"same command resumes from the newest checkpoint ({reason})"
        ) from error


@contextmanager
def join(device: str) -> Iterator[World]:
    """Joins the processes that torchrun started, or stands alone without torchrun.

    Args:
        device: "cuda", "cpu", or "auto" for CUDA where there is a GPU.

    Yields:
        This process's place. NCCL carries the tensors of GPUs, gloo those of CPUs.

    Raises:
        PretrainError: If there is no GPU for this process, or it is not clear whether there are others.
    """
    launched = _is_launched()
    place = _device(device, int(os.environ.get("LOCAL_RANK", "0")) if launched else 0)
    if not launched:
        yield World(0, 1, place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    gpu_too = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    dist.init_process_group(gpu_too, timeout=PATIENCE)
    yield World(dist.get_rank(), dist.get_world_size(), place)
    # Not after an error: it would wait for the others, who wait for this one. The exit of the process frees it.
    dist.destroy_process_group()


def _is_launched() -> bool:
    """Returns whether torchrun started this process.

    Raises:
        PretrainError: If only some of its variables are set: alone, each of several would write to one folder.
    """
    missing = [name for name in _TORCHRUN if name not in os.environ]
    if missing and any(name in os.environ for name in ("RANK", "WORLD_SIZE")):
        raise PretrainError(
            f"RANK or WORLD_SIZE is set, as torchrun does, but {', '.join(missing)} is not. Start several processes "
            "by torchrun; for one alone, unset RANK and WORLD_SIZE"
        )
    return not missing


def _device(device: str, local_rank: int) -> torch.device:
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise PretrainError(
            f"process {local_rank} of this node has no GPU: there are {torch.cuda.device_count()}. Start as many "
            "processes a node as it has GPUs (torchrun --nproc-per-node=gpu), or use --run.device=cpu."
        )
    return torch.device("cuda", local_rank)
