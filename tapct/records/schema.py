"""The schema of a record's file: its number, what is signed, and how older files are read."""

import hashlib
import json
from collections.abc import Callable
from typing import Any, Literal

SCHEMA_VERSION: Literal[3] = 3

OlderSchema = Literal[1, 2]
"""Schemas whose records are of an older protocol: their probabilities are float32, and they keep no logits."""

UNSIGNED = ("fingerprint", "complete", "execution", "flags", "older_schema")
"""The keys of a record's file that its fingerprint does not cover."""

UNSIGNED_OF_ENCODER = ("verification",)
"""Those of its `encoder`."""

_SIGNED_AS = {1: 1, 2: 1, 3: 3}
"""The number that goes into the fingerprint for each schema: an earlier one's where nothing signed has changed since.
One result then has one fingerprint, whichever of them it was written under."""


def fingerprint(content: dict[str, Any]) -> str:
    """Returns the hash of what is signed of a record's JSON content, of whichever schema.

    An older record that is written again is signed as it was, and the mark that it is one cannot be taken off. Where an
    encoder was compared with its authors' code is told next to a result, and is none of it.
    """
    version = _SIGNED_AS[content.get("older_schema") or content["schema_version"]]
    signed = {key: value for key, value in content.items() if key not in UNSIGNED} | {"schema_version": version}
    if isinstance(encoder := signed.get("encoder"), dict):
        signed["encoder"] = {key: value for key, value in encoder.items() if key not in UNSIGNED_OF_ENCODER}
    return hashlib.sha256(json.dumps(signed, sort_keys=True).encode()).hexdigest()


def migrated(content: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of a record's file as the newest schema has it.

    Args:
        content: The JSON content, without fingerprint; it need not be valid.

    Raises:
        ValueError: If it is of no schema, or of a newer one.
    """
    version, older_schema = content.get("schema_version"), content.get("older_schema")
    if type(version) is not int or version < 1:
        raise ValueError(f"its schema_version is {version!r}")
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"it was written by a newer tapct (schema {version}; this one reads up to {SCHEMA_VERSION}): upgrade"
        )
    if older_schema is not None and type(older_schema) is not int:
        raise ValueError(f"its older_schema is {older_schema!r}")
    older = {"older_schema": version} if version < SCHEMA_VERSION else {}
    for number in range(version, SCHEMA_VERSION):
        content = MIGRATIONS[number](content)
    return {**content, **older}


def _from_1(content: dict[str, Any]) -> dict[str, Any]:
    """Schema 2 has flags, and the times of every run; schema 1 kept those of the last run that was written."""
    match content:
        case {"runs": [*_, {"run": last}], "execution": {"seconds": dict(seconds), **others}}:
            content = {
                **content,
                "execution": {**others, "seconds": seconds, "runs": [{"run": last, "seconds": seconds}]},
            }
    return {**content, "schema_version": 2, "flags": []}


def _from_2(content: dict[str, Any]) -> dict[str, Any]:
    """Schema 3 keeps logits, which cannot be had from saturated probabilities: older records are marked instead."""
    return {**content, "schema_version": 3}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1, 2: _from_2}
"""By schema, what makes content of the next one of it; it need not be valid."""
