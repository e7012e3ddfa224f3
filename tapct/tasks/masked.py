"""The base class of datasets whose scans are pooled to one vector, perhaps over a part of each."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from tapct.errors import TapctError, TaskError
from tapct.tasks.columns import Value
from tapct.tasks.dataset import CTDataset
from tapct.tasks.measured import measured
from tapct.tasks.shortcuts import VOLUME
from tapct.volumes import Grid, Mask, files_of


class MaskedDataset(CTDataset):
    """Scans of which features may be pooled over the part that `spec.mask` names, where it names one."""

    def read_mask(self, case: str, scan: Grid) -> Mask:
        """Returns the part of a case that `spec.mask` names, where it names one.

        Args:
            case: The case.
            scan: The grid of its scan, as `read_scan` gives it.
        """
        raise NotImplementedError(f"{type(self).__name__} reads no masks, but its spec says that there are some")

    def mask_paths(self, case: str) -> list[Path]:
        """Returns the files that `read_mask` reads of a case, next to the label file; they need not be there."""
        return []

    def mask(self, case: str, scan: Grid) -> Mask:
        """Returns the part of a case that features are pooled over.

        Raises:
            TapctError: If it cannot be read or is empty; the message names task and case.
        """
        try:
            mask = self.read_mask(case, scan)
            if not mask.inside.any():
                raise TaskError(
                    "its mask is empty, and nothing stands in its place. Leave the case out (split_file), or do "
                    "without masks (HEAD:mean, no column volume). If only cases with one answer have a mask, the mask "
                    "is the answer"
                )
        except TapctError as error:
            raise type(error)(f"{self.spec.name}, case {case}: {error}") from error
        return mask

    def mask_cache_key(self, case: str) -> list[Any]:
        """Returns everything next to the files that decides the mask of a case: stored vectors hang on it."""
        return [*self.reading, case]

    def volume_ml(self, case: str) -> float:
        """Returns the volume of the mask of a case in ml, on the scan's own grid; it is measured once, and remembered.

        Raises:
            TapctError: As `mask`.
        """

        def measure() -> float:
            mask = self.mask(case, self.scan_grid(case))
            return float(mask.inside.sum()) * abs(float(np.linalg.det(mask.grid.affine[:3, :3]))) / 1000

        paths = [file for path in (*self.mask_paths(case), self.ct_path(case)) for file in files_of(path)]
        return measured(self, case, f"ml of the mask {json.dumps(self.mask_cache_key(case))}", paths, measure)

    @override
    def value(self, case: str, column: str) -> Value:
        return math.log10(self.volume_ml(case)) if column == VOLUME.name else super().value(case, column)

    @override
    def column_paths(self, case: str, column: str) -> list[Path]:
        return self.mask_paths(case) if column == VOLUME.name else super().column_paths(case, column)

    def require_masks(self) -> None:
        """Makes sure that every case has a mask, as far as can be told without reading one.

        Raises:
            TaskError: If the task has none, or files of it are not there.
        """
        if self.spec.mask is None:
            raise TaskError(
                f"{self.spec.name} has no masks to pool features over (docs/tasks.md says why). Pool them otherwise: "
                "HEAD, HEAD:mean, HEAD:max"
            )
        missing = [path for case in self.cases for path in self.mask_paths(case) if not path.exists()]
        if missing:
            raise TaskError(
                f"{self.spec.name}: {len(missing)} masks of the split '{self.split}' are not there, such as "
                f"{missing[0]}. To obtain the data: {self.spec.source}"
            )
