"""The base class of segmentation datasets: scans with a label map."""

import abc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.dataset import CTDataset
from tapct.volumes import LabelMap, Volume, read_labels

if TYPE_CHECKING:
    from eva.vision.data import tv_tensors as eva_tv_tensors


class SegmentationDataset(CTDataset):
    """Scans in HU and their labels, a `Mask` (D, 1, H, W) of indices of `spec.classes`."""

    @abc.abstractmethod
    def label_path(self, case: str) -> Path:
        """Returns the label map of a case (or the folder of its masks). It need not be there."""

    def read_labels(self, case: str, ct: Volume) -> LabelMap:
        """Returns the labels of a case on the grid of its scan, as indices of `spec.classes`."""
        return read_labels(self.label_path(case), reference=ct)

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [self.label_path(case)]

    @override
    def read_target(self, case: str, ct: Volume) -> torch.Tensor:
        labels = self.read_labels(case, ct)
        if int(labels.labels.max()) >= len(self.spec.classes):
            unknown = sorted({int(v) for v in np.unique(labels.labels) if v >= len(self.spec.classes)})
            raise TaskError(
                f"{labels.source} holds the unknown labels {unknown[:5]}; the task has 0 to "
                f"{len(self.spec.classes) - 1}. Is it the mask of another task or release?"
            )
        asked = labels.labels if self.perturbation is None else self.perturbation.labels(labels.labels)
        return torch.from_numpy(asked)

    @override
    def __getitem__(self, index: int) -> "tuple[eva_tv_tensors.Volume, Any, dict[str, Any]]":
        volume, labels, metadata = super().__getitem__(index)
        from torchvision import tv_tensors  # as slow to import as eva, which has imported it

        return volume, tv_tensors.Mask(labels[:, None]), metadata
