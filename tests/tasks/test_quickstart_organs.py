"""The demonstration of a classification: points in organs of two patients."""

import csv
from collections import Counter

import numpy as np
import pytest

from tapct.tasks import TaskData
from tapct.tasks.quickstart import Quickstart
from tapct.tasks.quickstart_organs import LIST, QuickstartOrgans
from tapct.volumes import read_grid
from tools.splits import quickstart_organs as source


@pytest.fixture(scope="module")
def parts() -> dict[str, QuickstartOrgans]:
    return {part.split: part for part in TaskData("quickstart_organs").parts}


def test_what_ships_is_what_the_script_makes(tmp_path, monkeypatch):
    labels, split = tmp_path / "labels.csv", tmp_path / "split.csv"
    monkeypatch.setattr("sys.argv", ["", "--labels", str(labels), "--split", str(split)])
    assert source.main() == 0
    assert labels.read_text(encoding="utf-8") == LIST.read_text(encoding="utf-8")
    assert split.read_text(encoding="utf-8") == QuickstartOrgans._split_path().read_text(encoding="utf-8")


def test_one_patient_trains_and_the_other_is_reported(parts):
    scans = {split: {part.points[case].scan for case in part.cases} for split, part in parts.items()}
    assert scans == {"train": {"abdomen"}, "test": {"chest"}}
    patients = {split: set(part.table.cases[split].values()) for split, part in parts.items()}
    assert len(patients["train"] | patients["test"]) == 2
    for part in parts.values():
        counts = Counter(part.points[case].organ for case in part.cases)
        assert set(counts) == set(part.spec.classes)


def test_every_point_lies_in_the_organ_that_it_is_said_to_lie_in(parts):
    for split, part in parts.items():
        scans = Quickstart(Quickstart.shipped_root, split)
        (scan,) = scans.cases
        organs = scans.read_labels(scan, scans.read_scan(scan))
        for case in part.cases:
            z, y, x = np.linalg.solve(organs.affine, [*part.point_mm(case), 1.0])[:3].round().astype(int)
            assert part.spec.classes[organs.labels[z, y, x] - 1] == part.points[case].organ, case
            assert part.targets(case)[organs.labels[z, y, x] - 1] == 1


def test_a_block_is_of_one_size_round_its_point_and_never_padded_along_z(parts):
    for part in parts.values():
        scan = read_grid(part.ct_path(part.cases[0]))
        for case in part.cases:
            grid = part.scan_grid(case)
            extent = np.array(grid.shape) * grid.spacing_mm
            assert np.abs(extent - part.size_mm).max() <= max(grid.spacing_mm) / 2
            first = np.linalg.solve(scan.affine, grid.affine[:, 3])[0].round()
            assert 0 <= first <= scan.shape[0] - grid.shape[0], case
        block = part.read_scan(part.cases[0])
        assert block.grid.shape == part.scan_grid(part.cases[0]).shape


def test_the_list_says_where_it_is_from():
    lines = LIST.read_text(encoding="utf-8").splitlines()
    assert "Apache-2.0" in lines[0]
    assert len(list(csv.DictReader(line for line in lines if not line.startswith("#")))) == 166
