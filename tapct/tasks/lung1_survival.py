"""LUNG1 (NSCLC-Radiomics): survival of patients with lung cancer, from the CT that radiotherapy was planned on."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.columns import Column, Value
from tapct.tasks.release_files import ReleaseFiles, nifti
from tapct.tasks.shortcuts import DICOM
from tapct.tasks.spec import TaskSpec
from tapct.tasks.survival import Outcome, SurvivalDataset
from tapct.tasks.tables import MISSING, OLDEST_YEARS, by_name, flag, number, read_table
from tapct.tasks.tcia import series_of
from tapct.volumes import Grid, Mask, read_labels
from tapct.volumes.dicom_masks import drawn_on, read_drawn

RELEASE = "NSCLC-Radiomics"
CLINICAL_FILE = "NSCLC-Radiomics-Lung1.clinical-version3-Oct-2019.csv"
LABEL_FILES = (CLINICAL_FILE.replace("-", "?"),)
"""Of the name of the clinical table: with blanks or underscores in place of some hyphens, as copies of it have it."""

TUMOUR = "GTV-1"
"""Name of the primary tumour in its contours and segmentations; GTV-2 and so on are lymph nodes."""

LONGEST_DAYS = 36525.0
T_STAGES, N_STAGES = ("1", "2", "3", "4"), ("0", "1", "2", "3")
"""Of the TNM system. The table also has a T of 5 (two patients) and an N of 4 (three), which are none, and stand here
for a stage that is not known. Its M is left out: 417 of 422 are 0, and the others 1 or 3."""

SPEC = TaskSpec(
    name="lung1_survival",
    display_name="LUNG1 survival",
    kind="survival",
    adaptor="cox:mean",
    version=1,
    classes=("death",),
    metric="UnoC",
    mask="the primary tumour (GTV-1)",
    source_data=("nsclc-radiomics(?!-genomics)", "lung1"),
    citation="@misc{aerts2014nsclcradiomics, title = {Data From NSCLC-Radiomics}, author = {Aerts, Hugo J. W. L. and "
    "others}, year = {2014}, publisher = {The Cancer Imaging Archive}, doi = {10.7937/K9/TCIA.2015.PF0M9REI}}",
    table=(
        Column(name="age", title="age", unit="years"),
        Column(name="sex", title="sex", kind="categorical", levels=("female", "male")),
        Column(name="stage", title="overall stage", kind="ordered", levels=("I", "II", "IIIa", "IIIb")),
        Column(name="t_stage", title="T stage", kind="ordered", levels=T_STAGES),
        Column(name="n_stage", title="N stage", kind="ordered", levels=N_STAGES),
        Column(
            name="histology",
            title="histology",
            kind="categorical",
            levels=("squamous cell carcinoma", "adenocarcinoma", "large cell", "nos"),
        ),
    ),
    rows=(("age",), ("age", "stage"), ("age", "sex", "stage", "t_stage", "n_stage", "histology")),
    licence="CC BY-NC 3.0",
    source=f"TCIA collection {RELEASE} (doi:10.7937/K9/TCIA.2015.PF0M9REI): its DICOM files as the NBIA Data Retriever "
    f"writes them, lung1_survival/{RELEASE}/LUNG1-001/<study>/<series>/, or LUNG1-001/CT.nii.gz and "
    f"LUNG1-001/{TUMOUR}.nii.gz; and the clinical table {CLINICAL_FILE} next to them",
    shortcuts=DICOM,
)

_OF_HEADER = {column.name for column in DICOM} - {column.name for column in SPEC.table}
"""Columns that the clinical table does not have."""


@dataclass(frozen=True)
class Clinical:
    """A row of the clinical table.

    Attributes:
        days: Survival time; None where it is not known.
        event: Whether it ended with death.
        values: By column of the task's table.
    """

    days: float | None
    event: bool
    values: dict[str, Value]


def read_clinical(path: Path) -> dict[str, Clinical]:
    """Returns the clinical table, by patient.

    Raises:
        TaskError: If it cannot be read, has a patient twice, or a value that cannot be.
    """
    columns = ("PatientID", "age", "gender", "Overall.Stage", "clinical.T.Stage", "Clinical.N.Stage", "Histology")
    rows = read_table(path, (*columns, "Survival.time", "deadstatus.event"), what="clinical table")
    of = by_name([(row["PatientID"], row) for row in rows], path, "patient")
    return {patient: _clinical(row, f"{path}, {patient}") for patient, row in of.items()}


def _clinical(row: dict[str, str], where: str) -> Clinical:
    def text(column: str) -> str | None:
        value = row[column].strip()
        return None if value in MISSING else value

    def level(column: str, levels: tuple[str, ...]) -> str | None:
        stage = number(row, column, where, low=0, high=9, unit="TNM stages")
        return None if stage is None or f"{stage:g}" not in levels else f"{stage:g}"

    histology = text("Histology")
    return Clinical(
        days=number(row, "Survival.time", where, low=1, high=LONGEST_DAYS, unit="days"),
        event=bool(flag(row, "deadstatus.event", where)),
        values={
            "age": number(row, "age", where, low=0, high=OLDEST_YEARS, unit="years"),
            "sex": text("gender"),
            "stage": text("Overall.Stage"),
            "t_stage": level("clinical.T.Stage", T_STAGES),
            "n_stage": level("Clinical.N.Stage", N_STAGES),
            "histology": histology and histology.lower(),
        },
    )


def without_time(rows: Mapping[str, Clinical]) -> dict[str, str]:
    """Returns the patients whose time is not known, with the reason to leave them out."""
    return {
        patient: "its survival time is not known (Survival.time is empty)"
        for patient, row in rows.items()
        if row.days is None
    }


class LUNG1Survival(SurvivalDataset):
    """421 patients, ten times dealt out to five folds; a case is a patient.

    The folder of the task holds the folders of the patients, or the release's top folder with these, and the clinical
    table. The tumour is drawn by the RTSTRUCT, or by the SEG of a patient who has none. Time counts in days, from the
    start of treatment as the release has it.
    """

    spec = SPEC
    scan_patterns = ("LUNG1-*", f"{RELEASE}/LUNG1-*", f"*/{RELEASE}/LUNG1-*")
    window = "lung"

    @cached_property
    def _files(self) -> ReleaseFiles:
        return ReleaseFiles(self.root, ("LUNG1-*",), ("", "*/", f"*/{RELEASE}/"))

    @cached_property
    def clinical(self) -> Mapping[str, Clinical]:
        """The clinical table, by patient."""
        return read_clinical(self.label_file)

    @cached_property
    def label_file(self) -> Path:
        """The clinical table; where it belongs, if it is not there."""
        return ReleaseFiles(self.root, (CLINICAL_FILE, CLINICAL_FILE.replace("-", "?")), ("", "*/", "*/*/")).only(
            CLINICAL_FILE
        )

    @override
    def left_out(self) -> dict[str, str]:
        return without_time(self.clinical)

    @override
    def outcome(self, case: str) -> Outcome:
        row = self._row(case)
        assert row.days is not None  # see `left_out`
        return Outcome(row.days, row.event)

    def _row(self, case: str) -> Clinical:
        if case not in self.clinical:
            raise TaskError(f"{SPEC.name}, case {case}: it has no row in {self.label_file}. Use the release's own file")
        return self.clinical[case]

    # -- Files -----------------------------------------------------------------------------------------

    @override
    def ct_path(self, case: str) -> Path:
        folder = self._files.find(case)
        found = next((folder / name for name in nifti("CT") if (folder / name).exists()), None)
        return found or self._series(case).get("CT", folder / "CT.nii.gz")

    def tumour_path(self, case: str) -> Path:
        """Returns the file that draws the tumour of a case; where it belongs, if there is none."""
        folder = self._files.find(case)
        found = next((folder / name for name in nifti(TUMOUR) if (folder / name).exists()), None)
        series = self._series(case)
        return found or series.get("RTSTRUCT") or series.get("SEG") or folder / f"{TUMOUR}.nii.gz"

    def _series(self, case: str) -> dict[str, Path]:
        """Returns the folder of the CT, and the files of the RTSTRUCT and the SEG, as far as a case has them."""
        if case not in self._known:
            self._known[case] = _series_of(self._files.find(case))
        return self._known[case]

    @cached_property
    def _known(self) -> dict[str, dict[str, Path]]:
        return {}

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [self.label_file]

    @override
    def mask_paths(self, case: str) -> list[Path]:
        return [self.tumour_path(case)]

    @override
    def value_paths(self, case: str, column: str) -> list[Path]:
        return [] if column in _OF_HEADER else [self.label_file]

    @override
    def read_mask(self, case: str, scan: Grid) -> Mask:
        path = self.tumour_path(case)
        if path.name in nifti(TUMOUR):
            return Mask.of_labels(read_labels(path), scan)
        return read_drawn(path, TUMOUR, scan)

    @override
    def read_value(self, case: str, column: str) -> Value:
        return super().read_value(case, column) if column in _OF_HEADER else self._row(case).values[column]


def _series_of(patient: Path) -> dict[str, Path]:
    """Returns what `LUNG1Survival._series` does, of the folder of a patient."""
    scans: dict[str, Path] = {}
    found: dict[str, Path] = {}
    for series in series_of(patient):
        if series.is_scan:
            scans[series.uid] = series.folder
        elif series.modality in ("RTSTRUCT", "SEG"):
            if series.modality in found or len(series.files) > 1:
                raise TaskError(
                    f"{patient} has several files of {series.modality}, such as {series.files[-1]}. Leave the one to "
                    "be used"
                )
            found[series.modality] = series.files[0]
    if len(scans) > 1 and found:
        named = drawn_on(found.get("RTSTRUCT") or found["SEG"])
        scans = {uid: folder for uid, folder in scans.items() if uid in named}
    if len(scans) > 1:
        raise TaskError(
            f"{patient} has several CT series: {', '.join(map(str, scans.values()))}. Leave the one to be used"
        )
    return {**found, **({"CT": next(iter(scans.values()))} if scans else {})}
