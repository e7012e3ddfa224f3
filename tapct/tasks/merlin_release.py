"""The release of the Merlin Abdominal CT Dataset (arXiv:2406.06512): its studies, what is stated of them, and of whom.

What is known of it is from its documentation (StanfordMIMI/Merlin, documentation/download.md, commit 2489a96) and from
issues 33, 37, 39 and 42 there: labels are matches of phrases in the report, and -1 is a finding that no phrase states,
whatever the scan shows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tapct.errors import TaskError
from tapct.tasks.columns import Column, Value
from tapct.tasks.release_files import ReleaseFiles, nifti
from tapct.tasks.sheets import read_sheet
from tapct.tasks.shortcuts import AGE, KVP, MANUFACTURER, SCANNER_MODEL, SEX, SLICE_THICKNESS, of_tags
from tapct.tasks.splits import Split
from tapct.tasks.tables import header_of, read_table

FINDINGS = (
    *("submucosal_edema", "renal_hypodensities", "aortic_valve_calcification", "coronary_calcification"),
    *("thrombosis", "metastatic_disease", "pancreatic_atrophy", "renal_cyst", "osteopenia"),
    *("surgically_absent_gallbladder", "atelectasis", "abdominal_aortic_aneurysm", "anasarca", "hiatal_hernia"),
    *("lymphadenopathy", "prostatomegaly", "biliary_ductal_dilation", "cardiomegaly", "splenomegaly", "hepatomegaly"),
    *("atherosclerosis", "ascites", "pleural_effusion", "hepatic_steatosis", "appendicitis", "gallstones"),
    *("hydronephrosis", "bowel_obstruction", "free_air", "fracture"),
)
"""Columns of the label file, in their order."""

LABELS, SHEET, METADATA = "zero_shot_findings_disease_cls.csv", "reports_final.xlsx", "metadata.csv"

STUDY = "study id"

PARTS: dict[str, Split] = {"train": "train", "val": "val", "validation": "val", "test": "test"}
"""Value of the column Split to the part."""

PATIENTS = ("patient id", "patient_id", "patientid", "patient", "mrn", "subject id", "subject_id", "person_id")
"""Names that a column of patients might have; the release is not known to have one."""

PHASE = Column(name="phase", title="contrast phase", kind="text")

SHORTCUTS = (MANUFACTURER, SCANNER_MODEL, KVP, SLICE_THICKNESS, PHASE, SEX, AGE)
"""What the metadata say of a study."""

_TAGS = {
    **{"manufacturer": "Manufacturer", "manufacturermodelname": "ManufacturerModelName", "kvp": "KVP"},
    **{"slicethickness": "SliceThickness", "gender": "PatientSex", "age": "PatientAge"},
}
"""Column of the metadata, in small letters, to the keyword of DICOM that it holds."""

_VALUES = {"-1": None, "": None, "0": 0, "1": 1}


@dataclass(frozen=True)
class Study:
    """A study of the spreadsheet.

    Attributes:
        split: Its part; None where there is none, or rows disagree.
        patient: Its patient, or itself where the spreadsheet has no column of patients.
        left_out: Why it cannot be a case; None of one that can.
    """

    split: Split | None
    patient: str
    left_out: str | None


class MerlinRelease:
    """The files of the release under a folder, or under the one in it that the download makes."""

    def __init__(self, root: Path) -> None:
        """Initializes the release; nothing is read yet."""
        self._files = ReleaseFiles(root, ("merlin_data/*.nii*", LABELS, SHEET, METADATA))

    def scan(self, study: str) -> Path:
        """Returns the scan of a study; it need not be there."""
        return self._files.find(*nifti(f"merlin_data/{study}"))

    @property
    def labels(self) -> Path:
        """The label file; it need not be there."""
        return self._files.find(LABELS)

    @property
    def sheet(self) -> Path:
        """The spreadsheet of reports and parts; it need not be there."""
        return self._files.find(SHEET)

    @property
    def metadata(self) -> Path:
        """What stood in the headers of the scans; it need not be there."""
        return self._files.find(METADATA)

    @cached_property
    def findings(self) -> Mapping[str, tuple[int | None, ...] | None]:
        """Study to its labels, in the order of `FINDINGS`; None of one whose rows differ.

        Raises:
            TaskError: If the label file cannot be read, or a value is none of -1, 0 and 1.
        """
        path, found = self.labels, dict[str, tuple[int | None, ...] | None]()
        for row in read_table(path, (STUDY, *FINDINGS)):
            study = _study(row[STUDY])
            labels = tuple(_label(row, finding, f"{path}, {study}") for finding in FINDINGS)
            found[study] = labels if found.get(study, labels) == labels else None
        return found

    @cached_property
    def studies(self) -> Mapping[str, Study]:
        """The studies of the spreadsheet, in its order.

        Raises:
            TaskError: If it cannot be read, or a row names no study, no patient where it has a column of them, or an
                unknown part.
        """
        path, found = self.sheet, dict[str, Study]()
        rows, columns = self._sheet, self.patient_columns
        if len(columns) > 1:
            raise TaskError(
                f"{path} has several columns of patients: {', '.join(columns)}. Leave the one that is meant"
            )
        for row in rows:
            study, part = _study(row[STUDY]), row["Split"].casefold()
            patient = row[columns[0]] if columns else study
            if not (study and patient):
                raise TaskError(f"{path} has a row without a study or patient: {row}. Use the release's own file")
            if part and part not in PARTS:
                raise TaskError(f"{path}, {study}: Split is '{row['Split']}', and must be one of {', '.join(PARTS)}")
            split = PARTS.get(part)
            if study in found and (found[study].split, found[study].patient) != (split, patient):
                found[study] = Study(None, patient, f"two rows of {SHEET} have it, and differ")
            elif study not in found:
                found[study] = Study(split, patient, self._reason(study, split))
        return found

    @property
    def patient_columns(self) -> list[str]:
        """The columns of patients that the spreadsheet has: none, as far as is known."""
        return [name for name in PATIENTS if name in self._sheet[0]]

    @cached_property
    def _sheet(self) -> list[dict[str, str]]:
        return read_sheet(self.sheet, (STUDY, "Split"), optional=PATIENTS)

    def _reason(self, study: str, split: Split | None) -> str | None:
        """Returns why a study cannot be a case."""
        if split is None:
            return f"{SHEET} names no part of it"
        if study not in self.findings:
            return f"{LABELS} does not have it"
        if (labels := self.findings[study]) is None:
            return f"two rows of {LABELS} have it, and differ"
        return "none of the findings is stated of it" if set(labels) == {None} else None

    @cached_property
    def about(self) -> Mapping[str, Mapping[str, Value]]:
        """What the metadata say of studies, by study and shortcut; empty where there are no metadata.

        Raises:
            TaskError: If the file cannot be read, names no study, or says two things of one.
        """
        path, found = self.metadata, dict[str, Mapping[str, Value]]()
        if not path.is_file():
            return found
        names = {name.casefold(): name for name in header_of(path)}
        study = next((names[name] for name in (STUDY, "study_id", "volumename") if name in names), STUDY)
        known = [name for name in ("phase", *_TAGS) if name in names]
        for row in read_table(path, (study, *(names[name] for name in known)), what="metadata"):
            texts = {name: row[names[name]].strip() for name in known}
            said = of_tags({_TAGS[name]: text for name, text in _in_years(texts).items() if name in _TAGS})
            said |= {"phase": texts.get("phase") or None}
            if found.setdefault(_study(row[study]), said) != said:
                raise TaskError(f"{path}, {row[study]}: two rows have it, and differ. Use the release's own file")
        return found


def _study(text: str) -> str:
    """Returns the name of a study: without .nii.gz, and as the digits of one that a table took for a number."""
    name = text.strip().removesuffix(".gz").removesuffix(".nii")
    return name.removesuffix(".0") if name.removesuffix(".0").isdecimal() else name


def _label(row: Mapping[str, str], finding: str, where: str) -> int | None:
    """Returns a label; None where the report does not state it.

    Raises:
        TaskError: If it is none of -1, 0 and 1.
    """
    value = row[finding].strip().removesuffix(".0")
    if value not in _VALUES:
        raise TaskError(
            f"{where}: {finding} is '{row[finding]}', but must be 1, 0, or -1 where it is not stated. Use the "
            "release's own file"
        )
    return _VALUES[value]


def _in_years(texts: Mapping[str, str]) -> dict[str, str]:
    """Returns texts with an age that is a bare number as DICOM writes it."""
    age = texts.get("age", "").removesuffix(".0")
    return {**texts, **({"age": f"{int(age):03d}Y"} if age.isdecimal() else {})}
