"""Cutting a block of a physical size out of a scan."""

from collections.abc import Sequence

import numpy as np

from tapct.errors import VolumeError
from tapct.volumes.geometry import Grid
from tapct.volumes.volume import Volume


def crop_mm(ct: Volume, centre_mm: Sequence[float], size_mm: float | Sequence[float], pad_hu: float) -> Volume:
    """Cuts a block out of a scan, on the scan's own voxels.

    Args:
        ct: The scan.
        centre_mm: Centre of the block (x, y, z) in RAS+ world millimetres.
        size_mm: Edge of a cube, or edges along (z, y, x); each rounded to whole voxels.
        pad_hu: Value of what lies outside the scan.

    Returns:
        The block, with its own affine.

    Raises:
        VolumeError: If the centre lies outside the scan.
    """
    first, size = _box(ct.grid, centre_mm, size_mm, ct.source)
    low, high = np.maximum(first, 0), np.minimum(first + size, ct.shape)
    block = np.full(size, pad_hu, dtype=np.float32)
    inside = tuple(slice(a - f, b - f) for a, b, f in zip(low, high, first, strict=True))
    block[inside] = ct.hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return Volume(block, _moved(ct.grid, first), ct.source, ct.notes)


def crop_grid(scan: Grid, centre_mm: Sequence[float], size_mm: float | Sequence[float], source: str) -> Grid:
    """Returns the grid of the block that `crop_mm` cuts out of a scan on this grid.

    Args:
        scan: The grid of the scan.
        centre_mm: As in `crop_mm`.
        size_mm: As in `crop_mm`.
        source: Of the scan, for the error.

    Raises:
        VolumeError: If the centre lies outside the scan.
    """
    first, size = _box(scan, centre_mm, size_mm, source)
    return Grid.of(size.tolist(), _moved(scan, first))


def _box(
    scan: Grid, centre_mm: Sequence[float], size_mm: float | Sequence[float], source: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first voxel (z, y, x) of the block, which may lie outside the scan, and its voxels."""
    offset = np.asarray(centre_mm, dtype=np.float64) - scan.affine[:3, 3]
    centre = np.linalg.solve(scan.affine[:3, :3], offset)
    if (centre < -0.5).any() or (centre > np.array(scan.shape) - 0.5).any():
        index = ", ".join(f"{v:.1f}" for v in centre)
        raise VolumeError(
            f"{source}: the point (x, y, z) = {tuple(float(v) for v in centre_mm)} mm (RAS) lies outside the scan, "
            f"at voxel (z, y, x) = ({index}) of {tuple(scan.shape)}. Do the point and the scan belong together?"
        )
    # Rounded twice: half a voxel must not turn on the last digit of a tilted affine.
    size = np.maximum(1, np.rint((np.array(size_mm) / np.array(scan.spacing_mm)).round(6))).astype(int)
    return np.rint(centre - (size - 1) / 2).astype(int), size


def _moved(scan: Grid, first: np.ndarray) -> np.ndarray:
    affine = scan.affine.copy()
    affine[:3, 3] = first.astype(np.float64) @ scan.affine[:3, :3].T + scan.affine[:3, 3]
    return affine
