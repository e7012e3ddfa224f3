"""eva's own backbones as encoders, each by the card that declares its inputs: `eva:radiology/voco_l`.

The class in eva's registry is built as it is, but for two things: it loads nothing by itself (weights come as for every
encoder), and its patch merging is the one that its weights were trained with (see `patch_merging`), which eva's own
class is only under MONAI up to 1.4.
"""

import contextlib
import math
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from tapct.encoders.base import Encoder, Features, Precision
from tapct.encoders.eva_cards import DeclaredCard, read_declared
from tapct.encoders.input_sheet import Declared, HuWindow, InputSheet
from tapct.encoders.patch_merging import set_merging
from tapct.errors import EncoderError, WeightsError, nearest


class EvaBackbone(Encoder):
    """A backbone of eva's; the subclass of each card has what it declares."""

    declared: ClassVar[DeclaredCard]

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        precision: Precision = "auto",
        deferred: bool = False,
        **options: Any,
    ) -> None:
        """Builds the network and loads its weights: see `Encoder`."""
        self.inputs = self.declared.inputs()  # a setting, and so in the keys of features and in records
        super().__init__(weights, precision=precision, deferred=deferred, **options)

    def build(self) -> nn.Module:
        """Returns eva's network, with its own initialisation.

        Raises:
            EncoderError: If eva has no such backbone, or it is not what the card says.
        """
        name, declared = self.card.name, self.declared
        network = _of_eva(declared.backbone, declared.arguments, name)
        set_merging(network, declared.patch_merging, name)
        if (found := sum(p.numel() for p in network.parameters())) != self.card.num_params:
            raise EncoderError(f"{name}: its card says num_params {self.card.num_params}, and the network has {found}")
        return network

    def supports(self, size: tuple[int, int, int]) -> bool:
        """Takes multiples of what the whole network halves, also where an earlier map is read."""
        multiple = self.declared.multiple
        whole = all(n > 0 and n % m == 0 for n, m in zip(size, multiple, strict=True))
        return whole and math.prod(size) // math.prod(multiple) >= self.declared.least_patches

    def input_requirement(self) -> str:
        """Returns what `supports` asks of a window's size, for its error."""
        least = f", and hold {self.declared.least_patches} of these blocks" if self.declared.least_patches > 1 else ""
        return f"each size must be a multiple of {self.declared.multiple}{least}"

    def _convert(self, state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        of = self.declared.weights
        if of.inside is not None:
            state_dict = state_dict[of.inside]
        kept = re.compile(of.keep or "")
        chosen = {key: value for key, value in state_dict.items() if kept.search(key)}
        found = {key.removeprefix(of.strip): value for key, value in chosen.items()}
        if len(found) < len(chosen):
            raise WeightsError(
                f"{self.card.name}: {len(chosen) - len(found)} weights of {self.weights_source} are there with "
                f"'{of.strip}' in front and without: let weights.keep of its card choose"
            )
        return found

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        declared, source = self.declared, f"ours: the card {self.card.name}, which cites where"
        low, high = declared.scaled_to
        shrunk = {"linear": "linear, without averaging", "antialias": "linear, averaged"}[declared.in_plane_filter]
        embedding = "the backbone's own" if declared.embedding == "backbone" else "mean of the map"
        return InputSheet(
            orientation=source,
            grid=source,
            resizing=Declared(shrunk, source) if "in_plane_filter" in declared.model_fields_set else None,
            hu_window=HuWindow(*declared.clip_hu, source),
            normalisation=Declared(f"the HU window to {low:g} to {high:g}, linear", source),
            padding=source,
            window=source,
            patches=source,
            embedding=Declared(embedding, source),
        )

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        declared = self.declared
        (low, high), (to_low, to_high) = declared.clip_hu, declared.scaled_to
        unit = (windows_hu.clamp(low, high) - low) / (high - low)
        network: Any = self.network
        embedding, maps = network.forward_intermediates(to_low + unit * (to_high - to_low))
        if not -len(maps) <= declared.feature < len(maps):
            raise EncoderError(f"{self.card.name}: feature {declared.feature}, but the backbone has {len(maps)} maps")
        chosen = maps[declared.feature]
        if declared.embedding == "feature":
            embedding = chosen.mean((2, 3, 4))
        self._check(chosen, embedding, tuple(windows_hu.shape[2:]))
        return Features(chosen, embedding, None)

    def _check(self, chosen: torch.Tensor, embedding: torch.Tensor, size: tuple[int, ...]) -> None:
        """Refuses outputs that are not what the card says: a wrong stride would put every prediction elsewhere."""
        card = self.card
        stride = self.declared.stride_along_axes
        found = (*chosen.shape[1:], embedding.shape[-1])
        said = (card.feature_dim, *(n // s for n, s in zip(size, stride, strict=True)), card.embedding_dim)
        if found != said:
            raise EncoderError(
                f"{card.name}: of windows of {size} along {self.axes}, its card says {said[0]} channels on a map of "
                f"{said[1:4]} and an embedding of {said[4]}, and eva's {self.declared.backbone} gives {found[0]} on "
                f"{found[1:4]}, and {found[4]}: see feature, feature_dim, feature_stride, embedding, embedding_dim"
            )


def backbone_class(name: str) -> type[EvaBackbone]:
    """Returns the encoder class of a card.

    Args:
        name: Of one that ships (`eva:radiology/voco_b`), or `eva:PATH.yaml`.

    Raises:
        EncoderError: If there is none, or it is malformed.
    """
    declared = read_declared(name)
    held = {
        "__module__": __name__,
        "__qualname__": EvaBackbone.__qualname__,
        "__doc__": declared.reference,
        "card": declared.card(),
        "declared": declared,
        "axes": declared.axes,
        "patch_centre": declared.patch_centre,
        "least_patches": declared.least_patches,
    }
    return types.new_class(EvaBackbone.__name__, (EvaBackbone,), exec_body=lambda namespace: namespace.update(held))


def _of_eva(backbone: str, arguments: dict[str, Any], name: str) -> nn.Module:
    """Returns a network of eva's registry that has loaded nothing."""
    from eva.vision.models.networks.backbones import backbone_registry

    if backbone not in backbone_registry.entries():
        raise EncoderError(
            f"{name}: eva's registry has no backbone '{backbone}'. {nearest(backbone, backbone_registry.entries())}"
        )
    cls = backbone_registry.get(backbone)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module) and hasattr(cls, "forward_intermediates")):
        raise EncoderError(
            f"{name}: eva's '{backbone}' gives no maps of windows: only its 3D backbones do, which are classes with "
            "forward_intermediates (radiology/..., segresnet_encoder)"
        )
    if hasattr(cls, "_load_checkpoint"):  # which downloads
        cls = type(cls.__name__, (cls,), {"_load_checkpoint": lambda self: None})
    with _no_downloads(name):
        try:
            return cls(**arguments)
        except TypeError as error:
            raise EncoderError(f"{name}: eva's {backbone} does not take the card's arguments: {error}") from error


@contextlib.contextmanager
def _no_downloads(name: str) -> Iterator[None]:
    """Refuses eva's downloads for a while."""
    from eva.core.models.wrappers import _utils

    def refuse(url: str, **settings: Any) -> None:
        raise EncoderError(f"{name}: eva's class would download {url} by itself, and cannot be built without")

    eva, _utils.load_state_dict_from_url = _utils.load_state_dict_from_url, refuse
    try:
        yield
    finally:
        _utils.load_state_dict_from_url = eva
