"""Merlin Abdominal CT: thirty findings of an abdominal CT, as patterns read them from its report (arXiv:2406.06512).

What is known of the release is from its documentation (StanfordMIMI/Merlin, documentation/download.md, commit 2489a96)
and from issues 33, 37, 39 and 42 there: its labels are matches of phrases in the report, and -1 is a finding that no
phrase states, whatever the scan shows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from typing_extensions import override

from tapct.errors import TaskError
from tapct.names import listed
from tapct.tasks.classification import ClassificationDataset
from tapct.tasks.ct_rate_scans import MACHINE_READ
from tapct.tasks.dataset import Finding, Index, nifti
from tapct.tasks.sheets import read_sheet
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import Split, SplitTable
from tapct.tasks.tables import read_table

FINDINGS = (
    *("submucosal_edema", "renal_hypodensities", "aortic_valve_calcification", "coronary_calcification"),
    *("thrombosis", "metastatic_disease", "pancreatic_atrophy", "renal_cyst", "osteopenia"),
    *("surgically_absent_gallbladder", "atelectasis", "abdominal_aortic_aneurysm", "anasarca", "hiatal_hernia"),
    *("lymphadenopathy", "prostatomegaly", "biliary_ductal_dilation", "cardiomegaly", "splenomegaly", "hepatomegaly"),
    *("atherosclerosis", "ascites", "pleural_effusion", "hepatic_steatosis", "appendicitis", "gallstones"),
    *("hydronephrosis", "bowel_obstruction", "free_air", "fracture"),
)
"""Columns of the label file, in their order."""

LABELS, SHEET = "zero_shot_findings_disease_cls.csv", "reports_final.xlsx"

STUDY = "study id"

PARTS: dict[str, Split] = {"train": "train", "val": "val", "validation": "val", "test": "test"}
"""Value of the column Split to the part."""

SCANS: dict[Split, int] = {"train": 15_314, "val": 5_055, "test": 5_125}
"""Rows of the spreadsheet, 25,494 in all (the release); by part: its public readers."""

PATIENTS = ("patient id", "patient_id", "patientid", "patient", "mrn", "subject id", "subject_id", "person_id")
"""Names that a column of patients might have; the release is not known to have one."""

_VALUES = {"-1": None, "": None, "0": 0, "1": 1}

SPEC = TaskSpec(
    name="merlin_findings",
    display_name="Merlin, findings",
    kind="classification",
    adaptor="linear",
    version=1,
    classes=FINDINGS,
    metric="MicroAUROC",
    licence="Stanford's data use agreement: research alone, not commercial, and not to be passed on",
    source="agree to the terms of the Merlin Abdominal CT Dataset of Stanford AIMI "
    "(https://stanfordaimi.azurewebsites.net/datasets/60b9c7ff-877b-48ce-96c3-0194c8205c40) and put "
    f"merlin_data/, {SHEET} and {LABELS} into merlin_findings/",
    notice=f"{MACHINE_READ} Which scans are of one patient is not published: each counts as its own, so that intervals "
    "may be too narrow.",
    source_data=("merlin",),
    citation="""@article{blankemeier_kumar2026merlin,
  title={Merlin: a computed tomography vision-language foundation model and dataset},
  author={Blankemeier, Louis and Kumar, Ashwin and others},
  journal={Nature},
  year={2026},
  doi={10.1038/s41586-026-10181-8}
}""",
)


@dataclass(frozen=True)
class Study:
    """A row of the spreadsheet.

    Attributes:
        split: Its part; None where there is none, or rows disagree.
        patient: Its patient, or itself where the spreadsheet has no column of patients.
        left_out: Why it cannot be a case; None of one that can.
    """

    split: Split | None
    patient: str
    left_out: str | None


class MerlinFindings(ClassificationDataset):
    """A case is a study, such as AC421363e; the parts are the release's. What a report does not state is missing."""

    spec = SPEC
    split_rule = f"the release's: the column Split of {SHEET}"
    scan_patterns = ("merlin_data/*.nii*", "*/merlin_data/*.nii*")

    @cached_property
    def _files(self) -> Index:
        return Index(self.root, ("merlin_data/*.nii*", LABELS, SHEET))

    @cached_property
    def findings(self) -> Mapping[str, tuple[int | None, ...] | None]:
        """Study to its labels, in the order of `FINDINGS`; None of one whose rows differ.

        Raises:
            TaskError: If the label file cannot be read, or a value is none of -1, 0 and 1.
        """
        path, found = self._files.find(LABELS), dict[str, tuple[int | None, ...] | None]()
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
        path, found = self._files.find(SHEET), dict[str, Study]()
        rows = read_sheet(path, (STUDY, "Split"), optional=PATIENTS)
        columns = [name for name in PATIENTS if name in rows[0]]
        if len(columns) > 1:
            raise TaskError(f"{path} has {len(columns)} columns of patients: {', '.join(columns)}. Leave the one meant")
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

    def _reason(self, study: str, split: Split | None) -> str | None:
        """Returns why a study cannot be a case."""
        if split is None:
            return f"{SHEET} names no part of it"
        if study not in self.findings:
            return f"{LABELS} does not have it"
        if (labels := self.findings[study]) is None:
            return f"two rows of {LABELS} have it, and differ"
        return "none of the findings is stated of it" if set(labels) == {None} else None

    @override
    def left_out(self) -> dict[str, str]:
        return {study: of.left_out for study, of in self.studies.items() if of.left_out is not None}

    @override
    def derive_split(self) -> SplitTable:
        rows = [(study, of.patient, of.split) for study, of in self.studies.items() if of.split is not None]
        return SplitTable.of(rows, self.split_rule, where=str(self._files.find(SHEET)))

    @override
    def ct_path(self, case: str) -> Path:
        return self._files.find(*nifti(f"merlin_data/{case}"))

    @override
    def scan_paths(self, case: str) -> list[Path]:
        return [self.ct_path(case)]

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [self._files.find(LABELS)]

    @override
    def targets(self, case: str) -> tuple[int | None, ...]:
        if (labels := self.findings.get(case)) is None:
            raise TaskError(f"{self._files.find(LABELS)} has no labels of the study {case}. Leave the case out")
        return labels

    @override
    def release_findings(self) -> Iterator[Finding]:
        for split, there in SCANS.items():
            here = sum(of.split == split for of in self.studies.values())
            if here == there:
                yield "ok", f"{split}: {here:,} studies", ""
            else:
                yield "warn", f"{split}: {here:,} studies, and the release has {there:,}", f"fetch {SHEET} again"
        if lacking := [study for study in self.studies if study not in self.findings]:
            yield (
                "warn",
                f"{len(lacking)} studies have no labels: {listed(lacking)}",
                f"they are left out; the release itself lacks some (43 of test): if it is more, fetch {LABELS} again",
            )
        if strange := [study for study in self.findings if study not in self.studies]:
            yield "warn", f"{len(strange)} studies have labels and no part: {listed(strange)}", "they are not used"
        own = all(of.patient == study for study, of in self.studies.items())
        yield "ok", f"{SHEET} has {'no' if own else 'a'} column of patients", ""


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
