"""What a record says of which model it is of: an encoder under one set of settings, of one source, with its weights."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tapct.records.record import Recorded

CARD = ("name", "window_size", "spacing_mm", "in_plane_size", "in_plane_filter", "pad_hu")
CLASS, SOURCE, WEIGHTS, SETTING = "class", "source", "weights_sha256", "settings."
PRECISION = "precision"
"""Only where it was set: what a machine chooses by itself does not make another model."""

Identity = dict[str, Any]
"""What tells a model from others, by name, as JSON has it."""


def is_random(record: Recorded) -> bool:
    """Returns whether the encoder has random weights."""
    return record.encoder.is_random


def what_is_known(record: Recorded) -> Identity:
    """Returns what every record says of its model: the card's name and preprocessing, the weights, a set precision."""
    known = record.encoder.card.model_dump(mode="json", include=set(CARD))  # what it does not say by itself, too
    asked = {key: value for key, value in (record.encoder.options or {}).items() if key == PRECISION}
    return known | asked | {"random": is_random(record), WEIGHTS: record.encoder.weights_sha256}


def what_is_recorded(record: Recorded) -> Identity:
    """Returns what a record says of its encoder's class, source and settings; little of it in older ones."""
    identity, settings = record.encoder.identity, record.encoder.own_settings
    settings |= {k: v for k, v in (record.encoder.options or {}).items() if k not in (*CARD, PRECISION)}
    found: Identity = {}
    if identity is not None:
        found = {CLASS: identity.cls, SOURCE: identity.code_sha256}
        settings |= identity.settings
    return found | {f"{SETTING}{key}": value for key, value in settings.items()}


def model_id(record: Recorded) -> str:
    """Returns a hash of all that a record says of its model: another setting, source or weights is another model."""
    return hashlib.sha256(as_text(what_is_known(record) | what_is_recorded(record)).encode()).hexdigest()[:16]


def as_text(of: Mapping[str, Any]) -> str:
    """Returns an identity as text: the same for equal ones."""
    return json.dumps(of, sort_keys=True)
