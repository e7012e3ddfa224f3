"""Parts of records for tests."""

from typing import Any

from tapct.records import Record


def card(name: str = "small", **changes: Any) -> dict[str, Any]:
    """The card of a small encoder."""
    fields = {
        "name": name,
        "display_name": name.capitalize(),
        "window_size": [1, 512, 512],
        "spacing_mm": None,
        "in_plane_size": 512,
        "pad_hu": -1024.0,
        "feature_stride": [1, 16, 16],
        "feature_dim": 8,
        "embedding_dim": 8,
        "has_cls": True,
        "num_params": 100,
    }
    return fields | changes


def encoder(name: str = "small", **changes: Any) -> dict[str, Any]:
    """What a record says of an encoder."""
    return {"card": card(name), "weights": f"{name}.safetensors", "weights_sha256": "c" * 64} | changes


def changed(record: Record, **sections: dict[str, Any]) -> Record:
    """A record with some keys of its encoder, task, probe or execution changed."""
    new = {}
    for name, changes in sections.items():
        section = getattr(record, name)
        new[name] = type(section)(**{**section.content(), **changes})
    return record.model_copy(update=new)
