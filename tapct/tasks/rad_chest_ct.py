"""RAD-ChestCT: the findings that it shares with CT-RATE, on scans of another hospital (Draelos et al. 2021)."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.classification import ClassificationDataset
from tapct.tasks.ct_rate_release import FINDINGS
from tapct.tasks.ct_rate_scans import MACHINE_READ
from tapct.tasks.dataset import Finding, Index
from tapct.tasks.npy import npz_shape, read_npz
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import Split, SplitTable
from tapct.tasks.tables import flag, header_of, read_table
from tapct.volumes import Grid, Volume
from tapct.volumes.orient import shape_3d, spl_grid
from tapct.volumes.read import ct_volume

SPACING_MM = 0.8
"""Of every scan of the release along every axis: the authors' preprocess_volumes.py (rachellea/ct-volume-preprocessing,
commit fe533e7) resamples to it, clips to -1000..1000 HU and saves slices from head to feet, rows to the back, columns
to the left: axes I, P, L."""

SCANS = 3630
"""Scans of the release (Zenodo record 6406114)."""

TABLES: dict[str, Split] = {
    "imgtrain_Abnormality_and_Location_Labels.csv": "train",
    "imgvalid_Abnormality_and_Location_Labels.csv": "val",
    "imgtest_Abnormality_and_Location_Labels.csv": "test",
}

PATIENTS = "CT_Scan_Metadata_Complete_35747.csv"

SHARED: dict[str, tuple[str, ...]] = {
    "Medical material": (
        *("catheter_or_port", "chest_tube", "clip", "gi_tube", "hardware", "pacemaker_or_defib", "stent"),
        "tracheal_tube",
    ),
    "Cardiomegaly": ("cardiomegaly",),
    "Pericardial effusion": ("pericardial_effusion",),
    "Hiatal hernia": ("hernia",),
    "Lymphadenopathy": ("lymphadenopathy",),
    "Emphysema": ("emphysema",),
    "Atelectasis": ("atelectasis",),
    "Lung nodule": ("nodule", "nodulegr1cm"),
    "Lung opacity": ("opacity",),
    "Pulmonary fibrotic sequela": ("fibrosis",),
    "Pleural effusion": ("pleural_effusion",),
    "Peribronchial thickening": ("bronchial_wall_thickening",),
    "Consolidation": ("consolidation",),
    "Bronchiectasis": ("bronchiectasis",),
    "Interlobular septal thickening": ("septal_thickening",),
}
"""Finding of CT-RATE to the findings of RAD-ChestCT that are it, at any location: as public code has it that evaluates
CT-CLIP here. Its sixteenth, calcification, is of arteries and coronaries alike, which CT-RATE tells apart: neither
can be said here. Nothing in the table is a mosaic attenuation pattern."""

SPEC = TaskSpec(
    name="rad_chest_ct",
    display_name="RAD-ChestCT",
    kind="classification",
    adaptor="linear",
    version=1,
    classes=FINDINGS,
    metric="MicroAUROC",
    licence="that of its Zenodo record 6406114, which gives access on request",
    source="ask for access at https://zenodo.org/records/6406114 and put its .npz files and tables into rad_chest_ct/",
    notice=MACHINE_READ,
    source_data=("rad-?chest-?ct",),
    citation="""@article{draelos2021radchestct,
  title={Machine-learning-based multiple abnormality prediction with large-scale chest computed tomography volumes},
  author={Draelos, Rachel Lea and Dov, David and Mazurowski, Maciej A. and Lo, Joseph Y. and others},
  journal={Medical Image Analysis},
  volume={67},
  pages={101857},
  year={2021}
}""",
)


class RADChestCT(ClassificationDataset):
    """The labels are those of CT-RATE, so that heads trained there can be reported here; three are never stated.

    The parts are the release's. Scans that are not there are left out, and the record names them.
    """

    spec = SPEC
    window = "lung"
    split_rule = "the release's: imgtrain, imgvalid and imgtest"
    scan_patterns = ("*.npz", "*/*.npz")

    @cached_property
    def _files(self) -> Index:
        return Index(self.root, ("*.npz", "*.csv"))

    @cached_property
    def rows(self) -> Mapping[str, tuple[Split, tuple[int | None, ...]]]:
        """Scan to its part and its labels, in the order of `FINDINGS`.

        Raises:
            TaskError: If a table cannot be read, lacks a finding, or has a scan twice.
        """
        rows: dict[str, tuple[Split, tuple[int | None, ...]]] = {}
        for table, split in TABLES.items():
            path = self._files.find(table)
            columns = _columns(path)
            for row in read_table(path, ("NoteAcc_DEID", *dict.fromkeys(c for of in columns.values() for c in of))):
                case = row["NoteAcc_DEID"]
                if case in rows:
                    raise TaskError(f"{path}, {case}: it is there twice. Use the release's own files")
                where = f"{path}, {case}"
                rows[case] = split, tuple(_stated(row, columns.get(finding, ()), where) for finding in FINDINGS)
        return rows

    @cached_property
    def patients_of(self) -> Mapping[str, str]:
        """Scan to its patient.

        Raises:
            TaskError: If the table cannot be read.
        """
        table = read_table(self._files.find(PATIENTS), ("MRN_DEID", "NoteAcc_DEID"))
        return {row["NoteAcc_DEID"]: row["MRN_DEID"] for row in table}

    @override
    def left_out(self) -> dict[str, str]:
        return {case: f"there is no {case}.npz" for case in self.rows if not self.ct_path(case).exists()}

    @override
    def derive_split(self) -> SplitTable:
        if lacking := [case for case in self.rows if case not in self.patients_of]:
            raise TaskError(
                f"{self._files.find(PATIENTS)} names no patient of {lacking[0]}. Use the release's own files"
            )
        rows = [(case, self.patients_of[case], split) for case, (split, _) in self.rows.items()]
        return SplitTable.of(rows, self.split_rule, where=str(self.root))

    @override
    def ct_path(self, case: str) -> Path:
        return self._files.find(f"{case}.npz")

    @override
    def scan_paths(self, case: str) -> list[Path]:
        return [self.ct_path(case)]

    @override
    def target_paths(self, case: str) -> list[Path]:
        return [self._files.find(table) for table in TABLES]

    @override
    def read_scan(self, case: str) -> Volume:
        path = self.ct_path(case)
        return ct_volume(read_npz(path, "ct"), AFFINE, str(path))

    @override
    def scan_grid(self, case: str) -> Grid:
        path = self.ct_path(case)
        return spl_grid(shape_3d(npz_shape(path, "ct"), str(path)), AFFINE, str(path))

    @override
    def targets(self, case: str) -> tuple[int | None, ...]:
        if case not in self.rows:
            raise TaskError(f"no table of RAD-ChestCT under {self.root} has the scan {case}. Leave the case out")
        return self.rows[case][1]

    @override
    def release_findings(self) -> Iterator[Finding]:
        if len(self.rows) == SCANS:
            yield "ok", f"{SCANS:,} scans have labels", ""
        else:
            mend = "fetch its tables again, or say that it is a part"
            yield "warn", f"{len(self.rows):,} scans have labels, and the release has {SCANS:,}", mend


AFFINE = np.diag([-SPACING_MM, -SPACING_MM, -SPACING_MM, 1.0])[[2, 1, 0, 3]]
"""Homogeneous index (I, P, L) to mm in RAS+; where the patient lay, the release does not say."""


def _columns(path: Path) -> dict[str, list[str]]:
    """Returns the columns of each shared finding, `abnormality*location`."""
    header = header_of(path)
    if not header:
        read_table(path, ("NoteAcc_DEID",))  # says what is wrong
    found: dict[str, list[str]] = {}
    for finding, tokens in SHARED.items():
        for token in tokens:
            columns = [column for column in header if column.startswith(f"{token}*")]
            if not columns:
                raise TaskError(f"{path} has no column of {token}, such as {token}*lung. Use the release's own file")
            found.setdefault(finding, []).extend(columns)
    return found


def _stated(row: Mapping[str, str], columns: list[str] | tuple[()], where: str) -> int | None:
    """Returns whether a finding is at any location; None of one that the release cannot say."""
    if not columns:
        return None
    return max(flag({column: row[column].removesuffix(".0")}, column, where) for column in columns)
