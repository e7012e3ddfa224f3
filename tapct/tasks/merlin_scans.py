"""The scans of the Merlin Abdominal CT Dataset, for every task that is made of this release."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from typing_extensions import override

from tapct.names import listed
from tapct.tasks.columns import Value
from tapct.tasks.dataset import DoctorFinding
from tapct.tasks.merlin_release import LABELS, METADATA, SHEET, MerlinRelease
from tapct.tasks.release_scans import ReleaseScans
from tapct.tasks.splits import Split, SplitTable

LICENCE = "Stanford's data use agreement: research alone, not commercial, and not to be passed on"
SOURCE = (
    "agree to the terms of the Merlin Abdominal CT Dataset of Stanford AIMI "
    "(https://stanfordaimi.azurewebsites.net/datasets/60b9c7ff-877b-48ce-96c3-0194c8205c40) and put "
    f"merlin_data/, {SHEET}, {LABELS} and {METADATA} into merlin_findings/"
)
SOURCE_DATA = ("merlin",)
CITATION = """@article{blankemeier_kumar2026merlin,
  title={Merlin: a computed tomography vision-language foundation model and dataset},
  author={Blankemeier, Louis and Kumar, Ashwin and others},
  journal={Nature},
  year={2026},
  doi={10.1038/s41586-026-10181-8}
}"""

NO_PATIENTS = (
    "Which scans are of one patient is not published: each counts as its own, so that intervals may be too narrow."
)

SCANS: dict[Split, int] = {"train": 15_314, "val": 5_055, "test": 5_125}
"""Rows of the spreadsheet, 25,494 in all (the release); by part: public notes of those who read it."""


class MerlinScans(ReleaseScans):
    """A case is a study, such as AC421363e; the parts are the release's."""

    split_rule = f"the release's: the column Split of {SHEET}"
    scan_patterns = ("merlin_data/*.nii*", "*/merlin_data/*.nii*")

    @cached_property
    def release(self) -> MerlinRelease:
        """The files of the release."""
        return MerlinRelease(self.root)

    @override
    def left_out(self) -> dict[str, str]:
        return {study: of.left_out for study, of in self.release.studies.items() if of.left_out is not None}

    @override
    def derive_split(self) -> SplitTable:
        rows = [(study, of.patient, of.split) for study, of in self.release.studies.items() if of.split is not None]
        return SplitTable.of(rows, self.split_rule, where=str(self.release.sheet))

    @override
    def ct_path(self, case: str) -> Path:
        return self.release.scan(case)

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [self.release.labels]

    @override
    def value_paths(self, case: str, column: str) -> list[Path]:
        return [self.release.metadata]

    @override
    def read_value(self, case: str, column: str) -> Value:
        said = self.release.about.get(case)
        return None if said is None else said[column]

    @override
    def validate(self) -> None:
        super().validate()
        _ = self.release.about  # what is wrong with the metadata shows before anything is encoded

    @override
    def release_findings(self) -> Iterator[DoctorFinding]:
        studies, labelled = self.release.studies, self.release.findings
        for split, there in SCANS.items():
            here = sum(of.split == split for of in studies.values())
            if here == there:
                yield "ok", f"{split}: {here:,} studies", ""
            else:
                yield "warn", f"{split}: {here:,} studies, and the release has {there:,}", f"fetch {SHEET} again"
        if lacking := [study for study in studies if study not in labelled]:
            yield (
                "warn",
                f"{len(lacking)} studies have no labels: {listed(lacking)}",
                f"they are left out; the release itself lacks some (43 of test): if it is more, fetch {LABELS} again",
            )
        if strange := [study for study in labelled if study not in studies]:
            yield "warn", f"{len(strange)} studies have labels and no part: {listed(strange)}", "they are not used"
        yield "ok", f"{SHEET} has {'a' if self.release.patient_columns else 'no'} column of patients", ""
        if unknown := [study for study in studies if study not in self.release.about]:
            what = f"does not have {len(unknown)} studies" if self.release.about else "is not there"
            yield "warn", f"{METADATA} {what}: what took them is not known", "nothing else is lacking"
