"""FDG-PET-CT-Lesions: is there a tumour in a whole-body CT (Gatidis and Kuestner 2022, doi:10.7937/gkr0-xv29)."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.classification import ClassificationDataset
from tapct.tasks.columns import Value
from tapct.tasks.own_split import SplitPin
from tapct.tasks.release_files import ReleaseFiles, nifti
from tapct.tasks.shortcuts import AGE, MANUFACTURER, SEX, of_tags
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import Split, SplitTable, stratified
from tapct.tasks.tables import read_table

RELEASE = "FDG-PET-CT-Lesions"
_TOPS = ("", f"{RELEASE}/")
DIAGNOSES = {"NEGATIVE": 0, "MELANOMA": 1, "LUNG_CANCER": 1, "LYMPHOMA": 1}
"""The values of `diagnosis`, to whether there is a tumour."""

CT_FILES = ("CT.nii.gz", "CTres.nii.gz")

LABEL_FILES = ("Clinical?Metadata?FDG?PET?CT?Lesions.csv", "fdg_metadata.csv", "home/*/fdg_metadata.csv")
"""Names of the clinical table: TCIA's (with spaces, or what a download made of them), and that of the copy on
FDAT, whose archive unpacks it into a stray `home`; the columns are the same."""

SPEC = TaskSpec(
    name="fdg_pet_ct",
    display_name="FDG-PET-CT",
    kind="classification",
    adaptor="abmil",
    version=1,
    classes=("tumour",),
    metric="MicroAUROC",
    source_data=("fdg-pet-ct", "autopet"),
    licence="TCIA's terms for FDG-PET-CT-Lesions (listed as CC BY 4.0; faces are visible, so ask TCIA before "
    "passing anything on)",
    source=f"TCIA collection {RELEASE} (doi:10.7937/gkr0-xv29): its DICOM files, converted to NIfTI by "
    "tcia_dicom_to_nifti.py of lab-midas/TCIA_processing, so that fdg_pet_ct/PETCT_<id>/<study>/CT.nii.gz and the "
    "table 'Clinical Metadata FDG PET_CT Lesions.csv' are there",
    shortcuts=(MANUFACTURER, SEX, AGE),
)


class FDGPETCT(ClassificationDataset):
    """1014 studies of 900 patients: whole-body CT, and whether its study's diagnosis is a tumour.

    The folder of the task holds the folders `PETCT_<id>`, or the release's top folder with these, and the clinical
    table. A case is "PETCT_<id>/<study folder>"; study folders have spaces, some of them double. Labels are per
    study: 81 patients have several, 30 of them with and without a tumour. The split is made here from the clinical
    table, by our own rule, by patient, stratified by whether any study is positive; the paper's is unpublished.

    `CT.nii.gz` is the diagnostic CT, which the paper used; `CTres.nii.gz` is the same CT resampled to the grid of
    the PET, the only one in some distributions. Scores on the two are not comparable; the record names the file.
    """

    spec = SPEC
    described = ("ct_file",)
    # Of the public copy of the table in the repository MrGiovanni/Touchstone (utils/).
    split_pin = SplitPin(
        sha256="335f7fe209010d60fb5b89ad85c1c1f9fbe1aefb3bd49d9be834c1270ff8636f",
        counts=(711, 104, 199),
    )

    def __init__(
        self,
        root: str | Path,
        split: Split,
        split_file: str | Path | None = None,
        ct_file: Literal["CT.nii.gz", "CTres.nii.gz"] = "CT.nii.gz",
    ) -> None:
        """Initializes the dataset.

        Args:
            root: Folder of the task.
            split: Which cases.
            split_file: Another split than the task's own: a CSV with the columns case, patient, split.
            ct_file: Which CT of a study.

        Raises:
            TaskError: If the split cannot be read, or there is no such file in a study.
        """
        if ct_file not in CT_FILES:
            raise TaskError(f"{SPEC.name}: ct_file is '{ct_file}', but must be one of {', '.join(CT_FILES)}")
        self.ct_file = ct_file
        self.scan_patterns = (f"PETCT_*/*/{ct_file}", f"{RELEASE}/PETCT_*/*/{ct_file}")
        super().__init__(root, split, split_file)

    @cached_property
    def label_file(self) -> Path:
        """The clinical table, one row a DICOM series; where it belongs, if it is not there."""
        return ReleaseFiles(self.root, LABEL_FILES, _TOPS).only("Clinical Metadata FDG PET_CT Lesions.csv")

    @cached_property
    def _scans(self) -> ReleaseFiles:
        return ReleaseFiles(self.root, ("PETCT_*/*/CT*.nii*",), _TOPS)

    @cached_property
    def labels(self) -> dict[str, int]:
        """Case to whether there is a tumour.

        Raises:
            TaskError: If the file cannot be read, its paths name no study, or a diagnosis is unknown or not the
                same in all rows of a study.
        """
        diagnoses: dict[str, str] = {}
        for number, (case, row) in enumerate(self._rows(("diagnosis",)), start=1):
            where = f"{self.label_file}, row {number}"
            if row["diagnosis"] not in DIAGNOSES:
                raise TaskError(f"{where}: unknown diagnosis '{row['diagnosis']}'; known: {', '.join(DIAGNOSES)}")
            if diagnoses.setdefault(case, row["diagnosis"]) != row["diagnosis"]:
                raise TaskError(f"{where}: {case} has two diagnoses. Use the release's own file")
        return {case: DIAGNOSES[diagnosis] for case, diagnosis in diagnoses.items()}

    def _rows(self, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
        """Yields the rows of the clinical table with their case.

        Raises:
            TaskError: If the file cannot be read, or its paths name no study.
        """
        rows = read_table(self.label_file, ("Subject ID", "File Location", *columns))
        for number, row in enumerate(rows, start=1):
            # ./FDG-PET-CT-Lesions/<subject>/<study>/<series>
            *_, subject, study, _ = ("", "", "", *row["File Location"].split("/"))
            if not subject or subject != row["Subject ID"]:
                raise TaskError(
                    f"{self.label_file}, row {number}: no study of {row['Subject ID']} in the path "
                    f"'{row['File Location']}'"
                )
            yield f"{subject}/{study}", row

    @cached_property
    def _about(self) -> dict[str, dict[str, Value]]:
        """Case to what the row of its CT says, by column of `spec.shortcuts`."""
        rows = self._rows(("Modality", "Manufacturer", "age", "sex"))
        tags = {"Manufacturer": "Manufacturer", "PatientAge": "age", "PatientSex": "sex"}
        of_ct = ((case, row) for case, row in rows if row["Modality"] == "CT")
        return {case: of_tags({tag: row[column] for tag, column in tags.items()}) for case, row in of_ct}

    @override
    def value_paths(self, case: str, column: str) -> list[Path]:
        return [self.label_file]

    @override
    def read_value(self, case: str, column: str) -> Value:
        return self._about.get(case, {}).get(column)

    @override
    def derive_split(self) -> SplitTable:
        patients = {case: case.split("/")[0] for case in self.labels if case not in self.excluded}
        positive = {patient for case, patient in patients.items() if self.labels[case]}
        strata = {patient: str(int(patient in positive)) for patient in patients.values()}
        return stratified(patients, strata, "fdg_pet_ct v1", str(self.label_file))

    @override
    def ct_path(self, case: str) -> Path:
        return self._scans.find(*nifti(f"{case}/{self.ct_file.removesuffix('.nii.gz')}"))

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [self.label_file]

    @override
    def validate(self) -> None:
        bare = [
            c for c in self.cases if not self.ct_path(c).exists() and self.ct_path(c).with_name("CTres.nii.gz").exists()
        ]
        if bare:
            raise TaskError(
                f"{SPEC.name}: {len(bare)} of {len(self)} studies of the split '{self.split}' have a CTres.nii.gz but "
                f"no CT.nii.gz, such as {bare[0]}. The diagnostic CT is in TCIA's DICOM files; to use the CT on the "
                "grid of the PET on purpose, set data.init_args.options.ct_file to CTres.nii.gz, which the record names"
            )
        super().validate()

    @override
    def targets(self, case: str) -> tuple[int, ...]:
        if case not in self.labels:
            raise TaskError(f"it has no row in {self.label_file}")
        return (self.labels[case],)
