"""Brings an array in any axis order to (z, y, x) growing towards Superior, Posterior, Left."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from nibabel import orientations

from tapct.errors import VolumeError
from tapct.volumes.geometry import Grid


class FileContent(NamedTuple):
    """What a reader of one format finds in a file.

    Attributes:
        array: Voxels in the file's own axis order.
        affine: (4, 4) float64, index in that order to mm in RAS+; None where the header does not say.
        notes: What a user should know of how the file was read, one sentence each; usually empty.
        step: Distance in value of neighbouring stored whole numbers, where the file scales them; else 0.
    """

    array: np.ndarray
    affine: np.ndarray | None
    notes: tuple[str, ...] = ()
    step: float = 0.0


_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SPL = orientations.axcodes2ornt(("S", "P", "L"))
_FLATTEST = 1e-3
"""Smallest volume of the parallelepiped of the three unit axes; a 45 degree gantry tilt still has 0.7."""


def lps_to_ras(affine: np.ndarray) -> np.ndarray:
    """Turns an affine into DICOM's and ITK's world (LPS) into one into nibabel's (RAS+).

    Args:
        affine: (4, 4), index to mm in LPS.

    Returns:
        (4, 4), index to mm in RAS+.
    """
    return _LPS_TO_RAS @ affine


def as_3d(array: np.ndarray, source: str) -> np.ndarray:
    """Drops trailing axes of length one and insists on three axes.

    Args:
        array: Voxels, the three axes of space first.
        source: The file, for the message.

    Returns:
        A view with three axes.

    Raises:
        VolumeError: It is an image in two dimensions, or a series in time.
    """
    return array.reshape(shape_3d(array.shape, source), copy=False)


def shape_3d(shape: Sequence[int], source: str) -> tuple[int, int, int]:
    """Returns the shape that `as_3d` gives an array of this one.

    Raises:
        VolumeError: As `as_3d`.
    """
    sizes = tuple(int(size) for size in shape)
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes = sizes[:-1]
    if len(sizes) != 3:
        raise VolumeError(
            f"{source} is {len(sizes)}-D (shape {sizes}); a scan or a mask is 3-D. "
            "If it holds several volumes, save the one you need to its own file."
        )
    return sizes[0], sizes[1], sizes[2]


def to_spl(array: np.ndarray, affine_ras: np.ndarray, source: str = "the volume") -> tuple[np.ndarray, np.ndarray]:
    """Permutes and flips the axes to the order closest to (z, y, x) = (S, P, L), without resampling.

    Oblique and sheared grids keep their exact affine; only the axes change order and direction.

    Args:
        array: Voxels with three axes, in any order.
        affine_ras: (4, 4), homogeneous index in the array's own axis order to mm in RAS+.
        source: The file, for the message.

    Returns:
        The (D, H, W) array, contiguous, and its (4, 4) float64 affine.

    Raises:
        VolumeError: The affine is degenerate: not finite, or its axes do not span space.
    """
    turned, affine = _turned(array, affine_ras, source)
    return np.ascontiguousarray(turned), affine


def spl_grid(shape: tuple[int, int, int], affine_ras: np.ndarray, source: str) -> Grid:
    """Returns the grid that `to_spl` gives an array of this shape, which need not be there.

    Raises:
        VolumeError: As `to_spl`.
    """
    turned, affine = _turned(np.broadcast_to(np.uint8(0), shape), affine_ras, source)
    return Grid.of(turned.shape, affine)


def _turned(array: np.ndarray, affine_ras: np.ndarray, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns a view of an array with its axes along (S, P, L), and its affine."""
    affine = np.asarray(affine_ras, dtype=np.float64)
    _check_affine(affine, source)
    transform = orientations.ornt_transform(orientations.io_orientation(affine), _SPL)
    turned = affine @ orientations.inv_ornt_aff(transform, array.shape)
    return orientations.apply_orientation(array, transform), turned


def _check_affine(affine: np.ndarray, source: str) -> None:
    finite = affine.shape == (4, 4) and bool(np.isfinite(affine).all())
    lengths = np.linalg.norm(affine[:3, :3], axis=0) if finite else np.zeros(3)
    if not lengths.all() or abs(np.linalg.det(affine[:3, :3] / lengths)) < _FLATTEST:
        raise VolumeError(
            f"{source} has a degenerate affine, which places no voxel in the patient: {affine.tolist()}. "
            "Its header is damaged: take the file from its origin again, or convert the scan anew."
        )
