"""The base class of classification datasets: scans, or crops of them, with one 0/1 target a class."""

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from typing_extensions import override

from tapct.errors import TapctError, TaskError
from tapct.tasks.dataset import CTDataset
from tapct.volumes import Grid, Mask, Volume


class ClassificationDataset(CTDataset):
    """Scans in HU and their targets, int64 (K,) of 0 and 1 in the order of `spec.classes`."""

    @abc.abstractmethod
    def targets(self, case: str) -> Sequence[int]:
        """Returns the target of each class, 0 or 1."""

    def read_mask(self, case: str, scan: Grid) -> Mask:
        """Returns the part of a case that `spec.mask` names, where it names one.

        Args:
            case: The case.
            scan: The grid of its scan, as `read_scan` gives it.
        """
        raise NotImplementedError(f"{type(self).__name__} reads no masks, but its spec says that there are some")

    def mask_paths(self, case: str) -> list[Path]:
        """Returns the files that `read_mask` reads of a case, beside the label file; they need not be there."""
        return []

    @override
    def scan_paths(self, case: str) -> list[Path]:
        return self.paths(case)  # a crop is cut where the label file says

    @override
    def read_target(self, case: str, ct: Volume) -> torch.Tensor:
        return self.target(case)

    @override
    def answers(self, case: str) -> frozenset[str]:
        targets = zip(self.spec.classes, self.target(case).tolist(), strict=True)
        return frozenset(name if positive else f"not {name}" for name, positive in targets)

    def target(self, case: str) -> torch.Tensor:
        """Returns the target of a case, which needs no scan.

        Raises:
            TaskError: If it is not one 0 or 1 for each class.
        """
        values = list(self.targets(case))
        if len(values) != len(self.spec.classes) or not set(values) <= {0, 1}:
            raise TaskError(f"the targets {values} are not one 0 or 1 for each of {len(self.spec.classes)} classes")
        return torch.tensor(values, dtype=torch.int64)

    def mask(self, case: str, scan: Grid) -> Mask:
        """Returns the part of a case that features are pooled over.

        Raises:
            TapctError: If it cannot be read or is empty; the message names task and case.
        """
        try:
            mask = self.read_mask(case, scan)
            if not mask.inside.any():
                raise TaskError(
                    "its mask is empty, and nothing is pooled in its place. Leave the case out (split_file), or pool "
                    "otherwise (linear:mean). If only cases with one answer have a mask, the mask is the answer"
                )
        except TapctError as error:
            raise type(error)(f"{self.spec.name}, case {case}: {error}") from error
        return mask

    def mask_reading(self, case: str) -> list[Any]:
        """Returns everything beside the files that decides the mask of a case: stored vectors hang on it."""
        return [*self.reading, case]

    def require_masks(self) -> None:
        """Makes sure that every case has a mask, as far as can be told without reading one.

        Raises:
            TaskError: If the task has none, or files of it are not there.
        """
        if self.spec.mask is None:
            raise TaskError(
                f"{self.spec.name} has no masks to pool features over (docs/tasks.md says why). Pool them otherwise: "
                "linear, linear:mean, linear:max"
            )
        missing = [path for case in self.cases for path in self.mask_paths(case) if not path.exists()]
        if missing:
            raise TaskError(
                f"{self.spec.name}: {len(missing)} masks of the split '{self.split}' are not there, such as "
                f"{missing[0]}. To obtain the data: {self.spec.source}"
            )
