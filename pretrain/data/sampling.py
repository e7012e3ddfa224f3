"""Which volume a sample is of: an order without end that needs no memory of what came before."""

from functools import lru_cache

import torch

from pretrain.data.counters import Stream, generator


class SampleOrder:
    """The volumes in the order of the samples: epoch after epoch, each in a random order of its own.

    Sample n of the run is one of epoch `n // num_volumes`; who loads it, and after which restart, does not matter.
    Every volume comes once an epoch, whatever its number of slices (nnU-Net weighs cases alike, too; the TAP-CT paper
    says nothing).
    """

    def __init__(self, num_volumes: int, seed: int) -> None:
        self._num_volumes = num_volumes
        self._seed = seed
        self._epoch = lru_cache(maxsize=2)(self._order)  # a batch may lie across the border of two

    def __getitem__(self, sample: int) -> int:
        """Returns the number of the volume of a sample."""
        epoch, place = divmod(sample, self._num_volumes)
        return int(self._epoch(epoch)[place])

    def _order(self, epoch: int) -> torch.Tensor:
        order = torch.randperm(self._num_volumes, generator=generator(self._seed, epoch, 0, Stream.SAMPLES))
        return order.int()  # of a million volumes 4 MB, in every worker
