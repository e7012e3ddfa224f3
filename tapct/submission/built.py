"""The encoder of a record against the one that its name builds here: a card's lie shows in the network."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch

from tapct.checks import Check
from tapct.encoders import Encoder, encoder_class, is_installed, list_encoders, load_encoder
from tapct.encoders.identity import identity
from tapct.encoders.options import options_of
from tapct.errors import TapctError
from tapct.features.extract import fitted_window
from tapct.probes.predictions import rebuilt_encoder
from tapct.records import Record
from tapct.records.paths import without_folders
from tapct.volumes import Size

_ABSENT = {"inputs_as_declared": False}
"""What records from before a field of the card mean by its absence."""

TEXTS = ("pretraining_data", "reference", "weights")
"""Of a card, what is about the encoder and not it: another release may say more."""

_FIX = "say what the encoder is: the record of a run of the installed encoder does"


def checks(record: Record, places: Mapping[str, str] | None = None) -> Iterator[Check]:
    """Yields the checks of a record's encoder, built with random weights, on one window of air.

    Args:
        record: The record.
        places: Where encoders are that are not installed, by the names of their cards.
    """
    name = record.encoder.card.name
    if not is_installed(name):
        if (other := _under_another_name(record)) is not None:
            yield Check("fail", "encoder", other, _FIX)
            return
        if name not in (places or {}):
            yield _unknown(record)
            return
    try:
        load_encoder((places or {}).get(name, name), "random", deferred=True)
    except (TapctError, ImportError) as error:
        yield Check("warn", "encoder", f"not checked: {name} cannot be built here ({error})", "install what it needs")
        return
    newer = None
    try:
        encoder = rebuilt_encoder(record, "random", places=places)
        encoder.load()
        wrong = [*_of_card(record, encoder), *_of_options(record, encoder), *_of_network(record, encoder)]
        newer = _of_identity(record, encoder)
    except Exception as error:  # noqa: BLE001 whatever settings of a third party make of a constructor
        wrong = [f"with its settings {name} cannot be built: {type(error).__name__}: {error}"]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        yield Check("fail", "encoder", f"{wrong[0]}{more}", _FIX)
    else:
        yield Check("ok", "encoder", "card and network are those of the installed encoder")
    if newer:
        yield Check("warn", "encoder code", newer, "compare with the release that the record names, or --recompute")


def _under_another_name(record: Record) -> str | None:
    """Returns which installed encoder a record of another name shows or is of; None where it is none."""
    card, about = record.encoder.card, record.encoder.identity
    for name in list_encoders():
        try:
            cls = encoder_class(name)
        except TapctError:
            continue
        if about is not None and about.cls == f"{cls.__module__}.{cls.__qualname__}" and not _is_exported(cls):
            return f"'{card.name}' is {name} under another name, by its class"
        if card.display_name == cls.card.display_name:
            return f"'{card.name}' is shown as {card.display_name}, which is {name}"
    return None


def _unknown(record: Record) -> Check:
    return Check(
        "warn",
        "encoder",
        f"not checked: {record.encoder.card.name} is not installed here",
        "install its package, or name its code: --encoders package.module:Class, or the folder of an exported one",
    )


def _is_exported(cls: type[Encoder]) -> bool:
    """Whether many encoders are of this class, each named by its folder."""
    from tapct.encoders.exported import Exported

    return cls is Exported


def _of_card(record: Record, encoder: Encoder) -> Iterator[str]:
    there, ours = record.encoder.card.content(), json.loads(json.dumps(asdict(encoder.card)))
    for key in ours:
        if key not in TEXTS and there.get(key, _ABSENT.get(key)) != ours[key]:
            yield f"the card says {key} {there.get(key)}, and that of {encoder.card.name} is {ours[key]}"
    for data in ours["pretraining_data"]:  # by which a task's scans are known to have been seen
        if data not in there.get("pretraining_data", ()):
            yield f"the card leaves {data} out of its pretraining data"


def _of_options(record: Record, encoder: Encoder) -> Iterator[str]:
    """Yields the options by which the record's settings are not those that it says were set."""
    about = record.encoder
    if about.options is None or about.identity is None:
        return
    settings = without_folders(json.loads(json.dumps(identity(encoder, torch.device("cpu"))["settings"])))
    for key in options_of(type(encoder)):
        there = about.identity.settings.get(key)
        if key in settings and there != settings[key]:
            yield f"its settings say {key} {there}, and with the options that it says were set it is {settings[key]}"


def _of_network(record: Record, encoder: Encoder) -> Iterator[str]:
    """Yields what the built network does otherwise than the record's card says."""
    card = record.encoder.card
    parameters = sum(p.numel() for p in encoder.network.parameters())
    for what, said in (("parameters", record.encoder.parameters), ("num_params of the card", card.num_params)):
        if said is not None and said != parameters:
            yield f"it has {parameters:,} parameters, and {what} says {said:,}"
    window = fitted_window(encoder, Size(*encoder.card.feature_stride))
    features = encoder(torch.full((1, 1, *window), -1000.0))
    patches = tuple(features.map.shape[2:])
    stride = tuple(n // c for n, c in zip(window, patches, strict=True))
    measured: dict[str, tuple[Any, Any]] = {
        "feature_stride": (tuple(card.feature_stride), stride),
        "feature_dim": (card.feature_dim, features.map.shape[1]),
        "embedding_dim": (card.embedding_dim, features.embedding.shape[1]),
        "has_cls": (card.has_cls, features.cls is not None),
    }
    for what, (said, found) in measured.items():
        if said != found:
            yield f"the card says {what} {said}, and the network has {found}"


def _of_identity(record: Record, encoder: Encoder) -> str | None:
    """Returns in what the record's encoder differs from the installed one that a release may change."""
    about = record.encoder.identity
    if about is None:
        return "the record does not say which class and source its encoder is of"
    who = without_folders(json.loads(json.dumps(identity(encoder, torch.device("cpu")))))
    if about.cls != who["class"]:
        return f"its class is {about.cls}, and here {who['class']}"
    return None if about.code_sha256 == who["code_sha256"] else "its adapter's source is not the one that is installed"
