"""The body in a scan, told from table, clothes and air."""

import numpy as np
from scipy import ndimage

BODY_ABOVE_HU = -300
"""Between air or lung (below -500) and fat (about -100); the air inside the body is filled in afterwards."""
SMALLEST_PART = 0.02
"""Parts of at least this fraction of the largest are body too: two thighs, or arms next to the chest."""


def body_mask(hu: np.ndarray) -> np.ndarray:
    """Marks the body, with the air inside it, but without table, clothes and the air around.

    Voxels above -300 HU; opened in the plane, which drops thin things such as the shell of the table; its largest part
    and others of at least a fiftieth of that; holes filled slice by slice, which adds lung and bowel gas.

    Args:
        hu: (D, H, W) Hounsfield units.

    Returns:
        (D, H, W) bool.
    """
    dense = hu > BODY_ABOVE_HU
    in_plane = ndimage.generate_binary_structure(2, 1)[None]
    parts, number = ndimage.label(ndimage.binary_opening(dense, in_plane))
    if not number:
        return np.zeros_like(dense)
    sizes = np.bincount(parts.ravel())[1:]
    body = np.concatenate(([False], sizes >= SMALLEST_PART * sizes.max()))[parts]
    for plane in body:
        plane[:] = ndimage.binary_fill_holes(plane)
    return body
