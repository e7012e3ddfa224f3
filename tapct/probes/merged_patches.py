"""Patches merged into larger ones, so that whatever attends to them takes bounded memory.

A chest at the encoder's own stride has hundreds of thousands of patches. While there are more than asked for, blocks of
neighbouring patches are taken together along the axis on which they are shortest in mm: they become cubes in the
patient, whatever the stride and the spacing are. A merged patch is the mean of its patches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from tapct.features import CaseFeatures, StoredFeatures
from tapct.features.channels import Channels, in_scan

_CHANNELS = 16
"""That are averaged at a time: a map is never whole in float32."""


def block_of(shape: Sequence[int], spacing_mm: Sequence[float], most: int) -> tuple[int, int, int]:
    """Returns how many patches are taken together along (z, y, x): (1, 1, 1) where there are few enough.

    Args:
        shape: (d, h, w) patches.
        spacing_mm: Between patches along these axes.
        most: Merged patches that there may be, at least 1.
    """
    block, spacing = np.ones(3, dtype=int), np.array(spacing_mm, dtype=np.float64)
    while np.prod(-(-np.array(shape) // block)) > most:
        length = np.where(block < shape, block * spacing, np.inf)  # an axis that is one block cannot be merged further
        block[np.argmin(length)] += 1
    z, y, x = block.tolist()
    return z, y, x


def merged(patches: Channels, block: Sequence[int]) -> torch.Tensor:
    """Returns (C, d', h', w') float32 means of blocks of patches; the last block along an axis has what is left.

    Args:
        patches: (C, d, h, w) as they are stored.
        block: Patches of a block along (z, y, x).
    """
    size, shape = tuple(block), patches.stored.shape[1:]
    of_channels = (part.view(-1, 1, *shape).float() for part in patches.split(_CHANNELS))
    parts = [F.avg_pool3d(part, size, ceil_mode=True, count_include_pad=False)[:, 0] for part in of_channels]
    return torch.cat(parts)


@dataclass(frozen=True)
class Merging:
    """How the patches of a scan are merged.

    Attributes:
        patches: Of the feature grid, those in the scan, along (z, y, x).
        block: How many are taken together along each axis.
    """

    patches: tuple[slice, slice, slice]
    block: tuple[int, int, int]

    @classmethod
    def of(cls, features: CaseFeatures | StoredFeatures, most: int) -> "Merging":
        """Returns how the patches of a scan become at most so many; its map is not needed."""
        patches = in_scan(features)
        shape = [one.stop - one.start for one in patches]
        return cls(patches, block_of(shape, features.feature_grid.spacing_mm, most))

    def places_mm(self, features: CaseFeatures | StoredFeatures) -> torch.Tensor:
        """Returns (n, 3) float64, where the middles of merged patches lie, in mm from the middle of the scan, RAS+."""
        axes = []
        for patches, step in zip(self.patches, self.block, strict=True):
            first = np.arange(patches.start, patches.stop, step)
            axes.append((first + np.minimum(first + step, patches.stop) - 1) / 2)
        index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        native, affine = features.native_grid, features.feature_grid.affine
        middle = native.affine[:3, :3] @ ((np.array(native.shape) - 1) / 2) + native.affine[:3, 3]
        return torch.from_numpy(index @ affine[:3, :3].T + affine[:3, 3] - middle)
