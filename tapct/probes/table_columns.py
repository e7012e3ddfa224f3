"""The columns of a task's table that stand behind the features of its cases, and what is said of them."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from loguru import logger

from tapct.errors import TaskError
from tapct.probes.solved import PooledCases
from tapct.probes.tables import CONSTANT, FEWEST
from tapct.tasks.columns import Column


class TableColumns:
    """The columns of an adaptor.

    Attributes:
        asked: Their names, as the adaptor has them; none of an adaptor without a table.
        said: What the record holds of them, once training cases were looked at.
    """

    def __init__(self) -> None:
        """Initializes an adaptor without a table."""
        self.asked: tuple[str, ...] = ()
        self.said: list[dict[str, Any]] = []
        self._columns: dict[Any, list[Column]] = {}
        self._numbers: dict[tuple[Any, str], list[float]] = {}

    def of(self, part: Any) -> list[Column]:
        """Returns the columns of a dataset, once it has what they are read from.

        Raises:
            TaskError: If the dataset has no such table, or files of it are not there.
        """
        if not self.asked:
            return []
        if part not in self._columns:
            if not hasattr(part, "table_columns"):
                raise TaskError(f"{type(part).__name__} has no table. Leave table= out of the adaptor")
            self._columns[part] = part.table_columns(self.asked)
        return self._columns[part]

    def behind(self, pooled: torch.Tensor, part: Any, case: str) -> torch.Tensor:
        """Returns the (P,) vector of a case with the numbers of its table behind it."""
        if not self.of(part):
            return pooled
        numbers = torch.tensor(self._of_case(part, case), dtype=torch.float64, device=pooled.device)
        return torch.cat([pooled, numbers])

    def _of_case(self, part: Any, case: str) -> list[float]:
        if (part, case) not in self._numbers:
            self._numbers[part, case] = part.values(case, self.of(part))
        return self._numbers[part, case]

    def require(self, part: Any, *, trains: bool, all_train: bool) -> None:
        """Makes sure, before anything is encoded, that a dataset has the columns, and that these tell cases apart.

        Args:
            part: The dataset.
            trains: Whether its cases train.
            all_train: Whether all training patients of the split do.

        Raises:
            TaskError: If there is no such column, files of it are not there, or one that was asked for by its name
                tells no training cases apart.
        """
        columns = self.of(part)
        if columns and trains and not self.said and hasattr(part, "cases"):
            self._look_at(part, np.array([self._of_case(part, case) for case in part.cases]), all_train=all_train)

    def _look_at(self, part: Any, numbers: np.ndarray, *, all_train: bool) -> None:
        columns = self.of(part)
        require_told(part.spec.name, columns, numbers, self.asked, all_train=all_train)
        self.said = described(columns, numbers)

    def told(self, cases: PooledCases, part: Any, *, trains: bool, all_train: bool) -> PooledCases:
        """Returns cases that say which of their columns are those of the table.

        Args:
            cases: The cases, with the numbers behind their features.
            part: Their dataset.
            trains: Whether they train: then the columns must tell them apart.
            all_train: Whether all training patients of the split do.

        Raises:
            TaskError: If a column that was asked for by its name does not.
        """
        columns = self.of(part)
        if not columns:
            return cases
        if trains and not self.said:
            self._look_at(part, cases.features[:, -len(columns) :], all_train=all_train)
        coded = tuple(place for place, column in enumerate(columns) if column.is_coded)
        return replace(cases, table=len(columns), coded=coded)


def require_told(
    task: str, columns: Sequence[Column], numbers: np.ndarray, named: Collection[str], *, all_train: bool
) -> None:
    """Makes sure that columns tell training cases apart.

    Args:
        task: The task, for the message.
        columns: T columns.
        numbers: (N, T) of the training cases, NaN where nothing is known.
        named: Columns that were asked for by their names. Of others ("acquisition" is several), and where only some of
            the patients were drawn to train, it is said and no error: such a column gets no weight.
        all_train: Whether all training patients of the split train.

    Raises:
        TaskError: If nothing is known of one, or it is the same in all; whatever was asked for, if that is so of all.
    """
    reasons = [_why_not(column, of) for column, of in zip(columns, numbers.T, strict=True)]
    if all_train and all(reasons) and not set(named) & {column.name for column in columns}:
        listed = "; ".join(f"'{column.name}' {why}" for column, why in zip(columns, reasons, strict=True))
        raise TaskError(f"{task}: no column of table={'+'.join(named)} tells training cases apart: {listed}")
    for column, why in zip(columns, reasons, strict=True):
        if why is None:
            continue
        said = f"{task}: the column '{column.name}' ({column.title}) {why}"
        if all_train and column.name in named:
            raise TaskError(f"{said}, so that it says nothing. Leave it out of table=")
        logger.warning(f"{said}: it gets no weight")


def _why_not(column: Column, numbers: np.ndarray) -> str | None:
    """Returns why the (N,) numbers of training cases tell nothing apart, None where they do."""
    values, counts = np.unique(numbers[~np.isnan(numbers)], return_counts=True)
    of = f"{counts.sum()} of the {len(numbers)} training cases"
    if not len(values):
        return f"is known of {of}"
    if column.is_coded and (counts >= FEWEST).sum() < 2:
        has = "one level" if (counts >= FEWEST).any() else "no level"
        return f"is known of {of}, and has {has} that {FEWEST} of them have"
    if np.ptp(values) <= CONSTANT * max(float(np.abs(values).max()), 1.0):
        return f"is the same in all cases of which it is known ({of})"
    return None


def described(columns: Sequence[Column], numbers: np.ndarray) -> list[dict[str, Any]]:
    """Returns what the record holds of columns, given the (N, T) numbers of the training cases."""
    found = []
    for column, of in zip(columns, numbers.T, strict=True):
        known = of[~np.isnan(of)]
        counts = np.unique(known, return_counts=True)[1]
        about = {"name": column.name, "title": column.title, "kind": column.kind, "known": len(known)}
        levels = {"levels": int((counts >= FEWEST).sum())} if column.is_coded else {}
        found.append(about | levels | ({"unit": column.unit} if column.unit else {}))
    return found
