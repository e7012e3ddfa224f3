"""What the network of an encoder receives of a scan: in SPL order, with the sides as they truly lie, and its hash."""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch

from tapct.encoders import Encoder
from tapct.encoders.axes import OPPOSITE, from_axes, turn_of
from tapct.encoders.received import ReceivedOrientation, in_spl, orientation_of, received
from tapct.errors import EncoderError
from tapct.features.extract import NamedScan, encoder_grid, glimpse
from tapct.volumes import Volume

HEIGHTS = (0.25, 0.5, 0.75)
"""Where the slices of a 2D network lie, as shares of a scan's height; of a 3D one it is its middle window."""

MOST_VOXELS = 2**27
"""Of a scan at an encoder's grid, padded to its window: half a GiB. Settings may ask for any size."""

_BLOCKS = 8
_STEPS = 64


@dataclass(frozen=True, eq=False)
class Received:
    """What a network receives of a scan.

    Attributes:
        images: (N, D, H, W), turned to SPL order by the encoder's `axes`: one window of a 3D network, three slices of a
            2D one.
        shape: Of the tensor, as it was received.
        same_channels: Whether all its channels are the same.
        spacing_mm: Between voxels, (z, y, x).
        orientation: As it was found, None where it cannot be.
        grows: Directions in which the axes of `images` truly grow: "SPL" unless the encoder's `axes` are wrong, or a
            mistake is made with it.
        sha256: See `sha256_of`.
    """

    images: np.ndarray
    shape: tuple[int, ...]
    same_channels: bool
    spacing_mm: tuple[float, float, float]
    orientation: ReceivedOrientation | None
    grows: str
    sha256: str


def received_of(encoder: Encoder, ct: Volume) -> Received | None:
    """Returns what the network of an encoder receives of the middle of a scan; None where it is never called.

    Raises:
        EncoderError: If the scan cannot be encoded, is too large at the encoder's grid, or what is received is no batch
            of images.
    """
    _require_room(encoder, ct)
    heights = HEIGHTS if encoder.card.window_size[0] == 1 else (0.5,)
    seen = glimpse(encoder, NamedScan(ct.source, torch.from_numpy(ct.hu), ct.grid), heights)
    found = received(encoder, seen.windows_hu, seen.statistics, mistake_made=True)
    if found is None:
        return None
    window = from_axes(seen.windows_hu[:1], encoder.way.axes)  # as it lies in the scan
    orientation = orientation_of(encoder, window, found[:1])
    return Received(
        images=in_spl(encoder, found).numpy(),
        shape=tuple(found.shape),
        same_channels=bool((found == found[:, :1]).all()),
        spacing_mm=seen.spacing_mm,
        orientation=orientation,
        grows="SPL" if orientation is None else _grows(encoder.axes, orientation.found),
        sha256=sha256_of(found),
    )


def _require_room(encoder: Encoder, ct: Volume) -> None:
    card = encoder.card
    shape = [max(pair) for pair in zip(encoder_grid(ct.grid, card, encoder.way).shape, card.window_size, strict=True)]
    if math.prod(shape) > MOST_VOXELS:
        raise EncoderError(
            f"{card.name}: {' x '.join(map(str, shape))} voxels of its grid and window are more than the "
            f"{MOST_VOXELS:,} that a sheet is drawn of"
        )


def sha256_of(found: torch.Tensor) -> str:
    """Returns the hash of what a network received, the same on every machine.

    Another processor rounds the last digits of a voxel otherwise. So it is of the shape and of the means of up to 8
    blocks along each axis of an image, in steps of a 64th of the deviation (of the next lower power of two).

    Args:
        found: (B, C, ...) float32.
    """
    blocks = found.cpu()
    for axis in range(2, found.ndim):
        count = min(_BLOCKS, found.shape[axis])
        parts = blocks.tensor_split(count, axis)
        blocks = torch.stack([part.mean(axis, dtype=torch.float64) for part in parts], axis)
    deviation = float(blocks.std()) if blocks.numel() > 1 else 0.0
    step = 2.0 ** math.floor(math.log2(deviation)) / _STEPS if deviation > 0 else 1.0
    # A third of a step aside: values such as air are often powers of two, and would lie between two steps.
    whole = torch.floor(blocks / step + 1 / 3).to(torch.int64).contiguous().numpy()
    return hashlib.sha256(f"{tuple(found.shape)} {step!r} ".encode() + whole.astype("<i8").tobytes()).hexdigest()


def _grows(declared: str, found: str) -> str:
    """Returns in which directions the axes of an array grow that lay as `found` and was turned back by `declared`."""
    order, flips = turn_of(declared)
    places = [order.index(axis) for axis in range(3)]
    return "".join(OPPOSITE[found[place]] if place in flips else found[place] for place in places)
