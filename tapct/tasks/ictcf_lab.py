"""Five laboratory values of patients with suspected COVID-19, from the chest CT (iCTCF; Ning et al. 2020)."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.regression import MissingTarget, RegressionDataset
from tapct.tasks.release_files import ReleaseFiles
from tapct.tasks.shortcuts import DICOM
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import SplitTable, hash_rule, hashed
from tapct.tasks.tables import number, read_table

TABLE = "clinical.csv"

LIMITS: dict[str, tuple[str, float, float]] = {
    "HGB": ("g/l", 25, 300),
    "WBC": ("10^9/l", 0.01, 500),
    "CRP": ("mg/l", 0, 1000),
    "PCT": ("the table's unit", 0, 1000),
    "CK": ("U/l", 0, 100_000),
}
"""The values by their columns, each with its unit and what it can be in that unit; ours, wide enough for anyone alive.

The table names no units; these are the usual ones of Chinese laboratories. PCT may be procalcitonin or plateletcrit."""

SEED = "ictcf_lab v1"

SPEC = TaskSpec(
    name="ictcf_lab",
    display_name="iCTCF, laboratory",
    kind="regression",
    adaptor="ridge",
    version=1,
    classes=tuple(f"{name} ({unit})" for name, (unit, _, _) in LIMITS.items()),
    unit="SD",
    metric="MAE",
    licence="none stated here: see ngdc.cncb.ac.cn/ictcf",
    source="take the clinical table as clinical.csv and the CT of each patient, as a folder of DICOM slices "
    "ct/<ID, blanks as underscores>/, from https://ngdc.cncb.ac.cn/ictcf, and put them into ictcf_lab/",
    source_data=("ictcf", "hust-19"),
    shortcuts=DICOM,
)


class ICTCFLab(RegressionDataset):
    """The columns HGB, WBC, CRP, PCT and CK of `clinical.csv`; each may be missing.

    A case is an ID of the table with underscores for blanks, as its folder is named. Patients without any of the values
    or without a scan are left out, and the record names them.
    """

    spec = SPEC
    split_rule = hash_rule(SEED)
    scan_patterns = ("ct/*/", "*/ct/*/")
    window = "lung"

    @cached_property
    def _files(self) -> ReleaseFiles:
        return ReleaseFiles(self.root, (TABLE, "ct/*/"))

    @property
    def table_path(self) -> Path:
        """The table of the release."""
        return self._files.find(TABLE)

    @cached_property
    def lab(self) -> Mapping[str, tuple[float | None, ...]]:
        """Case to its laboratory values in the order of `LIMITS`; None where one is missing.

        Raises:
            TaskError: If the table cannot be read, has a patient twice, or a value that cannot be.
        """
        found: dict[str, tuple[float | None, ...]] = {}
        for row in read_table(self.table_path, ("ID", *LIMITS)):
            if (case := row["ID"].replace(" ", "_")) in found:
                raise TaskError(f"{self.table_path} has the patient {row['ID']} twice. Leave one row")
            where = f"{self.table_path}, {row['ID']}"
            found[case] = tuple(
                number(row, name, where, low=low, high=high, unit=unit) for name, (unit, low, high) in LIMITS.items()
            )
        return found

    @override
    def left_out(self) -> dict[str, str]:
        without_scan = {case: "it has no folder ct/<ID>" for case in self.lab if not self.ct_path(case).exists()}
        empty = [case for case, values in self.lab.items() if all(value is None for value in values)]
        return without_scan | {case: f"{TABLE} has none of {', '.join(LIMITS)}" for case in empty}

    @override
    def derive_split(self) -> SplitTable:
        return hashed({case: case for case in self.lab}, SEED, str(self.table_path))

    @override
    def ct_path(self, case: str) -> Path:
        return self._files.find(f"ct/{case}")

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [self.table_path]

    @override
    def numbers(self, case: str) -> Sequence[float | MissingTarget]:
        if case not in self.lab:
            raise TaskError(f"{self.table_path} has no row with the ID {case}")
        return [MissingTarget(f"{TABLE} has none") if value is None else value for value in self.lab[case]]
