"""The base class of classification datasets: scans, or crops of them, with one 0/1 target a class, or none stated."""

import abc
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.masked import MaskedDataset
from tapct.tasks.spec import TaskSpec
from tapct.volumes import Volume


class ClassificationDataset(MaskedDataset):
    """Scans in HU and their targets, (K,) of 0 and 1 in the order of `spec.classes`.

    A label may be missing of a case: a report need not speak of a finding. It is neither positive nor negative
    then, and its pair of case and label counts in no loss and no metric.
    """

    @abc.abstractmethod
    def targets(self, case: str) -> Sequence[int | None]:
        """Returns the target of each class, 0 or 1; None where it is not stated."""

    @override
    def scan_paths(self, case: str) -> list[Path]:
        return self.paths(case)  # a crop is cut where the label file says

    @override
    def read_target(self, case: str, ct: Volume) -> torch.Tensor:
        return self.target(case)

    @override
    def strata(self, case: str) -> frozenset[str]:
        return self.strata_of(self.spec, self.target(case))

    @classmethod
    @override
    def strata_of(cls, spec: TaskSpec, target: torch.Tensor) -> frozenset[str]:
        targets = zip(spec.classes, target.tolist(), strict=True)
        return frozenset(name if positive else f"not {name}" for name, positive in targets if not math.isnan(positive))

    def target(self, case: str) -> torch.Tensor:
        """Returns the target of a case, which needs no scan: (K,) int64; float64 with NaN where a label is missing.

        Raises:
            TaskError: If it is not one 0, 1 or None for each class.
        """
        values = list(self.targets(case))
        if len(values) != len(self.spec.classes) or not set(values) <= {0, 1, None}:
            raise TaskError(f"the targets {values} are not one 0 or 1 for each of {len(self.spec.classes)} classes")
        if None not in values:
            return torch.tensor(values, dtype=torch.int64)
        return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float64)
