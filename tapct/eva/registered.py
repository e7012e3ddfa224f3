"""Our encoders in eva's registry, as `tapct/NAME`: none is imported before it is asked for."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

from eva.vision.models.networks.backbones import backbone_registry
from eva.vision.models.wrappers import from_registry

from tapct.encoders import list_encoders
from tapct.errors import EncoderError, nearest
from tapct.eva.models import Backbone, DenseEncoder, FrozenModel

PREFIX = "tapct/"


class _EveryName(dict):
    """A mapping that claims to hold every name."""

    def __contains__(self, name: object) -> bool:
        return True


class _TakesEveryName(inspect.Signature):
    """The signature of what refuses unknown settings itself: eva drops, without a word, those that it does not find."""

    @property
    def parameters(self) -> "MappingProxyType[str, inspect.Parameter]":
        return cast("MappingProxyType[str, inspect.Parameter]", _EveryName(super().parameters))


@dataclass(frozen=True)
class Registered:
    """What stands in eva's registry for an encoder.

    Attributes:
        name: Of the encoder.
    """

    name: str

    @property
    def __signature__(self) -> inspect.Signature:
        return _TakesEveryName()

    def __call__(self, out_indices: int | None = None, **settings: Any) -> FrozenModel:
        """Builds the encoder as eva's own backbones are asked for it.

        Args:
            out_indices: None for a `Backbone`; 1 for a `DenseEncoder`, whose list has one map.
            settings: Of that model.

        Raises:
            EncoderError: If a setting is unknown, or more maps are asked for.
        """
        if out_indices not in (None, 1):
            raise EncoderError(
                f"{PREFIX}{self.name} gives one map: set out_indices (in eva's configs the variable OUT_INDICES) to 1, "
                f"or null for embeddings, not to {out_indices}"
            )
        model = Backbone if out_indices is None else DenseEncoder
        known = _settings_of(model)
        for key in settings:
            if key not in known:
                raise EncoderError(f"{PREFIX}{self.name} has no setting '{key}'. {nearest(key, known)}")
        return model(self.name, **settings)


class ModelFromRegistry(from_registry.ModelFromRegistry):
    """eva's `ModelFromRegistry`; that this one is named in a config is what makes `tapct/NAME` known."""


def register() -> None:
    """Puts every installed encoder into eva's registry.

    Raises:
        EncoderError: If something else stands there under the name of one.
    """
    there = set(backbone_registry.entries())
    for name in list_encoders():
        if PREFIX + name not in there:
            backbone_registry.register(PREFIX + name)(Registered(name))
        elif not isinstance(other := backbone_registry.get(PREFIX + name), Registered):
            raise EncoderError(
                f"eva's registry has another '{PREFIX}{name}', {other!r}: these names are of tapct.eva. Register it "
                "under a name of its own"
            )


def _settings_of(model: type[FrozenModel]) -> Mapping[str, inspect.Parameter]:
    found = {**inspect.signature(FrozenModel.__init__).parameters, **inspect.signature(model.__init__).parameters}
    return {name: one for name, one in found.items() if name not in ("self", "encoder", "settings", "transforms")}
