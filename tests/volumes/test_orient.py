import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tapct.errors import VolumeError
from tapct.volumes.orient import as_3d, lps_to_ras, to_spl

COUNTING = np.arange(2 * 3 * 4).reshape(2, 3, 4)


def test_a_ras_array_turns_upside_front_and_left_as_written_out_by_hand():
    """In RAS the index grows to Right, Anterior, Superior: x and y must be reversed, and z comes first."""
    array, affine = to_spl(COUNTING, np.diag([2.0, 3.0, 5.0, 1.0]))
    assert array.shape == (4, 3, 2)
    for z, y, x in np.ndindex(4, 3, 2):
        assert array[z, y, x] == COUNTING[1 - x, 2 - y, z]
    # The first voxel is the most right and anterior one, at R +2, A +6, S 0; x steps 2 mm to the left.
    np.testing.assert_array_equal(affine @ [0, 0, 0, 1], [2, 6, 0, 1])
    np.testing.assert_array_equal(affine @ [0, 0, 1, 1], [0, 6, 0, 1])
    np.testing.assert_array_equal(affine @ [3, 2, 1, 1], [0, 0, 15, 1])


def test_an_spl_array_is_left_as_it_is():
    spl = np.array([[0, 0, -0.7, 11], [0, -0.8, 0, 12], [2.5, 0, 0, 13], [0, 0, 0, 1]])
    array, affine = to_spl(COUNTING, spl)
    np.testing.assert_array_equal(array, COUNTING)
    np.testing.assert_array_equal(affine, spl)


@pytest.mark.parametrize("shear", [0.0, 0.3])
def test_an_oblique_grid_keeps_the_place_of_every_voxel(shear):
    rotation = Rotation.from_euler("xyz", [25, -20, 15], degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([0.7, 0.8, 2.5]) @ np.array([[1, 0, 0], [0, 1, shear], [0, 0, 1]])
    affine[:3, 3] = [11, -22, 33]
    array, turned = to_spl(COUNTING, affine)
    for index in np.ndindex(array.shape):
        stored = np.argwhere(array[index] == COUNTING)[0]
        np.testing.assert_allclose(turned @ [*index, 1], affine @ [*stored, 1], atol=1e-12)
    assert nib.aff2axcodes(turned) == ("S", "P", "L")
    assert array.flags.c_contiguous


def degenerate(row: int, column: int, value: float) -> np.ndarray:
    affine = np.eye(4)
    affine[row, column] = value
    return affine


@pytest.mark.parametrize(
    "affine",
    [
        pytest.param(degenerate(1, 1, 0.0), id="zero column"),
        pytest.param(degenerate(0, 3, np.nan), id="NaN"),
        pytest.param(degenerate(2, 2, np.inf), id="infinite"),
        pytest.param(np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), id="two axes in one"),
        pytest.param(np.eye(3), id="3x3"),
    ],
)
def test_a_degenerate_affine_is_refused_by_name(affine):
    with pytest.raises(VolumeError, match=r"scan\.nii has a degenerate affine"):
        to_spl(COUNTING, affine, "scan.nii")


def test_a_tiny_voxel_is_no_degenerate_one():
    _, affine = to_spl(COUNTING, np.diag([1e-3, 1e-3, 1e-3, 1.0]))
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), 1e-3)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (100, 0.1, 5), (0.1, 100, 5)])
@pytest.mark.parametrize(("sine", "is_flat"), [(0.0009, True), (0.0011, False), (-0.0009, True), (-0.0011, False)])
def test_axes_are_degenerate_by_their_angle_whatever_their_spacing(spacing, sine, is_flat):
    """Two axes that nearly coincide; a thousandth is where it ends."""
    affine = np.eye(4)
    affine[:3, 1] = (np.sqrt(1 - sine**2), sine, 0)
    affine[:3, :3] *= spacing
    if is_flat:
        with pytest.raises(VolumeError, match="degenerate"):
            to_spl(COUNTING, affine)
    else:
        assert to_spl(COUNTING, affine)[0].size == COUNTING.size


def test_lps_and_ras_differ_in_the_sign_of_x_and_y():
    lps = np.array([[1.0, 0, 0, 5], [0, 2, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    ras = np.array([[-1.0, 0, 0, -5], [0, -2, 0, -6], [0, 0, 3, 7], [0, 0, 0, 1]])
    np.testing.assert_array_equal(lps_to_ras(lps), ras)


def test_only_trailing_axes_of_length_one_are_dropped():
    assert as_3d(np.zeros((1, 2, 1, 1, 1)), "a").shape == (1, 2, 1)
    array = np.zeros((2, 3, 4, 1))
    assert as_3d(array, "a").shape == (2, 3, 4)
    assert np.shares_memory(as_3d(array, "a"), array), "scans are large"
    for shape in [(2, 3), (2, 3, 4, 2), (2, 3, 1, 2), (1, 3, 4, 2), (2, 3, 4, 2, 1)]:
        with pytest.raises(VolumeError, match=r"scan\.nii is \d-D"):
            as_3d(np.zeros(shape), "scan.nii")
