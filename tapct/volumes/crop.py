"""Cutting a block of a physical size out of a scan."""

from collections.abc import Sequence

import numpy as np

from tapct.errors import VolumeError
from tapct.volumes.volume import Volume


def crop_mm(ct: Volume, centre_mm: Sequence[float], size_mm: float, pad_hu: float) -> Volume:
    """Cuts a cube out of a scan, on the scan's own voxels.

    Args:
        ct: The scan.
        centre_mm: Centre of the cube (x, y, z) in RAS+ world millimetres.
        size_mm: Edge of the cube; rounded to whole voxels along each axis.
        pad_hu: Value of what lies outside the scan.

    Returns:
        The cube, with its own affine.

    Raises:
        VolumeError: If the centre lies outside the scan.
    """
    centre = ct.world_to_index(np.array([centre_mm]))[0]
    if (centre < -0.5).any() or (centre > np.array(ct.shape) - 0.5).any():
        index = ", ".join(f"{v:.1f}" for v in centre)
        raise VolumeError(
            f"{ct.source}: the point (x, y, z) = {tuple(float(v) for v in centre_mm)} mm (RAS) lies outside the scan, "
            f"at voxel (z, y, x) = ({index}) of {ct.shape}. Do the point and the scan belong together?"
        )
    # Rounded twice: half a voxel must not turn on the last digit of a tilted affine.
    size = np.maximum(1, np.rint((size_mm / np.array(ct.spacing_mm)).round(6))).astype(int)
    first = np.rint(centre - (size - 1) / 2).astype(int)
    low, high = np.maximum(first, 0), np.minimum(first + size, ct.shape)
    cube = np.full(size, pad_hu, dtype=np.float32)
    inside = tuple(slice(a - f, b - f) for a, b, f in zip(low, high, first, strict=True))
    cube[inside] = ct.hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    affine = ct.affine.copy()
    affine[:3, 3] = ct.index_to_world(first[None])[0]
    return Volume(cube, affine, ct.source, ct.notes)
