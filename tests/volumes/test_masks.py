"""Masks: spheres against their volume and place, label maps against the grid of their scan."""

import numpy as np
import pytest

from tapct.errors import VolumeError
from tapct.volumes import Grid, LabelMap, Mask

SCAN = Grid.of((20, 60, 50), np.diag([5.0, -0.7, -0.8, 1.0])[[2, 1, 0, 3]])  # 5 mm slices; x and y run backwards


def tilted() -> Grid:
    """The same with a tilted gantry: slices are no longer perpendicular to the table."""
    affine = SCAN.affine.copy()
    affine[1, 0] = 1.3
    return Grid.of(SCAN.shape, affine)


def world(grid: Grid, index) -> np.ndarray:
    return (grid.affine @ [*index, 1])[:3]


@pytest.mark.parametrize("grid", [SCAN, tilted()], ids=["straight", "tilted"])
@pytest.mark.parametrize("diameter_mm", [0.5, 4.0, 20.0])
def test_a_sphere_has_its_volume_and_its_centre(grid, diameter_mm):
    centre_mm = world(grid, (9.3, 30.2, 24.7))
    mask = Mask.sphere(centre_mm, diameter_mm, grid)
    voxel_mm3 = abs(np.linalg.det(mask.grid.affine[:3, :3]))
    assert mask.inside.sum() * voxel_mm3 == pytest.approx(np.pi / 6 * diameter_mm**3, rel=0.01)
    places = np.array([world(mask.grid, index) for index in np.argwhere(mask.inside)])
    assert places.mean(axis=0) == pytest.approx(centre_mm, abs=1e-9)
    assert np.linalg.norm(places - centre_mm, axis=1).max() <= diameter_mm / 2
    mask.grid.coordinates_in(grid)  # parallel, or an error


def test_what_of_a_sphere_lies_outside_the_scan_is_not_in_it():
    face_mm = world(SCAN, (-0.5, 30, 25))
    half = Mask.sphere(face_mm, 10.0, SCAN)
    whole = Mask.sphere(world(SCAN, (10, 30, 25)), 10.0, SCAN)
    assert half.inside.sum() * 2 == whole.inside.sum()
    assert not Mask.sphere(world(SCAN, (-5, 30, 25)), 10.0, SCAN).inside.any()


@pytest.mark.parametrize(("centre", "diameter_mm"), [((0, 0, 0), 0.0), ((0, 0, 0), np.nan), ((0, np.inf, 0), 4.0)])
def test_a_sphere_that_cannot_be_is_refused(centre, diameter_mm):
    with pytest.raises(VolumeError, match="there is no sphere"):
        Mask.sphere(centre, diameter_mm, SCAN)


def test_labels_are_a_mask_on_the_grid_of_their_scan_alone():
    labels = np.zeros(SCAN.shape, np.uint8)
    labels[3, 4, 5], labels[6, 7, 8] = 1, 2
    of_scan = LabelMap(labels, SCAN.affine, "organs.nii.gz")
    assert np.argwhere(Mask.of_labels(of_scan, SCAN).inside).tolist() == [[3, 4, 5], [6, 7, 8]]
    assert np.argwhere(Mask.of_labels(of_scan, SCAN, {2, 9}).inside).tolist() == [[6, 7, 8]]
    with pytest.raises(VolumeError, match=r"organs.nii.gz does not lie on the grid of its scan"):
        Mask.of_labels(of_scan, tilted())


def test_a_mask_of_another_size_than_its_grid_is_refused():
    with pytest.raises(VolumeError, match="booleans on its grid"):
        Mask(np.ones((2, 2, 2), bool), SCAN)
