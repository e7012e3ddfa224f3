"""The release of CT-RATE (Hamamci et al. 2024, arXiv:2403.17834): which volumes it lists, of whom, and in which files.

Names of volumes say everything: `valid_12_b_2.nii.gz` is the second reconstruction of scan b of patient valid_12. There
is one report a scan, so all reconstructions of a scan are one case here: that with the lowest number that is a chest.

The first upload (`train/`, `valid/`) has headers without spacing and rescale: its voxels are no HU. The second
(`train_fixed/`, `valid_fixed/`) has both (discussion 58 of the data page).
"""

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from tapct._utils.files import FileStamp, stamp_of
from tapct.errors import TaskError
from tapct.tasks.columns import Value
from tapct.tasks.release_files import ReleaseFiles
from tapct.tasks.shortcuts import AGE, KERNEL, MANUFACTURER, SCANNER_MODEL, SEX, of_tags
from tapct.tasks.tables import flag, read_table

FINDINGS = (
    *("Medical material", "Arterial wall calcification", "Cardiomegaly", "Pericardial effusion"),
    *("Coronary artery wall calcification", "Hiatal hernia", "Lymphadenopathy", "Emphysema", "Atelectasis"),
    *("Lung nodule", "Lung opacity", "Pulmonary fibrotic sequela", "Pleural effusion", "Mosaic attenuation pattern"),
    *("Peribronchial thickening", "Consolidation", "Bronchiectasis", "Interlobular septal thickening"),
)
"""Columns of the label files, in their order."""

ReleasePart = Literal["train", "valid"]

PARTS: tuple[ReleasePart, ...] = ("train", "valid")

REPORTS: dict[ReleasePart, str] = {"train": "train_reports.csv", "valid": "validation_reports.csv"}

METADATA: dict[ReleasePart, str] = {"train": "train_metadata.csv", "valid": "validation_metadata.csv"}

SHORTCUTS = (MANUFACTURER, SCANNER_MODEL, KERNEL, SEX, AGE)
"""What the metadata say of a volume, from the headers of its DICOM files; they hold no tube voltage."""

_TAGS = ("Manufacturer", "ManufacturerModelName", "ConvolutionKernel", "PatientSex", "PatientAge")
"""Columns of the metadata that hold them: keywords of DICOM."""

SECTIONS = ("Findings_EN", "Impressions_EN")
"""What a radiologist saw, and concluded: of the other columns one says why the scan was taken, and one how."""

VOLUMES: dict[ReleasePart, int] = {"train": 47_149, "valid": 3_039}
"""Rows of the label files, and `NO_CHEST` of the lists, as the data page and its discussion 75 have them."""

NO_CHEST: dict[ReleasePart, int] = {"train": 752, "valid": 37}

_NAME = re.compile(r"(train|valid)_([1-9]\d*)_([a-z]+)_([1-9]\d*)(\.nii\.gz)?", re.ASCII)


@dataclass(frozen=True)
class VolumeName:
    """What the name of a volume says.

    Attributes:
        part: "train" or "valid".
        patient: Such as valid_12.
        scan: Such as valid_12_b.
        reconstruction: From 1.
    """

    part: ReleasePart
    patient: str
    scan: str
    reconstruction: int

    @classmethod
    def parse(cls, name: str, where: str) -> "VolumeName":
        """Reads a name, with or without .nii.gz and folders before it.

        Raises:
            TaskError: If it is none of a volume of CT-RATE.
        """
        found = _NAME.fullmatch(name.strip().rpartition("/")[2])
        if found is None:
            raise TaskError(
                f"{where}: '{name}' is not a volume of CT-RATE, such as train_1_a_1.nii.gz. Use the release's own file"
            )
        number, letter, reconstruction = found.groups()[1:4]
        part: ReleasePart = "train" if found[1] == "train" else "valid"
        return cls(part, f"{part}_{number}", f"{part}_{number}_{letter}", int(reconstruction))

    @property
    def volume(self) -> str:
        """The volume without .nii.gz."""
        return f"{self.scan}_{self.reconstruction}"


@dataclass(frozen=True)
class CTRateScan:
    """A scan of the release.

    Attributes:
        name: Of the volume that stands for it: its lowest reconstruction that is a chest, else its lowest.
        findings: 0 or 1 for each of `FINDINGS`.
        left_out: Why it cannot be a case; None of one that can.
    """

    name: VolumeName
    findings: tuple[int, ...]
    left_out: str | None


class CTRateRelease:
    """The files of CT-RATE under a folder: the repository of the data page, or its `dataset/`."""

    def __init__(self, root: Path, parts: tuple[ReleasePart, ...] = PARTS) -> None:
        """Initializes the release; nothing is read yet.

        Args:
            root: The folder.
            parts: Which parts of it; no file of the other is looked at.
        """
        self.root, self.parts = root, parts
        tables = ("multi_abnormality_labels/*.csv", "metadata/*.txt", "metadata/*.csv", "radiology_text_reports/*.csv")
        self._tables = ReleaseFiles(root, tables, ("", "dataset/"))
        self._volumes = ReleaseFiles(root, [f"{part}_fixed/*/*/*.nii.gz" for part in parts], ("", "dataset/"))

    def labels(self, part: ReleasePart) -> Path:
        """Returns the label file of a part; it need not be there."""
        return self._tables.find(f"multi_abnormality_labels/{part}_predicted_labels.csv")

    def no_chest(self, part: ReleasePart) -> Path:
        """Returns the list of the volumes of a part that are heads; it need not be there."""
        return self._tables.find(f"metadata/no_chest_{part}.txt")

    def reports(self, part: ReleasePart) -> Path:
        """Returns the reports of a part; they need not be there."""
        return self._tables.find(f"radiology_text_reports/{REPORTS[part]}")

    def metadata(self, part: ReleasePart) -> Path:
        """Returns what stood in the headers of a part's volumes; it need not be there."""
        return self._tables.find(f"metadata/{METADATA[part]}")

    def volume(self, name: VolumeName) -> Path:
        """Returns the file of a volume, of the second upload; it need not be there."""
        return self._volumes.find(f"{name.part}_fixed/{name.patient}/{name.scan}/{name.volume}.nii.gz")

    def first_upload(self, name: VolumeName) -> Path | None:
        """Returns the file of a volume in the first upload, whose voxels are no HU; None where it is not there."""
        below = f"{name.part}/{name.patient}/{name.scan}/{name.volume}.nii.gz"
        return next((path for top in ("", "dataset/") if (path := self.root / (top + below)).exists()), None)

    @cached_property
    def heads(self) -> frozenset[str]:
        """The volumes that are listed as no chest.

        Raises:
            TaskError: If a list is missing or names what is not a volume: a head would train and be reported as a
                chest.
        """
        return frozenset(name.volume for part in self.parts for name in self.listed_heads(part))

    def listed_heads(self, part: ReleasePart) -> list[VolumeName]:
        """Returns the volumes of a part that are listed as no chest.

        Raises:
            TaskError: As `heads`.
        """
        path = self.no_chest(part)
        if not path.is_file():
            raise TaskError(f"there is no list {path}. Put it there: it names the volumes of CT-RATE that are heads")
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise TaskError(f"{path} is not text in UTF-8 ({error}). Fetch it again") from error
        return [_of_part(line, part, str(path)) for line in lines if line.strip()]

    def rows(self, part: ReleasePart) -> dict[str, tuple[VolumeName, tuple[int, ...]]]:
        """Returns the volumes of a part in the order of its label file: by name, with the findings.

        Raises:
            TaskError: If the file cannot be read, a volume is there twice or of the other part, or a value is neither
                0 nor 1.
        """
        path, rows = self.labels(part), dict[str, tuple[VolumeName, tuple[int, ...]]]()
        for row in read_table(path, ("VolumeName", *FINDINGS)):
            name = _of_part(row["VolumeName"], part, str(path))
            where, whole = f"{path}, {name.volume}", _whole(row)
            if name.volume in rows:
                raise TaskError(f"{where}: it is there twice. Use the release's own file")
            rows[name.volume] = name, tuple(flag(whole, finding, where) for finding in FINDINGS)
        return rows

    @cached_property
    def scans(self) -> Mapping[str, CTRateScan]:
        """The scans of the parts by name, in the order of the label files.

        Raises:
            TaskError: As `rows` and `heads`.
        """
        volumes: dict[str, list[tuple[VolumeName, tuple[int, ...]]]] = {}
        for part in self.parts:
            for name, findings in self.rows(part).values():
                volumes.setdefault(name.scan, []).append((name, findings))
        return {scan: self._scan(of_scan) for scan, of_scan in volumes.items()}

    def _scan(self, volumes: list[tuple[VolumeName, tuple[int, ...]]]) -> CTRateScan:
        ordered = sorted(volumes, key=lambda one: one[0].reconstruction)
        chests = [one for one in ordered if one[0].volume not in self.heads]
        name, findings = (chests or ordered)[0]
        if not chests:
            return CTRateScan(name, findings, f"no_chest_{name.part}.txt lists it: it is a head, not a chest")
        differ = len({found for _, found in ordered}) > 1
        return CTRateScan(
            name, findings, "its reconstructions have different labels, and one report" if differ else None
        )

    @cached_property
    def about(self) -> Mapping[str, Mapping[str, Value]]:
        """What the metadata say of the volumes of the parts, by volume and shortcut; None where they say nothing.

        Raises:
            TaskError: If a file cannot be read, or says two things of a volume.
        """
        return {volume: of_tags(row) for volume, row in self._metadata.items()}

    @cached_property
    def spacings_mm(self) -> Mapping[str, tuple[float, ...]]:
        """The spacings of volumes in the metadata: along x, y and z.

        Raises:
            TaskError: As `about`.
        """
        texts = {volume: f"{row['XYSpacing']} {row['ZSpacing']}" for volume, row in self._metadata.items()}
        return {volume: tuple(map(float, re.findall(r"\d+(?:\.\d+)?", text))) for volume, text in texts.items()}

    @cached_property
    def _metadata(self) -> Mapping[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for part in self.parts:
            path = self.metadata(part)
            for row in read_table(path, ("VolumeName", *_TAGS, "XYSpacing", "ZSpacing"), what="metadata"):
                volume = _of_part(row["VolumeName"], part, str(path)).volume
                if found.setdefault(volume, row) != row:
                    raise TaskError(f"{path}, {volume}: two rows have it, and differ. Use the release's own file")
        return found

    def reported(self, part: ReleasePart) -> Iterator[VolumeName]:
        """Yields the volumes of a part that have a report: its text may hold quotes, commas and line ends.

        Raises:
            TaskError: If the file cannot be read, or names what is not a volume of the part.
        """
        path = self.reports(part)
        for row in read_table(path, ("VolumeName", "Findings_EN"), what="file of reports"):
            yield _of_part(row["VolumeName"], part, str(path))

    def texts(self, part: ReleasePart) -> Mapping[str, str]:
        """Returns the reports of a part by volume: findings, then impression, on one line; empty where both are.

        Raises:
            TaskError: If the file cannot be read, names what is not a volume of the part, or has two reports of one.
        """
        path = self.reports(part)
        return _texts(path, part, stamp_of(path))


@functools.lru_cache(maxsize=2 * len(PARTS))
def _texts(path: Path, part: ReleasePart, stamp: FileStamp | None) -> Mapping[str, str]:
    """Returns the reports of a file with this stamp, read once for all datasets of a process: it takes seconds."""
    found: dict[str, str] = {}
    for row in read_table(path, ("VolumeName", *SECTIONS), what="file of reports"):
        name = _of_part(row["VolumeName"], part, str(path))
        text = " ".join(" ".join(row[section] for section in SECTIONS).split())
        if found.setdefault(name.volume, text) != text:
            raise TaskError(f"{path}: {name.volume} has two reports that differ. Use the release's own file")
    return found


def _of_part(text: str, part: ReleasePart, where: str) -> VolumeName:
    """Reads the name of a volume of a part: a patient of the other one would train and be reported."""
    name = VolumeName.parse(text, where)
    if name.part != part:
        raise TaskError(f"{where}: {name.volume} is of the other part, '{name.part}'. Use the release's own file")
    return name


def _whole(row: dict[str, str]) -> dict[str, str]:
    """Returns a row in which 1.0 is 1: pandas writes a column so, once a value in it was missing."""
    return {column: value.removesuffix(".0") for column, value in row.items()}
