"""Masks that DICOM draws next to a scan: contours of a radiotherapy plan (RTSTRUCT), and segmentations (SEG).

Both say in millimetres where they lie. They are placed through the affine of the scan, never by the number of a slice
or frame: releases list slices upwards or downwards, and leave out those on which nothing is drawn.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from tapct.errors import VolumeError
from tapct.volumes.dicom_files import UNREADABLE, read_dataset
from tapct.volumes.geometry import Grid
from tapct.volumes.masks import Mask

OFF_GRID = 0.25
"""How far, in voxels, what was drawn on a scan may lie from its voxels: positions are rounded to a tenth of a mm."""

OFF_STEP = 0.01
"""How much larger or smaller than a voxel a pixel may be: spacings are rounded too."""

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])

_Names = tuple[str, ...]
"""Of one thing; none of the only thing."""

_Reader = Callable[[pydicom.Dataset, _Names, Grid], np.ndarray]


def read_drawn(path: Path, name: str | _Names, scan: Grid) -> Mask:
    """Returns what an RTSTRUCT or a SEG file draws under a name.

    Args:
        path: The file.
        name: Of the region (ROIName) or segment (SegmentDescription or SegmentLabel), in capitals or not. Several are
            names of one thing; none is the only thing that the file draws, whatever it calls it.
        scan: The grid of the scan that it was drawn on.

    Raises:
        VolumeError: It cannot be read, is of another kind, draws nothing or several things under that name, or does not
            lie on the scan.
    """
    dataset = read_dataset(path)
    readers: dict[Any, _Reader] = {"RTSTRUCT": _contours, "SEG": _segment}
    names = (name,) if isinstance(name, str) else name
    modality = dataset.get("Modality")
    if modality not in readers:
        raise VolumeError(
            f"{path} is of modality {modality}, not {' or '.join(readers)}. Use the file that draws {_called(names)}"
        )
    try:
        return Mask(readers[modality](dataset, names, scan), scan)
    except VolumeError as error:
        raise VolumeError(f"{path}: {error}") from error
    except UNREADABLE as error:
        raise VolumeError(f"{path} cannot be read as {modality} ({error}). Fetch the file again") from error


def drawn_on(path: Path) -> frozenset[str]:
    """Returns the SeriesInstanceUID of every scan that an RTSTRUCT or SEG file says it was drawn on.

    Raises:
        VolumeError: It cannot be read.
    """
    tags = ["ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence"]
    return frozenset(_series_named(read_dataset(path, tags)))


def _series_named(dataset: pydicom.Dataset) -> Iterator[str]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _series_named(item)
        elif element.keyword == "SeriesInstanceUID":
            yield str(element.value)


def _called(names: _Names) -> str:
    return " or ".join(names) or "one thing"


def _one(found: dict[Any, str], names: _Names) -> tuple[Any, str]:
    """Returns the number of what has one of these names, or of the only thing, and what it is called."""
    wanted = {name.casefold() for name in names}
    numbers = [number for number, title in found.items() if not wanted or title.casefold() in wanted]
    if len(numbers) != 1:
        has = ", ".join(sorted(found.values())) or "nothing"
        raise VolumeError(f"it draws {_called(names)} {len(numbers)} times; what it draws: {has}")
    return numbers[0], found[numbers[0]]


def _index(scan: Grid, points_mm: np.ndarray) -> np.ndarray:
    """Returns the (N, 3) index (z, y, x) of (N, 3) points (x, y, z) in DICOM's world, LPS."""
    inverse = np.linalg.inv(scan.affine)
    return (points_mm * _LPS_TO_RAS) @ inverse[:3, :3].T + inverse[:3, 3]


# -- RTSTRUCT ------------------------------------------------------------------------------------------


def _contours(dataset: pydicom.Dataset, names: _Names, scan: Grid) -> np.ndarray:
    regions = {item.ROINumber: str(item.ROIName).strip() for item in dataset.StructureSetROISequence}
    number, name = _one(regions, names)
    drawn = [item for item in dataset.ROIContourSequence if item.ReferencedROINumber == number]
    closed = [
        np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3)
        for item in drawn
        for contour in item.get("ContourSequence") or ()
        if str(contour.ContourGeometricType).startswith("CLOSED")
    ]
    if not closed:
        raise VolumeError(f"its {name} has no closed contour")
    by_slice: dict[int, list[np.ndarray]] = {}
    for points_mm in closed:
        points = _index(scan, points_mm)
        z = round(float(points[:, 0].mean()))
        if np.abs(points[:, 0] - z).max() > OFF_GRID:
            raise VolumeError(
                f"a contour of {name} lies on no slice of the scan: between slices {points[:, 0].min():.2f} "
                f"and {points[:, 0].max():.2f}. Was it drawn on another scan?"
            )
        if not 0 <= z < scan.shape[0]:
            raise VolumeError(f"a contour of {name} lies on slice {z} of a scan of {scan.shape[0]}. Slices are missing")
        by_slice.setdefault(z, []).append(points[:, 1:])
    inside = np.zeros(scan.shape, dtype=np.bool_)
    for z, polygons in by_slice.items():
        inside[z] = filled(polygons, (scan.shape.y, scan.shape.x))
    return inside


def filled(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Returns the voxels whose centres lie in an odd number of polygons: a contour within another one is a hole.

    Args:
        polygons: (P, 2) corners (y, x) of each, in voxels; the last is joined to the first.
        shape: (H, W).

    Returns:
        (H, W) booleans. Of a centre that lies on an edge, the lower end of the polygon counts, the upper does not.
    """
    crossings = np.zeros((shape[0], shape[1] + 1), dtype=np.int64)
    for corners in polygons:
        start, end = corners, np.roll(corners, -1, axis=0)
        low, high = np.minimum(start[:, 0], end[:, 0]), np.maximum(start[:, 0], end[:, 0])
        first, beyond = (np.clip(np.ceil(of), 0, shape[0]).astype(np.int64) for of in (low, high))
        edge = np.repeat(np.arange(len(corners)), beyond - first)  # each once for every row that it crosses
        row = np.arange(len(edge)) - np.repeat(np.cumsum(beyond - first) - beyond, beyond - first)
        (y, x), (dy, dx) = start[edge].T, (end - start)[edge].T
        at = np.clip(np.ceil(x + (row - y) / dy * dx), 0, shape[1]).astype(np.int64)
        np.add.at(crossings, (row, at), 1)
    return np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1


# -- SEG -----------------------------------------------------------------------------------------------


def _segment(dataset: pydicom.Dataset, names: _Names, scan: Grid) -> np.ndarray:
    number, name = _segment_number(dataset, names)
    kind = str(dataset.SegmentationType)
    least = number if kind == "LABELMAP" else 1 if kind == "BINARY" else float(dataset.MaximumFractionalValue) / 2
    inside = np.zeros(scan.shape, dtype=np.bool_)
    for values, frame in zip(_frames(dataset), dataset.PerFrameFunctionalGroupsSequence, strict=True):
        if kind != "LABELMAP":
            segment = _group(dataset, frame, "SegmentIdentificationSequence", "what its frames draw")
            if segment.ReferencedSegmentNumber != number:
                continue
        drawn = values == least if kind == "LABELMAP" else values >= least
        if drawn.any():
            _place(inside, drawn, _frame_axes(dataset, frame), scan, name)
    return inside


def _frames(dataset: pydicom.Dataset) -> np.ndarray:
    """Returns (F, H, W) the pixels of the frames.

    A NumberOfFrames that is wrong does not matter where the pixels are as many as the frames that are placed, which no
    two numbers fit.
    """
    placed = len(dataset.PerFrameFunctionalGroupsSequence)
    bits = placed * dataset.Rows * dataset.Columns * dataset.BitsAllocated
    whole = (bits + 15) // 16 * 2  # bytes, an even number
    if dataset.NumberOfFrames != placed and len(dataset.PixelData) == whole:
        dataset.NumberOfFrames = placed
    return dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)


def _segment_number(dataset: pydicom.Dataset, names: _Names) -> tuple[int, str]:
    wanted, titles = {name.casefold() for name in names}, {}
    for item in dataset.SegmentSequence:
        own = [str(item.get(key) or "").strip() for key in ("SegmentDescription", "SegmentLabel")]
        titles[item.SegmentNumber] = next((t for t in own if t.casefold() in wanted), " / ".join(filter(None, own)))
    return _one(titles, names)


def _group(dataset: pydicom.Dataset, frame: pydicom.Dataset, name: str, says: str) -> pydicom.Dataset:
    """Returns a functional group of a frame: its own, or the one that all share (DICOM PS3.3 C.7.6.16)."""
    own = frame.get(name) or dataset.SharedFunctionalGroupsSequence[0].get(name)
    if not own:
        raise VolumeError(f"it does not say {says} ({name} is missing)")
    return own[0]


def _frame_axes(dataset: pydicom.Dataset, frame: pydicom.Dataset) -> np.ndarray:
    """Returns (3, 3): the place of a frame's first pixel, and its steps to the next row and column; LPS, in mm."""

    def of(group: str) -> pydicom.Dataset:
        return _group(dataset, frame, group, "where its frames lie")

    cosines = np.array(of("PlaneOrientationSequence").ImageOrientationPatient, dtype=np.float64)
    between_rows, between_columns = map(float, of("PixelMeasuresSequence").PixelSpacing)
    first = np.array(of("PlanePositionSequence").ImagePositionPatient, dtype=np.float64)
    return np.stack([first, cosines[3:] * between_rows, cosines[:3] * between_columns])


def _place(inside: np.ndarray, drawn: np.ndarray, axes_mm: np.ndarray, scan: Grid, name: str) -> None:
    """Sets the voxels of the scan on which the pixels of a frame lie."""
    rows, columns = np.nonzero(drawn)
    at = _index(scan, axes_mm[0] + np.stack([rows, columns], axis=1) @ axes_mm[1:])
    nearest = np.rint(at).astype(np.int64)
    steps = _index(scan, axes_mm[0] + axes_mm[1:]) - _index(scan, axes_mm[:1])
    if np.abs(at - nearest).max() > OFF_GRID or np.abs(np.linalg.norm(steps, axis=1) - 1).max() > OFF_STEP:
        raise VolumeError(f"the pixels of {name} do not lie on the voxels of the scan. Was it drawn on another scan?")
    if (nearest < 0).any() or (nearest >= np.array(scan.shape)).any():
        raise VolumeError(f"{name} reaches beyond the scan. Slices are missing, or it was drawn on another scan")
    inside[tuple(nearest.T)] = True
