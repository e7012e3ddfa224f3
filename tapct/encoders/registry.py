"""Finding encoders by name: ours and a third party's the same way, through the entry points `tapct.encoders`.

Names that begin with `eva:` are backbones of eva's with a card (`tapct.encoders.eva_cards`).
`tapct._utils.installed` says which names are taken.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapct._utils.installed import SortedEntryPoints, distribution, sorted_out
from tapct.encoders import eva_names
from tapct.encoders.card import EncoderCard
from tapct.encoders.places import SAFE, exported
from tapct.errors import EncoderError, nearest

if TYPE_CHECKING:
    import torch

    from tapct.encoders.base import Encoder

GROUP = "tapct.encoders"

"""Names that every file system takes."""

FIRST = ("tap-s-2d", "tap-b-2d", "tap-s-2.5d", "tap-b-2.5d", "tap-s-3d", "tap-b-3d", "tap-t-3d")
"""Names that head the list; package metadata keeps entry points in alphabetical order."""


def list_encoders() -> list[str]:
    """Returns the names of the encoders that are installed, TAP-CT first; whether each can be imported is not tried."""
    return list(_entry_points()[0])


def list_declared() -> list[str]:
    """Returns the names of eva's backbones that have a card here, such as `eva:radiology/voco_b`."""
    from tapct.encoders.eva_cards import shipped_names

    return shipped_names()


def is_installed(name: str) -> bool:
    """Returns whether there is an encoder of a name: a listed one, or a card of a backbone of eva's that ships."""
    return name in list_encoders() or name in list_declared()


def refused_encoders() -> list[str]:
    """Returns, a sentence each, the encoders that are installed and not listed, with the distribution and why."""
    return list(_entry_points()[1].values())


def encoder_class(name: str) -> "type[Encoder]":
    """Returns the class of the encoder `name`.

    Raises:
        EncoderError: If there is none of that name, or its entry point cannot be imported or is none of that name.
    """
    from tapct.encoders.base import Encoder  # imports torch, which the names alone do without

    if eva_names.is_eva(name):
        from tapct.encoders.eva_backbones import backbone_class

        return backbone_class(name)
    if ":" in name:
        return _by_class_path(name)
    found, refused = _entry_points()
    if name not in found:
        raise EncoderError(refused.get(name, f"there is no encoder '{name}'. {nearest(name, found)}"))
    point = found[name]
    try:
        loaded = point.load()
    except (Exception, SystemExit) as error:
        raise EncoderError(
            f"the encoder '{name}' of {distribution(point)} cannot be imported ({point.value}): "
            f"{type(error).__name__}: {error}. Fix or uninstall it"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Encoder) and hasattr(loaded, "card")):
        raise EncoderError(
            f"the entry point '{name}' = {point.value} of {distribution(point)} is not a subclass of "
            "Encoder with a card"
        )
    if loaded.card.name != name:
        raise EncoderError(
            f"the entry point '{name}' = {point.value} of {distribution(point)} has a card of another name, "
            f"'{loaded.card.name}', under which its records would stand. Give both one name"
        )
    return loaded


def card_of(name: str) -> EncoderCard:
    """Returns the card of an encoder, by whatever `load_encoder` takes as its name.

    Raises:
        EncoderError: If there is no such encoder, or its records would stand under the name of another.
    """
    from tapct.encoders.exported import read_card

    place = exported(name)
    card = encoder_class(name).card if place is None else read_card(place)
    if place is not None or (":" in name and not eva_names.is_eva(name)):
        if not SAFE.fullmatch(card.name):
            raise EncoderError(
                f"{name}: its card has the name {card.name!r}, after which folders of results are called: write "
                "letters, digits, '.', '_' and '-'"
            )
        if is_installed(card.name) and (place is not None or encoder_class(card.name) is not encoder_class(name)):
            another = "" if place is None else f". Give it one of its own: NAME={place.folder}"
            raise EncoderError(f"{name}: it has the name '{card.name}' of another encoder, which is installed{another}")
    return card


def places_of(names: str | None) -> dict[str, str]:
    """Returns where encoders are, by the names of their cards: a record names its encoder by its card alone.

    Nothing that a record says is imported: whoever reads it names the code that it trusts.

    Args:
        names: `package.module:Class`, or folders of exported encoders, by comma.

    Raises:
        EncoderError: If there is no such encoder, or it has the name of another.
    """
    places = [name.strip() for name in (names or "").split(",") if name.strip()]
    return {card_of(place).name: place for place in places}


def _by_class_path(name: str) -> "type[Encoder]":
    """Returns the class that `package.module:Class` names."""
    from tapct.encoders.base import Encoder

    module, _, attribute = name.partition(":")
    try:
        loaded = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        raise EncoderError(
            f"the encoder '{name}' cannot be imported ({type(error).__name__}: {error}). Write package.module:Class, "
            "and have its folder on the Python path: PYTHONPATH=FOLDER"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Encoder) and hasattr(loaded, "card")):
        raise EncoderError(f"{name} is not a subclass of Encoder with a card")
    return loaded


def load_encoder(
    name: str, weights: str | Path | None = None, device: "str | torch.device" = "cpu", **options: Any
) -> "Encoder":
    """Builds an encoder and loads its weights.

    Args:
        name: One of `list_encoders()` or `list_declared()`, `package.module:Class`, `eva:PATH.yaml` for a card of
            one's own (docs/eva.md), or a folder that `python -m pretrain.export` wrote.
        weights: None for the published file (of a folder, the one in it), a path to a file of the published
            layout, or "random" for seeded random initialisation.
        device: Where to put it.
        options: The card's settings to change (`in_plane_size=512`), and `precision`.

    Raises:
        EncoderError: If the name or an option is unknown.
        WeightsError: If the weights cannot be had or do not fit.
    """
    from tapct.encoders.exported import Exported

    if exported(name) is not None:
        return Exported(name, weights, **options).to(device)
    return encoder_class(name)(weights, **options).to(device)


def _entry_points() -> SortedEntryPoints:
    """Returns the entry points by name, and by name what is refused and why."""
    return _read(entry_points, tuple(sys.path))


@functools.lru_cache(maxsize=4)
def _read(listed: Callable[..., Iterable[EntryPoint]], path: tuple[str, ...]) -> SortedEntryPoints:
    """Returns the same of a search path, looked through once: a sweep asks hundreds of times."""
    of_eva: list[EntryPoint] = []
    others: list[EntryPoint] = []
    for point in listed(group=GROUP):
        (of_eva if point.name.startswith((eva_names.PREFIX, eva_names.FOLDER_PREFIX)) else others).append(point)
    found, refused = sorted_out(others, "encoder")
    for name in {point.name for point in of_eva}:
        who = " and ".join(distribution(point) for point in of_eva if point.name == name)
        refused[name] = f"the encoder '{name}' of {who} is refused: names of eva's backbones begin so. Rename it"
    first = {name: found.pop(name) for name in FIRST if name in found}
    return first | found, dict(sorted(refused.items()))
