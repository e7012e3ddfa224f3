"""Forced vital capacity in pulmonary fibrosis, from the chest CT (Open Source Imaging Consortium)."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.regression import RegressionDataset
from tapct.tasks.release_files import ReleaseFiles, nifti
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import SplitTable, hash_rule, hashed
from tapct.tasks.tables import number, read_table

TABLE = "baselines.csv"
PATIENT, FVC = "PATIENT ID", "FVC PREDICTED"

SEED = "osic_fvc v1"

SPEC = TaskSpec(
    name="osic_fvc",
    display_name="OSIC, FVC",
    kind="regression",
    adaptor="ridge",
    version=1,
    classes=("FVC",),
    unit="% of predicted",
    metric="MAE",
    licence="that of the Open Source Imaging Consortium's data use agreement",
    source="ask for access at osicild.org/dr.html; put baselines.csv, and the first CT of each patient as "
    "ct/<PATIENT ID>_0.nii.gz, into osic_fvc/",
    source_data=("osic",),
)


class OSICFVC(RegressionDataset):
    """The column `FVC PREDICTED` of `baselines.csv`, at the time of the scan `ct/<PATIENT ID>_0.nii.gz`.

    A case is a PATIENT ID. Patients without a value or without a scan are left out, and the record names them.
    """

    spec = SPEC
    split_rule = hash_rule(SEED)
    scan_patterns = ("ct/*_0.nii.gz", "*/ct/*_0.nii.gz")
    window = "lung"

    @cached_property
    def _files(self) -> ReleaseFiles:
        return ReleaseFiles(self.root, (TABLE, "ct/*_0.nii*"))

    @property
    def table_path(self) -> Path:
        """The table of the release."""
        return self._files.find(TABLE)

    @cached_property
    def fvc(self) -> Mapping[str, float | None]:
        """Patient to per cent of the predicted FVC; None where there is none.

        Raises:
            TaskError: If the table cannot be read, has a patient twice, or a value that cannot be.
        """
        found: dict[str, float | None] = {}
        for row in read_table(self.table_path, (PATIENT, FVC)):
            if (patient := row[PATIENT]) in found:
                raise TaskError(f"{self.table_path} has the patient {patient} twice. Leave the row of the first scan")
            found[patient] = number(
                row, FVC, f"{self.table_path}, {patient}", low=10, high=250, unit="per cent of the predicted value"
            )
        return found

    @override
    def left_out(self) -> dict[str, str]:
        absent = [case for case in self.fvc if not self.ct_path(case).exists()]
        without_scan = dict.fromkeys(absent, "it has no scan ct/<PATIENT ID>_0.nii.gz")
        return without_scan | {case: f"{TABLE} has no {FVC}" for case, value in self.fvc.items() if value is None}

    @override
    def derive_split(self) -> SplitTable:
        return hashed({case: case for case in self.fvc}, SEED, str(self.table_path))

    @override
    def ct_path(self, case: str) -> Path:
        return self._files.find(*nifti(f"ct/{case}_0"))

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [self.table_path]

    @override
    def numbers(self, case: str) -> tuple[float]:
        value = self.fvc.get(case)
        if value is None:
            raise TaskError(f"{self.table_path} has no {FVC} of the patient {case}. Leave the case out")
        return (value,)
