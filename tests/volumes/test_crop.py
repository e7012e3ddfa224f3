import numpy as np
import pytest

from tapct.errors import VolumeError
from tapct.volumes import Volume, crop_mm


def scan(spacing=(2.0, 0.7, 0.7), flip=False):
    """A ramp whose value says where it is, in an oblique place."""
    shape = (40, 90, 100)
    hu = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) % 3000 - 1000
    affine = np.zeros((4, 4))
    affine[:3, :3] = np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0]]) * np.array(spacing)
    if flip:  # tilted by ten degrees about x
        c, s = np.cos(np.radians(10)), np.sin(np.radians(10))
        affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ affine[:3, :3]
    affine[:, 3] = (31, -12, 450, 1)
    return Volume(hu, affine, "ramp", ("upright",))


@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_keeps_its_voxels_where_they_are_in_the_world(flip):
    ct = scan(flip=flip)
    centre = ct.index_to_world(np.array([[20, 45, 50]]))[0]
    cube = crop_mm(ct, centre, 21.0, -1024)
    assert cube.shape == (10, 30, 30)
    at = np.array([[0, 0, 0], [9, 29, 29], [5, 15, 3]])
    original = np.rint(ct.world_to_index(cube.index_to_world(at))).astype(int)
    assert np.array_equal(cube.hu[tuple(at.T)], ct.hu[tuple(original.T)])
    middle = cube.world_to_index(centre[None])[0]
    assert np.allclose(middle, (np.array(cube.shape) - 1) / 2, atol=0.51)


def test_what_lies_outside_the_scan_is_air_and_the_centre_stays_in_the_middle():
    ct = scan()
    centre = ct.index_to_world(np.array([[0, 0, 99]]))[0]
    cube = crop_mm(ct, centre, 21.0, -1024)
    assert cube.shape == (10, 30, 30)
    assert (cube.hu[:4] == -1024).all()
    inside = cube.world_to_index(centre[None])[0]
    assert cube.hu[tuple(np.rint(inside).astype(int))] == ct.hu[0, 0, 99]


def test_a_point_outside_the_scan_is_refused():
    with pytest.raises(VolumeError, match="outside the scan"):
        crop_mm(scan(), (0, 0, 0), 50, -1024)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size_mm", [0.5, 9.1, 23.0, 24.6, 50.0])
def test_any_crop_is_the_cube_nearest_to_what_was_asked_for(size_mm, flip):
    ct = scan(flip=flip)
    spacing = np.array(ct.spacing_mm)
    rng = np.random.default_rng(0)
    for index in rng.uniform(-0.5, np.array(ct.shape) - 0.5, (8, 3)):
        centre = ct.index_to_world(index[None])[0]
        cube = crop_mm(ct, centre, size_mm, -1024)
        shape = np.array(cube.shape)
        assert (shape >= 1).all()
        assert (np.abs(shape * spacing - size_mm) <= spacing / 2 + 1e-6)[shape > 1].all(), "as many voxels as fit best"
        assert (size_mm <= 1.5 * spacing + 1e-6)[shape == 1].all()
        assert (np.abs(cube.world_to_index(centre[None])[0] - (shape - 1) / 2) <= 0.5 + 1e-9).all(), (
            "as centred as can be"
        )
        voxels = np.argwhere(np.ones(cube.shape))
        there = np.rint(ct.world_to_index(cube.index_to_world(voxels))).astype(int)
        inside = ((there >= 0) & (there < np.array(ct.shape))).all(axis=1)
        expected = np.where(inside, ct.hu[tuple(np.where(inside[:, None], there, 0).T)], -1024)
        assert np.array_equal(cube.hu.ravel(), expected)
        assert (cube.source, cube.notes) == ("ramp", ("upright",))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("end", [0, 1])
def test_the_scan_ends_at_the_outer_faces_of_its_voxels(axis, end):
    """Half a voxel beyond the first or last centre, along any one axis."""
    affine = np.array([[0, 0, -2.0, 8], [0, -2.0, 0, 16], [4.0, 0, 0, -32], [0, 0, 0, 1]])  # exact in binary
    ct = Volume(np.zeros((4, 6, 8), np.float32), affine, "scan")
    for beyond, is_inside in ((0.5, True), (0.625, False)):
        index = (np.array(ct.shape) - 1) / 2
        index[axis] = ct.shape[axis] - 1 + beyond if end else -beyond
        centre = ct.index_to_world(index[None])[0]
        if is_inside:
            assert crop_mm(ct, centre, 4.0, -1024).shape == (1, 2, 2)
        else:
            with pytest.raises(VolumeError, match="outside the scan"):
                crop_mm(ct, centre, 4.0, -1024)
