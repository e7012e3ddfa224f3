"""Encoders: cards, the sealed base class, the registry, weights, and the TAP-CT family."""

from typing import TYPE_CHECKING

from tapct import lazy
from tapct.encoders.card import EncoderCard, Weights
from tapct.encoders.registry import (
    encoder_class,
    is_installed,
    list_declared,
    list_encoders,
    load_encoder,
    refused_encoders,
)

if TYPE_CHECKING:
    from tapct.encoders.base import Encoder, Features, Precision
    from tapct.encoders.statistics import mean_and_std

__all__ = [
    "Encoder",
    "EncoderCard",
    "Features",
    "Precision",
    "Weights",
    "encoder_class",
    "is_installed",
    "list_declared",
    "list_encoders",
    "load_encoder",
    "mean_and_std",
    "refused_encoders",
]

__getattr__ = lazy.names(__name__, __all__, "tapct.encoders.base", "tapct.encoders.statistics")  # these import torch
