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
    return Volume(hu, affine, "ramp")


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
