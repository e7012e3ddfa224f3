"""The two readers that everything else uses: a scan in HU, and a label map; both in SPL.

A file that could change a result without an error is refused: values that cannot be HU, labels that are not
whole numbers, headers that do not say where the patient is, labels on another grid than their scan.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydicom.misc import is_dicom

from tapct.errors import VolumeError
from tapct.volumes.dicom import dicom_grid, load_dicom
from tapct.volumes.dicom_files import SLICE_SUFFIXES, series_files
from tapct.volumes.geometry import Grid
from tapct.volumes.metaimage import data_files, load_metaimage, metaimage_grid
from tapct.volumes.nifti import load_nifti, nifti_grid
from tapct.volumes.orient import shape_3d, spl_grid, to_spl
from tapct.volumes.plausibility import implausible_hu, raise_padding
from tapct.volumes.sizes import memory_errors
from tapct.volumes.volume import LabelMap, Volume, check_same_grid

SUPPORTED = "NIfTI (.nii, .nii.gz), MetaImage (.mha, .mhd), or a folder with the DICOM files of one CT series"
_NIFTI = (".nii", ".nii.gz")
_METAIMAGE = (".mha", ".mhd")
_PAIR = (".hdr", ".img", ".hdr.gz", ".img.gz")
COARSEST_STEP = 0.01
"""Labels that a file scales may be off by half a step where steps are at most this; one in a hundred values that are
no labels would pass by chance, and a label map that was interpolated has thousands."""
_FLOAT32 = 4 * float(np.finfo(np.float32).eps)
"""Relative rounding of a slope and an intercept that are stored in float32."""

_Read = TypeVar("_Read")


def read_ct(path: str | Path) -> Volume:
    """Reads a CT scan.

    Args:
        path: A NIfTI or MetaImage file, a folder with the DICOM files of one series, or one of these files.

    Returns:
        The scan: float32 HU, (D, H, W) growing towards Superior, Posterior, Left, with its affine.

    Raises:
        VolumeError: The path is missing, of another type or damaged; the scan is not 3-D, empty, not finite,
            or cannot be in HU; or its header does not place it in the patient.
    """
    path = Path(path)
    with memory_errors(path):
        stored = _by_format(path, load_dicom, load_nifti, load_metaimage)
        return ct_volume(stored.array, _placed(stored.affine, path), str(path), stored.notes)


def read_grid(path: str | Path) -> Grid:
    """Reads where the voxels of a scan lie, from headers alone: what is in the voxels is not looked at.

    Args:
        path: As `read_ct` takes it.

    Returns:
        The grid that `read_ct` gives.

    Raises:
        VolumeError: The path is missing or of another type, or its header is damaged or does not place the scan in the
            patient.
    """
    path = Path(path)
    shape, affine = _by_format(path, dicom_grid, nifti_grid, metaimage_grid)
    return spl_grid(shape_3d(shape, str(path)), _placed(affine, path), str(path))


def _placed(affine: np.ndarray | None, path: Path) -> np.ndarray:
    if affine is None:
        raise VolumeError(
            f"{path} has neither an sform nor a qform, so left, front and head are unknown. Convert the scan "
            "again from its DICOM files (for example with dcm2niix), or write the right affine into it."
        )
    return affine


def ct_volume(stored: np.ndarray, affine_ras: np.ndarray, source: str, notes: tuple[str, ...] = ()) -> Volume:
    """Makes a scan of voxels that are in no format of `read_ct`, with the same checks.

    Args:
        stored: HU with three axes, in any order.
        affine_ras: (4, 4), homogeneous index in that order to mm in RAS+.
        source: The file, for messages.
        notes: What a user should know of how it was read.

    Returns:
        The scan, as `read_ct` has it.

    Raises:
        VolumeError: The scan is empty, not finite, or cannot be in HU; or the affine is degenerate.
    """
    array, affine = to_spl(stored, affine_ras, source)
    _finite_range(array, source)
    if (reason := implausible_hu(array)) is not None:
        raise VolumeError(f"{source} {reason}.")
    hu, padding = raise_padding(np.ascontiguousarray(array, dtype=np.float32))
    return Volume(hu, affine, source, (*notes, *padding))


def read_labels(path: str | Path, reference: Volume | None = None) -> LabelMap:
    """Reads a label map.

    A NIfTI mask with neither sform nor qform (LiTS has some) is taken to lie in the array of the scan's own
    file, voxel for voxel: where the stored shapes agree, it gets the affine in that file's header.

    Args:
        path: A NIfTI or MetaImage file.
        reference: The scan that the labels belong to; if given, they must lie on its grid.

    Returns:
        The labels: uint8 (uint16 where one exceeds 255), (D, H, W) as `read_ct` has it.

    Raises:
        VolumeError: As `read_ct`; or the values are not whole numbers, negative, or above 65535; or the grid
            is not that of `reference`.
    """
    path = Path(path)
    if path.is_dir() or (path.is_file() and is_dicom(path)):
        raise VolumeError(
            f"{path} is DICOM, and labels are read from NIfTI or MetaImage. Convert the segmentation object "
            "first (for example with dcmqi's segimage2itkimage)."
        )
    with memory_errors(path):
        stored = _by_format(path, load_dicom, load_nifti, load_metaimage)
        affine = stored.affine
        if affine is None:
            affine = _borrowed_affine(path, stored.array.shape, reference)
        array, affine = to_spl(stored.array, affine, str(path))
        labels = LabelMap(_whole_numbers(array, path, stored.step), affine, str(path))
    if reference is not None:
        check_same_grid(reference, labels)
    return labels


def files_of(path: str | Path) -> list[Path]:
    """Returns the files that decide what `read_ct` and `read_labels` make of a path: stored features hang on them.

    Labels without a place of their own take that of their scan (see `read_labels`), whose files come on top.

    Args:
        path: As `read_ct` takes it. Whatever else it is (a table, a file that is not there) stands for itself.

    Returns:
        The files, in an order that depends on their names alone; they need not be there.
    """
    path = Path(path)
    try:
        if not path.exists():
            return [path]
        if (folder := _series_folder(path)) is not None:
            return series_files(folder)
        if path.name.lower().endswith(_METAIMAGE):
            return [path, *data_files(path)]
    except (VolumeError, OSError):
        pass  # the reader comes no further, and says why
    return [path]


def _by_format(
    path: Path, dicom: Callable[[Path], _Read], nifti: Callable[[Path], _Read], metaimage: Callable[[Path], _Read]
) -> _Read:
    """What the reader of the path's format gives."""
    if not path.exists():
        raise VolumeError(f"{path} does not exist. Check the path, and that links do not point to nowhere.")
    name = path.name.lower()
    if (folder := _series_folder(path)) is not None:
        return dicom(folder)
    if name.endswith(_NIFTI):
        return nifti(path)
    if name.endswith(_METAIMAGE):
        return metaimage(path)
    if name.endswith(_PAIR):
        raise VolumeError(
            f"{path} is half of a pair .hdr and .img. Save the pair as one file, for example with nibabel.save("
            f"nibabel.load({path.name!r}), 'ct.nii.gz'), and check that left and right are right."
        )
    raise VolumeError(f"{path} is of no type that is read here. Supported: {SUPPORTED}.")


def _series_folder(path: Path) -> Path | None:
    """The folder whose series is read for a path: itself, or that of a slice; None for what is not a DICOM."""
    if path.is_dir():
        return path
    if path.name.lower().endswith(_NIFTI + _METAIMAGE):
        return None
    return path.parent if path.suffix.lower() in SLICE_SUFFIXES or is_dicom(path) else None


def _borrowed_affine(path: Path, shape: tuple[int, ...], reference: Volume | None) -> np.ndarray:
    lacking = f"{path} has neither an sform nor a qform"
    scan = None if reference is None else Path(reference.source)
    if scan is None or not scan.name.lower().endswith(_NIFTI):
        raise VolumeError(
            f"{lacking}, so left, front and head are unknown. Read it together with the NIfTI scan that it "
            "was drawn on, whose header can stand in, or write the right affine into it."
        )
    scan_shape, affine = nifti_grid(scan)
    if affine is None or scan_shape[:3] != shape:
        raise VolumeError(
            f"{lacking}, and its shape {shape} is not that of {scan}, {scan_shape}, whose header could stand "
            "in for it. Check that both belong to one scan."
        )
    return affine


def _whole_numbers(array: np.ndarray, path: Path, step: float) -> np.ndarray:
    """Labels as uint8 or uint16, never by truncation: 0.99 is refused and does not become 0.

    nibabel saves whole numbers that it is given as floats as fine steps, so that they come back as 0.99997; they are
    taken where they lie within half a step, and steps are fine enough that nothing else does by chance.
    """
    low, high = _finite_range(array, path)
    if array.dtype.kind == "f":
        rounding = _FLOAT32 * max(1.0, abs(low), abs(high)) if step else 0.0
        broken = abs(array - np.round(array)) > rounding + (step / 2 if step <= COARSEST_STEP else 0)
        if broken.any():
            at = _first(broken)
            cause = "Labels were interpolated:"
            if step:
                cause = (
                    f"Its header scales stored numbers by scl_slope {step:.9g}: save the labels unscaled, as whole "
                    "numbers (uint8); if they were interpolated before,"
                )
            raise VolumeError(
                f"{path} has {int(broken.sum()):,} values that are not whole numbers, first {array[at]} at "
                f"(z, y, x) = {at}. {cause} resample them with nearest neighbour."
            )
        if step:
            array, low, high = np.round(array), round(low), round(high)
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise VolumeError(
            f"{path} has values from {low:g} to {high:g}; labels are whole numbers from 0 to 65535. "
            "Check that this is the mask and not the scan."
        )
    return np.ascontiguousarray(array, dtype=np.uint8 if high <= 255 else np.uint16)


def _finite_range(array: np.ndarray, path: Path | str) -> tuple[float, float]:
    """Smallest and largest value, after refusing an empty array and one with NaN or infinity."""
    if array.size == 0:
        raise VolumeError(f"{path} is empty: its shape is {array.shape}. Export or download it again.")
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():  # NaN and infinity both reach the minimum or the maximum
        broken = ~np.isfinite(array)
        raise VolumeError(
            f"{path} has {int(broken.sum()):,} values that are NaN or infinite, the first at (z, y, x) = "
            f"{_first(broken)}. Find the step that made them (often a resampling) and repeat it."
        )
    return low, high


def _first(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(mask.argmax(), mask.shape))
