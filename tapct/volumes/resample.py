"""Resampling between parallel grids: every one is three small matrices, one along each axis.

A matrix a side makes linear resampling exact, differentiable, deterministic on a GPU (its gradient is
another matrix product, not an atomic scatter), and chainable: what is needed of a slab can be computed
without the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from tapct._utils.transfer import send
from tapct.volumes.geometry import Grid


@dataclass(frozen=True)
class LinearMap:
    """A separable linear map from arrays on one grid to arrays on another.

    Attributes:
        z: (D_out, D_in) weights along the first axis; each row sums to one.
        y: (H_out, H_in) likewise.
        x: (W_out, W_in) likewise.
    """

    z: torch.Tensor
    y: torch.Tensor
    x: torch.Tensor

    @classmethod
    def between(cls, source: Grid, target: Grid, *, antialias: bool = False) -> "LinearMap":
        """Returns the (tri)linear interpolation from `source` to `target`.

        Outside the source the nearest border value holds (as `align_corners=False` does).

        Args:
            source: The grid that the data lies on.
            target: The grid that the data is wanted on; its axes must be parallel to the source's.
            antialias: Average over the target's voxel where it is larger than the source's, with the
                triangle filter that Pillow and `torch.nn.functional.interpolate(antialias=True)` use.
        """
        spacings = zip(target.spacing_mm, source.spacing_mm, strict=True)
        # From the spacings, since a target of a single voxel has no second coordinate to say how large it is.
        supports = [max(1.0, wide / narrow) if antialias else 1.0 for wide, narrow in spacings]
        axes = zip(target.coordinates_in(source), source.shape, supports, strict=True)
        return cls(*(_axis_weights(where, size, support) for where, size, support in axes))

    def to(self, tensor: torch.Tensor) -> "LinearMap":
        """Returns the map on the device and in the dtype of `tensor`."""
        return LinearMap(*(_as(m, tensor) for m in (self.z, self.y, self.x)))

    def __call__(self, data: torch.Tensor) -> torch.Tensor:
        """Maps `data` (..., D_in, H_in, W_in) to (..., D_out, H_out, W_out)."""
        m = self.to(data)
        along = {
            -1: lambda t: t @ m.x.T,
            -2: lambda t: m.y @ t,
            -3: lambda t: torch.einsum("zd,...dyx->...zyx", m.z, t),
        }
        matrices = {-1: m.x, -2: m.y, -3: m.z}
        # The axis that shrinks most goes first: the others then have less to do.
        for axis in sorted(along, key=lambda a: matrices[a].shape[0] / matrices[a].shape[1]):
            data = along[axis](data)
        return data

    def slabs(self, depth: int, like: torch.Tensor) -> Iterator[tuple[slice, slice, "LinearMap"]]:
        """Yields (rows of the output, rows of the input that they need, the map between) along z.

        What each slab needs is looked up on the host, where maps are made: a GPU is not waited for.

        Args:
            depth: Slices of the output in one slab.
            like: A tensor, on whose device and in whose dtype the maps are wanted.
        """
        used, there = self.z.cpu().numpy() != 0, self.to(like)
        for start in range(0, len(used), depth):
            rows = slice(start, min(start + depth, len(used)))
            needed = np.flatnonzero(used[rows].any(axis=0))
            columns = slice(int(needed[0]), int(needed[-1]) + 1)
            yield rows, columns, LinearMap(there.z[rows, columns], there.y, there.x)


def _as(matrix: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if matrix.device.type == "cpu":
        return send(matrix.to(like.dtype), like.device)
    return matrix.to(like.device, like.dtype)


def resample_image(image: torch.Tensor, source: Grid, target: Grid, *, antialias: bool = True) -> torch.Tensor:
    """Resamples a floating image (..., D, H, W): linear, averaged where the target is coarser.

    Args:
        image: The image, on `source`.
        source: Its grid.
        target: The grid that it is wanted on.
        antialias: Whether to average; else nothing but the neighbours of each new voxel's centre counts.
    """
    return LinearMap.between(source, target, antialias=antialias)(image)


def resample_labels(labels: torch.Tensor, source: Grid, target: Grid) -> torch.Tensor:
    """Resamples an integer label map (..., D, H, W): the nearest voxel's label, dtype kept."""
    for axis, (where, size) in enumerate(zip(target.coordinates_in(source), source.shape, strict=True)):
        # A tie goes to the upper voxel (torch's "nearest-exact"); the nudge keeps rounding noise from deciding it.
        index = np.clip(np.floor(where + 0.5 + 1e-6), 0, size - 1).astype(np.int64)
        labels = labels.index_select(axis - 3, torch.from_numpy(index).to(labels.device))
    return labels


def _axis_weights(where: np.ndarray, size: int, support: float) -> torch.Tensor:
    """Returns the (len(where), size) weights at the coordinates `where` of `size` voxels.

    Args:
        where: Centres, in voxels.
        size: Number of voxels.
        support: Half the base of the triangle, in voxels; 1 is linear interpolation.
    """
    # Triangles are cut at the border and renormalised; a centre beyond the outer face counts as lying on it.
    centre = np.clip(where, -0.5, size - 0.5)
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(size)[None] - centre[:, None]) / support)
    return torch.from_numpy(weights / weights.sum(axis=1, keepdims=True))
