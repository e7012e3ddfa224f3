"""Puts the headers of DICOM slices in order and finds the regular grid that they make, or says why not."""

from dataclasses import dataclass
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
_ROUNDING_MM = 1e-4  # positions are decimal text: 0.63 - 0.62 exceeds 0.01 by a rounding error


@dataclass(frozen=True, eq=False)
class Slice:
    """What the header of one file says.

    Attributes:
        path: The file.
        series: SeriesInstanceUID, possibly empty.
        title: SeriesDescription, for messages.
        localizer: Whether it is a scout view and no part of a scan.
        size: (rows, columns).
        spacing: (2,) mm between rows and between columns.
        orientation: (2, 3) direction along a row and down a column, LPS.
        position: (3,) the first pixel in mm, LPS.
        thickness: Of the slice in mm, where the file says so.
        rescale: (slope, intercept) from stored values to HU, where the file says so.
    """

    path: Path
    series: str
    title: str
    localizer: bool
    size: tuple[int, int]
    spacing: np.ndarray
    orientation: np.ndarray
    position: np.ndarray
    thickness: float | None
    rescale: tuple[float, float] | None

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


def one_stack(slices: list[Slice], folder: Path) -> list[Slice]:
    """Insists on one scan, and orders its slices by where they lie across the slice plane.

    Args:
        slices: At least one header.
        folder: Where they lie, for the messages.

    Returns:
        The slices in order.

    Raises:
        VolumeError: They differ in series, orientation, matrix size or pixel spacing, are localizers, or
            only some of them say how their values become HU.
    """
    stacks: list[list[Slice]] = []
    for item in slices:
        stack = next((stack for stack in stacks if stack[0].stacks_with(item)), None)
        if stack is None:
            stacks.append([item])
        else:
            stack.append(item)
    if len(stacks) > 1:
        listing = "".join(f"\n  {_describe(stack)}" for stack in stacks)
        raise VolumeError(
            f"{folder} holds {len(stacks)} series or kinds of slices, and a scan is one:{listing}\n"
            "Move each to a folder of its own, and localizers away."
        )
    if any(item.localizer for item in slices):
        raise VolumeError(
            f"{folder} holds a localizer, which is no scan: {_describe(slices)}. Move it away, or name the "
            "folder of the scan."
        )
    bare = [item.path.name for item in slices if item.rescale is None]
    if 0 < len(bare) < len(slices):
        raise VolumeError(
            f"{folder}: {len(bare)} of {len(slices)} slices lack RescaleSlope or RescaleIntercept, such as "
            f"{bare[0]}, so the scan is not in HU throughout. Export the series again."
        )
    normal = slices[0].normal
    return sorted(slices, key=lambda item: float(item.position @ normal))


def stack_affine(slices: list[Slice], folder: Path) -> np.ndarray:
    """Places an ordered stack in the patient; a gantry tilt stays in the affine, as a shear.

    Args:
        slices: As `one_stack` returns them.
        folder: Where they lie, for the messages.

    Returns:
        (4, 4) float64, index (slice, row, column) to mm in RAS+.

    Raises:
        VolumeError: A slice is missing, doubled or shifted; or a single slice does not say how thick it is.
    """
    first, last = slices[0], slices[-1]
    if len(slices) > 1:
        _check_gaps(slices, folder)
        step = (last.position - first.position) / (len(slices) - 1)
        _check_straight(slices, step, folder)
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


def _describe(stack: list[Slice]) -> str:
    first = stack[0]
    rows, columns = first.spacing
    return (
        f"{len(stack)} files (such as {first.path.name}): {'localizer ' * first.localizer}'{first.title}', "
        f"{first.size[0]}x{first.size[1]} at {rows:.4g}x{columns:.4g} mm, row and column along "
        f"{first.orientation.round(3).tolist()}, series {first.series or '(no SeriesInstanceUID)'}"
    )


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
