"""Encoders: cards, the sealed base class, the registry, weights, and the TAP-CT family."""

from typing import TYPE_CHECKING

from tapct._utils import lazy
from tapct.encoders.card import EncoderCard, Weights
from tapct.encoders.registry import (
    card_of,
    encoder_class,
    is_installed,
    list_declared,
    list_encoders,
    load_encoder,
    refused_encoders,
)

if TYPE_CHECKING:
    from tapct.encoders.authors import Authors
    from tapct.encoders.base import Encoder, Features, Precision
    from tapct.encoders.input_sheet import Declared, HuWindow, InputSheet
    from tapct.encoders.statistics import mean_and_std

__all__ = [
    "Authors",
    "Declared",
    "Encoder",
    "EncoderCard",
    "Features",
    "HuWindow",
    "InputSheet",
    "Precision",
    "Weights",
    "card_of",
    "encoder_class",
    "is_installed",
    "list_declared",
    "list_encoders",
    "load_encoder",
    "mean_and_std",
    "refused_encoders",
]

# These import torch.
__getattr__ = lazy.names(
    __name__,
    __all__,
    *("tapct.encoders.authors", "tapct.encoders.base", "tapct.encoders.input_sheet", "tapct.encoders.statistics"),
)
