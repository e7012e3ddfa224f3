import dataclasses

import nibabel as nib
import numpy as np
import pytest

from tapct.errors import VolumeError
from tapct.volumes.volume import LabelMap, Volume, check_same_grid

AFFINE = np.array([[0.0, 0.1, -0.7, 11], [0.2, -0.8, 0, 12], [2.5, 0, 0, 13], [0, 0, 0, 1]])


def make_volume(shape=(4, 5, 6), affine=AFFINE):
    return Volume(np.zeros(shape, np.float32), affine, "ct.nii.gz")


def make_labels(shape=(4, 5, 6), affine=AFFINE, dtype=np.uint8):
    return LabelMap(np.zeros(shape, dtype), affine, "mask.nii.gz")


def moved(x_mm: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 3] += x_mm
    return affine


@pytest.mark.parametrize("grid", [make_volume(), make_labels(dtype=np.uint16)], ids=["volume", "labels"])
def test_shape_spacing_and_world_agree_with_nibabel(grid):
    points = np.array([[0, 0, 0], [3, 4, 5], [1.5, -2, 9]])
    world = grid.index_to_world(points)
    np.testing.assert_allclose(world, nib.affines.apply_affine(AFFINE, points))
    np.testing.assert_allclose(grid.world_to_index(world), points, atol=1e-12)
    np.testing.assert_allclose(grid.spacing_mm, nib.affines.voxel_sizes(AFFINE))
    assert grid.shape == (4, 5, 6)


def test_world_goes_through_the_affine_and_not_through_origin_and_spacing():
    """On a sheared grid the two differ; (world - origin) / spacing would give a third point."""
    volume = make_volume()
    world = volume.index_to_world(np.array([[1.0, 2.0, 3.0]]))
    np.testing.assert_allclose(world[0], [0.2 - 2.1 + 11, 0.2 - 1.6 + 12, 2.5 + 13])


def test_a_volume_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_volume().source = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "build",
    [
        lambda: Volume(np.zeros((4, 5, 6)), AFFINE, "ct.nii.gz"),
        lambda: Volume(np.zeros((5, 6), np.float32), AFFINE, "ct.nii.gz"),
        lambda: Volume(np.zeros((4, 5, 6), np.float32), AFFINE[:3], "ct.nii.gz"),
        lambda: Volume(np.zeros((4, 5, 6), np.float32), AFFINE * np.nan, "ct.nii.gz"),
        lambda: LabelMap(np.zeros((4, 5, 6), np.float32), AFFINE, "ct.nii.gz"),
    ],
    ids=["float64", "2-D", "3x4 affine", "NaN affine", "float labels"],
)
def test_the_wrong_kind_of_array_or_affine_is_refused(build):
    with pytest.raises(VolumeError, match=r"ct\.nii\.gz: expected"):
        build()


def test_one_grid_passes_and_so_does_a_shift_below_a_tenth_of_a_voxel():
    check_same_grid(make_volume(), make_labels())
    check_same_grid(make_volume(), make_labels(affine=moved(0.0695)))  # the smallest edge is 0.7 mm


def test_a_shift_above_a_tenth_of_a_voxel_is_refused_and_says_how_far():
    with pytest.raises(VolumeError, match=r"mask\.nii\.gz .* grid of ct\.nii\.gz.* 0\.0705 mm apart"):
        check_same_grid(make_volume(), make_labels(affine=moved(0.0705)))


def test_another_shape_is_refused_with_both_shapes():
    with pytest.raises(VolumeError, match=r"mask\.nii\.gz .*\(4, 5, 7\).*\(4, 5, 6\)"):
        check_same_grid(make_volume(), make_labels(shape=(4, 5, 7)))


def test_a_difference_that_shows_only_at_the_far_corner_is_found():
    affine = AFFINE.copy()
    affine[2, 0] += 0.05  # 0.15 mm at the last slice, nothing at the first voxel
    with pytest.raises(VolumeError, match=r"0\.15 mm apart"):
        check_same_grid(make_volume(), make_labels(affine=affine))
