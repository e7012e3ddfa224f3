"""Grids: every number against the places of voxels in the patient, worked out point by point."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tapct.errors import VolumeError
from tapct.volumes import Grid


def oblique(shape=(24, 30, 28)) -> Grid:
    """Voxels of 2.5 x 0.8 x 1.2 mm, turned about all axes."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [25, -20, 15], degrees=True).as_matrix() @ np.diag([2.5, 0.8, 1.2])
    affine[:3, 3] = (4, 9, -3)
    return Grid.of(shape, affine)


def faces(grid: Grid) -> np.ndarray:
    """The (2, 3) outermost corners of the field of view in mm: half a voxel beyond the first and last centres."""
    ends = np.array([[-0.5] * 3, np.array(grid.shape) - 0.5])
    return ends @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def test_spacing_is_the_length_of_a_step_whatever_the_direction():
    np.testing.assert_allclose(oblique().spacing_mm, (2.5, 0.8, 1.2))


@pytest.mark.parametrize("shape", [(24, 30, 28), (7, 60, 1), (1, 1, 1), (100, 31, 27)])
def test_a_resized_grid_has_the_same_field_of_view(shape):
    grid = oblique()
    resized = grid.resized(shape)
    assert resized.shape == shape
    np.testing.assert_allclose(faces(resized), faces(grid))


@pytest.mark.parametrize(
    ("spacing", "shape"),
    [
        ((2.5, 0.8, 1.2), (24, 30, 28)),
        ((1.5, 1.5, 1.5), (40, 16, 22)),  # 22.4 voxels
        ((3.5, 0.7, 3.5), (17, 34, 10)),  # 17.1, 34.3, 9.6
        ((100.0, 23.0, 40.0), (1, 1, 1)),  # 0.6, 1.04, 0.84
        ((500.0, 50.0, 80.0), (1, 1, 1)),  # less than half a voxel is still one
    ],
)
def test_a_respaced_grid_has_the_spacing_exactly_and_the_nearest_number_of_voxels_about_the_same_centre(spacing, shape):
    grid = oblique()
    respaced = grid.respaced(spacing)
    np.testing.assert_allclose(respaced.spacing_mm, spacing)
    assert respaced.shape == shape
    np.testing.assert_allclose(faces(respaced).mean(axis=0), faces(grid).mean(axis=0))
    directions = [g.affine[:3, :3] / g.spacing_mm for g in (grid, respaced)]
    np.testing.assert_allclose(*directions)


def test_a_padded_grid_keeps_its_voxels_where_they_are():
    grid = oblique()
    padded = grid.padded((30, 30, 40))
    assert padded.shape == (30, 30, 40)
    np.testing.assert_array_equal(padded.affine, grid.affine)


def test_patches_lie_in_the_middle_of_their_voxels_or_where_the_encoder_says():
    grid, stride = oblique(), (4, 3, 7)
    middle, first = grid.patches(stride), grid.patches(stride, (0.0, 1.0, 6.0))
    assert middle.shape == first.shape == (6, 10, 4)
    np.testing.assert_allclose(faces(middle), faces(grid))
    patch = np.array([5, 2, 3])
    np.testing.assert_allclose(first.affine @ [*patch, 1], grid.affine @ [*(patch * stride + (0, 1, 6)), 1])


@pytest.mark.parametrize("stride", [(5, 3, 7), (4, 4, 7), (4, 3, 5), (48, 3, 7)])
def test_a_grid_of_no_whole_number_of_patches_is_refused(stride):
    with pytest.raises(VolumeError, match="no whole number"):
        oblique().patches(stride)


def test_coordinates_are_those_of_every_voxel_centre():
    other = oblique()
    grid = other.respaced((1.0, 1.7, 0.9))
    z, y, x = grid.coordinates_in(other)
    index = np.array([17, 3, 29])
    there = np.linalg.solve(other.affine, grid.affine @ [*index, 1])[:3]
    np.testing.assert_allclose([z[17], y[3], x[29]], there)
    assert (len(z), len(y), len(x)) == grid.shape


@pytest.mark.parametrize("shape", [(50, 20, 10), (10, 20, 50)])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("position", [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)])
def test_axes_are_parallel_up_to_a_hundredth_of_a_voxel_at_the_far_end(position, sign, shape):
    """Headers hold seven digits, so a slant of 1e-6 is rounding; one of 0.01 voxels is of another scan."""
    other = oblique()
    for slant, parallel in ((1e-6, True), (0.0098, True), (0.0102, False), (5.0, False)):
        step = np.eye(4)
        step[position] = sign * slant / 50
        grid = Grid.of(shape, other.affine @ step)
        if parallel:
            grid.coordinates_in(other)
        else:
            with pytest.raises(VolumeError, match=r"not parallel: [\d.]+ voxels apart"):
                grid.coordinates_in(other)
