"""What a comparison with the authors' code found, kept in the cache folder, and whether it still holds.

It holds for an encoder of the same class, code (the adapter's, and what all adapters share), card and settings.
Versions of libraries are told and not asked for: authors' packages often want an environment of their own.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tapct._utils.files import cache_folder, write_atomically
from tapct.encoders.eva_names import in_folders
from tapct.errors import EncoderError
from tapct.source_code import code_of

if TYPE_CHECKING:
    from tapct.encoders.base import Encoder

VerificationStatus = Literal["verified", "randomised", "none"]

WORDS: dict[VerificationStatus, str] = {
    "verified": "verified here against the authors' code",
    "randomised": "tested on randomised weights only",
    "none": "neither verified here against the authors' code nor tested on randomised weights",
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How far adapter and authors are apart at one stage.

    Attributes:
        name: "voxels" after preprocessing, "map", "embedding".
        difference: The largest one, relative to the stage's largest value; None where it cannot be told.
        why: Why not.
    """

    name: str
    difference: float | None
    why: str | None = None

    @property
    def said(self) -> str:
        """The difference in words."""
        return str(self.why) if self.difference is None else f"{self.difference:.1e}"


@dataclass(frozen=True, kw_only=True)
class AdapterComparison:
    """An adapter next to its authors' code.

    Attributes:
        encoder: The name that was compared, with options.
        who: What identifies the adapter: see `who`.
        date: When, UTC, as ISO has it.
        source: What was run of the authors.
        versions: Of that, of torch and of tapct, by name.
        weights_sha256: Of the published weights, hash of their content; None where only random ones were compared.
        left_out: What of the authors' preparation was not compared.
        stages: In order; over all scans and weights.
        tolerance: The largest difference that rounding explains.
    """

    encoder: str
    who: dict[str, Any]
    date: str
    source: str
    versions: dict[str, str]
    weights_sha256: str | None
    left_out: str
    stages: tuple[Stage, ...]
    tolerance: float

    @property
    def differences(self) -> dict[str, float]:
        """By stage, where it can be told."""
        return {stage.name: stage.difference for stage in self.stages if stage.difference is not None}

    @property
    def fault(self) -> Stage | None:
        """The first stage at which they differ; what comes after it differs because of it."""
        return next((s for s in self.stages if s.difference is None or not s.difference <= self.tolerance), None)


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What is known here of an encoder next to its authors' code.

    Attributes:
        status: As in `WORDS`.
        why: Why it is no better than that; None of a verified one.
        comparison: The comparison, where there is one that holds.
    """

    status: VerificationStatus
    why: str | None = None
    comparison: AdapterComparison | None = None

    @property
    def text(self) -> str:
        """In words, for people."""
        if (of := self.comparison) is None:
            return in_words(self.status, why=self.why)
        return in_words(self.status, of.source, of.date, list(of.differences.values()), self.why)

    def content(self) -> dict[str, Any]:
        """Returns what a record holds of it, by the names of `tapct.records.VerificationRecord`."""
        found: dict[str, Any] = {"status": self.status, **({"why": self.why} if self.why else {})}
        if (of := self.comparison) is None:
            return found
        told = ("date", "source", "versions", "differences", "tolerance", "left_out")
        return found | {key: getattr(of, key) for key in told}


def in_words(
    status: VerificationStatus,
    source: str | None = None,
    date: str | None = None,
    differences: Sequence[float] = (),
    why: str | None = None,
) -> str:
    """Returns in words, for people, what is known of an encoder next to its authors' code."""
    words = WORDS[status]
    if status != "none" and source and date:
        words += f" ({source}, {date[:10]}: {max(differences, default=0.0):.1e} apart at most)"
    return f"{words}: {why}" if why else words


def who(encoder: "Encoder") -> dict[str, Any]:
    """Returns what a comparison is of: class, code, card and settings, as JSON has them; weights are no part of it.

    Raises:
        EncoderError: If that cannot be told.
    """
    import torch

    from tapct.encoders.identity import HARNESS, identity

    found = identity(encoder, torch.device("cpu"), weights="any")
    told = {key: found[key] for key in ("class", "code_sha256", "settings", "card")}
    return json.loads(json.dumps(told | {"harness_sha256": code_of(HARNESS).sha256}))


def write(comparison: AdapterComparison) -> Path:
    """Keeps a comparison in place of an earlier one of the same name, and returns its file."""
    path = _path(comparison.encoder)
    write_atomically(path, json.dumps(asdict(comparison), indent=1, allow_nan=False))
    return path


def verification_of(encoder: "Encoder", weights_sha256: str | None = None) -> Verification:
    """Returns what is known here of an encoder; nothing is run or downloaded.

    Args:
        encoder: The encoder; it may be deferred.
        weights_sha256: The hash of its weights' content where it is known: "verified" is said of these alone.
    """
    from tapct.encoders.options import RANDOM, label

    if encoder.mistake is not None:
        return Verification(status="none", why=f"its input is wrong on purpose (mistake={encoder.mistake})")
    if encoder.authors is None:
        return Verification(status="none", why="its adapter names no code of its authors")
    name = label(encoder.card.name, False, encoder.describe_options())
    command = f"`tapct verify-encoder {name}` compares them"
    try:
        content = _path(name).read_text(encoding="utf-8")
        found = _read(content)
        same = found.who == who(encoder)
    except FileNotFoundError:
        return Verification(status="none", why=f"not compared on this machine: {command}")
    except (OSError, ValueError, TypeError, KeyError, EncoderError) as error:
        return Verification(status="none", why=f"what was stored cannot be used ({error}): {command}")
    if not same:
        return Verification(
            status="none", why=f"compared on {found.date[:10]}, but its code or settings have changed since: {command}"
        )
    if (fault := found.fault) is not None:
        return Verification(status="none", comparison=found, why=differs(fault, found))
    is_random = not encoder.awaits_weights and encoder.weights_source == RANDOM
    if found.weights_sha256 is None or (weights_sha256 is None and is_random):
        return Verification(status="randomised", comparison=found)
    if weights_sha256 not in (None, found.weights_sha256):
        return Verification(status="randomised", comparison=found, why="what passed besides are other weights")
    return Verification(status="verified", comparison=found)


def differs(fault: Stage, of: AdapterComparison) -> str:
    """Returns in words where an adapter and its authors' code part."""
    limit = "" if fault.difference is None else f", more than {of.tolerance:.0e}"
    return f"it differs from its authors' code ({of.source}) at the stage '{fault.name}': {fault.said}{limit}"


def _path(name: str) -> Path:
    return cache_folder() / "verifications" / f"{in_folders(name)}.json"


def _read(content: str) -> AdapterComparison:
    fields = json.loads(content)
    return AdapterComparison(**fields | {"stages": tuple(Stage(**stage) for stage in fields["stages"])})
