"""The base class of regression datasets: scans with one number, or several, each in a unit."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.masked import MaskedDataset
from tapct.volumes import Volume

FIFTHS = 5
"""Parts of the training cases, by size of a target, that few patients are drawn evenly from."""


@dataclass(frozen=True)
class MissingTarget:
    """A target that a case does not have, and why."""

    reason: str


class RegressionDataset(MaskedDataset):
    """Scans in HU and their targets, float64 (K,) in the order and unit of `spec.classes`; NaN where one is missing.

    The unit of a single target is `spec.unit`. Of several, each name has its unit in brackets ("liver (ml)"), and
    `spec.unit` is "SD": their errors are compared in deviations over the training cases.
    """

    @abc.abstractmethod
    def numbers(self, case: str) -> Sequence[float | MissingTarget]:
        """Returns each target of a case in its unit, or why it has none."""

    @override
    def read_target(self, case: str, ct: Volume) -> torch.Tensor:
        return self.target(case)

    def target(self, case: str) -> torch.Tensor:
        """Returns the targets of a case, which need no scan.

        Raises:
            TaskError: If they are not one finite number, or one reason, for each class.
        """
        values = list(self.numbers(case))
        if len(values) != len(self.spec.classes):
            raise TaskError(f"there are {len(values)} targets for {', '.join(self.spec.classes)}")
        numbers = [np.nan if isinstance(value, MissingTarget) else float(value) for value in values]
        for name, value, number in zip(self.spec.classes, values, numbers, strict=True):
            if not isinstance(value, MissingTarget) and not np.isfinite(number):
                raise TaskError(f"{name} is {number}, which is not a number. Say that it is missing, and why")
        return torch.tensor(numbers, dtype=torch.float64)

    def missing(self, case: str) -> tuple[str, ...]:
        """Returns, of each target that a case does not have, a sentence that says why."""
        named = zip(self.spec.classes, self.numbers(case), strict=True)
        return tuple(f"{name} is missing: {value.reason}." for name, value in named if isinstance(value, MissingTarget))

    @override
    def strata(self, case: str) -> frozenset[str]:
        fifths = {}
        for name, value, edges in zip(self.spec.classes, self.target(case).tolist(), self._edges.T, strict=True):
            if not np.isnan(value):
                fifths[name] = int(np.searchsorted(edges, value, side="right"))
        return frozenset(f"{name}, part {fifth + 1} of {FIFTHS} by size" for name, fifth in fifths.items())

    @cached_property
    def _edges(self) -> np.ndarray:
        """(FIFTHS - 1, K): where the fifths of the training cases meet."""
        targets = torch.stack([self.target(case) for case in self.table.cases["train"]]).numpy()
        shares = np.arange(1, FIFTHS) / FIFTHS
        known = [of[~np.isnan(of)] for of in targets.T]
        return np.stack([np.quantile(of, shares) if len(of) else np.zeros(FIFTHS - 1) for of in known], axis=1)
