"""What a network receives: caught at its door, with no need of its weights."""

import copy
import itertools
import math
from typing import NamedTuple

import torch
from torch import nn

from tapct.encoders.axes import from_axes, to_axes
from tapct.encoders.base import Encoder
from tapct.encoders.input_sheet import HuWindow
from tapct.errors import EncoderError

BEYOND_HU = 2700.0
"""How far from 0 the ramp reaches that shows which HU a network can tell apart."""

_INSIDE_HU = 10.0
_THICKNESS = 32
_SAME = 1e-4


class _ReachedError(Exception):
    def __init__(self, found: torch.Tensor) -> None:
        super().__init__("the network was reached")
        self.found = found


class _Call(NamedTuple):
    windows_hu: torch.Tensor
    statistics: dict[str, torch.Tensor] | None
    mistake_made: bool


class ReceivedOrientation(NamedTuple):
    """How the array lies that a network received, found by likeness to the scan.

    Attributes:
        found: Directions in which its axes grow, such as "RAS".
        fits: Whether the encoder's own `axes` fit as well as any.
    """

    found: str
    fits: bool


def received(
    encoder: Encoder,
    windows_hu: torch.Tensor,
    statistics: dict[str, torch.Tensor] | None = None,
    *,
    mistake_made: bool = False,
) -> torch.Tensor | None:
    """Returns what the encoder gives its network: the first tensor that the network, or a part of it, is called with.

    The network stops there and computes nothing, so that its weights do not matter: of a deferred encoder it is built
    for this call alone, without memory where it can be.

    Args:
        encoder: The encoder.
        windows_hu: (B, 1, D, H, W) float32 HU, as for a call of the encoder.
        statistics: As there.
        mistake_made: As there: whether the encoder's mistake, if it has one, was made already.

    Returns:
        The tensor, its axes as the network has them; None where the network is never called.

    Raises:
        EncoderError: If the encoder refuses the windows.
    """
    place = next((held.device for held in (*encoder.parameters(), *encoder.buffers())), torch.device("cpu"))
    statistics = None if statistics is None else {name: value.to(place) for name, value in statistics.items()}
    call = _Call(windows_hu.to(place), statistics, mistake_made)
    if encoder.is_built:
        return _caught(encoder, call)
    try:
        return _of_built(encoder, call, torch.device("meta"))
    except (RuntimeError, TypeError, ValueError):  # it asks for values as it is built, as MONAI's Swin transformer does
        return _of_built(encoder, call, place)


def in_spl(encoder: Encoder, found: torch.Tensor) -> torch.Tensor:
    """Returns what was received, one channel of it, as (B, D, H, W) in SPL order by the encoder's `axes`.

    Raises:
        EncoderError: If it is not a batch of images with channels.
    """
    if found.ndim == 4:  # of a 2D network: (B, C, H, W)
        found = found.unsqueeze(2)
    if found.ndim != 5:
        raise EncoderError(f"{encoder.card.name} gives its network {tuple(found.shape)}, which is no batch of images")
    return from_axes(found, encoder.axes)[:, 0]


def orientation_of(encoder: Encoder, window_hu: torch.Tensor, found: torch.Tensor) -> ReceivedOrientation | None:
    """Returns how what was received lies, by which of all 48 turns of the window it is most like.

    Args:
        encoder: The encoder.
        window_hu: (1, 1, D, H, W) in SPL order.
        found: What the network received of it.

    Returns:
        None where it is of another shape than any turned window, or either is all of one value.
    """
    image = (found.unsqueeze(2) if found.ndim == 4 else found)[0, 0]
    likeness = {}
    for letters in itertools.product("SI", "PA", "LR"):
        for axes in map("".join, itertools.permutations(letters)):
            turned = to_axes(window_hu, axes)[0, 0]
            if turned.shape == image.shape:
                step = tuple(slice(None, None, -(-n // _THICKNESS)) for n in image.shape)
                pair = torch.stack([turned[step].flatten(), image[step].flatten()]).double()
                likeness[axes] = float(torch.corrcoef(pair)[0, 1])
    likeness = {axes: value for axes, value in likeness.items() if value == value}
    if not likeness:
        return None
    best = max(likeness, key=lambda axes: likeness[axes])
    fits = encoder.axes in likeness and likeness[encoder.axes] >= likeness[best] - _SAME
    return ReceivedOrientation(encoder.axes if fits else best, fits)


def window_fits(encoder: Encoder, declared: HuWindow, size: tuple[int, int, int]) -> bool | None:
    """Returns whether a network can tell apart exactly the HU that are declared, between -2700 and 2700 HU.

    Args:
        encoder: The encoder.
        declared: Its window.
        size: Of the windows to try, (D, H, W); any that the network can take.

    Returns:
        None where the network is never called.
    """
    count = math.prod(size)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(-BEYOND_HU, BEYOND_HU, count)[order].reshape(1, 1, *size)
    low, high = max(declared.low_hu, -BEYOND_HU), min(declared.high_hu, BEYOND_HU)
    ends = ((low, high), (low + _INSIDE_HU, high), (low, high - _INSIDE_HU))
    windows = torch.cat([ramp, *(ramp.clamp(*both) for both in ends)])
    found = received(encoder, encoder.way.values(encoder, windows), mistake_made=True)
    if found is None:
        return None
    whole, clipped, raised, lowered = found
    return _same(whole, clipped) and not _same(whole, raised) and not _same(whole, lowered)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= _SAME * one.abs().max())


def _of_built(encoder: Encoder, call: _Call, device: torch.device) -> torch.Tensor | None:
    twin = copy.copy(encoder)  # which gets the network, and whatever else building it leaves
    for held in ("_parameters", "_buffers", "_modules"):
        vars(twin)[held] = dict(vars(encoder)[held])
    with torch.random.fork_rng(devices=[]), device:
        twin.network = twin.build()
    return _caught(twin, call)


def _caught(encoder: Encoder, call: _Call) -> torch.Tensor | None:
    hooks = [part.register_forward_pre_hook(_stop, with_kwargs=True) for part in encoder.network.modules()]
    try:
        encoder(call.windows_hu, checked=True, statistics=call.statistics, mistake_made=call.mistake_made)
    except _ReachedError as reached:
        return reached.found.detach().float().cpu()
    finally:
        for hook in hooks:
            hook.remove()
    return None


def _stop(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    given = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    if given:
        raise _ReachedError(given[0])
