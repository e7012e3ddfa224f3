"""Encoders: cards, the sealed base class, the registry, weights, and the TAP-CT family."""

from tapct.encoders.base import Encoder, Features, Precision
from tapct.encoders.card import EncoderCard, Weights
from tapct.encoders.registry import encoder_class, list_encoders, load_encoder

__all__ = [
    "Encoder",
    "EncoderCard",
    "Features",
    "Precision",
    "Weights",
    "encoder_class",
    "list_encoders",
    "load_encoder",
]
