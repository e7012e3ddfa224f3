"""The base class of localisation datasets: whole scans, and points in them with diameters."""

import abc
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from typing_extensions import override

from tapct.errors import TapctError
from tapct.tasks.dataset import CTDataset
from tapct.volumes import Findings, Grid, Volume


class LocalisationDataset(CTDataset):
    """Scans in HU and what is to be found in them, float64 (n, 6): the rows of `Findings`, in the scan's world."""

    excluded_why: ClassVar[str]
    """In words, what the findings are that count neither way."""

    @abc.abstractmethod
    def findings(self, case: str) -> Findings:
        """Returns what is to be found in a scan, whose voxels are not asked."""

    def findings_source(self, case: str) -> Path:
        """Returns the file that the findings of a case are from, for errors."""
        return self.target_paths(case)[0]

    @override
    def read_target(self, case: str, ct: Volume) -> torch.Tensor:
        findings = self.findings(case)
        findings.require_inside(ct.grid, str(self.findings_source(case)))
        return self._asked(findings, ct.grid)

    def target(self, case: str) -> torch.Tensor:
        """Returns the target of a case, for which no voxel of its scan is read.

        Raises:
            TapctError: If it cannot be read; the message names task and case.
        """
        try:
            findings = self.findings(case)
            whole = self.perturbation is None or not self.perturbation.changes_labels
            return torch.from_numpy(findings.rows()) if whole else self._asked(findings, self.scan_grid(case))
        except TapctError as error:
            raise type(error)(f"{self.spec.name}, case {case}: {error}") from error

    @override
    def point_mm(self, case: str) -> tuple[float, float, float] | None:
        """Returns the first place of a case that counts: what is looked at."""
        found = self.findings(case)
        places = found.places_mm[~found.excluded]
        return tuple(places[0].tolist()) if len(places) else None

    @override
    def strata(self, case: str) -> frozenset[str]:
        found = self.findings(case)
        names = {self.spec.classes[label] for label in found.classes[~found.excluded]}
        return frozenset(names or {"nothing"})

    def _asked(self, findings: Findings, scan: Grid) -> torch.Tensor:
        """Returns the findings that a perturbed scan still shows."""
        if self.perturbation is not None and self.perturbation.changes_labels:
            there = self.perturbation.labels(np.ones(scan.shape, dtype=bool))
            index = np.rint(findings.index_in(scan)).astype(int)
            inside = findings.inside(scan)
            index = np.clip(index, 0, np.array(scan.shape) - 1)
            findings = findings.only(inside & there[tuple(index.T)])
        return torch.from_numpy(findings.rows())
