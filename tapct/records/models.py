"""What a record says of which model it is of: an encoder under one set of settings, of one source, with its weights."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tapct.records.record import Record

CARD = ("name", "window_size", "spacing_mm", "in_plane_size", "pad_hu")
CLASS, SOURCE, WEIGHTS, SETTING = "class", "source", "weights_sha256", "settings."

_NOT_SETTINGS = frozenset(
    {
        *("card", "identity", "weights", "weights_sha256", "precision", "precision_used", "parameters"),
        "feature_centre_voxel",
    }
)
"""What a record says of its encoder that is no setting of it, or is looked at by itself."""

Identity = dict[str, Any]
"""What tells a model from others, by name, as JSON has it."""


def is_random(record: Record) -> bool:
    """Returns whether the encoder has random weights."""
    return record.encoder.get("weights") == "random"


def what_is_known(record: Record) -> Identity:
    """Returns what every record says of its model: the card's name and preprocessing, and the weights."""
    card = {key: record.encoder["card"].get(key) for key in CARD}
    return as_json(card | {"random": is_random(record), WEIGHTS: record.encoder.get(WEIGHTS)})


def what_is_recorded(record: Record) -> Identity:
    """Returns what a record says of its encoder's class, source and settings; little of it in older ones."""
    encoder = record.encoder
    identity = encoder.get("identity")
    settings = {key: value for key, value in encoder.items() if key not in _NOT_SETTINGS}
    found = {}
    if identity is not None:
        found = {CLASS: identity["class"], SOURCE: identity["code_sha256"]}
        settings |= identity["settings"]
    return as_json(found | {f"{SETTING}{key}": value for key, value in settings.items()})


def model_id(record: Record) -> str:
    """Returns a hash of all that a record says of its model: another setting, source or weights is another model."""
    return hashlib.sha256(as_text(what_is_known(record) | what_is_recorded(record)).encode()).hexdigest()[:16]


def as_json(of: Mapping[str, Any]) -> Identity:
    """Returns an identity as JSON has it: tuples of a record that was just made are the lists of one that was read."""
    return json.loads(json.dumps(of))


def as_text(of: Mapping[str, Any]) -> str:
    """Returns an identity as text: the same for equal ones."""
    return json.dumps(of, sort_keys=True)
