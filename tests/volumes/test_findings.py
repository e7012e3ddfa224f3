"""Points of a scan on oblique, flipped and anisotropic grids, with ITK as the judge of where they lie."""

import numpy as np
import pytest
import SimpleITK as sitk

from tapct.errors import VolumeError
from tapct.volumes import Findings, Volume, read_ct

DIRECTIONS = {
    "straight": np.eye(3),
    "flipped": np.diag([-1.0, -1.0, 1.0]),
    "head first the other way": np.diag([1.0, 1.0, -1.0]),
    "oblique": np.linalg.qr(np.array([[0.96, -0.2, 0.1], [0.18, 0.97, 0.15], [-0.12, -0.1, 0.98]]))[0],
}


def scan(tmp_path, direction: np.ndarray) -> tuple[sitk.Image, Volume]:
    """A scan of 0.7 x 0.8 x 2.5 mm far from the origin, in ITK and as we read it."""
    hu = np.random.default_rng(0).integers(-900, 900, (12, 30, 40)).astype(np.int16)
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin((-171.3, 88.0, -301.25))
    sitk.WriteImage(image, str(tmp_path / "scan.mha"))
    return image, read_ct(tmp_path / "scan.mha")


def at(place_ras, diameter=5.0, excluded=0.0):
    return Findings.of([[0.0, *place_ras, diameter, excluded]])


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_a_point_lies_where_itk_has_it(tmp_path, direction):
    image, ct = scan(tmp_path, direction)
    for index in [(0.0, 0.0, 0.0), (39.0, 29.0, 11.0), (12.3, 20.7, 3.1)]:
        x, y, z = image.TransformContinuousIndexToPhysicalPoint(index)
        found = at((-x, -y, z))
        nearest = np.rint(found.index_in(ct.grid)[0]).astype(int)
        assert ct.hu[tuple(nearest)] == image.GetPixel(*(int(v) for v in np.rint(index)))
        assert found.inside(ct.grid).all()


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_a_point_beyond_the_last_voxel_is_outside(tmp_path, direction):
    image, ct = scan(tmp_path, direction)
    for index, is_inside in [((39.45, 10, 5), True), ((39.55, 10, 5), False), ((3, 3, -0.55), False)]:
        x, y, z = image.TransformContinuousIndexToPhysicalPoint([float(v) for v in index])
        assert at((-x, -y, z)).inside(ct.grid).tolist() == [is_inside]


def test_a_point_outside_is_an_error_that_says_where_it_would_be(tmp_path):
    _, ct = scan(tmp_path, np.eye(3))
    with pytest.raises(VolumeError, match=r"table.csv: the point .* lies outside the scan, at voxel \(z, y, x\)"):
        at((500.0, 0.0, 0.0)).require_inside(ct.grid, "table.csv")


def test_voxel_indices_are_recognised(tmp_path):
    _, ct = scan(tmp_path, np.eye(3))
    with pytest.raises(VolumeError, match="As voxel indices it would lie inside"):
        at((-31.0, -12.0, 7.0)).require_inside(ct.grid, "table.csv")  # (31, 12, 7) in LPS, turned to RAS


def test_what_counts_neither_way_may_lie_anywhere(tmp_path):
    _, ct = scan(tmp_path, np.eye(3))
    assert at((500.0, 0.0, 0.0), excluded=1.0).require_inside(ct.grid, "table.csv") is None


@pytest.mark.parametrize("diameter", [0.0, -1.0, np.nan, np.inf])
def test_a_finding_has_a_size(diameter):
    with pytest.raises(VolumeError, match="diameters finite and positive"):
        at((0.0, 0.0, 0.0), diameter)


def test_a_finding_has_a_place():
    with pytest.raises(VolumeError, match="places are finite"):
        at((np.nan, 0.0, 0.0))


def test_rows_come_back():
    rows = [[0.0, 1.0, 2.0, 3.0, 4.0, 0.0], [1.0, -1.0, -2.0, -3.0, 10.0, 1.0]]
    assert Findings.of(rows).rows().tolist() == rows
    assert Findings.of([]).rows().shape == (0, 6)
