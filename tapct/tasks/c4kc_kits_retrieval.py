"""C4KC-KiTS (Heller et al. 2019): clear-cell carcinomas of the kidney of the same ISUP grade."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.release_files import ReleaseFiles, nifti
from tapct.tasks.shortcuts import AGE, KERNEL, KVP, MANUFACTURER, SCANNER_MODEL, SEX, SLICE_THICKNESS, VOLUME
from tapct.tasks.spec import TaskSpec
from tapct.tasks.tables import by_name, read_table
from tapct.tasks.tumour_retrieval import TumourRetrieval

CLINICAL_FILE = "C4KC KiTS_Clinical Data_Version 1.csv"
CLINICAL_FILES = "C4KC*KiTS*Clinical*Data*.csv"
"""Of its name: with underscores, hyphens or %20 in place of blanks, as copies of it have it."""
KITS_FILES = ("kits.json", "kits23.json")
"""The same table in the repositories of KiTS19 and KiTS23."""

CLEAR_CELL = "clear_cell_rcc"
"""The grade is asked of these alone: it is made for them, and those of other tumours are few."""

GRADES = {"ISUP 1-2": ("1", "2"), "ISUP 3-4": ("3", "4")}
"""Low and high, as FlexiCT has them: of the single grades, the fourth has ten patients."""

COLUMNS = ("age_at_nephrectomy", "gender", "tumor_histologic_subtype", "tumor_isup_grade")

RELEASE = "C4KC-KiTS"

SPEC = TaskSpec(
    name="c4kc_kits_retrieval",
    display_name="C4KC-KiTS, ISUP grade",
    kind="retrieval",
    adaptor="cosine:mask",
    version=1,
    classes=tuple(GRADES),
    metric="mAP",
    mask="the tumour of the kidney (Mass), as the release draws it",
    shortcuts=(MANUFACTURER, SCANNER_MODEL, KERNEL, KVP, SLICE_THICKNESS, SEX, AGE, VOLUME),
    release="c4kc_kits",
    source_data=("(c4kc-)?kits", "abdomenct-1k", "abdomenatlas"),
    licence="CC BY 3.0",
    source=f"TCIA collection {RELEASE} (doi:10.7937/TCIA.2019.IX49E8NX): its DICOM files as the NBIA Data Retriever "
    f"writes them, c4kc_kits/{RELEASE}/KiTS-00000/<study>/<series>/, of each patient the CT series 'arterial' and the "
    f"series 'Segmentation' (all series are 41 GB), and the clinical table '{CLINICAL_FILE}' next to them; or link the "
    "folder of kits23 as c4kc_kits, or data/ of KiTS19 (CC BY-NC-SA 4.0), with their kits.json",
    citation="""@misc{heller2019c4kckits,
  title={C4KC KiTS Challenge Kidney Tumor Segmentation Dataset},
  author={Heller, Nicholas and Sathianathen, Niranjan and Kalapara, Arveen and others},
  year={2019},
  publisher={The Cancer Imaging Archive},
  doi={10.7937/TCIA.2019.IX49E8NX}
}""",
)


class C4KCKiTSRetrieval(TumourRetrieval):
    """143 patients, the late arterial phase of each: the series that kidneys and tumour were drawn on.

    They are the first 210 of KiTS, KiTS-00007 being case_00007: its files and its table are read as well.
    """

    spec = SPEC
    folders = "KiTS-*"
    collection = RELEASE
    drawn_as = "segmentation"
    tumour = ("Mass", "Tumor", "Kidney Tumor", "Renal Tumor")
    tumour_labels = frozenset({2})
    groups = GRADES
    of_table = MappingProxyType({"sex": "gender", "age": "age_at_nephrectomy"})
    rows = 210
    in_groups = (97, 46)

    @cached_property
    def _tables(self) -> ReleaseFiles:
        return ReleaseFiles(self.root, (CLINICAL_FILES,), ("", "*/", "*/*/"))

    @cached_property
    def _kits(self) -> ReleaseFiles:
        files = ("case_*/imaging.nii*", "images/case_*.nii*", "case_*/segmentation.nii*")
        return ReleaseFiles(self.root, (*files, *KITS_FILES))

    @property
    @override
    def label_file(self) -> Path:
        own = self._tables.only(CLINICAL_FILE)
        of_kits = self._kits.find(*KITS_FILES)
        return own if own.exists() or not of_kits.exists() else of_kits

    @cached_property
    @override
    def table_rows(self) -> Mapping[str, Mapping[str, str]]:
        if self.label_file.suffix == ".json":
            return read_kits(self.label_file)
        rows = read_table(self.label_file, ("patient_id", *COLUMNS), what="clinical table")
        return by_name([(row["patient_id"].strip(), row) for row in rows], self.label_file, "patient")

    @override
    def nifti_files(self, case: str) -> tuple[Path, Path]:
        name = case.replace("KiTS-", "case_")
        scan = self._kits.find(*nifti(f"{name}/imaging", f"images/{name}"))
        return scan, self._kits.find(*nifti(f"{name}/segmentation"))

    @override
    def stage(self, case: str) -> str | None:
        if (tumour := self.told(case, "tumor_histologic_subtype")) != CLEAR_CELL:
            raise TaskError(
                f"{self.label_file}, {case}: its tumour is '{tumour}', and only of clear-cell carcinomas "
                f"({CLEAR_CELL}) is the grade asked. Leave the case out"
            )
        if (told := self.told(case, "tumor_isup_grade")) is None:
            return None
        grade = told.removesuffix(".0")  # 3.0: a column of pandas in which some are missing
        if not any(grade in of for of in GRADES.values()):
            raise TaskError(
                f"{self.label_file}, {case}: tumor_isup_grade is '{grade}', and must be 1, 2, 3 or 4. Use the "
                "release's own file"
            )
        return grade


def read_kits(path: Path) -> Mapping[str, Mapping[str, str]]:
    """Returns the rows of KiTS's own table by patient of C4KC-KiTS, as the clinical table has them.

    Raises:
        TaskError: If it is no list of cases, or one lacks a column or is there twice.
    """
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))
        rows = [(str(case["case_id"]).replace("case_", "KiTS-"), _texts(case)) for case in cases]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TaskError(
            f"{path} is no list of the cases of KiTS with {', '.join(COLUMNS)} ({type(error).__name__}: {error}). "
            "Use the repository's own file"
        ) from error
    of_c4kc = f"KiTS-{C4KCKiTSRetrieval.rows:05d}"  # KiTS23 has more, from 300 on
    return by_name([(name, row) for name, row in rows if name < of_c4kc], path, "patient")


def _texts(case: Mapping[str, Any]) -> dict[str, str]:
    return {column: "" if case[column] is None else str(case[column]) for column in COLUMNS}
