"""The base class of segmentation datasets: scans with a label map, as eva datasets."""

import abc
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from eva.vision.data import tv_tensors as eva_tv_tensors
from eva.vision.data.datasets.vision import VisionDataset
from torchvision import tv_tensors
from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.spec import Split, TaskSpec
from tapct.volumes import LabelMap, Volume, read_ct


class SegmentationDataset(VisionDataset[eva_tv_tensors.Volume, tv_tensors.Mask], abc.ABC):
    """Scans in HU and their labels, untouched, in SPL order.

    A sample is an eva `Volume` (D, 1, H, W), a `Mask` of the same shape, and metadata with `case`,
    `patient`, `source` and `affine`: the affine is repeated there because collating drops it from the
    `Volume`. No dataset knows an encoder; nothing is resampled or normalised here.
    """

    spec: ClassVar[TaskSpec]

    def __init__(self, root: str | Path, split: Split) -> None:
        """Initializes the dataset.

        Args:
            root: Folder of the task.
            split: Which cases.
        """
        super().__init__()
        self.root = Path(root)
        self.split = split
        self._patients = self.spec.splits[split]
        self._cases = list(self._patients)

    @abc.abstractmethod
    def ct_path(self, case: str) -> Path:
        """Returns the scan of a case: a file, or a folder of DICOM slices."""

    @abc.abstractmethod
    def read_labels(self, case: str, ct: Volume) -> LabelMap:
        """Returns the labels of a case on the grid of its scan, as indices of `spec.classes`."""

    @property
    @override
    def classes(self) -> list[str]:
        return list(self.spec.classes)

    @property
    @override
    def class_to_idx(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.spec.classes)}

    @override
    def __len__(self) -> int:
        return len(self._cases)

    @override
    def filename(self, index: int) -> str:
        return str(self.ct_path(self._cases[index]).relative_to(self.root))

    @override
    def validate(self) -> None:
        """Checks before any work that every scan of the split is there.

        Raises:
            TaskError: If not, naming the first that are missing.
        """
        missing = [str(p) for p in map(self.ct_path, self._cases) if not p.exists()]
        if missing:
            raise TaskError(
                f"{self.spec.name}: {len(missing)} of {len(self)} scans of the split '{self.split}' are missing "
                f"under {self.root}, such as {', '.join(missing[:3])}. To obtain the data: {self.spec.source}"
            )

    @override
    def __getitem__(self, index: int) -> tuple[eva_tv_tensors.Volume, tv_tensors.Mask, dict[str, Any]]:
        case = self._cases[index]
        ct = read_ct(self.ct_path(case))
        labels = self.read_labels(case, ct)
        self._check_labels(case, labels)
        affine = torch.from_numpy(ct.affine)
        volume = eva_tv_tensors.Volume(torch.from_numpy(ct.hu)[:, None], affine=affine)
        mask = tv_tensors.Mask(torch.from_numpy(labels.labels)[:, None])
        return volume, mask, {"case": case, "patient": self._patients[case], "source": ct.source, "affine": affine}

    @override
    def load_data(self, index: int) -> eva_tv_tensors.Volume:
        return self[index][0]

    @override
    def load_target(self, index: int) -> tv_tensors.Mask:
        return self[index][1]

    @override
    def load_metadata(self, index: int) -> dict[str, Any]:
        return self[index][2]

    def _check_labels(self, case: str, labels: LabelMap) -> None:
        highest = int(labels.labels.max())
        if highest >= len(self.spec.classes):
            unknown = sorted({int(v) for v in np.unique(labels.labels) if v >= len(self.spec.classes)})
            raise TaskError(
                f"{self.spec.name}, case {case}: {labels.source} holds the unknown labels {unknown[:5]}; the task has "
                f"0 to {len(self.spec.classes) - 1}. Is it the mask of another task or release?"
            )
