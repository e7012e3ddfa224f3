"""What a case looks like: a slice of its scan and labels along each axis, small enough to hand about."""

from dataclasses import dataclass

import numpy as np

from tapct.volumes import Volume

_COARSE_MM = 4.0


@dataclass(frozen=True, eq=False)
class Plane:
    """A slice of a case.

    Attributes:
        hu: (rows, columns) values.
        labels: (rows, columns) labels; None where the task has none.
        spacing_mm: Distance between rows, and between columns.
        point: Row and column of what the case is about; None where that is the whole scan.
    """

    hu: np.ndarray
    labels: np.ndarray | None
    spacing_mm: tuple[float, float]
    point: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Look:
    """A case in three planes.

    Attributes:
        planes: Across z (axial), y (coronal) and x (sagittal), in SPL order.
        shape: Voxels of the scan (z, y, x).
        spacing_mm: Its spacing (z, y, x).
    """

    planes: tuple[Plane, Plane, Plane]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


def look_at(ct: Volume, labels: np.ndarray | None, point_mm: tuple[float, float, float] | None = None) -> Look:
    """Returns slices through a point, else through the slices with the most classes, else through the middle.

    Args:
        ct: The scan.
        labels: (D, H, W) labels on its grid; None where the task has none.
        point_mm: The place (x, y, z) in mm, RAS+, that the case is about.
    """
    point = None if point_mm is None else ct.world_to_index(np.array([point_mm]))[0]
    if point is not None:
        through = np.clip(np.rint(point), 0, np.array(ct.shape) - 1).astype(int).tolist()
    elif labels is not None and labels.any():
        through = [_richest(labels, axis, ct.spacing_mm) for axis in range(3)]
    else:
        through = [n // 2 for n in ct.shape]
    axial, coronal, sagittal = (_plane(ct, labels, point, axis, index) for axis, index in enumerate(through))
    return Look((axial, coronal, sagittal), ct.shape, ct.spacing_mm)


def _plane(ct: Volume, labels: np.ndarray | None, point: np.ndarray | None, axis: int, index: int) -> Plane:
    rows, columns = (other for other in range(3) if other != axis)
    return Plane(
        hu=np.take(ct.hu, index, axis),
        labels=None if labels is None else np.take(labels, index, axis),
        spacing_mm=(ct.spacing_mm[rows], ct.spacing_mm[columns]),
        point=None if point is None else (float(point[rows]), float(point[columns])),
    )


def _richest(labels: np.ndarray, axis: int, spacing_mm: tuple[float, float, float]) -> int:
    """Returns the slice with the most classes; of several, the one with the most labelled voxels."""
    steps = [1 if a == axis else max(1, int(_COARSE_MM // mm)) for a, mm in enumerate(spacing_mm)]
    slices = np.moveaxis(labels[tuple(slice(None, None, step) for step in steps)], axis, 0)
    richness = [(len(np.unique(one)), int(np.count_nonzero(one)), -index) for index, one in enumerate(slices)]
    return -max(richness)[2]
