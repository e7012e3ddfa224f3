"""Tiling a scan into windows, and stitching their features back on the grid of patches."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tapct.errors import VolumeError
from tapct.volumes.geometry import Size


@dataclass(frozen=True)
class WindowPlan:
    """Where the windows of one scan lie.

    Windows tile the scan without overlap; the last one along an axis is shifted inside. Every start is a
    multiple of the feature stride, so that features of different windows lie on one lattice (a sliding
    window whose step is not a multiple of the stride gives wrong features without a warning).

    Attributes:
        shape: Voxels of the scan (D, H, W).
        window: Voxels of a window.
        stride: Voxels between neighbouring features.
        padded_shape: Voxels after padding at the high end: at least a window, and whole patches.
        starts: First voxels of the windows along each axis.
    """

    shape: Size
    window: Size
    stride: Size
    padded_shape: Size
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

    @classmethod
    def of(
        cls, shape: Sequence[int], window: Sequence[int], stride: Sequence[int], overlap: float = 0.0
    ) -> "WindowPlan":
        """Plans the windows of a scan.

        Args:
            shape: Voxels of the scan (D, H, W).
            window: Voxels of a window (D, H, W), a multiple of `stride`.
            stride: The encoder's feature stride (z, y, x), in voxels.
            overlap: Share of a window that the next one covers again, in [0, 1); features average there.

        Raises:
            VolumeError: If the window is not a multiple of the stride, or the overlap is out of range.
        """
        if any(w % s or w < s for w, s in zip(window, stride, strict=True)):
            raise VolumeError(f"window {tuple(window)} is not a multiple of the feature stride {tuple(stride)}")
        if not 0 <= overlap < 1:
            raise VolumeError(f"window overlap must be in [0, 1), not {overlap}")
        padded = [max(w, math.ceil(n / s) * s) for n, w, s in zip(shape, window, stride, strict=True)]
        starts = [
            _starts(n, w, max(s, int(w * (1 - overlap)) // s * s))
            for n, w, s in zip(padded, window, stride, strict=True)
        ]
        return cls(Size(*shape), Size(*window), Size(*stride), Size(*padded), (starts[0], starts[1], starts[2]))

    @property
    def origins(self) -> list[tuple[int, int, int]]:
        """First voxel (z, y, x) of each window, in the order of the windows."""
        return list(itertools.product(*self.starts))

    @property
    def feature_shape(self) -> Size:
        """Patches over the padded scan (d, h, w)."""
        return Size(*(n // s for n, s in zip(self.padded_shape, self.stride, strict=True)))

    @property
    def padding(self) -> Size:
        """Voxels of padding that were needed along each axis."""
        return Size(*(p - n for p, n in zip(self.padded_shape, self.shape, strict=True)))

    def pad(self, image: torch.Tensor, value: float) -> torch.Tensor:
        """Pads `image` (D, H, W) with `value` at the high end to `padded_shape`."""
        z, y, x = self.padding
        return F.pad(image, (0, x, 0, y, 0, z), value=value)

    def window_at(self, padded: torch.Tensor, origin: tuple[int, int, int]) -> torch.Tensor:
        """Returns the view of the window of `padded` (..., D, H, W) that starts at `origin`."""
        (z, y, x), (d, h, w) = origin, self.window
        return padded[..., z : z + d, y : y + h, x : x + w]


class Stitcher:
    """Collects the feature maps of a plan's windows into one map of the scan, averaging overlaps."""

    def __init__(self, plan: WindowPlan) -> None:
        self._plan = plan
        self._sum: torch.Tensor | None = None
        self._count = torch.zeros(tuple(plan.feature_shape))

    def add(self, origin: tuple[int, int, int], features: torch.Tensor) -> None:
        """Adds the map (C, d, h, w) of the window that starts at voxel `origin`.

        Raises:
            VolumeError: If the map does not have one patch per stride of the window.
        """
        stride = self._plan.stride
        patches = tuple(w // s for w, s in zip(self._plan.window, stride, strict=True))
        if tuple(features.shape[1:]) != patches:
            raise VolumeError(
                f"a window of {tuple(self._plan.window)} voxels at stride {tuple(stride)} has {patches} patches, "
                f"but its feature map has {tuple(features.shape[1:])}"
            )
        if self._sum is None:
            self._sum = features.new_zeros((features.shape[0], *self._plan.feature_shape))
            self._count = self._count.to(features)
        where = tuple(slice(o // s, o // s + n) for o, s, n in zip(origin, stride, patches, strict=True))
        self._sum[(slice(None), *where)] += features
        self._count[where] += 1

    def result(self) -> torch.Tensor:
        """Returns the map of the padded scan (C, d, h, w).

        Raises:
            VolumeError: If a patch was covered by no window.
        """
        if self._sum is None or bool((self._count == 0).any()):
            raise VolumeError("some windows of the plan were never added")
        self._sum /= self._count  # in place: maps are large
        self._count.fill_(1)
        return self._sum


def _starts(size: int, window: int, step: int) -> tuple[int, ...]:
    """Returns the starts of windows that cover `size`, the last one shifted inside."""
    last = size - window
    return (*range(0, last, step), last)
