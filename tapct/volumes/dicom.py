"""Reads the DICOM files of one CT series through pydicom (with pylibjpeg for compressed pixels).

Slices are put in order by where they lie, never by file name or instance number, and what would bend the scan
without an error is refused: a missing or doubled slice, two series in one folder, pixels that do not decode.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.misc import is_dicom

from tapct.errors import VolumeError
from tapct.volumes.orient import Stored
from tapct.volumes.slices import Slice, one_stack, stack_affine

_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_HU_TYPES = ("", "HU", "HU_MOD", "US")  # US: unspecified; others are maps of iodine, density, ...
_TAGS = [
    *(
        "ImageType",
        "SeriesDescription",
        "SeriesInstanceUID",
        "ImagePositionPatient",
        "ImageOrientationPatient",
    ),
    *("PixelSpacing", "SliceThickness", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel"),
    *("BitsStored", "HighBit", "RescaleSlope", "RescaleIntercept", "RescaleType"),
]
# What pydicom and its decoders raise on a damaged, incomplete or undecodable file.
_UNREADABLE = (
    *(InvalidDicomError, RuntimeError, ValueError, TypeError),
    *(KeyError, AttributeError, OSError, EOFError),
)


def load_dicom(folder: Path) -> Stored:
    """Reads the one CT series of a folder.

    Args:
        folder: The folder; files that are not DICOM, hidden files and DICOMDIR are passed over, and
            sub-folders are not searched.

    Returns:
        The voxels in axis order (slice, row, column), float32 HU.

    Raises:
        VolumeError: There is no DICOM file, a modality other than CT, more than one series, a localizer, a
            missing, doubled or shifted slice, or a file that cannot be read or decoded.
    """
    slices = one_stack([_header(path) for path in _ct_files(folder)], folder)
    affine = stack_affine(slices, folder)
    hu = np.empty((len(slices), *slices[0].size), dtype=np.float32)
    for plane, item in zip(hu, slices, strict=True):
        # Each slice has its own slope and intercept. A series with none is taken to hold HU as it is;
        # `read_ct` refuses it where its values say otherwise.
        slope, intercept = item.rescale or (1.0, 0.0)
        plane[:] = _stored_values(item.path) * slope + intercept
    return Stored(hu, affine)


def _ct_files(folder: Path) -> list[Path]:
    """The DICOM files of the folder, all of them CT."""
    modalities: dict[Path, str] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        if path.name.startswith(".") or path.name.upper() == "DICOMDIR":
            continue
        if is_dicom(path):
            modalities[path] = str(_dataset(path, ["Modality"]).get("Modality") or "unknown")
        elif path.suffix.lower() in _DICOM_SUFFIXES or path.suffix[1:].isdigit():
            raise VolumeError(
                f"{path} is named like a DICOM slice and is none: it is {path.stat().st_size:,} bytes long "
                "and lacks the DICM mark. If a download was interrupted, fetch it again; else move it away."
            )
    if not modalities:
        inside = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
        raise VolumeError(
            f"{folder} has no DICOM file directly in it; it has: {', '.join(inside[:5]) or 'nothing'}. "
            "Name the folder that holds the slices of one series, or a NIfTI or MetaImage file."
        )
    counts = Counter(modalities.values())
    if set(counts) != {"CT"}:
        other = next(path.name for path, modality in modalities.items() if modality != "CT")
        found = ", ".join(f"{number} of modality {name}" for name, number in counts.items())
        raise VolumeError(
            f"{folder} holds DICOM files that are not CT ({found}; for example {other}). "
            "Keep only the slices of one CT series in the folder."
        )
    return list(modalities)


def _dataset(path: Path, tags: list[str] | None = None) -> pydicom.Dataset:
    """The whole file, or only these tags of its header."""
    try:
        return pydicom.dcmread(path, stop_before_pixels=tags is not None, specific_tags=tags)
    except _UNREADABLE as error:
        raise VolumeError(f"{path} cannot be read as DICOM ({error}). Fetch the file again.") from error


def _header(path: Path) -> Slice:
    header = _dataset(path, _TAGS)
    try:
        item = Slice(
            path=path,
            series=str(header.get("SeriesInstanceUID") or ""),
            title=str(header.get("SeriesDescription") or ""),
            localizer="LOCALIZER" in str(header.get("ImageType")),
            size=(int(header.Rows), int(header.Columns)),
            spacing=_vector(header, "PixelSpacing", 2),
            orientation=_vector(header, "ImageOrientationPatient", 6).reshape(2, 3),
            position=_vector(header, "ImagePositionPatient", 3),
            thickness=_number(header, "SliceThickness"),
            rescale=_rescale(header),
        )
        _check(item, header)
    except (ValueError, TypeError, AttributeError) as error:
        raise VolumeError(
            f"{path} is no slice of a CT scan in HU ({error}). If it is a report or a picture beside the "
            "scan, move it away; else export the series again."
        ) from error
    return item


def _vector(header: pydicom.Dataset, tag: str, length: int) -> np.ndarray:
    vector = np.atleast_1d(np.array(header.get(tag) or [], dtype=np.float64))
    if vector.shape != (length,):
        raise ValueError(f"it has no {tag} of {length} numbers")
    return vector


def _number(header: pydicom.Dataset, tag: str) -> float | None:
    value = header.get(tag)
    return None if value is None else float(value)


def _rescale(header: pydicom.Dataset) -> tuple[float, float] | None:
    slope, intercept = _number(header, "RescaleSlope"), _number(header, "RescaleIntercept")
    return None if slope is None or intercept is None else (slope, intercept)


def _check(item: Slice, header: pydicom.Dataset) -> None:
    """Raises ValueError, saying why, if the pixels of the file are not one plane of HU in the patient."""
    if header.get("NumberOfFrames") not in (None, 1) or header.get("SamplesPerPixel", 1) != 1:
        raise ValueError("it holds several frames or colours, which are read after a conversion to NIfTI")
    if header.get("HighBit") not in (None, header.get("BitsStored", 0) - 1):
        raise ValueError(f"BitsStored {header.BitsStored} and HighBit {header.HighBit} do not fit")
    if str(header.get("RescaleType") or "").upper() not in _HU_TYPES:
        raise ValueError(f"its values are of RescaleType {header.RescaleType}, not HU")
    slope, intercept = item.rescale or (1.0, 0.0)
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise ValueError(f"RescaleSlope {slope} and RescaleIntercept {intercept} lose its values")
    placed = np.isfinite(item.position).all() and abs(np.linalg.norm(item.normal) - 1) < 1e-3
    if not placed or not (item.spacing > 0).all():
        raise ValueError(
            f"ImagePositionPatient {item.position.tolist()}, ImageOrientationPatient "
            f"{item.orientation.ravel().tolist()} and PixelSpacing {item.spacing.tolist()} place no pixel"
        )


def _stored_values(path: Path) -> np.ndarray:
    """The decoded pixels (row, column), sign-extended, and inverted where a high value means dark."""
    dataset = _dataset(path)
    try:
        pixels = dataset.pixel_array
    except _UNREADABLE as error:
        syntax = getattr(dataset.file_meta.get("TransferSyntaxUID"), "name", "unknown")
        raise VolumeError(
            f"{path}: its pixels cannot be decoded (transfer syntax {syntax}; {error}). If a download was "
            "interrupted, fetch it again; else decompress it first (for example with gdcmconv --raw)."
        ) from error
    if dataset.PixelRepresentation == 1:
        # pydicom extends the sign of raw pixels, but trusts a JPEG 2000 stream that declares all 16 bits.
        unused = 8 * pixels.dtype.itemsize - dataset.BitsStored
        pixels = (pixels << unused) >> unused
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        # As ITK: the stored values are mirrored within their range before slope and intercept apply.
        pixels = ~pixels if dataset.PixelRepresentation == 1 else 2**dataset.BitsStored - 1 - pixels
    return pixels
