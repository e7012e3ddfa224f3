"""Brings an array in any axis order to (z, y, x) growing towards Superior, Posterior, Left."""

from typing import NamedTuple

import numpy as np
from nibabel import orientations

from tapct.errors import VolumeError


class Stored(NamedTuple):
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
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise VolumeError(
            f"{source} is {array.ndim}-D (shape {array.shape}); a scan or a mask is 3-D. "
            "If it holds several volumes, save the one you need to its own file."
        )
    return array


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
    affine = np.asarray(affine_ras, dtype=np.float64)
    _check_affine(affine, source)
    transform = orientations.ornt_transform(orientations.io_orientation(affine), _SPL)
    turned = affine @ orientations.inv_ornt_aff(transform, array.shape)
    return np.ascontiguousarray(orientations.apply_orientation(array, transform)), turned


def _check_affine(affine: np.ndarray, source: str) -> None:
    finite = affine.shape == (4, 4) and bool(np.isfinite(affine).all())
    lengths = np.linalg.norm(affine[:3, :3], axis=0) if finite else np.zeros(3)
    if not lengths.all() or abs(np.linalg.det(affine[:3, :3] / lengths)) < _FLATTEST:
        raise VolumeError(
            f"{source} has a degenerate affine, which places no voxel in the patient: {affine.tolist()}. "
            "Its header is damaged: take the file from its origin again, or convert the scan anew."
        )
