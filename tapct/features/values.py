"""How features lie in a file: rounded to a dtype, or the map in int8 with a scale a channel."""

from collections.abc import Mapping

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

_STEPS = 127
"""Steps of int8 to either side: symmetric, so that zero stays zero."""


def as_stored(feature_map: torch.Tensor, embeddings: torch.Tensor, dtype: str) -> dict[str, torch.Tensor]:
    """Returns the tensors of an entry.

    Args:
        feature_map: (C, d, h, w), finite.
        embeddings: (N, E), finite.
        dtype: What they are stored as. Whether they are finite in it is for the caller to see.
    """
    if dtype != "int8":
        return {"map": feature_map.to(DTYPES[dtype]), "embeddings": embeddings.to(DTYPES[dtype])}
    steps, scale = quantised(feature_map)
    return {"map": steps, "map_scale": scale, "embeddings": embeddings.to(torch.bfloat16)}


def quantised(feature_map: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a map as int8 steps, and the scale of each channel: its largest magnitude is 127 steps.

    A channel of its own scale, since a few channels of vision transformers are many times larger than the others. No
    value is further from what it was than half a step. Clipping would gain steps for most values and lose the extremes,
    which are what a head may need.

    Args:
        feature_map: (C, d, h, w), finite.

    Returns:
        (C, d, h, w) int8 and (C,) float32.
    """
    scale = feature_map.float().abs().amax(dim=(1, 2, 3)) / _STEPS
    divisor = torch.where(scale > 0, scale, 1.0)[:, None, None, None]
    return feature_map.float().div(divisor).round_().clamp_(-_STEPS, _STEPS).to(torch.int8), scale


def as_values(
    stored: torch.Tensor, scale: torch.Tensor | None, device: torch.device, dtype: torch.dtype | None
) -> torch.Tensor:
    """Returns the values of a stored map (C, ...) on a device; it goes there as it is stored.

    Args:
        stored: Values, or steps.
        scale: (C,) of steps; None for values.
        device: Where to.
        dtype: What they become; None leaves values as they are, and makes steps float32.
    """
    if scale is None:
        return stored.to(device=device, dtype=dtype)
    values = stored.to(device).float().mul_(scale.to(device).view(-1, *[1] * (stored.ndim - 1)))
    return values if dtype is None else values.to(dtype)


def problem(tensors: Mapping[str, torch.Tensor], dtype: str) -> str | None:
    """Returns what is wrong with the tensors of an entry that says that it is of a dtype; None where nothing is."""
    of_values, of_embeddings = (torch.int8, torch.bfloat16) if dtype == "int8" else (DTYPES[dtype],) * 2
    found, wanted = (tensors["map"].dtype, tensors["embeddings"].dtype), (of_values, of_embeddings)
    if found != wanted:
        return f"its features are {found[0]} and {found[1]}, and should be {wanted[0]} and {wanted[1]}"
    scale, channels = tensors.get("map_scale"), tensors["map"].shape[0]
    if dtype != "int8":
        return None if scale is None else f"its map has a scale, and should have none in {dtype}"
    if scale is None or scale.dtype != torch.float32 or tuple(scale.shape) != (channels,):
        return f"its map has no scale of {channels} channels"
    return None if bool(torch.isfinite(scale).all() and (scale >= 0).all()) else "its scales are not finite"
