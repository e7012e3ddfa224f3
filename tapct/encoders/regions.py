"""Encoders that describe one region of a scan by numbers: a vector a scan, and no map of it."""

import abc
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

from tapct.encoders.axes import grid_from_axes
from tapct.encoders.base import Encoder, Features
from tapct.errors import EncoderError
from tapct.volumes.geometry import Grid
from tapct.volumes.masks import Mask
from tapct.volumes.resample import LinearMap

IN_REGION = 0.5
"""A voxel belongs to a mask of which at least this share of it is inside, as IBSI has it."""


class Region(NamedTuple):
    """A region of a scan that a rule found.

    Attributes:
        hu: (D, H, W) HU in which it lies.
        inside: (D, H, W) booleans.
        spacing_mm: Of the voxels, (z, y, x).
        rule: Place in the encoder's `rules` of the one that found it.
    """

    hu: np.ndarray
    inside: np.ndarray
    spacing_mm: tuple[float, float, float]
    rule: int


class RegionEncoder(Encoder):
    """An encoder of numbers that are measured in a region of the scan, the same in every patch and window.

    A scan has the region that a rule finds in it. Adaptors that pool over a mask have these numbers measured in the
    mask itself (`of_mask`), not an average of a map, which says the same everywhere. Nothing is rounded where it is
    stored: what numbers near 1 differ by, thousandths, would be lost.
    """

    feature_dtype = "fp32"

    numbers: ClassVar[tuple[str, ...]]
    """Names of the numbers, in their order."""

    rules: ClassVar[tuple[str | None, ...]]
    """What a record says of a case by each rule that finds regions; None where it need not say anything."""

    @abc.abstractmethod
    def region(self, hu: np.ndarray) -> Region:
        """Returns the region of a scan, which is not empty.

        Args:
            hu: (D, H, W) HU at the card's spacing.
        """

    @abc.abstractmethod
    def measure(self, hu: np.ndarray, inside: np.ndarray, spacing_mm: tuple[float, float, float]) -> tuple[float, ...]:
        """Returns the numbers of a region, each finite.

        Args:
            hu: (D, H, W) HU.
            inside: (D, H, W) booleans.
            spacing_mm: Of the voxels, (z, y, x).

        Raises:
            EncoderError: If one is not defined.
        """

    def build(self) -> nn.Module:
        """Returns a network that does nothing."""
        return nn.Identity()

    def supports(self, size: tuple[int, int, int]) -> bool:
        """Returns that any window will do: none of them is looked at."""
        return all(n > 0 for n in size)

    def scan_statistics(self, scan_hu: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns the numbers of each scan, and `rule`, which rule found the region."""
        rows = []
        for scan in scan_hu[:, 0].cpu().numpy():
            found = self.region(scan)
            rows.append((*self.measure(found.hu, found.inside, found.spacing_mm), found.rule))
        columns = torch.tensor(rows, dtype=torch.float64, device=scan_hu.device).float().T
        return dict(zip((*self.numbers, "rule"), columns, strict=True))

    def scan_notes(self, statistics: dict[str, torch.Tensor]) -> tuple[str, ...]:
        """Returns what the rule says that found the region."""
        note = self.rules[int(statistics["rule"])]
        return () if note is None else (note,)

    def of_mask(self, hu: torch.Tensor, native: Grid, mask: Mask) -> torch.Tensor:
        """Returns the (P,) numbers of a mask, float64, measured at the card's spacing.

        Args:
            hu: (D, H, W) HU of the scan.
            native: Its grid.
            mask: A mask of it.

        Raises:
            EncoderError: If a number is not defined of it, or the encoder makes a mistake on purpose.
        """
        if self.mistake is not None:
            raise EncoderError(f"{self.card.name}: a mask has no wrong input; leave the mistake '{self.mistake}' out")
        scan = grid_from_axes(self.way.grid(native, self.card), self.way.axes)
        around = _with_a_rim(mask)
        box = _box_of(scan, around.grid)
        antialias = self.card.in_plane_filter == "antialias"
        share = LinearMap.between(around.grid, box, antialias=True)(torch.from_numpy(around.inside).float())
        image = LinearMap.between(native, box, antialias=antialias)(hu.float().cpu())
        spacing_mm = box.spacing_mm
        return torch.tensor(self.measure(image.numpy(), share.numpy() >= IN_REGION, spacing_mm), dtype=torch.float64)

    def describe(self) -> dict[str, Any]:
        """Returns what a record must hold: the base class's entries, and the names of the numbers."""
        return super().describe() | {"numbers": list(self.numbers)}

    def _encode(self, windows_hu: torch.Tensor, statistics: dict[str, torch.Tensor]) -> Features:
        size, stride = windows_hu.shape[2:], self.card.feature_stride
        patches = [-(-n // step) for n, step in zip(size, stride, strict=True)]
        found = torch.cat([statistics[name].flatten(1) for name in self.numbers], dim=1)
        return Features(found[:, :, None, None, None].expand(-1, -1, *patches), found, None)


def _with_a_rim(mask: Mask) -> Mask:
    """Returns a mask with a voxel outside of it on each side: beyond a lattice its border voxels would continue."""
    step = np.eye(4)
    step[:3, 3] = -1
    inside = np.pad(mask.inside, 1)
    return Mask(inside, Grid.of(inside.shape, mask.grid.affine @ step))


def _box_of(scan: Grid, part: Grid) -> Grid:
    """Returns the voxels of a grid in and around another: all of what is there, and no more of the scan."""
    first, shape = [], []
    for where, size in zip(scan.coordinates_in(part), part.shape, strict=True):
        within = np.flatnonzero((where > -1) & (where < size))
        if not len(within):  # between two voxels: the nearest
            within = np.argmin(np.abs(where - (size - 1) / 2), keepdims=True)
        first.append(int(within[0]))
        shape.append(int(within[-1]) + 1 - first[-1])
    step = np.eye(4)
    step[:3, 3] = first
    return Grid.of(shape, scan.affine @ step)
