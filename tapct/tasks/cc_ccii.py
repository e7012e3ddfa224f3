"""CC-CCII: COVID-19, other pneumonia or neither, in chest CT (Zhang et al., Cell 2020), in VoCo's copy of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from tapct.errors import TaskError, VolumeError
from tapct.tasks.classification import ClassificationDataset
from tapct.tasks.eva_task import EvaTask, split_of
from tapct.tasks.npy import open_npy
from tapct.tasks.own_split import SplitPin
from tapct.tasks.release_files import ReleaseFiles
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import Split, SplitTable
from tapct.tasks.tables import read_table
from tapct.volumes import Grid, Volume
from tapct.volumes.plausibility import implausible_hu

SPEC = TaskSpec(
    name="cc_ccii",
    display_name="CC-CCII",
    kind="classification",
    adaptor="abmil",
    version=1,
    classes=("normal", "common pneumonia", "COVID-19"),  # by `target` in the lists: Normal, CP, NCP
    metric="MicroAUROC",
    source_data=("cc-ccii",),
    licence="none stated; its page (ncov-ai.big.ac.cn/download) offers it to clinicians and researchers",
    source="take CC-CCII_public.zip of the Hugging Face dataset Luffy503/VoCo_Downstream, and CC_CCII_fold0_train.csv "
    "and CC_CCII_fold0_valid.csv of Downstream/monai/CC-CCII/csv in https://github.com/Luffy03/Large-Scale-Medical, "
    "and unpack in cc_ccii/",
    notice="Its scans are not in Hounsfield units: 8-bit images of unknown display windows without voxel sizes, for "
    "which a window and an extent are assumed.",
    known_size=False,
)

LUNG_WINDOW_HU = (-1350.0, 150.0)
"""What is assumed for grey 0 and 255, as the release does not say which windows its hospitals exported: the usual lung
window, width 1500 at level -600 (radiopaedia.org/articles/windowing-ct)."""

EXTENT_MM = (300.0, 350.0, 350.0)
"""What a scan is assumed to span, (z, y, x): the lungs of an adult, and a field of view that holds the chest. Ours."""


@dataclass(frozen=True)
class ListedScan:
    """A scan in eva's lists.

    Attributes:
        patient: Patient.
        target: 0 normal, 1 common pneumonia, 2 COVID-19.
        part: eva's name of the list.
    """

    patient: str
    target: int
    part: str


class CCCCII(EvaTask, ClassificationDataset):
    """4178 scans of 2742 patients, as stacks of 8-bit slices: fold 0, the one that eva's class reads.

    A case is `p<patient_id>-s<scan_id>`, as the file is named. Grey values become HU by an assumed window, and voxels
    get their size from an assumed extent; both are options, in every record, and said next to every number. Which end
    of a stack is the head is not known: slices stay in the order of the file, as eva takes them.
    """

    spec = SPEC
    eva_class = "eva.vision.data.datasets.CC_CCII"
    described = ("window_hu", "extent_mm")
    # Of the lists in github.com/Luffy03/Large-Scale-Medical, commit 1ad538b.
    split_pin = SplitPin(
        sha256="effc72e81aead9f929a5bd1e9936f7dea13e7595e241af96c0af31e29bc98438",
        counts=(2243, 271, 1664),
    )
    scan_patterns = ("data/p*-s*.npy", "*/data/p*-s*.npy")
    window = "lung"
    parts: ClassVar[dict[str, str]] = {"train": "CC_CCII_fold0_train.csv", "val": "CC_CCII_fold0_valid.csv"}

    def __init__(
        self,
        root: str | Path,
        split: Split,
        split_file: str | Path | None = None,
        window_hu: Sequence[float] = LUNG_WINDOW_HU,
        extent_mm: Sequence[float] = EXTENT_MM,
    ) -> None:
        """Initializes the dataset.

        Args:
            root: Folder of the task.
            split: Which cases.
            split_file: Another split than the task's own.
            window_hu: HU that grey 0 and grey 255 stand for.
            extent_mm: What a scan spans, (z, y, x).

        Raises:
            TaskError: If the split or the lists cannot be read, or an option cannot be.
        """
        self.window_hu, self.extent_mm = _numbers(window_hu), _numbers(extent_mm)
        if len(self.window_hu) != 2 or not self.window_hu[0] < self.window_hu[1]:
            raise TaskError(
                f"cc_ccii: window_hu is the HU of grey 0 and of grey 255, such as [-1350, 150], not {window_hu}"
            )
        if len(self.extent_mm) != 3 or min(self.extent_mm) <= 0:
            raise TaskError(
                f"cc_ccii: extent_mm is what a scan spans (z, y, x), such as [300, 350, 350], not {extent_mm}"
            )
        super().__init__(root, split, split_file)

    @cached_property
    def _files(self) -> ReleaseFiles:
        lists = [f"{folder}{name}" for name in self.parts.values() for folder in ("", "csv/")]
        return ReleaseFiles(self.root, ["data/p*-s*.npy", *lists])

    @cached_property
    def rows(self) -> dict[str, ListedScan]:
        """Case to what the lists say of it.

        Raises:
            TaskError: If a list cannot be read, a scan is there twice, or its target and label do not agree.
        """
        rows: dict[str, ListedScan] = {}
        for part, path in self._lists.items():
            for row in read_table(path, ("patient_id", "scan_id", "target", "label")):
                case = f"p{row['patient_id']}-s{row['scan_id']}"
                if case in rows:
                    raise TaskError(f"{path}: the scan {case} is in the lists twice. Use eva's own files")
                if (row["target"], row["label"]) not in (("0", "Normal"), ("1", "CP"), ("2", "NCP")):
                    raise TaskError(f"{path}: {case} has the target {row['target']!r} and the label {row['label']!r}")
                rows[case] = ListedScan(f"p{row['patient_id']}", int(row["target"]), part)
        return rows

    @property
    def _lists(self) -> dict[str, Path]:
        return {part: self._files.find(name, f"csv/{name}") for part, name in self.parts.items()}

    @override
    @classmethod
    def patient_of(cls, case: str) -> str:
        return case.split("-")[0]

    @override
    def derive_split(self) -> SplitTable:
        lists = {
            part: {case: row.patient for case, row in self.rows.items() if row.part == part} for part in self.parts
        }
        return split_of(lists, "cc_ccii v1", "eva's fold 0, a tenth of its training patients selects", str(self.root))

    @override
    def ct_path(self, case: str) -> Path:
        return self._files.find(f"data/{case}.npy")

    @override
    def target_paths(self, case: str) -> list[Path]:
        return list(self._lists.values())

    @override
    def targets(self, case: str) -> tuple[int, ...]:
        if case not in self.rows:
            raise TaskError(f"it has no row in {' or '.join(self.parts.values())}; a case is p<patient_id>-s<scan_id>")
        return tuple(int(self.rows[case].target == target) for target in range(len(SPEC.classes)))

    @override
    def scan_grid(self, case: str) -> Grid:
        grey = self._stack(case)
        return Grid.of(grey.shape, self._affine(grey.shape))

    def _stack(self, case: str) -> np.ndarray:
        """Opens the slices of a case; they are not read yet."""
        path = self.ct_path(case)
        grey = open_npy(path)
        if grey.ndim != 3 or grey.dtype.kind not in "iuf" or 0 in grey.shape:
            raise VolumeError(
                f"{path} holds {grey.shape} of {grey.dtype}; a scan is a stack of slices, (z, y, x) numbers"
            )
        return grey

    @override
    def read_scan(self, case: str) -> Volume:
        path, grey = self.ct_path(case), self._stack(case)
        hu = self._hu(np.array(grey, dtype=np.float32), path)
        black, white = self.window_hu
        note = (
            f"Taken for {black:g} to {white:g} HU it does not look like a CT: it may have been exported under another "
            "window, or dark for bright."
        )
        return Volume(hu, self._affine(hu.shape), str(path), () if implausible_hu(hu) is None else (note,))

    def _hu(self, grey: np.ndarray, path: Path) -> np.ndarray:
        """Returns assumed HU of grey values.

        Raises:
            VolumeError: If they are no 8-bit grey values: in HU, normalised, or not finite.
        """
        low, high = float(grey.min()), float(grey.max())
        if not (0 <= low < high <= 255 and high > 1):  # NaN fails every comparison
            raise VolumeError(
                f"{path} has values from {low:g} to {high:g}, and not grey values of 8 bits (0 to 255), which cc_ccii "
                "maps to HU. Take VoCo's copy of the release as it is, neither normalised nor converted"
            )
        black, white = self.window_hu
        return (np.float32(black) + grey * np.float32((white - black) / 255)).astype(np.float32)

    def _affine(self, shape: tuple[int, ...]) -> np.ndarray:
        z, y, x = (mm / size for mm, size in zip(self.extent_mm, shape, strict=True))
        return np.array([[0, 0, -x, 0], [0, -y, 0, 0], [z, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)

    @override
    def describe(self) -> dict[str, Any]:
        return {"window_hu": list(self.window_hu), "extent_mm": list(self.extent_mm)}


def _numbers(values: Sequence[float]) -> tuple[float, ...]:
    try:
        found = tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise TaskError(f"cc_ccii: an option is {values!r}, which is no list of numbers") from error
    if not np.isfinite(found).all():
        raise TaskError(f"cc_ccii: an option is {values!r}, which is not finite")
    return found
