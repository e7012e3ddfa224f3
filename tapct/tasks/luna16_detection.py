"""LUNA16: finding lung nodules in whole scans (Setio et al. 2017)."""

import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from tapct.errors import TaskError
from tapct.source_code import code_of
from tapct.tasks.dataset import CTDataset
from tapct.tasks.localisation import LocalisationDataset
from tapct.tasks.luna16_scans import LICENCE, RELEASE, SOURCE, LUNA16Scans
from tapct.tasks.nodules import lps_to_ras_point
from tapct.tasks.release_files import ReleaseFiles
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import Split, SplitTable
from tapct.tasks.tables import read_table
from tapct.volumes import Findings

SPEC = TaskSpec(
    name="luna16_detection",
    display_name="LUNA16 detection",
    kind="localisation",
    version=1,
    classes=("nodule",),
    metric="FROC",
    release=RELEASE,
    source_data=("luna16", "lidc-idri"),
    licence=LICENCE,
    source=f"{SOURCE}, with annotations.csv, and annotations_excluded.csv of evaluationScript.zip, next to them",
)

COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")

LEAST_MM = 3.0
"""Diameter from which on the release calls a finding a nodule. Of a table in cm all are below it."""

UNMEASURED_MM = 10.0
"""Diameter of an excluded finding that nobody measured, -1 in the list: what LUNA16's evaluation takes it for."""

_Row = tuple[float, float, float, float, float, float]


class LUNA16Detection(LUNA16Scans, LocalisationDataset):
    """The 888 scans of LUNA16 and their 1186 nodules: those of at least 3 mm that three of four readers marked.

    Places and diameters are in `annotations.csv`, in the root (or `LUNA16/`, `CSVFILES/`): x, y, z in mm, LPS, as ITK
    has them. What fewer readers marked, or is smaller or no nodule, is in `annotations_excluded.csv`, next to it or in
    `evaluationScript/annotations/`, and counts neither way. A case is a SeriesInstanceUID; 287 scans have no nodule.
    The split is that of the release's subsets.
    """

    spec = SPEC
    described = ("excluded_findings",)
    excluded_why: ClassVar[str] = "marked by fewer than three of LIDC-IDRI's readers, under 3 mm, or no nodule"

    def __init__(
        self,
        root: str | Path,
        split: Split,
        split_file: str | Path | None = None,
        excluded_findings: bool | None = None,
    ) -> None:
        """Initializes the dataset.

        Args:
            root: Folder of the task.
            split: Which cases.
            split_file: Another split than the task's own.
            excluded_findings: Whether the findings of `annotations_excluded.csv` count neither way; else candidates on
                them are false positives. None: where that file is there.

        Raises:
            TaskError: If the split cannot be read, or the excluded findings are asked for and not there.
        """
        super().__init__(root, split, split_file)
        is_there = self._excluded_path.is_file()
        self.excluded_findings = is_there if excluded_findings is None else excluded_findings
        if self.excluded_findings and not is_there:
            raise TaskError(
                f"there is no {self._excluded_path}. It is in evaluationScript.zip of LUNA16; or set the option "
                "excluded_findings to false, which the record names"
            )

    @cached_property
    def _tables(self) -> ReleaseFiles:
        tops = [f"{top}{folder}" for top in ("", "LUNA16/") for folder in ("", "CSVFILES/")]
        return ReleaseFiles(self.root, ("annotations.csv", "annotations_excluded.csv"), tops)

    @property
    def annotations_path(self) -> Path:
        """The table of the nodules; it need not be there."""
        return self._tables.find("annotations.csv")

    @property
    def _excluded_path(self) -> Path:
        beside = self._tables.find("annotations_excluded.csv")
        if beside.is_file():
            return beside
        tops = ("", "LUNA16/", "*/", "LUNA16/*/")
        found = ReleaseFiles(self.root, ("annotations/annotations_excluded.csv",), tops)
        return next((path for path in [found.find("annotations/annotations_excluded.csv")] if path.is_file()), beside)

    @override
    def ct_path(self, case: str) -> Path:
        return self.series_path(case)

    @override
    def scan_cache_key(self, case: str) -> list[Any]:
        """Returns what decides a scan: whether excluded findings count decides nothing of it."""
        return [RELEASE, *self._scan_code, case, *self._perturbing]

    @cached_property
    def _scan_code(self) -> list[Any]:
        code = code_of(LUNA16Scans.__module__, CTDataset.__module__)
        return [code.sha256, code.libraries]

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [self.annotations_path, *([self._excluded_path] if self.excluded_findings else [])]

    @override
    def paths(self, case: str) -> list[Path]:
        return [*super().paths(case), *self.voxel_paths(case)]

    @override
    def findings(self, case: str) -> Findings:
        return Findings.of(self._rows.get(case, []))

    @cached_property
    def _rows(self) -> dict[str, list[_Row]]:
        """Rows of findings by series."""
        rows: dict[str, list[_Row]] = {}
        known = self._series
        for series, row in _read(self.annotations_path, unmeasured_mm=None):
            if series not in known:
                raise TaskError(
                    f"{self.annotations_path} has a nodule in the scan {series}, which is none of LUNA16's 888 and not "
                    "in the split. Use the release's own file, or name the scan in the split file"
                )
            rows.setdefault(series, []).append((*row, 0.0))
        if self.excluded_findings:
            for series, row in _read(self._excluded_path, unmeasured_mm=UNMEASURED_MM):
                rows.setdefault(series, []).append((*row, 1.0))
        return rows

    @property
    def _series(self) -> set[str]:
        tables = [table for table in (self.table, self.shipped_split()) if isinstance(table, SplitTable)]
        return {case for table in tables for part in table.cases.values() for case in part} | set(self.excluded)


def _read(path: Path, unmeasured_mm: float | None) -> Iterator[tuple[str, tuple[float, float, float, float, float]]]:
    """Yields the series of each row, with class, x, y, z (RAS) and diameter.

    Args:
        path: A table with `COLUMNS`; places in LPS.
        unmeasured_mm: The diameter of what has a negative one; None where nothing may.

    Raises:
        TaskError: If it is missing or malformed, or a value cannot be.
    """
    for row in read_table(path, COLUMNS, what="list of findings"):
        try:
            x, y, z, diameter = (float(row[name]) for name in COLUMNS[1:])
        except ValueError as error:
            raise TaskError(f"{path}: a finding of {row['seriesuid']} cannot be read: {error}") from error
        if unmeasured_mm is not None and diameter < 0:
            diameter = unmeasured_mm
        if not all(map(math.isfinite, (x, y, z, diameter))) or diameter <= 0:
            raise TaskError(
                f"{path}: a finding of {row['seriesuid']} is at ({x}, {y}, {z}) mm with a diameter of {diameter} mm. "
                "Places are finite and diameters positive: use the release's own file"
            )
        if unmeasured_mm is None and diameter < LEAST_MM:
            raise TaskError(
                f"{path}: a nodule of {row['seriesuid']} has a diameter of {diameter} mm, and the release has none "
                f"under {LEAST_MM:g} mm. Are the diameters in cm, or radii? Use the release's own file"
            )
        yield row["seriesuid"], (0.0, *lps_to_ras_point(x, y, z), diameter)
