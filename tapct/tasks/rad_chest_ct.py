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
from tapct.tasks.dataset import DoctorFinding
from tapct.tasks.npy import npz_shape, read_npz
from tapct.tasks.release_files import ReleaseFiles
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import Split, SplitTable
from tapct.tasks.tables import header_of, read_table
from tapct.volumes import Grid, Volume
from tapct.volumes.orient import shape_3d, spl_grid
from tapct.volumes.read import ct_volume

SPACING_MM = 0.8
"""Of every scan of the release along every axis: the authors' preprocess_volumes.py (rachellea/ct-volume-preprocessing,
commit fe533e7) resamples to it, clips to -1000..1000 HU and saves slices from head to feet, rows to the back, columns
to the left: axes I, P, L."""

SCANS = 3630
"""Scans of the release (Zenodo record 6406114); the data set has 35,747, which its table of patients lists."""

TABLES: dict[str, Split] = {
    "imgtrain_Abnormality_and_Location_Labels.csv": "train",
    "imgvalid_Abnormality_and_Location_Labels.csv": "val",
    "imgtest_Abnormality_and_Location_Labels.csv": "test",
}

PATIENTS, SPACING = "CT_Scan_Metadata_Complete_35747.csv", "final_spacing"
"""The table of patients, and its column of spacings."""

SHARED: dict[str, tuple[str, ...]] = {
    "Cardiomegaly": ("cardiomegaly",),
    "Pericardial effusion": ("pericardial_effusion",),
    "Hiatal hernia": ("hernia",),
    "Lymphadenopathy": ("lymphadenopathy",),
    "Emphysema": ("emphysema",),
    "Atelectasis": ("atelectasis",),
    "Lung nodule": ("nodule", "nodulegr1cm"),
    "Lung opacity": ("opacity",),
    "Pleural effusion": ("pleural_effusion",),
    "Peribronchial thickening": ("bronchial_wall_thickening",),
    "Consolidation": ("consolidation",),
    "Bronchiectasis": ("bronchiectasis",),
    "Interlobular septal thickening": ("septal_thickening",),
}
"""Finding of CT-RATE to the findings of RAD-ChestCT that are it, at any location: as all public code has it that
evaluates models of CT-RATE here (that of lmb-freiburg/radfinder, commit 7c6ab92, calls its table the standard).

Calcification is of arteries and coronaries alike, which CT-RATE tells apart: neither can be said here. Nothing in the
tables is a mosaic attenuation pattern."""

_DEVICES = (
    *("catheter_or_port", "chest_tube", "clip", "gi_tube", "hardware", "pacemaker_or_defib", "stent"),
    "tracheal_tube",
)

DISPUTED: dict[str, tuple[tuple[str, ...], ...]] = {
    "Medical material": (_DEVICES, (*_DEVICES, "breast_implant", "staple", "suture")),
    "Pulmonary fibrotic sequela": (("fibrosis",), ("scarring",)),
}
"""Findings of which there are several such tables: of a scan on which they do not agree, the finding is not stated."""

_VALUES = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}

SPEC = TaskSpec(
    name="rad_chest_ct",
    display_name="RAD-ChestCT",
    kind="classification",
    adaptor="linear",
    version=2,
    classes=FINDINGS,
    metric="MacroAUROC",
    licence="that of its Zenodo record 6406114, which gives access on request",
    source="ask for access at https://zenodo.org/records/6406114 and put its .npz files and tables into rad_chest_ct/",
    notice=MACHINE_READ,
    source_data=("rad-?chest-?ct",),
    citation="""@article{draelos2021radchestct,
  title={Machine-learning-based multiple abnormality prediction with large-scale chest computed tomography volumes},
  author={Draelos, Rachel Lea and Dov, David and Mazurowski, Maciej A. and Lo, Joseph Y. and Henao, Ricardo and
    Rubin, Geoffrey D. and Carin, Lawrence},
  journal={Medical Image Analysis},
  volume={67},
  pages={101857},
  year={2021},
  doi={10.1016/j.media.2020.101857}
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
    def _files(self) -> ReleaseFiles:
        return ReleaseFiles(self.root, ("*.npz", "*.csv"))

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
                present = {token: _present(row, of, where) for token, of in columns.items()}
                rows[case] = split, tuple(_stated(finding, present) for finding in FINDINGS)
        return rows

    @cached_property
    def patients_of(self) -> Mapping[str, tuple[str, str]]:
        """Scan to its patient and the spacing in mm that the table gives it, "" where the table gives none.

        Raises:
            TaskError: If the table cannot be read, or says two things of a scan.
        """
        path = self._files.find(PATIENTS)
        spacing = [name for name in header_of(path) if name == SPACING]
        found: dict[str, tuple[str, str]] = {}
        for row in read_table(path, ("MRN_DEID", "NoteAcc_DEID", *spacing)):
            scan, said = row["NoteAcc_DEID"], (row["MRN_DEID"], row.get(SPACING, ""))
            if found.setdefault(scan, said) != said:
                raise TaskError(f"{path}: two rows have the scan {scan}, and differ. Use the release's own file")
        return found

    @override
    def left_out(self) -> dict[str, str]:
        found = {}
        for case in self.rows:
            spacing = self.patients_of[case][1] if case in self.patients_of else ""
            if not self.ct_path(case).exists():
                found[case] = "its .npz file is not there"
            elif spacing and not _is_spacing(spacing):
                found[case] = f"{PATIENTS} has the {SPACING} {spacing} of it, and all scans are of {SPACING_MM} mm"
        return found

    @override
    def derive_split(self) -> SplitTable:
        if lacking := [case for case in self.rows if case not in self.patients_of]:
            raise TaskError(
                f"{self._files.find(PATIENTS)} names no patient of {lacking[0]}. Use the release's own files"
            )
        rows = [(case, self.patients_of[case][0], split) for case, (split, _) in self.rows.items()]
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
    def release_findings(self) -> Iterator[DoctorFinding]:
        there = sum(self.ct_path(case).exists() for case in self.rows)
        if there == SCANS:
            yield "ok", f"{SCANS:,} scans with labels are there", ""
        else:
            fix = "fetch the rest, or say that it is a part"
            yield "warn", f"{there:,} scans with labels are there, and the release has {SCANS:,}", fix


AFFINE = np.diag([-SPACING_MM, -SPACING_MM, -SPACING_MM, 1.0])[[2, 1, 0, 3]]
"""Homogeneous index (I, P, L) to mm in RAS+; where the patient lay, the release does not say."""


def _columns(path: Path) -> dict[str, list[str]]:
    """Returns the columns of each finding of the tables that is one of CT-RATE's, `abnormality*location`."""
    header = header_of(path)
    if not header:
        read_table(path, ("NoteAcc_DEID",))  # says what is wrong
    tokens = [*SHARED.values(), *(tokens for tables in DISPUTED.values() for tokens in tables)]
    found: dict[str, list[str]] = {}
    for token in dict.fromkeys(token for of in tokens for token in of):
        found[token] = [column for column in header if column.startswith(f"{token}*")]
        if not found[token]:
            raise TaskError(f"{path} has no column of {token}, such as {token}*lung. Use the release's own file")
    return found


def _present(row: Mapping[str, str], columns: list[str], where: str) -> int:
    """Returns whether a finding of the tables is at any location."""
    values = {row[column] for column in columns}
    if not values <= _VALUES.keys():
        odd = next(column for column in columns if row[column] not in _VALUES)
        raise TaskError(f"{where}: {odd} is '{row[odd]}', but must be 0 or 1. Use the release's own file")
    return max(_VALUES[value] for value in values)


def _stated(finding: str, present: Mapping[str, int]) -> int | None:
    """Returns whether a scan has a finding of CT-RATE; None where the release cannot say, or the tables disagree."""
    tables = (SHARED[finding],) if finding in SHARED else DISPUTED.get(finding, ())
    answers = {max(present[token] for token in tokens) for tokens in tables}
    return answers.pop() if len(answers) == 1 else None


def _is_spacing(text: str) -> bool:
    try:
        return abs(float(text) - SPACING_MM) < 1e-4
    except ValueError:
        return False
