"""Reads NIfTI through nibabel, which takes every affine; ITK refuses those that are not orthonormal."""

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from tapct.errors import VolumeError
from tapct.volumes.orient import Stored, as_3d

# What nibabel, gzip and zlib raise on a file that is cut short, damaged, or no NIfTI at all.
_UNREADABLE = (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error, ValueError)


def load_nifti(path: Path) -> Stored:
    """Reads the voxels, with the header's slope and intercept applied, and where they lie.

    Args:
        path: A `.nii` or `.nii.gz` file.

    Returns:
        The voxels, in whatever number type results; None in place of the affine where the header has neither
        an sform nor a qform.

    Raises:
        VolumeError: The file is damaged, not NIfTI, not 3-D, not real numbers, or not in mm.
    """
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opened(path, "rb") as stream:
            image = type(_open(path)).from_stream(stream)
            array = np.asanyarray(image.dataobj)
            while stream.read(2**20):  # gzip compares its checksum only when the end is reached
                pass
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if array.dtype.kind not in "iuf":
        raise VolumeError(
            f"{path} holds {array.dtype} voxels (colours or complex numbers), not one number a voxel. "
            "Export the scan itself, not a rendering of it."
        )
    return Stored(as_3d(array, str(path)), _affine(image, path))


def nifti_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray | None]:
    """Reads only the header: the shape in the file's own axis order, and the affine as from `load_nifti`."""
    try:
        image = _open(path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    return image.shape, _affine(image, path)


def _open(path: Path) -> nib.Nifti1Image:
    """The header; NIfTI-2 is a subclass of NIfTI-1 in nibabel."""
    image = nib.load(path)
    if not isinstance(image, nib.Nifti1Image):
        raise ImageFileError(f"it is a {type(image).__name__}")
    return image


def _affine(image: nib.Nifti1Image, path: Path) -> np.ndarray | None:
    unit = image.header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):
        raise VolumeError(
            f"{path} gives its positions in {unit}, not mm. Scale its affine to mm and set the unit to mm."
        )
    # Without both codes nibabel invents an affine from the voxel sizes: left and right would be a guess.
    placed = int(image.header["sform_code"]) > 0 or int(image.header["qform_code"]) > 0
    return np.asarray(image.affine, dtype=np.float64) if placed else None


def _unreadable(path: Path, error: Exception) -> VolumeError:
    reason = " ".join(str(error).split())  # nibabel breaks lines inside a message
    return VolumeError(
        f"{path} cannot be read as NIfTI ({type(error).__name__}: {reason}). "
        "Most likely a download was interrupted, or a web page or pointer file was saved under its name: "
        f"it is {path.stat().st_size:,} bytes long. Download it again."
    )
