"""Which HU a network receives as 0: what padding after normalising pads with."""

from collections.abc import Mapping

import numpy as np
import torch

from tapct.encoders.base import Encoder
from tapct.encoders.received import BEYOND_HU, in_spl, received
from tapct.errors import EncoderError

_SAME = 1e-3
_APART_HU = 400.0


def zero_hu(encoder: Encoder, statistics: Mapping[str, torch.Tensor]) -> float:
    """Returns the HU of which the network receives 0, found by trying those between -2700 and 2700.

    Args:
        encoder: The encoder.
        statistics: Of the scan that is padded, (1,) each.

    Raises:
        EncoderError: If it has none: it receives no image of the window's size, or several windows of HU as channels;
            what a voxel becomes depends on those next to it; or no HU becomes 0.
    """
    tried, values = _tried(encoder, statistics)
    crossing = np.flatnonzero((values[:-1] <= 0) & (values[1:] > 0))
    if not len(crossing):
        raise EncoderError("no HU becomes 0 in what its network receives")
    at = crossing[0]
    share = -values[at] / (values[at + 1] - values[at])
    return float(tried[at] + share * (tried[at + 1] - tried[at]))


def why_zero_is_no_mistake(encoder: Encoder) -> str | None:
    """Returns why padding with 0 after normalising would be nothing else than the right padding, or cannot be done."""
    scan = torch.linspace(-1000.0, 1000.0, 8**3).reshape(1, 1, 8, 8, 8)
    try:
        statistics = encoder.statistics_of(scan)
        tried, values = _tried(encoder, statistics)
        zero_hu(encoder, statistics)
    except EncoderError as error:
        return str(error)
    if abs(np.interp(encoder.card.pad_hu, tried, values)) <= _SAME * np.abs(values).max():
        return f"its right padding, {encoder.card.pad_hu:g} HU, is 0 after normalising too"
    return None


def _tried(encoder: Encoder, statistics: Mapping[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Returns rising HU and what the network receives of each."""
    card = encoder.card
    thin = (card.feature_stride[0], *card.window_size[1:])
    size = thin if encoder.supports(thin) else card.window_size
    ramp = torch.linspace(-BEYOND_HU, BEYOND_HU, int(np.prod(size))).reshape(1, 1, *size)
    of_both = {name: value.cpu().expand(2) for name, value in statistics.items()}
    other = ramp / 2 + _APART_HU  # another mean and another spread
    found = received(encoder, torch.cat([ramp, other]), of_both, mistake_made=True)
    if found is None:
        raise EncoderError("its network is never called")
    if not bool((found == found[:, :1]).all()):
        raise EncoderError("its network receives several windows of HU, each with another 0")
    images = in_spl(encoder, found)
    if tuple(images.shape[1:]) != size:
        raise EncoderError("its network receives no image of the size of its window")
    whole, part = (image.flatten().double().cpu().numpy() for image in images)
    tried = ramp.flatten().double().cpu().numpy()
    if np.abs(np.interp(tried / 2 + _APART_HU, tried, whole) - part).max() > _SAME * np.abs(whole).max():
        raise EncoderError("what a voxel becomes depends on those next to it: before padding its 0 is another")
    return tried, whole
