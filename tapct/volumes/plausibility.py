"""Whether values can be the Hounsfield units of a CT, judged by how they are distributed and not by their extremes."""

import numpy as np

LARGEST_HU = 32768
"""No CT in HU exceeds this in magnitude: the range of the 16 bits that scanners store."""

PADDING_BELOW_HU = -1500
"""Values below this are not measured, not even as noise of air: they fill what lies outside the field of view."""

NO_AIR_NO_FAT_HU = -50
"""A CT has voxels below this (air is -1000, fat about -100); stored values, MR and PET have none."""


def implausible_hu(array: np.ndarray) -> str | None:
    """Judges whether values can be the HU of a CT.

    Args:
        array: Finite values of any number type and shape, not empty.

    Returns:
        None where they can be. Else one clause, to be said of the scan ("has values from 0 to 4095: ..."), of what
        they look like and how to mend it, without a full stop.
    """
    low, high = float(array.min()), float(array.max())
    seen = f"has values from {low:g} to {high:g}"
    if low >= 0 and high <= 1:
        return f"{seen}: all within [0, 1], so already normalised, not HU. Give the scan as it was before"
    if low < -LARGEST_HU or high > LARGEST_HU:
        return (
            f"{seen}: beyond {LARGEST_HU} in magnitude, which no CT in HU reaches. Its slope, intercept or "
            "number type is wrong: convert the scan again from its DICOM files"
        )
    measured = array[array >= PADDING_BELOW_HU]
    if measured.size == 0 or measured.min() >= NO_AIR_NO_FAT_HU:
        return (
            f"{seen}: none below {NO_AIR_NO_FAT_HU} but for padding, so no air and no fat, and this is no CT in HU. "
            "Its values lack their RescaleIntercept (usually -1024), or it is MR, PET or a mask. Convert the "
            "scan again from its DICOM files"
        )
    return None
