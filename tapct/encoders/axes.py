"""Turning arrays of scans, windows and maps, and their grids, between SPL order and other axes."""

from collections.abc import Sequence

import numpy as np
import torch

from tapct.errors import EncoderError
from tapct.volumes.geometry import Grid

OPPOSITE = {"S": "I", "I": "S", "P": "A", "A": "P", "L": "R", "R": "L"}
"""Of each direction the one that it comes from."""


def to_axes(spl: torch.Tensor, axes: str) -> torch.Tensor:
    """Turns an array (..., z, y, x) in SPL order so that its spatial axes grow as `axes` says, such as "RAS"."""
    order, flips = turn_of(axes)
    lead = range(spl.ndim - 3)
    turned = spl.permute(*lead, *(len(lead) + i for i in order))
    return turned.flip([len(lead) + i for i in flips]) if flips else turned


def from_axes(array: torch.Tensor, axes: str) -> torch.Tensor:
    """Undoes `to_axes`."""
    order, flips = turn_of(axes)
    lead = range(array.ndim - 3)
    straight = array.flip([len(lead) + i for i in flips]) if flips else array
    return straight.permute(*lead, *(len(lead) + order.index(i) for i in range(3)))


def turn_of(axes: str) -> tuple[list[int], list[int]]:
    """Returns which SPL axis each axis of `axes` is, and which axes of the result run backwards."""
    along = {"S": 0, "I": 0, "P": 1, "A": 1, "L": 2, "R": 2}
    order = [along[letter] for letter in axes]
    if sorted(order) != [0, 1, 2]:
        raise EncoderError(f"axes {axes!r} must name each of S/I, P/A and L/R once, such as 'SPL' or 'RAS'")
    return order, [i for i, letter in enumerate(axes) if letter not in "SPL"]


def grid_to_axes(spl: Grid, axes: str) -> Grid:
    """Returns where the voxels lie of an array on a grid that is turned by `to_axes`."""
    if axes == "SPL":
        return spl
    order, _ = turn_of(axes)
    shape = [spl.shape[i] for i in order]
    return Grid.of(shape, spl.affine @ _index_to_spl(axes, shape))


def grid_from_axes(grid: Grid, axes: str) -> Grid:
    """Undoes `grid_to_axes`."""
    if axes == "SPL":
        return grid
    return Grid.of(sizes_from_axes(grid.shape, axes), grid.affine @ np.linalg.inv(_index_to_spl(axes, grid.shape)))


def sizes_from_axes(sizes: Sequence[int], axes: str) -> tuple[int, int, int]:
    """Returns numbers of voxels along `axes` in the order (z, y, x)."""
    order, _ = turn_of(axes)
    z, y, x = (sizes[order.index(i)] for i in range(3))
    return z, y, x


def _index_to_spl(axes: str, shape: Sequence[int]) -> np.ndarray:
    """Returns the (4, 4) map from indices of a turned array of a shape to those of the array in SPL order."""
    order, flips = turn_of(axes)
    found = np.zeros((4, 4))
    found[3, 3] = 1
    for axis, spl in enumerate(order):
        found[spl, axis] = -1 if axis in flips else 1
        found[spl, 3] = shape[axis] - 1 if axis in flips else 0
    return found
