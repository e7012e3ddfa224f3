"""Reads what the header of one DICOM file says of its slice, and refuses what is no plane of HU in the patient."""

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pydicom
from pydicom.multival import MultiValue
from pydicom.uid import EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from tapct.errors import VolumeError
from tapct.volumes.one_scan import ACQUISITION_TAGS, ONE_SCAN_TAGS
from tapct.volumes.sizes import check_claim, deflated
from tapct.volumes.slices import Slice

_COUNTS = ("ImagesInAcquisition", "NumberOfSeriesRelatedInstances")
TAGS = [
    *("SOPClassUID", "ImageType", "SeriesDescription", "SeriesInstanceUID", "InstanceNumber"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence"),
    "AcquisitionTime",
    *_COUNTS,
    *ONE_SCAN_TAGS,
    *ACQUISITION_TAGS,
]
"""What `slice_of` needs of a header."""
_MULTI_FRAME = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
# US: unspecified; HU_MOD: modified HU; others are maps of iodine, density, ... Writers spell HU in many ways.
_HU_TYPE = re.compile(r"|HU|HUS|HUMOD|US|HOUN?D?SFIELDS?(UNITS?)?(HU)?")


def slice_of(path: Path, header: pydicom.Dataset) -> Slice:
    """Reads one slice's place, encoding and origin.

    Args:
        path: The file.
        header: With the tags `TAGS`.

    Raises:
        VolumeError: It is no single plane of HU that is placed in the patient, or claims more than the file holds.
    """
    if header.get("NumberOfFrames") not in (None, 1) or header.get("SOPClassUID") in _MULTI_FRAME:
        raise VolumeError(
            f"{path} holds several frames (multi-frame CT), which are not read here: convert it to NIfTI first, for "
            "example with dcm2niix."
        )
    try:
        _check_values(header)
        item = _slice(path, header)
        _check_place(item)
        _check_size(item, header)
    except (ValueError, TypeError, AttributeError) as error:
        raise VolumeError(
            f"{path} is not a slice of a CT scan in HU ({error}). If it is a report or a picture next to the "
            "scan, move it away; else export the series again."
        ) from error
    return item


def _slice(path: Path, header: pydicom.Dataset) -> Slice:
    return Slice(
        path=path,
        series=str(header.get("SeriesInstanceUID") or ""),
        title=str(header.get("SeriesDescription") or ""),
        localizer="LOCALIZER" in str(header.get("ImageType")),
        number=_whole(header, "InstanceNumber"),
        size=(int(header.Rows), int(header.Columns)),
        spacing=_vector(header, "PixelSpacing", 2),
        orientation=_vector(header, "ImageOrientationPatient", 6).reshape(2, 3),
        position=_vector(header, "ImagePositionPatient", 3),
        thickness=_number(header, "SliceThickness"),
        listed_spacing=_number(header, "SpacingBetweenSlices"),
        rescale=_rescale(header),
        mirror=_mirror(header),
        listed_slices=max(filter(None, (_whole(header, tag) for tag in _COUNTS)), default=None),
        told=texts(header, (*ONE_SCAN_TAGS, *ACQUISITION_TAGS)),
        acquired_s=_seconds(header),
    )


def _vector(header: pydicom.Dataset, tag: str, length: int) -> np.ndarray:
    vector = np.atleast_1d(np.array(header.get(tag) or [], dtype=np.float64))
    if vector.shape != (length,):
        raise ValueError(f"it has no {tag} of {length} numbers")
    return vector


def _number(header: pydicom.Dataset, tag: str) -> float | None:
    value = header.get(tag)
    return None if value is None else float(value)


def _whole(header: pydicom.Dataset, tag: str) -> int | None:
    value = header.get(tag)
    return None if value is None else int(value)


def texts(header: pydicom.Dataset, tags: Sequence[str]) -> dict[str, str]:
    r"""Returns the values that are there, by tag, in one spelling: ['Br38f', '3'] is "Br38f\3", and 120.0 is "120"."""
    found = {}
    for tag in tags:
        value = header.get(tag)
        parts = value if isinstance(value, MultiValue) else [value]
        text = "\\".join(filter(None, (_text(part) for part in parts)))
        if text:
            found[tag] = text
    return found


def _text(value: object) -> str:
    if isinstance(value, int | float | Decimal):
        return f"{float(value):.12g}"
    return "" if value is None else str(value).strip(" ^\0")


def _seconds(header: pydicom.Dataset) -> float | None:
    """AcquisitionTime as seconds of the day; None where it is missing or no time."""
    match = re.fullmatch(r"(\d\d):?(\d\d):?(\d\d(\.\d*)?)", str(header.get("AcquisitionTime") or "").strip())
    return None if match is None else 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])


def _rescale(header: pydicom.Dataset) -> tuple[float, float] | None:
    slope, intercept = _number(header, "RescaleSlope"), _number(header, "RescaleIntercept")
    return None if slope is None or intercept is None else (slope, intercept)


def _mirror(header: pydicom.Dataset) -> int | None:
    """Of MONOCHROME1: the sum of a stored value and the one that stands for it when all are inverted."""
    if header.PhotometricInterpretation != "MONOCHROME1":
        return None
    return -1 if header.PixelRepresentation == 1 else 2**header.BitsStored - 1


def _check_values(header: pydicom.Dataset) -> None:
    """Raises ValueError, saying why, if the values are not whole numbers that a slope and an intercept make HU."""
    if header.get("SamplesPerPixel", 1) != 1:
        raise ValueError(f"it holds colours: SamplesPerPixel is {header.SamplesPerPixel}")
    if header.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(
            f"it holds no grey values: PhotometricInterpretation is {header.get('PhotometricInterpretation')}"
        )
    allocated, stored, sign = (header.get(tag) for tag in ("BitsAllocated", "BitsStored", "PixelRepresentation"))
    if allocated not in (8, 16, 32) or stored not in range(1, allocated + 1) or sign not in (0, 1):
        raise ValueError(f"BitsAllocated {allocated}, BitsStored {stored}, PixelRepresentation {sign} make no number")
    if header.get("HighBit") not in (None, stored - 1):
        raise ValueError(f"BitsStored {stored} and HighBit {header.HighBit} do not fit")
    unit = str(header.get("RescaleType") or "")
    if not _HU_TYPE.fullmatch(re.sub("[^A-Z]", "", unit.upper())):
        raise ValueError(f"its values are of RescaleType {unit}, not HU")
    if header.get("ModalityLUTSequence"):
        raise ValueError("a table (ModalityLUTSequence) turns its values into HU, which is not read here")
    slope, intercept = _rescale(header) or (1.0, 0.0)
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise ValueError(f"RescaleSlope {slope} and RescaleIntercept {intercept} lose its values")


def _check_place(item: Slice) -> None:
    placed = np.isfinite(item.position).all() and abs(np.linalg.norm(item.normal) - 1) < 1e-3
    if not placed or not (item.spacing > 0).all():
        raise ValueError(
            f"ImagePositionPatient {item.position.tolist()}, ImageOrientationPatient "
            f"{item.orientation.ravel().tolist()} and PixelSpacing {item.spacing.tolist()} place no pixel"
        )


def _check_size(item: Slice, header: pydicom.Dataset) -> None:
    """Refuses a header that claims more pixels than the file can hold; compressed ones show when they are decoded."""
    syntax, held = header.file_meta.get("TransferSyntaxUID"), item.path.stat().st_size
    if syntax is not None and not syntax.is_compressed:
        most = deflated(held) if syntax.is_deflated else held
        check_claim(item.path, item.size, header.BitsAllocated // 8, most)
