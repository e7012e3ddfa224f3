"""The base class of segmentation datasets: scans with a label map."""

import abc
from pathlib import Path

import numpy as np
import torch
from torchvision import tv_tensors
from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.dataset import CTDataset
from tapct.volumes import LabelMap, Volume, read_labels


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
    def read_target(self, case: str, ct: Volume) -> tv_tensors.Mask:
        labels = self.read_labels(case, ct)
        if int(labels.labels.max()) >= len(self.spec.classes):
            unknown = sorted({int(v) for v in np.unique(labels.labels) if v >= len(self.spec.classes)})
            raise TaskError(
                f"{labels.source} holds the unknown labels {unknown[:5]}; the task has 0 to "
                f"{len(self.spec.classes) - 1}. Is it the mask of another task or release?"
            )
        asked = labels.labels if self.perturbation is None else self.perturbation.labels(labels.labels)
        return tv_tensors.Mask(torch.from_numpy(asked)[:, None])
