"""The base class of galleries of tumours: one scan a patient of a TCIA collection, its tumour drawn, its stage told."""

import abc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from tapct.errors import TapctError, TaskError
from tapct.tasks.columns import UNKNOWN, Value, in_one_spelling
from tapct.tasks.dataset import DoctorFinding
from tapct.tasks.release_files import ReleaseFiles
from tapct.tasks.retrieval import RetrievalDataset
from tapct.tasks.tables import OLDEST_YEARS, number
from tapct.tasks.tcia import DrawnScan, drawn_scan
from tapct.volumes import Grid, Mask, read_labels
from tapct.volumes.dicom_masks import read_drawn

NOT_KNOWN = (*UNKNOWN, "null", "not collected", "not recorded in database")
"""What clinical tables of TCIA write where nothing is known, in small letters."""


WITHOUT_MASKS = "Fetch the files again, pool the whole scan (cosine:mean), or leave the cases out with a split_file"


class TumourRetrieval(RetrievalDataset):
    """Scans with a tumour of the same group of stages or grades, each patient once.

    A case is a patient: the CT series that the tumour was drawn on, or a NIfTI file where the release comes so as well.
    Whoever has both in one folder is asked which is meant.
    """

    folders: ClassVar[str]
    """A glob of the folders of patients."""
    collection: ClassVar[str]
    """Folder of the collection, as the NBIA Data Retriever names it."""
    drawn_as: ClassVar[str]
    """What the SeriesDescription of the release's own segmentations is, as a regular expression."""
    tumour: ClassVar[tuple[str, ...]]
    """What its segment is called; nothing where it is the only one."""
    tumour_labels: ClassVar[frozenset[int] | None]
    """Its labels in a NIfTI file; None for any but the background."""
    groups: ClassVar[Mapping[str, tuple[str, ...]]]
    """The stages or grades of each label."""
    of_table: ClassVar[Mapping[str, str]]
    """The column of the table that holds a column of `spec.shortcuts`; the others are of the headers."""
    rows: ClassVar[int]
    """Patients in the release's table."""
    in_groups: ClassVar[tuple[int, ...]]
    """Cases of each label in the release."""

    # -- What a task says ------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def label_file(self) -> Path:
        """The table of the release; where it belongs, if it is not there."""

    @cached_property
    @abc.abstractmethod
    def table_rows(self) -> Mapping[str, Mapping[str, str]]:
        """The rows of the table, by patient.

        Raises:
            TaskError: If it cannot be read.
        """

    @abc.abstractmethod
    def stage(self, case: str) -> str | None:
        """Returns the stage or grade of a patient; None where it is not known.

        Raises:
            TaskError: If it can be none.
        """

    @abc.abstractmethod
    def nifti_files(self, case: str) -> tuple[Path, Path]:
        """Returns the NIfTI files of the scan and of what was drawn on it; they need not be there."""

    # -- Files -----------------------------------------------------------------------------------------

    @cached_property
    def _folders(self) -> ReleaseFiles:
        return ReleaseFiles(self.root, (self.folders,), ("", "*/", f"*/{self.collection}/"))

    @cached_property
    def _known(self) -> dict[str, DrawnScan | None]:
        return {}

    def _drawn(self, case: str) -> DrawnScan | None:
        """Returns the series of a patient that is a folder of DICOM.

        Raises:
            TaskError: As `drawn_scan`, or if there is a NIfTI file next to them.
        """
        if case not in self._known:
            found = drawn_scan(self._folders.find(case), self.drawn_as)
            if found is not None and (file := self.nifti_files(case)[0]).exists():
                raise TaskError(f"{case} is there twice: {found.scan} and {file}. Leave the one to be used")
            self._known[case] = found
        return self._known[case]

    @override
    def ct_path(self, case: str) -> Path:
        if (found := self._drawn(case)) is not None:
            return found.scan
        file = self.nifti_files(case)[0]
        return file if file.exists() else self._folders.find(case) / "<study>" / "<series of the CT>"

    def tumour_path(self, case: str) -> Path:
        """Returns the file that draws the tumour of a case; where it belongs, if there is none."""
        found = self._drawn(case)
        return self.nifti_files(case)[1] if found is None else found.drawing

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [self.label_file]

    # -- Masks -----------------------------------------------------------------------------------------

    @override
    def mask_paths(self, case: str) -> list[Path]:
        return [self.tumour_path(case)]

    @override
    def read_mask(self, case: str, scan: Grid) -> Mask:
        found = self._drawn(case)
        if found is not None:
            return read_drawn(found.drawing, self.tumour, scan)
        return Mask.of_labels(read_labels(self.tumour_path(case)), scan, self.tumour_labels)

    @override
    def require_masks(self) -> None:
        super().require_masks()
        if wrong := self._wrong_masks(self.cases):
            raise TaskError(
                f"{len(wrong)} masks of the split '{self.split}' cannot be used: {_first(wrong)}. {WITHOUT_MASKS}"
            )

    def _wrong_masks(self, cases: Sequence[str]) -> list[str]:
        """Returns what is wrong with the masks of cases; each is read once, and read again when a file has changed."""
        wrong = []
        for case in cases:
            try:
                self.volume_ml(case)
            except TapctError as error:
                wrong.append(str(error))
        return wrong

    # -- Labels ----------------------------------------------------------------------------------------

    @override
    def labels(self, case: str) -> Sequence[int | None]:
        stage = self.stage(case)
        return [None if stage is None else int(stage in of) for of in self.groups.values()]

    def row(self, case: str) -> Mapping[str, str]:
        """Returns the row of a patient.

        Raises:
            TaskError: If there is none.
        """
        if case not in self.table_rows:
            raise TaskError(f"{self.label_file} has no row of {case}. Use the release's own file")
        return self.table_rows[case]

    def told(self, case: str, column: str) -> str | None:
        """Returns what a column of the table says of a patient; None where nothing is known.

        Raises:
            TaskError: If it has no such patient.
        """
        text = self.row(case)[column].strip()
        return None if in_one_spelling(text) in NOT_KNOWN else text

    @override
    def read_value(self, case: str, column: str) -> Value:
        if column not in self.of_table:
            return super().read_value(case, column)
        name = self.of_table[column]
        text = self.told(case, name)
        if text is None or column != "age":
            return text
        return number({name: text}, name, f"{self.label_file}, {case}", low=0, high=OLDEST_YEARS, unit="years")

    @override
    def value_paths(self, case: str, column: str) -> list[Path]:
        return [self.label_file] if column in self.of_table else super().value_paths(case, column)

    @override
    def release_findings(self) -> Iterator[DoctorFinding]:
        again = f"fetch {self.label_file.name} again"
        if (patients := len(self.table_rows)) != self.rows:
            yield "warn", f"{self.label_file.name} has {patients} patients, and the release has {self.rows}", again
        shipped = self.shipped_split()
        assert shipped is not None
        stages = [self.stage(case) for case in shipped.cases["test"] if case in self.table_rows]
        for (label, of), count in zip(self.groups.items(), self.in_groups, strict=True):
            if (here := sum(stage in of for stage in stages)) == count:
                yield "ok", f"{label}: {here} patients", ""
            else:
                yield "warn", f"{label}: {here} patients of the split, and the release has {count}", again
        yield from self._mask_findings()

    def _mask_findings(self) -> Iterator[DoctorFinding]:
        whole = []
        for case in self.cases:
            with suppress(TaskError):  # which scan is meant is not known: the doctor says so of the case
                if self.ct_path(case).exists():
                    whole.append(case)
        drawn = [case for case in whole if self.tumour_path(case).exists()]
        if len(drawn) < len(whole):
            yield "warn", f"{len(whole) - len(drawn)} of {len(whole)} scans have no tumour drawn", WITHOUT_MASKS
        if wrong := self._wrong_masks(drawn):
            yield "warn", f"{len(wrong)} of {len(drawn)} masks cannot be used: {_first(wrong)}", WITHOUT_MASKS
        elif drawn:
            yield "ok", f"{len(drawn)} tumours lie on their scans", ""


def _first(messages: Sequence[str]) -> str:
    return messages[0] + (f"; and so for {len(messages) - 1} more" if len(messages) > 1 else "")
