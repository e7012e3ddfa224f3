"""One micro-batch with a NaN, as if the data held it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pretrain.data.batches import Batches, MicroBatch


def poison(step: int, index: int, set_attribute: Callable[[type, str, Any], None] = setattr) -> None:
    """Makes one voxel of that micro-batch NaN, however it is asked for."""
    get, stream = Batches.get, Batches.stream

    def poisoned(batch: MicroBatch) -> MicroBatch:
        if (batch.step, batch.index) != (step, index):
            return batch
        crops = batch.global_crops.clone()
        crops[0, 0, 1, 2, 3] = float("nan")
        return replace(batch, global_crops=crops)

    set_attribute(Batches, "get", lambda self, *where: poisoned(get(self, *where)))
    set_attribute(Batches, "stream", lambda self, *where: map(poisoned, stream(self, *where)))
