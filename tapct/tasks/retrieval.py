"""The base class of retrieval datasets: scans with labels, any of which may be missing, and what else they share."""

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from typing_extensions import override

from tapct.errors import TaskError
from tapct.kinds.retrieval import OF_LEVEL, labels
from tapct.tasks.columns import Column
from tapct.tasks.masked import MaskedDataset
from tapct.tasks.splits import SplitTable
from tapct.volumes import Volume


def levels(table: Sequence[Column]) -> tuple[str, ...]:
    """Returns the classes of a task's columns, `COLUMN=LEVEL`, to stand behind its labels in `spec.classes`."""
    return tuple(f"{column.name}{OF_LEVEL}{level}" for column in table for level in column.levels)


class RetrievalDataset(MaskedDataset):
    """Scans in HU and their targets, float64 (K,) of 0 and 1 in the order of `spec.classes`; NaN where one is missing.

    Nothing is trained: of a split only the reported cases are used, which are the gallery and the queries.
    `spec.classes` are the labels, and behind them the `levels` of the columns of `spec.table` that have levels.
    """

    whole_release: ClassVar[bool] = False
    """Whether all cases of the split are reported, whatever side they are on for tasks that train."""

    @abc.abstractmethod
    def labels(self, case: str) -> Sequence[int | None]:
        """Returns, for each label, 1 if a case has it and 0 if not; None where that is not known."""

    @override
    def _table(self, split_file: str | Path | None) -> SplitTable:
        # A file of one's own says itself which cases are reported.
        return _gallery(super()._table(split_file), self.whole_release and split_file is None)

    @classmethod
    @override
    def shipped_split(cls) -> SplitTable | None:
        table = super().shipped_split()
        return None if table is None else _gallery(table, cls.whole_release)

    @override
    def read_target(self, case: str, ct: Volume) -> torch.Tensor:
        return self.target(case)

    def target(self, case: str) -> torch.Tensor:
        """Returns the targets of a case, which need no scan.

        Raises:
            TaskError: If its labels are not one of 0, 1 and None for each, or a column has a level that is none.
        """
        own = list(self.labels(case))
        if len(own) != len(labels(self.spec.classes)) or not set(own) <= {0, 1, None}:
            names = [self.spec.classes[place] for place in labels(self.spec.classes)]
            raise TaskError(f"the labels {own} are not one of 0, 1 and None for each of {', '.join(names)}")
        values = [torch.nan if one is None else float(one) for one in own]
        for column in self.spec.table:
            if column.levels:
                values.extend(self._level(case, column))
        return torch.tensor(values, dtype=torch.float64)

    def _level(self, case: str, column: Column) -> list[float]:
        value = self.read_value(case, column.name)
        if value is None:
            return [torch.nan] * len(column.levels)
        if value not in column.levels:
            raise TaskError(f"{column.title} is {value!r}, and must be one of {', '.join(column.levels)}")
        return [float(value == level) for level in column.levels]


def _gallery(table: SplitTable, whole: bool) -> SplitTable:
    """Returns a split without the cases that nothing is trained on."""
    reported = {case: patient for of in table.cases.values() for case, patient in of.items()}
    return SplitTable({"train": {}, "val": {}, "test": reported if whole else table.cases["test"]}, table.source)
