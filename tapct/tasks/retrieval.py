"""The base class of retrieval datasets: scans with labels, any of which may be missing."""

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.masked import MaskedDataset
from tapct.tasks.splits import SplitTable
from tapct.volumes import Volume


class RetrievalDataset(MaskedDataset):
    """Scans in HU and their targets, float64 (K,) of 0 and 1 in the order of `spec.classes`; NaN where one is missing.

    Nothing is trained: of a split only the reported cases are used, which are the gallery and the queries.
    """

    whole_release: ClassVar[bool] = False
    """Whether all cases of the split are reported, whatever side they are on for tasks that train."""

    @abc.abstractmethod
    def labels(self, case: str) -> Sequence[int | None]:
        """Returns, for each label, 1 if a case has it and 0 if not; None where that is not known."""

    @override
    def _table(self, split_file: str | Path | None) -> SplitTable:
        # A file of one's own says itself which cases are reported.
        whole = self.whole_release and split_file is None
        return super()._table(split_file).reported_alone(whole=whole)

    @classmethod
    @override
    def shipped_split(cls) -> SplitTable | None:
        table = super().shipped_split()
        return None if table is None else table.reported_alone(whole=cls.whole_release)

    @override
    def read_target(self, case: str, ct: Volume) -> torch.Tensor:
        return self.target(case)

    def target(self, case: str) -> torch.Tensor:
        """Returns the targets of a case, which need no scan.

        Raises:
            TaskError: If its labels are not one of 0, 1 and None for each.
        """
        labels = list(self.labels(case))
        if len(labels) != len(self.spec.classes) or not set(labels) <= {0, 1, None}:
            names = ", ".join(self.spec.classes)
            raise TaskError(f"the labels {labels} are not one of 0, 1 and None for each of {names}")
        return torch.tensor([torch.nan if one is None else float(one) for one in labels], dtype=torch.float64)
