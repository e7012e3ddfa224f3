"""Which records are of one model: an encoder under one set of settings, with one source and one set of weights."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tapct import names
from tapct.records.models import (
    CARD,
    CLASS,
    PRECISION,
    SETTING,
    SOURCE,
    WEIGHTS,
    Identity,
    as_text,
    what_is_known,
    what_is_recorded,
)
from tapct.records.record import Recorded

_LONGEST = 60


def identities(records: Sequence[Recorded]) -> list[Identity]:
    """Returns the identity of each record's model: records are of one model where they are equal.

    A record from before class, source and settings were kept is of the model that all it says points to; where that
    could be several, it is of one by itself.
    """
    bases = [what_is_known(record) for record in records]
    own = [what_is_recorded(record) for record in records]
    whole: dict[str, dict[str, Identity]] = defaultdict(dict)
    for base, identity in zip(bases, own, strict=True):
        if CLASS in identity:
            whole[as_text(base)][as_text(identity)] = identity
    found = []
    for base, identity in zip(bases, own, strict=True):
        fitting = [one for one in whole[as_text(base)].values() if one.items() >= identity.items()]
        found.append(base | (fitting[0] if len(fitting) == 1 else identity))
    return found


def names_of(records: Sequence[Recorded], plain: Sequence[str], *, by: Callable[[str], bool] = bool) -> list[str]:
    """Returns the name of each record's model, which no other model has.

    Args:
        records: The records.
        plain: What each record calls its model. By two names it would be two models of half the tasks each, so it has
            that of its first record; of one that says what was set, if there is one.
        by: Whether models may be told apart by a part of their identity; others are then one.
    """
    whole = identities(records)
    of = [{key: value for key, value in one.items() if by(key)} for one in whole]
    plain = _one_name_each(records, plain, list(map(as_text, whole)))
    twins: dict[str, dict[str, Identity]] = defaultdict(dict)
    for name, identity in zip(plain, of, strict=True):
        twins[names.form(name)][as_text(identity)] = identity
    labels = {
        (name, as_text(identity)): told_apart(name, identity, list(twins[names.form(name)].values()))
        for name, identity in zip(plain, of, strict=True)
    }
    taken = Counter(labels.values())
    found = []
    for name, identity in zip(plain, of, strict=True):
        label = labels[name, as_text(identity)]
        mark = hashlib.sha256(as_text(identity).encode()).hexdigest()[:8]
        found.append(label if taken[label] == 1 else f"{label} #{mark}")
    return found


def _one_name_each(records: Sequence[Recorded], plain: Sequence[str], models: Sequence[str]) -> list[str]:
    names: dict[str, str] = {}
    for saying in (True, False):
        for record, name, model in zip(records, plain, models, strict=True):
            if saying == (record.encoder.options is not None):
                names.setdefault(model, name)
    return [names[model] for model in models]


def told_apart(name: str, own: Identity, twins: Sequence[Identity]) -> str:
    """Returns a name with what tells a model from others of the same name.

    Args:
        name: What all of them are called.
        own: The model.
        twins: All models of the name.
    """
    parts = []
    if any(twin.get(CLASS) != own.get(CLASS) for twin in twins):
        parts.append(own.get(CLASS, "settings not recorded"))
        twins = [twin for twin in twins if twin.get(CLASS) == own.get(CLASS)]
    keys = dict.fromkeys(key for twin in (own, *twins) for key in twin)
    differing = [key for key in keys if any(twin.get(key) != own.get(key) for twin in twins)]
    return ", ".join([name, *parts, *(_in_words(key, own.get(key)) for key in differing)])


def is_setting(key: str) -> bool:
    """Returns whether a part of an identity is the class or a setting, and not the source or the weights."""
    return key in (*CARD, PRECISION, CLASS) or key.startswith(SETTING)


def _in_words(key: str, value: Any) -> str:
    if key in (WEIGHTS, SOURCE):
        return f"{key.removesuffix('_sha256')} {str(value)[:8]}"
    if isinstance(value, Mapping):  # what is in a buffer or a file is known by its hash
        hashes = [part[:8] for part in value.values() if isinstance(part, str) and len(part) == 64]
        value = hashes[0] if hashes else as_text(value)
    words = str(value) if value is not None else "native" if key in CARD else "none"
    return f"{key.removeprefix(SETTING)} {words[:_LONGEST]}"
