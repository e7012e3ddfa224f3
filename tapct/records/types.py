"""The values of a record: each type holds its range, so that a number outside of it is not a record."""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    SerializeAsAny,
    WithJsonSchema,
    version,
)
from pydantic.fields import FieldInfo

from tapct import names
from tapct.errors import RecordError
from tapct.names import LONGEST_NAME

LONGEST_TEXT = 20_000
LARGEST = 2**63 - 1
"""Whole numbers are those of 64 bits, as tables and other languages have them."""
DEEPEST, MOST_VALUES = 40, 100_000
"""How deep a setting of somebody's encoder may be nested, and how many values it may hold."""


def _require_exclude_if() -> None:
    """Makes sure that pydantic leaves out of a record what it must: what is written too much is signed too.

    Raises:
        RecordError: If it would take `exclude_if` without a word and not heed it.
    """
    if "exclude_if" not in FieldInfo.__slots__:
        raise RecordError(
            f"pydantic {version.VERSION} is installed, which writes keys into older records that were not there: their "
            "fingerprints would change. pip install 'pydantic>=2.12'"
        )


_require_exclude_if()


class Frozen(BaseModel):
    """A part of a record: nothing of it changes, and it has no keys next to those that are documented.

    What was not said when it was made is not written: an older record keeps its content, and so its fingerprint.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def content(self) -> dict[str, Any]:
        """Returns what it says, as JSON has it."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


def optional(**checks: Any) -> Any:
    """Returns a field that records may lack, None there: it is left out of their files."""
    return Field(default=None, exclude_if=lambda value: value is None, **checks)


def shown(text: str, longest: int = LONGEST_NAME) -> str:
    """Returns text of a third party as it may stand in a message: one line, printable, not too long."""
    cut = text if len(text) <= longest else f"{text[:longest]}..."
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in cut)


def _without(fault: Callable[[str], str | None]) -> AfterValidator:
    """Returns what refuses a name that has a fault."""

    def check(name: str) -> str:
        if (wrong := fault(name)) is not None:
            raise ValueError(f"the name {shown(name)!r} {wrong}")
        return name

    return AfterValidator(check)


def _text(text: str) -> str:
    if not text.isprintable() and (
        odd := next(
            (c for c in text if not c.isprintable() and c not in "\n\t" and unicodedata.category(c) != "Zs"), None
        )
    ):
        raise ValueError(f"a text holds U+{ord(odd):04X}, which is a control character or cannot be printed")
    return text


Name = Annotated[str, Field(strict=True, min_length=1, max_length=LONGEST_NAME), _without(names.fault)]
"""What something is called: printable, without control characters and those that turn the direction of writing."""

CaseName = Annotated[str, Field(strict=True, min_length=1, max_length=LONGEST_NAME), _without(names.path_fault)]
"""The name of a case, which files are called after: it stays in their folder."""

Text = Annotated[str, Field(strict=True, max_length=LONGEST_TEXT), AfterValidator(_text)]
"""Some sentences, or a piece of code; printable, and line ends."""

Sha256 = Annotated[str, Field(strict=True, pattern=r"^[0-9a-f]{64}$")]
Switch = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0, le=LARGEST)]
AtLeast1 = Annotated[int, Field(strict=True, ge=1, le=LARGEST)]
Index = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
Whole = Annotated[int, Field(strict=True, ge=-LARGEST, le=LARGEST)]
Target = Annotated[int, Field(strict=True, ge=0, le=1)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1)]
"""Dice, NSD, an area under a curve, a probability."""
Millimetres = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]


def _number(value: Any) -> Any:
    """Returns a number as it was written: 5 is not made 5.0, which would change what is signed."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError("is not a number, or not one of 64 bits")


def _positive(value: Any) -> Any:
    if _number(value) <= 0:
        raise ValueError("must be greater than 0")
    return value


def _not_negative(value: Any) -> Any:
    if _number(value) < 0:
        raise ValueError("must not be less than 0")
    return value


def _fraction(value: Any) -> Any:
    if not 0 <= _number(value) <= 1:
        raise ValueError("must be from 0 to 1")
    return value


FiniteFloat = Annotated[float, PlainValidator(_number), SerializeAsAny(), WithJsonSchema({"type": "number"})]
Positive = Annotated[
    float, PlainValidator(_positive), SerializeAsAny(), WithJsonSchema({"type": "number", "exclusiveMinimum": 0})
]
NotNegative = Annotated[
    float, PlainValidator(_not_negative), SerializeAsAny(), WithJsonSchema({"type": "number", "minimum": 0})
]
Fraction = Annotated[
    float,
    PlainValidator(_fraction),
    SerializeAsAny(),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1}),
]
"""A setting from 0 to 1, as it was written."""


def _setting(value: Any) -> Any:
    """Returns a setting as JSON has it.

    Raises:
        ValueError: If JSON has no such value, or it is too deep or too large.
    """
    room = [MOST_VALUES]

    def plain(one: Any, depth: int) -> Any:
        room[0] -= 1
        if depth > DEEPEST or room[0] < 0:
            raise ValueError(f"a setting is nested deeper than {DEEPEST}, or holds more than {MOST_VALUES:,} values")
        match one:
            case None | bool():
                return one
            case int() if abs(one) <= LARGEST:
                return one
            case float() if math.isfinite(one):
                return one
            case str() if len(one) <= LONGEST_TEXT and not _SURROGATE.search(one):
                return one
            case list() | tuple():
                return [plain(each, depth + 1) for each in one]
            case Mapping():
                return {plain(str(key), depth + 1): plain(each, depth + 1) for key, each in one.items()}
        raise ValueError(f"a setting is not a value that JSON has, or too large: {shown(repr(one), 60)}")

    return plain(value, 0)


_SURROGATE = re.compile("[\ud800-\udfff]")

Setting = Annotated[Any, PlainValidator(_setting), WithJsonSchema({"title": "any JSON value"})]
"""A setting that is not ours to know: of a third-party encoder, an optimizer, a data set."""

Settings = dict[Name, Setting]

FeatureDtype = Literal["bf16", "fp16", "fp32", "int8"]
"""What features are stored as. In int8 a map is steps of a scale a channel; embeddings are few and bf16."""
