"""The scans of TotalSegmentator v2 and what stands next to them, for every task that is made of this release."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.columns import Value
from tapct.tasks.release_files import ReleaseFiles, nifti
from tapct.tasks.release_scans import ReleaseScans
from tapct.tasks.shortcuts import AGE, INSTITUTE, KVP, MANUFACTURER, SCANNER_MODEL, SEX, manufacturer
from tapct.tasks.tables import number, read_table

RELEASE = "totalsegmentator"
LICENCE = "CC BY 4.0"
SOURCE = (
    "download Totalsegmentator_dataset_v201.zip (24 GB; v2.0.1, not v1 or v2.0.0) from "
    "https://zenodo.org/records/10047292 and unpack it in totalsegmentator/"
)

META = ("image_id", "age", "gender", "institute", "study_type", "manufacturer", "scanner_model", "kvp", "pathology")
"""Columns of `meta.csv` that tasks read."""

SHORTCUTS = (INSTITUTE, MANUFACTURER, SCANNER_MODEL, KVP, SEX, AGE)
"""Those that scans may be sorted by; the spacing is 1.5 mm in all of them."""


class TotalSegmentatorScans(ReleaseScans):
    """The 1228 scans of release 2.0.1 in its official split, with their masks and their rows of `meta.csv`.

    The root holds `sNNNN/ct.nii.gz`, `sNNNN/segmentations/` and `meta.csv`, or holds the folder that does.
    """

    scan_patterns = ("s[0-9]*/ct.nii.gz", "*/s[0-9]*/ct.nii.gz")

    @cached_property
    def _files(self) -> ReleaseFiles:
        return ReleaseFiles(self.root, ("s[0-9]*/ct.nii*", "meta.csv"))

    @cached_property
    def _mask_files(self) -> ReleaseFiles:
        """The masks, 117 a scan, which take seconds to list: only where they are asked for."""
        return ReleaseFiles(self.root, ("s[0-9]*/segmentations/*.nii*",))

    @override
    def ct_path(self, case: str) -> Path:
        return self._files.find(*nifti(f"{case}/ct"))

    def mask_path(self, case: str, structure: str) -> Path:
        """Returns the mask of a structure, by its name in the release; it need not be there."""
        return self._mask_files.find(*nifti(f"{case}/segmentations/{structure}"))

    @property
    def meta_path(self) -> Path:
        """The table of the release."""
        return self._files.find("meta.csv")

    @cached_property
    def meta(self) -> Mapping[str, dict[str, str]]:
        """Case to its row of `meta.csv`.

        Raises:
            TaskError: If the table cannot be read, or has a case twice.
        """
        rows: dict[str, dict[str, str]] = {}
        for row in read_table(self.meta_path, META, separator=";"):
            if row["image_id"] in rows:
                raise TaskError(f"{self.meta_path} has the case {row['image_id']} twice. Use the release's own file")
            rows[row["image_id"]] = row
        return rows

    def meta_row(self, case: str) -> dict[str, str]:
        """Returns the row of a case.

        Raises:
            TaskError: If it has none.
        """
        if case not in self.meta:
            raise TaskError(f"{self.meta_path} has no row with the image_id {case}. Use the release's own file")
        return self.meta[case]

    @override
    def value_paths(self, case: str, column: str) -> list[Path]:
        return [self.meta_path]

    @override
    def read_value(self, case: str, column: str) -> Value:
        row = self.meta_row(case)
        if column == AGE.name:
            return number(row, column, f"{self.meta_path}, {case}", low=0, high=120, unit="years")
        text = row["gender" if column == SEX.name else column].strip()
        return manufacturer(text) if column == MANUFACTURER.name else text
