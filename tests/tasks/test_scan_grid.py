"""The grid of a case from headers, against that of the scan which encoders get."""

import numpy as np
import pytest

from tapct.tasks.luna16 import LUNA16
from tapct.tasks.luna25 import LUNA25
from tapct.tasks.quickstart import Quickstart
from tapct.tasks.splits import SplitTable
from tapct.volumes import perturb
from tests.data import luna16, luna25
from tests.data.luna25 import Annotation
from tests.tasks.test_luna16 import SPLIT


def assert_same_grids(dataset) -> None:
    for case in dataset.cases:
        grid, ct = dataset.scan_grid(case), dataset.scan(case)
        assert tuple(grid.shape) == ct.shape
        np.testing.assert_array_equal(grid.affine, ct.affine)


@pytest.mark.parametrize("split", ["train", "test"])
def test_whole_scans_and_perturbed_ones(split):
    dataset = Quickstart(Quickstart.shipped_root, split)
    assert_same_grids(dataset)
    assert_same_grids(dataset.perturbed(perturb.PERTURBATIONS["slices-x4"]))


@pytest.mark.parametrize("flipped", [False, True])
def test_crops_of_scans(tmp_path, flipped):
    cases = list(SplitTable.read(SPLIT).cases["test"])[:3]
    luna16.write(tmp_path, cases, flipped=flipped)
    assert_same_grids(LUNA16(tmp_path, "test", luna16.write_split(tmp_path / "split.csv", test=cases)))


@pytest.mark.parametrize("source", ["blocks", "scans"])
def test_crops_of_blocks(tmp_path, source):
    nodules = [Annotation(100570, 1), Annotation(106364, 0, (30.64, -95.96, -128.59))]
    luna25.write(tmp_path, nodules, flipped=True)
    split = luna25.write_split(tmp_path / "split.csv", test=nodules)
    assert_same_grids(LUNA25(tmp_path, "test", split, source=source))


def test_a_task_that_reads_in_its_own_way_is_read():
    class Halved(Quickstart):
        def read_scan(self, case):
            ct = super().read_scan(case)
            return type(ct)(ct.hu[::2].copy(), ct.affine @ np.diag([2.0, 1, 1, 1]), ct.source)

    dataset = Halved(Quickstart.shipped_root, "train")
    assert_same_grids(dataset)
    whole = Quickstart(dataset.root, "train")
    assert dataset.scan_grid(dataset.cases[0]).shape.z < whole.scan_grid(whole.cases[0]).shape.z
