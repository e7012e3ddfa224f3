"""The base class of datasets whose scans are pooled to one vector, perhaps over a part of each."""

from pathlib import Path
from typing import Any

from tapct.errors import TapctError, TaskError
from tapct.tasks.dataset import CTDataset
from tapct.volumes import Grid, Mask


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
        """Returns the files that `read_mask` reads of a case, beside the label file; they need not be there."""
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
                    "its mask is empty, and nothing is pooled in its place. Leave the case out (split_file), or pool "
                    "otherwise (HEAD:mean). If only cases with one answer have a mask, the mask is the answer"
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
                "HEAD, HEAD:mean, HEAD:max"
            )
        missing = [path for case in self.cases for path in self.mask_paths(case) if not path.exists()]
        if missing:
            raise TaskError(
                f"{self.spec.name}: {len(missing)} masks of the split '{self.split}' are not there, such as "
                f"{missing[0]}. To obtain the data: {self.spec.source}"
            )
