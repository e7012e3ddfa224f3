"""Values of channels as they lie in the store, made float a few at a time: a large map is never whole in float32."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from tapct.features.cases import StoredFeatures
from tapct.features.extract import CaseFeatures
from tapct.features.values import as_values


@dataclass(frozen=True, eq=False)
class Channels:
    """Values of channels.

    Attributes:
        stored: (C, n, ...) values of any dtype, or int8 steps; may be memory-mapped, and a view.
        step: (C,) float32, what a step is; None of values.
    """

    stored: torch.Tensor
    step: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(C, N): how many channels there are, and values of each."""
        return self.stored.shape[0], math.prod(self.stored.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """That of the values."""
        return self.stored.dtype if self.step is None else torch.float32

    def split(self, channels: int) -> Iterator[torch.Tensor]:
        """Yields the (c, N) values of so many channels at a time."""
        for first in range(0, len(self.stored), channels):
            own = slice(first, first + channels)
            yield self._values(self.stored[own], None if self.step is None else self.step[own])

    def slabs(self, values: int, like: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yields the (C, n) values of all channels, about so many of each at a time.

        Args:
            values: How many; what lies at one index of the first axis stays together.
            like: Whose device and dtype they get.
        """
        rows = max(1, values * self.stored.shape[1] // max(1, self.shape[1]))
        for slab in self.stored.split(rows, dim=1):
            yield self._values(slab.to(like.device), self.step).to(like)

    def whole(self) -> torch.Tensor:
        """Returns the (C, N) values of all channels."""
        return self._values(self.stored, self.step)

    @staticmethod
    def _values(stored: torch.Tensor, step: torch.Tensor | None) -> torch.Tensor:
        return as_values(stored, step, stored.device, None).flatten(1)


def map_of(features: CaseFeatures | StoredFeatures) -> Channels:
    """Returns the map of features as it is stored.

    Raises:
        FeatureError: If there is none.
    """
    if isinstance(features, StoredFeatures) and features.stored_map is not None:
        return Channels(features.stored_map, features.map_scale)
    return Channels(features.map)


def scan_patches(features: CaseFeatures | StoredFeatures) -> Channels:
    """Returns the (C, d, h, w) patches whose centre lies in the scan; one along an axis always counts.

    Those in the padding say nothing of it, and how many there are depends on the encoder's window.
    """
    z, y, x = in_scan(features)
    found = map_of(features)
    return Channels(found.stored[:, z, y, x], found.step)


def in_scan(features: CaseFeatures | StoredFeatures) -> tuple[slice, slice, slice]:
    """Returns which patches of the feature grid `scan_patches` has, along (z, y, x); no map is needed."""
    where = features.feature_grid.coordinates_in(features.encoder_grid)
    z, y, x = (_within(at, size) for at, size in zip(where, features.encoder_grid.shape, strict=True))
    return z, y, x


def _within(where: np.ndarray, size: int) -> slice:
    """Returns which of the patches along an axis lie within so many voxels, the nearest to the middle if none does."""
    inside = np.flatnonzero((where >= -0.5) & (where <= size - 0.5))
    if not len(inside):
        inside = np.argmin(np.abs(where - (size - 1) / 2), keepdims=True)
    return slice(int(inside[0]), int(inside[-1]) + 1)
