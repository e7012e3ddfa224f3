"""The base class of datasets of pairs: two scans of each patient, between which nothing changed."""

import abc
import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from typing_extensions import override

from tapct.errors import TapctError, TaskError
from tapct.names import listed
from tapct.tasks.columns import in_one_spelling
from tapct.tasks.dataset import DoctorFinding
from tapct.tasks.masked import MaskedDataset
from tapct.tasks.splits import SplitTable
from tapct.volumes import Volume

THICKER = 0.01
"""Share by which slices must differ in thickness to be told apart: headers round it."""


class ReliabilityDataset(MaskedDataset):
    """Scans in HU and their targets, float64 (3,): occasion, whether the kernel is another one, slice thickness in mm.

    The occasion is 1 or 2. The kernel is compared with that of the patient's other scan: 1 where they differ, 0 where
    they do not. NaN stands where the headers or tables say nothing. Nothing is trained, and there is no label: of a
    split only the reported cases are used.
    """

    @abc.abstractmethod
    def occasion(self, case: str) -> int:
        """Returns 1 of the first scan of a patient and 2 of the second."""

    @abc.abstractmethod
    def slice_mm(self, case: str) -> float | None:
        """Returns the slice thickness of a scan in mm, or the distance between slices; None where it is not known."""

    def kernel(self, case: str) -> str | None:
        """Returns the convolution kernel of a scan in one spelling; None where it is not known."""
        value = self.read_value(case, "kernel")
        return None if value is None else in_one_spelling(str(value))

    @override
    def _table(self, split_file: str | Path | None) -> SplitTable:
        return super()._table(split_file).reported_alone()

    @classmethod
    @override
    def shipped_split(cls) -> SplitTable | None:
        table = super().shipped_split()
        return None if table is None else table.reported_alone()

    @override
    def target_paths(self, case: str) -> list[Path]:
        return []

    @override
    def read_target(self, case: str, ct: Volume) -> torch.Tensor:
        return self.target(case)

    def target(self, case: str) -> torch.Tensor:
        """Returns the target of a case, which needs no scan.

        Raises:
            TapctError: If a header or table cannot be read; the message names task and case.
        """
        try:
            thickness = self.slice_mm(case)
            kernels = [self.kernel(one) for one in (case, *self._others_of(case))]
        except TapctError as error:
            raise type(error)(f"{self.spec.name}, case {case}: {error}") from error
        differs = None if None in kernels else float(len(set(kernels)) > 1)
        values = (float(self.occasion(case)), differs, thickness)
        return torch.tensor([torch.nan if one is None else one for one in values], dtype=torch.float64)

    def _others_of(self, case: str) -> list[str]:
        patient = self.patient(case)
        return [one for one in self.cases if self.patient(one) == patient and one != case]

    def _is_there(self, case: str) -> bool:
        with contextlib.suppress(TaskError):  # which scan is meant is not known: the doctor says so of the case
            return all(self.ct_path(one).exists() for one in (case, *self._others_of(case)))
        return False

    @override
    def validate(self) -> None:
        scans: dict[str, list[int]] = {patient: [] for patient in self.patients}
        for case in self.cases:
            scans[self.patient(case)].append(self.occasion(case))
        if odd := [patient for patient, occasions in scans.items() if sorted(occasions) != [1, 2]]:
            raise TaskError(
                f"{self.spec.name}: the split '{self.split}' does not have a first and a second scan, and no other, of "
                f"{listed(odd)}. Give both scans of a patient (split_file), or none"
            )
        super().validate()

    def pair_findings(self) -> Iterator[DoctorFinding]:
        """Yields what differs between the scans of pairs that are there, for the doctor."""
        kernels, slices, unknown = [], [], 0
        first = [case for case in self.cases if self.occasion(case) == 1 and self._is_there(case)]
        for case in first:
            one, other = (self.target(each) for each in (case, *self._others_of(case)))
            kernels += [self.patient(case)] * bool(one[1] == 1)
            slices += [self.patient(case)] * bool((one[2] - other[2]).abs() > THICKER * one[2])
            unknown += bool(one[1:].isnan().any())
        yield (
            "ok",
            f"{len(first)} pairs; in {len(kernels)} the kernels differ, in {len(slices)} the slice thickness, and of "
            f"{unknown} one of both is not known",
            "",
        )
