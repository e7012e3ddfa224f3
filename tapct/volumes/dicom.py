"""Reads the DICOM files of one CT series through pydicom (with pylibjpeg for compressed pixels).

Slices are put in order by where they lie, never by file name or instance number, and what would bend the scan
without an error is refused: a missing or doubled slice, two scans in one folder, pixels that do not decode.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from loguru import logger

from tapct.errors import VolumeError
from tapct.volumes.dicom_files import UNREADABLE, ct_headers, read_dataset
from tapct.volumes.dicom_header import TAGS, slice_of
from tapct.volumes.one_scan import one_stack
from tapct.volumes.orient import FileContent
from tapct.volumes.plausibility import implausible_hu
from tapct.volumes.sizes import check_memory
from tapct.volumes.slices import Slice, gantry_tilt_deg, stack_affine

DECODERS = (
    *("pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle"),
    *("python-gdcm", "pyjpegls", "pillow"),
)
"""Distributions that pydicom hands compressed pixels to, where they are installed."""

LEAST_TILT_DEG = 0.5
"""Less is rounding of the positions; a gantry is tilted by whole degrees or halves."""


def load_dicom(folder: Path) -> FileContent:
    """Reads the one CT series of a folder.

    Args:
        folder: The folder; directories of media (DICOMDIR) and files that are known to be no slices by their name are
            passed over, and sub-folders are not searched.

    Returns:
        The voxels in axis order (slice, row, column), float32 HU, with notes on what is unusual.

    Raises:
        VolumeError: There is no DICOM file, a modality other than CT, more than one scan, a localizer, a missing,
            doubled or shifted slice, or a file that cannot be read or decoded.
    """
    slices = _stack(folder)
    affine = stack_affine(slices, folder)
    check_memory(folder, (len(slices), *slices[0].size), np.float32().itemsize)  # `to_spl` may copy
    hu = np.empty((len(slices), *slices[0].size), dtype=np.float32)
    for plane, item in zip(hu, slices, strict=True):
        slope, intercept = _rescale(item)
        plane[:] = _stored_values(item.path) * slope + intercept
    notes = (*_count_notes(slices), *_tilt_notes(slices), *_undo_inversion(hu, slices))
    _check_intercepts(hu, slices, folder)
    for note in notes:
        _say(f"{folder}: {note}")
    return FileContent(hu, affine, notes)


def dicom_grid(folder: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Reads only the headers: the shape in axis order (slice, row, column), and the affine as from `load_dicom`."""
    slices = _stack(folder)
    return (len(slices), *slices[0].size), stack_affine(slices, folder)


def _stack(folder: Path) -> list[Slice]:
    return one_stack([slice_of(path, header) for path, header in ct_headers(folder, TAGS).items()], folder)


@cache
def _say(message: str) -> None:
    """Says it once a process, however often a scan is read."""
    logger.warning(message)


def _rescale(item: Slice) -> tuple[float, float]:
    # Each slice has its own slope and intercept. A series with none is taken to hold HU as it is; `read_ct` refuses it
    # where its values say otherwise.
    return item.rescale or (1.0, 0.0)


def _check_intercepts(hu: np.ndarray, slices: Sequence[Slice], folder: Path) -> None:
    """Refuses a scan of which some slices have another intercept and can be HU with that of the others only.

    The rest would hide them where the scan is judged as a whole. Slices that have a slope of their own (each scaled to
    the range of its values) are as their headers say.
    """
    numbers: dict[tuple[float, float], list[int]] = {}
    for number, item in enumerate(slices):
        numbers.setdefault(_rescale(item), []).append(number)
    if len({slope for slope, _ in numbers}) > 1:
        return
    usual = max(numbers, key=lambda rescale: len(numbers[rescale]))[1]
    for intercept, group in ((intercept, group) for (_, intercept), group in numbers.items() if intercept != usual):
        problem = implausible_hu(hu[group])
        if problem is not None and implausible_hu(hu[group] - intercept + usual) is None:
            raise VolumeError(
                f"{folder}: {len(group)} of {len(slices)} slices, such as {slices[group[0]].path.name}, have a "
                f"RescaleIntercept of {intercept:g}, the others of {usual:g}, with which these can be HU as well; as "
                f"they are, this part {problem}."
            )


def _count_notes(slices: Sequence[Slice]) -> list[str]:
    """Slices that were lost at an end leave no gap; but an excerpt that was made on purpose is a scan."""
    listed = max((item.listed_slices or 0 for item in slices), default=0)
    if listed <= len(slices):
        return []
    return [
        f"The headers tell of {listed} slices (NumberOfSeriesRelatedInstances or ImagesInAcquisition); "
        f"{len(slices)} are there."
    ]


def _tilt_notes(slices: list[Slice]) -> list[str]:
    tilt_deg = gantry_tilt_deg(slices)
    if tilt_deg < LEAST_TILT_DEG:
        return []
    return [f"The gantry was tilted by {tilt_deg:.1f} degrees: the voxel grid is sheared, as its affine says exactly."]


def _undo_inversion(hu: np.ndarray, slices: Sequence[Slice]) -> list[str]:
    """Inverts slices that are displayed inverted (MONOCHROME1) where only so they can be HU, and says so.

    How a slice is displayed does not change its HU (DICOM PS3.3 C.7.6.3.1.2); but some programs inverted the stored
    values for the display.

    Args:
        hu: (slice, row, column) as slope and intercept have it; changed in place.
        slices: Their headers.

    Returns:
        The notes: one, or none.
    """
    dark = [number for number, item in enumerate(slices) if item.mirror is not None]
    if not dark or (problem := implausible_hu(hu[dark])) is None:
        return []
    inverted = np.stack([_inverted(hu[number], slices[number]) for number in dark])
    if implausible_hu(inverted) is not None:
        return []  # neither can be HU, and `read_ct` says why
    hu[dark] = inverted
    return [
        f"{len(dark)} slices are MONOCHROME1 and were inverted, because as stored the scan {problem.split(':')[0]}."
    ]


def _inverted(plane: np.ndarray, item: Slice) -> np.ndarray:
    slope, intercept = _rescale(item)
    return slope * (item.mirror or 0) + 2 * intercept - plane


def _stored_values(path: Path) -> np.ndarray:
    """The decoded pixels (row, column), sign-extended."""
    dataset = read_dataset(path)
    try:
        pixels = dataset.pixel_array
    except UNREADABLE as error:
        syntax = getattr(dataset.file_meta.get("TransferSyntaxUID"), "name", "unknown")
        raise VolumeError(
            f"{path}: its pixels cannot be decoded (transfer syntax {syntax}; {error}). If a download was "
            "interrupted, fetch it again; else decompress it first (for example with gdcmconv --raw)."
        ) from error
    row_bytes = dataset.Columns * dataset.BitsAllocated // 8
    raw_bytes = 0 if dataset.file_meta.TransferSyntaxUID.is_encapsulated else len(dataset.PixelData)
    if pixels.shape != (dataset.Rows, dataset.Columns) or raw_bytes >= (dataset.Rows + 1) * row_bytes:
        raise VolumeError(
            f"{path} holds more pixels than the {dataset.Rows} rows of {dataset.Columns} columns of its header, so one "
            "of the two is wrong. Export the series again."
        )
    if dataset.PixelRepresentation == 1:
        # pydicom extends the sign of raw pixels, but trusts a JPEG 2000 stream that declares all 16 bits.
        unused = 8 * pixels.dtype.itemsize - dataset.BitsStored
        pixels = (pixels << unused) >> unused
    return pixels
