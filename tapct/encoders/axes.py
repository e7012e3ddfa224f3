"""Turning arrays of windows and maps between SPL order and the axes of a network."""

import torch

from tapct.errors import EncoderError

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
