"""What settings are made of: numbers within bounds, sizes, places, sections."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator

Probability = Annotated[float, Field(ge=0, le=1)]
AboveZero = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=0)]
CropSize = tuple[AtLeastOne, AtLeastOne] | tuple[AtLeastOne, AtLeastOne, AtLeastOne]


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"must be (min, max), got {bounds}")
    return bounds


Interval = Annotated[tuple[float, float], AfterValidator(_ascending)]
PositiveRange = Annotated[tuple[AboveZero, AboveZero], AfterValidator(_ascending)]
Fractions = Annotated[tuple[Probability, Probability], AfterValidator(_ascending)]


def is_url(location: Any) -> bool:
    """Whether a location is a URL, and not a folder."""
    return isinstance(location, str) and "://" in location


def _location(given: Any) -> Path | str:
    if not isinstance(given, str | Path):
        raise ValueError(f"must be a folder or a URL, got {given!r}")
    if not is_url(given):
        return Path(given)
    parts = urlsplit(str(given))
    if parts.password is not None or parts.query or parts.fragment:
        raise ValueError(
            "a URL carries no password, query or fragment: settings are kept in every checkpoint. Credentials are read "
            "where the protocol's own tools read them (docs/pretraining.md)"
        )
    return str(given).rstrip("/")


Location = Annotated[Path | str, PlainValidator(_location), PlainSerializer(str, when_used="json")]


class Section(BaseModel):
    """A part of the configuration: immutable, strictly typed, without unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, serialize_by_alias=True
    )
