"""Columns of a table beside the scans: age, sex, stage; what a clinician knows without a network."""

import math
from dataclasses import dataclass
from typing import Literal

from tapct.errors import TaskError

Value = float | str | None
"""A number, a level, or None where nothing is known."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column.

    Attributes:
        name: In adaptors (`cox:table=age+stage`).
        title: In words.
        kind: "numeric": a number as it is. "ordered": levels as 0, 1, 2, ... in their order, one step from each to the
            next. "categorical": one number for each level but the first, 1 where it is that level and else 0.
        levels: Of ordered and categorical ones.
        unit: Of numeric ones.
    """

    name: str
    title: str
    kind: Literal["numeric", "ordered", "categorical"] = "numeric"
    levels: tuple[str, ...] = ()
    unit: str | None = None

    def __post_init__(self) -> None:
        if (self.kind == "numeric") != (not self.levels) or len(self.levels) == 1:
            raise TaskError(f"the column '{self.name}' is {self.kind} with the levels {self.levels}")

    @property
    def width(self) -> int:
        """How many numbers it is."""
        return len(self.levels) - 1 if self.kind == "categorical" else 1

    def numbers(self, value: Value) -> list[float]:
        """Returns a value as numbers, NaN where nothing is known.

        Raises:
            TaskError: If it is no number, or none of the levels.
        """
        if value is None:
            return [math.nan] * self.width
        if self.kind == "numeric":
            if isinstance(value, str) or not math.isfinite(value):
                raise TaskError(
                    f"{self.title} is {value!r}, and must be a finite number, or None where it is not known"
                )
            return [float(value)]
        if value not in self.levels:
            raise TaskError(f"{self.title} is {value!r}, and must be one of {', '.join(self.levels)}")
        place = self.levels.index(value)
        return [float(place)] if self.kind == "ordered" else [float(place == n) for n in range(1, len(self.levels))]
