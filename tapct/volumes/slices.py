"""What the header of a DICOM slice says, and the regular grid that slices in order make, or why they make none."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from tapct.errors import VolumeError
from tapct.volumes.orient import lps_to_ras

DOUBLED_MM = 0.01
"""Slices closer than this lie in one place."""
GAP_TOLERANCE = 0.01
GAP_TOLERANCE_MM = 0.01
"""A gap may differ from the median by 1 % or 0.01 mm, whichever is larger."""
SHIFT_TOLERANCE = 0.1
"""A slice may lie this fraction of a voxel off the straight line from the first slice to the last."""
NUMBERS_TOLERANCE = 1.1
"""Slices further apart than 1.1 times their thickness leave a gap."""
_ROUNDING_MM = 1e-4  # positions are decimal text: 0.63 - 0.62 exceeds 0.01 by a rounding error


@dataclass(frozen=True, eq=False)
class Slice:
    """What the header of one file says.

    Attributes:
        path: The file.
        series: SeriesInstanceUID, possibly empty.
        title: SeriesDescription, for messages.
        localizer: Whether it is a scout view and no part of a scan.
        number: InstanceNumber, where the file has one.
        size: (rows, columns).
        spacing: (2,) mm between rows and between columns.
        orientation: (2, 3) direction along a row and down a column, LPS.
        position: (3,) the first pixel in mm, LPS.
        thickness: Of the slice in mm, where the file says so.
        listed_spacing: SpacingBetweenSlices in mm, where the file says so.
        rescale: (slope, intercept) from stored values to HU, where the file says so.
        mirror: Where high values are displayed dark (MONOCHROME1), the sum of a stored value and the one that stands
            for it when all are inverted.
        listed_slices: How many slices its series or acquisition has, where the file says so.
        told: What tells scans apart (patient, acquisition, kernel, ...), by tag; what is missing or empty is left out.
        acquired_s: Time of the acquisition in seconds of the day, where the file says so.
    """

    path: Path
    series: str
    title: str
    localizer: bool
    number: int | None
    size: tuple[int, int]
    spacing: np.ndarray
    orientation: np.ndarray
    position: np.ndarray
    thickness: float | None
    listed_spacing: float | None
    rescale: tuple[float, float] | None
    mirror: int | None
    listed_slices: int | None
    told: Mapping[str, str]
    acquired_s: float | None

    @property
    def normal(self) -> np.ndarray:
        """(3,) the direction across the slice, LPS."""
        return np.cross(self.orientation[0], self.orientation[1])

    def stacks_with(self, other: "Slice") -> bool:
        """Whether both can be slices of one scan."""
        return (
            (self.series, self.size) == (other.series, other.size)
            and np.allclose(self.orientation, other.orientation, rtol=0, atol=1e-3)
            and np.allclose(self.spacing, other.spacing, rtol=1e-4, atol=0)
        )


def stack_affine(slices: list[Slice], folder: Path) -> np.ndarray:
    """Places an ordered stack in the patient; a gantry tilt stays in the affine, as a shear.

    Args:
        slices: As `one_stack` returns them.
        folder: Where they lie, for the messages.

    Returns:
        (4, 4) float64, index (slice, row, column) to mm in RAS+.

    Raises:
        VolumeError: Slices are missing, doubled or shifted; or a single slice does not say how thick it is.
    """
    first, last = slices[0], slices[-1]
    if len(slices) > 1:
        _check_gaps(slices, folder)
        step = (last.position - first.position) / (len(slices) - 1)
        _check_straight(slices, step, folder)
        _check_numbers(slices, step, folder)
    elif first.thickness is None or first.thickness <= 0:
        raise VolumeError(
            f"{first.path} is a single slice without SliceThickness, so its extent is unknown. Add the other "
            "slices of the series, or write the thickness into it."
        )
    else:
        step = first.normal * first.thickness
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = first.orientation[1] * first.spacing[0]  # the next row lies further down the column
    affine[:3, 2] = first.orientation[0] * first.spacing[1]
    affine[:3, 3] = first.position
    return lps_to_ras(affine)


def gantry_tilt_deg(slices: list[Slice]) -> float:
    """Returns the angle between the way from slice to slice and the direction across them; 0 for a single slice.

    Args:
        slices: As `one_stack` returns them.
    """
    way = slices[-1].position - slices[0].position
    length, across = np.linalg.norm(way), way @ slices[0].normal
    return float(np.degrees(np.arccos(min(across / length, 1.0)))) if length > 0 else 0.0


def _check_gaps(slices: list[Slice], folder: Path) -> None:
    heights = np.array([item.position @ slices[0].normal for item in slices])
    gaps = np.diff(heights)
    median = float(np.median(gaps))
    doubled = gaps < DOUBLED_MM
    uneven = abs(gaps - median) > max(GAP_TOLERANCE * median, GAP_TOLERANCE_MM) + _ROUNDING_MM
    at = int((doubled if doubled.any() else uneven).argmax())
    below, above = slices[at].path.name, slices[at + 1].path.name
    if doubled.any():
        raise VolumeError(
            f"{folder}: {below} and {above} lie in the same place, {heights[at]:.3f} mm along the scan, as "
            f"do {int(doubled.sum())} pairs in all. Copies, phases or reconstructions are mixed: keep one."
        )
    if uneven.any():
        raise VolumeError(
            f"{folder}: slices are not evenly spaced: {gaps[at]:.3f} mm between {below} (at "
            f"{heights[at]:.3f} mm along the scan) and {above}, where the median of {len(gaps)} gaps is "
            f"{median:.3f} mm; {int(uneven.sum())} gaps differ. If slices are missing, fetch the series "
            "again; if it was taken so, resample it to NIfTI first."
        )


def _check_straight(slices: list[Slice], step: np.ndarray, folder: Path) -> None:
    """Refuses slices shifted against each other, which no affine can hold."""
    positions = np.array([item.position for item in slices])
    off = np.linalg.norm(positions - positions[0] - np.arange(len(slices))[:, None] * step, axis=1)
    worst = int(off.argmax())
    if off[worst] > SHIFT_TOLERANCE * min(*slices[0].spacing, float(np.linalg.norm(step))):
        raise VolumeError(
            f"{folder}: {slices[worst].path.name} lies {off[worst]:.3f} mm off the straight line from the "
            "first slice to the last, so they make no regular grid. Resample the scan to NIfTI first."
        )


def _check_numbers(slices: list[Slice], step: np.ndarray, folder: Path) -> None:
    """Refuses a scan of which only every n-th slice is there: evenly spaced, and numbered in steps of n.

    Two reconstructions that share their numbers have steps as well, but lie as close as their slices are thick; and a
    scan with gaps by design is numbered without them.
    """
    numbers = {place: item.number for place, item in enumerate(slices) if item.number is not None}
    steps = {(numbers[after] - numbers[before]) / (after - before) for before, after in pairwise(numbers)}
    lacking = abs(steps.pop()) if len(steps) == 1 else 0.0
    if lacking < 2 or lacking % 1:
        return
    first, second = (slices[place] for place in list(numbers)[:2])
    across, along = float(step @ first.normal), float(np.linalg.norm(step))
    thickness = next((item.thickness for item in slices if item.thickness), 0.0)
    listed = next((item.listed_spacing for item in slices if item.listed_spacing), 0.0)
    # The slices between would close the gaps, and overlap by two thirds at most.
    apart = across / thickness if thickness > 0 else 0.0
    gaps = max(NUMBERS_TOLERANCE, lacking / 3) < apart <= NUMBERS_TOLERANCE * lacking
    told = any(abs(spacing - lacking * listed) < (NUMBERS_TOLERANCE - 1) * listed for spacing in (across, along))
    if gaps or told:
        raise VolumeError(
            f"{folder}: only every {lacking:g}. slice is there: InstanceNumber goes from {first.number} "
            f"({first.path.name}) to {second.number} ({second.path.name}) and on in steps of {lacking:g}, and the "
            f"slices lie {across:.4g} mm apart, with SliceThickness {thickness or None} and SpacingBetweenSlices "
            f"{listed or None} mm. Fetch the series again; if it was thinned on purpose, convert it to NIfTI."
        )
