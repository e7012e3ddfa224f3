"""Finding encoders by name: ours and a stranger's the same way, through the entry points `tapct.encoders`."""

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapct.errors import EncoderError, nearest

if TYPE_CHECKING:
    import torch

    from tapct.encoders.base import Encoder

GROUP = "tapct.encoders"

FIRST = ("tap-s-2d", "tap-b-2d", "tap-s-2.5d", "tap-b-2.5d", "tap-s-3d", "tap-b-3d", "tap-t-3d")
"""Names that head the list; package metadata keeps entry points in alphabetical order."""


def list_encoders() -> list[str]:
    """Returns the names of the encoders that are installed, TAP-CT first."""
    return list(_entry_points())


def encoder_class(name: str) -> "type[Encoder]":
    """Returns the class of the encoder `name`.

    Raises:
        EncoderError: If there is none of that name, or the entry point is no encoder.
    """
    from tapct.encoders.base import Encoder  # imports torch, which the names alone do without

    found = _entry_points()
    if name not in found:
        raise EncoderError(f"there is no encoder '{name}'. {nearest(name, found)}")
    loaded = found[name].load()
    if not (isinstance(loaded, type) and issubclass(loaded, Encoder)):
        raise EncoderError(f"the entry point '{name}' = {found[name].value} is not a subclass of Encoder")
    return loaded


def load_encoder(
    name: str, weights: str | Path | None = None, device: "str | torch.device" = "cpu", **options: Any
) -> "Encoder":
    """Builds an encoder and loads its weights.

    Args:
        name: One of `list_encoders()`, or a folder that `python -m pretrain.export` wrote.
        weights: None for the published file (of a folder, the one in it), a path to a file of the published
            layout, or "random" for seeded random initialisation.
        device: Where to put it.
        options: The card's settings to change (`in_plane_size=512`), and `precision`.

    Raises:
        EncoderError: If the name or an option is unknown.
        WeightsError: If the weights cannot be had or do not fit.
    """
    from tapct.encoders.exported import CARD_FILE, Exported

    if (Path(name) / CARD_FILE).is_file():
        return Exported(name, weights, **options).to(device)
    return encoder_class(name)(weights, **options).to(device)


def _entry_points() -> dict[str, EntryPoint]:
    found = {point.name: point for point in entry_points(group=GROUP)}
    first = {name: found.pop(name) for name in FIRST if name in found}
    return first | dict(sorted(found.items()))
