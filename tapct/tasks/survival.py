"""The base class of survival datasets: scans, and for each patient a time and whether it is that of death."""

import abc
from typing import NamedTuple

import torch
from typing_extensions import override

from tapct.errors import TaskError
from tapct.metrics.survival import HORIZONS_DAYS
from tapct.tasks.masked import MaskedDataset
from tapct.volumes import Volume


class Outcome(NamedTuple):
    """What became of a patient.

    Attributes:
        days: From the scan (or what the release counts from) until death, or until the patient was last seen.
        event: Whether it is death.
    """

    days: float
    event: bool


class SurvivalDataset(MaskedDataset):
    """Scans in HU and their targets, float64 (2,): days, and 1 where they end with death, 0 where they are censored."""

    @abc.abstractmethod
    def outcome(self, case: str) -> Outcome:
        """Returns what became of the patient of a case."""

    @override
    def read_target(self, case: str, ct: Volume) -> torch.Tensor:
        return self.target(case)

    def target(self, case: str) -> torch.Tensor:
        """Returns the target of a case, which needs no scan.

        Raises:
            TaskError: If the time is not positive.
        """
        days, event = self.outcome(case)
        if not 0 < days < float("inf"):
            raise TaskError(
                f"{self.spec.name}, case {case}: its time is {days:g} days, and must be positive. Correct the label "
                "file, or leave the case out (split_file)"
            )
        return torch.tensor([days, float(event)], dtype=torch.float64)

    @override
    def strata(self, case: str) -> frozenset[str]:
        return frozenset({"death" if self.outcome(case).event else "censored"})

    @override
    def validate(self) -> None:
        """Checks that the files are there, and that there is something to predict.

        Raises:
            TaskError: If a file is not there, no patient dies before the last horizon, or none is followed beyond the
                first one.
        """
        super().validate()
        outcomes = [self.outcome(case) for case in self.cases]
        if not any(event for _, event in outcomes):
            raise TaskError(
                f"{self.spec.name}: all {len(self)} patients of '{self.split}' are censored: nobody died, so there is "
                "nothing to fit or to compare. Check the column of events in the label file"
            )
        first = min(days for days, event in outcomes if event)
        if first >= HORIZONS_DAYS[-1]:
            raise TaskError(
                f"{self.spec.name}: the first death of '{self.split}' is after {first:g} days, and what is reported "
                f"ends at {HORIZONS_DAYS[-1]:g} ({len(HORIZONS_DAYS)} years). Are the times in another unit than days?"
            )
        last = max(days for days, _ in outcomes)
        if last <= HORIZONS_DAYS[0]:
            raise TaskError(
                f"{self.spec.name}: nobody of '{self.split}' is followed for more than {last:g} days, and what is "
                f"reported begins at {HORIZONS_DAYS[0]:g} (a year). Are the times in months or years? They must be days"
            )
