"""What the nodule tasks share: a list of nodules, and a crop of 50 mm round each, cut out of its scan."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.crops import CroppedDataset
from tapct.tasks.splits import Split
from tapct.tasks.tables import read_table
from tapct.volumes import Grid, Mask

SIZE_MM = 50.0
"""Edge of a crop (section 3.3.2 of the paper)."""


@dataclass(frozen=True)
class Nodule:
    """A nodule of a release's list.

    Attributes:
        patient: Patient.
        series: SeriesInstanceUID of its scan.
        centre_mm: Its place (x, y, z) in mm, RAS+.
        malignant: 0 or 1.
        diameter_mm: Its diameter; None where the list has none.
    """

    patient: str
    series: str
    centre_mm: tuple[float, float, float]
    malignant: int
    diameter_mm: float | None = None


class NoduleColumns(NamedTuple):
    """Names of the columns in a list of nodules; x, y and z are in mm, LPS, the diameter, if there is one, in mm."""

    case: str
    patient: str
    series: str
    x: str
    y: str
    z: str
    label: str
    diameter: str | None = None


def lps_to_ras_point(x: float, y: float, z: float) -> tuple[float, float, float]:
    """Returns a point of DICOM's and ITK's world (LPS), in which nodules are listed, in ours (RAS+); in mm."""
    return -x, -y, z


def read_nodules(path: Path, columns: NoduleColumns) -> dict[str, Nodule]:
    """Reads a list of nodules; above it, lines that start with # say where it is from.

    Args:
        path: A CSV.
        columns: The names of its columns.

    Returns:
        Case to nodule, in the order of the list.

    Raises:
        TaskError: If the file is missing or malformed (`read_table`), a case is there twice, or a value cannot be.
    """
    rows = read_table(path, [name for name in columns if name], what="list of nodules", comments=True)
    nodules: dict[str, Nodule] = {}
    for row in rows:
        case = row[columns.case]
        if case in nodules:
            raise TaskError(f"{path}: nodule {case} is there twice")
        try:
            nodules[case] = _nodule(row, columns)
        except (TypeError, ValueError) as error:
            raise TaskError(f"{path}: nodule {case} cannot be read: {error}. Fetch the list again") from error
    return nodules


def _nodule(row: dict[str, str], columns: NoduleColumns) -> Nodule:
    x, y, z = (float(row[name]) for name in (columns.x, columns.y, columns.z))
    if not np.isfinite([x, y, z]).all():
        raise ValueError(f"its place is ({x}, {y}, {z})")
    if row[columns.label] not in ("0", "1"):
        raise ValueError(f"{columns.label} is {row[columns.label]!r}, not 0 or 1")
    diameter_mm = None if columns.diameter is None else float(row[columns.diameter])
    if diameter_mm is not None and not 0 < diameter_mm < np.inf:
        raise ValueError(f"its diameter is {diameter_mm}")
    where, malignant = lps_to_ras_point(x, y, z), int(row[columns.label])
    return Nodule(row[columns.patient], row[columns.series], where, malignant, diameter_mm)


class NoduleDataset(CroppedDataset):
    """Cubes of 50 mm round nodules, on the voxels of their scans. A case is a nodule."""

    columns: ClassVar[NoduleColumns]
    size_mm = (SIZE_MM, SIZE_MM, SIZE_MM)
    window = "lung"

    def __init__(self, root: str | Path, split: Split, split_file: str | Path | None = None) -> None:
        """Initializes the dataset.

        Args:
            root: Folder of the task.
            split: Which cases.
            split_file: Another split than the task's own.

        Raises:
            TaskError: If the split or the list of nodules cannot be read, or they do not fit together.
        """
        super().__init__(root, split, split_file)
        if not self.list_path.is_file():
            raise TaskError(f"there is no list of nodules {self.list_path}. To obtain the data: {self.spec.source}")
        self.nodules = read_nodules(self.list_path, self.columns)
        self._check_list()

    @property
    @abc.abstractmethod
    def list_path(self) -> Path:
        """The list of nodules."""

    @override
    def scan_paths(self, case: str) -> list[Path]:
        return list(dict.fromkeys([*super().scan_paths(case), self.list_path]))

    @override
    def targets(self, case: str) -> Sequence[int]:
        return [self.nodules[case].malignant]

    @override
    def read_mask(self, case: str, scan: Grid) -> Mask:
        nodule = self.nodules[case]
        if nodule.diameter_mm is None:
            return super().read_mask(case, scan)
        return Mask.sphere(nodule.centre_mm, nodule.diameter_mm, scan)

    @override
    def mask_cache_key(self, case: str) -> list[Any]:
        nodule = self.nodules[case]
        return [*super().mask_cache_key(case), nodule.centre_mm, nodule.diameter_mm]

    @override
    def point_mm(self, case: str) -> tuple[float, float, float]:
        return self.nodules[case].centre_mm

    def _check_list(self) -> None:
        """Refuses a split that names other nodules or patients than the list: a patient could be on two sides."""
        patients = {case: patient for part in self.table.cases.values() for case, patient in part.items()}
        if unknown := [case for case in patients if case not in self.nodules]:
            raise TaskError(
                f"{self.list_path} lacks {len(unknown)} of the {len(patients)} nodules of the split "
                f"{self.table.source}, such as {unknown[0]}. Is it the list of this release, and whole?"
            )
        for case, patient in patients.items():
            if patient != self.nodules[case].patient:
                raise TaskError(
                    f"nodule {case} is of patient {self.nodules[case].patient} in {self.list_path}, but of {patient} "
                    f"in the split {self.table.source}: a patient could be on two sides. Fix the split"
                )
