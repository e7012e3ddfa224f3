"""Columns next to the scans: age, sex, stage, scanner; what is known of a case without a network."""

import hashlib
import math
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from tapct.errors import TaskError
from tapct.names import LONGEST_NAME

Value = float | str | None
"""A number, a level, or None where nothing is known."""

UNKNOWN = ("", "unknown", "none", "na", "n/a", "nan", "anonymous", "anonymized", "anonymised", "removed", "-")
"""Texts that say nothing, in small letters."""

PATIENT, ACQUISITION = ("age", "sex"), "acquisition"
"""Names of columns in all tasks: of what is known of the patient, and of how the scan was taken, in one word."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column.

    Attributes:
        name: In adaptors (`cox:table=age+stage`, `shortcut:age`).
        title: In words.
        kind: "numeric": a number as it is. "ordered": levels as 0, 1, 2, ... in their order, one step from each to the
            next. "categorical": levels without an order. "text": whatever is written is a level, as `in_one_spelling`
            has it, without an order.
        levels: Of ordered and categorical ones.
        unit: Of numeric ones.
        edges: Of numeric ones, where they begin and end to be alike: levels are the bins between them, each with its
            lower edge and without its upper one.
    """

    name: str
    title: str
    kind: Literal["numeric", "ordered", "categorical", "text"] = "numeric"
    levels: tuple[str, ...] = ()
    unit: str | None = None
    edges: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        has_levels = self.kind in ("ordered", "categorical")
        if has_levels == (not self.levels) or len(self.levels) == 1:
            raise TaskError(f"the column '{self.name}' is {self.kind} with the levels {self.levels}")
        if self.edges and (self.kind != "numeric" or any(low >= high for low, high in pairwise(self.edges))):
            raise TaskError(f"the column '{self.name}' is {self.kind} with the edges {self.edges}, which must rise")

    @property
    def is_coded(self) -> bool:
        """Whether its number is the code of a level, which says nothing but which one it is."""
        return self.kind in ("categorical", "text")

    @property
    def has_levels(self) -> bool:
        """Whether its values are alike or not: whether it has levels, or bins."""
        return self.kind != "numeric" or bool(self.edges)

    def number(self, value: Value) -> float:
        """Returns a value as heads get it, NaN where nothing is known: a number, the place of a level, or its code.

        Raises:
            TaskError: If it is not a number, or none of the levels.
        """
        if value is None:
            return math.nan
        if self.kind == "numeric":
            return self._number(value)
        level = self.level(value)
        if level is None:
            return math.nan
        return float(self.levels.index(level)) if self.levels else code_of(level)

    def level(self, value: Value) -> str | None:
        """Returns which level a value is: two scans are alike in a column if theirs are the same text.

        Returns:
            None where nothing is known.

        Raises:
            TaskError: If it is none of the levels, or no number, or there are no bins for it.
        """
        if value is None:
            return None
        if self.kind == "text":
            text = in_one_spelling(str(value))
            return None if text in UNKNOWN else text
        if self.kind != "numeric":
            return self._level(value)
        if not self.edges:
            raise TaskError(f"{self.title} is a number without bins: give `edges`, or leave it out of the shortcuts")
        return self.bins[sum(self._number(value) >= edge for edge in self.edges)]

    @property
    def bins(self) -> tuple[str, ...]:
        """The levels of numbers, in words, from the lowest."""
        unit = f" {self.unit}" if self.unit else ""
        between = (f"{low:g} to {high:g}{unit}" for low, high in pairwise(self.edges))
        return (f"under {self.edges[0]:g}{unit}", *between, f"{self.edges[-1]:g}{unit} or more")

    def _number(self, value: float | str) -> float:
        if isinstance(value, str) or not math.isfinite(value):
            raise TaskError(f"{self.title} is {value!r}, and must be a finite number, or None where it is not known")
        return float(value)

    def _level(self, value: float | str) -> str:
        if value not in self.levels:
            raise TaskError(f"{self.title} is {value!r}, and must be one of {', '.join(self.levels)}")
        return str(value)


def code_of(level: str) -> float:
    """Returns the number of a level that no list holds: the first 48 bits of its hash, which a float64 holds exactly.

    Heads that were trained elsewhere then know the levels of the cases that they trained on, and need no list of them.
    """
    return float(int.from_bytes(hashlib.sha256(level.encode()).digest()[:6]))


def in_one_spelling(text: str) -> str:
    """Returns a text in small letters with single blanks, and a number without zeros at its end: "120.0" is "120".

    What cannot be printed is a blank, and what is longer than any name is cut: headers hold everything.
    """
    seen = "".join(character if character.isprintable() else " " for character in text.casefold())
    text = " ".join(seen.split())[:LONGEST_NAME].strip()
    return f"{float(text):.12g}" if _NUMBER.fullmatch(text) else text
