"""The base class of datasets of reports: scans, and what a radiologist wrote of each."""

import abc
from pathlib import Path

import torch
from typing_extensions import override

from tapct.tasks.classification import ClassificationDataset
from tapct.volumes import Volume


class ReportDataset(ClassificationDataset):
    """Scans in HU and their reports.

    `targets` are the findings of `spec.classes` as the release's own label file has them, None where it does not say.
    They say which patients are alike, and whether the reader of reports is the one that made them. The reference is
    another: the findings that the reader finds in the report.
    """

    @abc.abstractmethod
    def report(self, case: str) -> str:
        """Returns the report of a case of the task, of whatever split, on one line; no scan is read.

        Raises:
            TapctError: If there is none.
        """

    @override
    def read_target(self, case: str, ct: Volume) -> torch.Tensor:
        self.report(case)  # that it is there is known before a run
        return super().read_target(case, ct)

    @override
    def scan_paths(self, case: str) -> list[Path]:
        return [self.ct_path(case)]
