"""Insists that the slices in a folder are those of one scan, and puts them in order."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from tapct.errors import VolumeError
from tapct.volumes.slices import Slice

ONE_SCAN_TAGS = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("FrameOfReferenceUID", "SeriesNumber", "ConvolutionKernel", "KVP"),
    *("TemporalPositionIdentifier", "NominalPercentageOfCardiacPhase"),
)
"""What does not differ within one scan. SeriesInstanceUID is compared apart; StudyInstanceUID says nothing of a series
whose own UID is one, and some anonymisers draw it anew for each file."""
ACQUISITION_TAGS = ("AcquisitionNumber", "AcquisitionUID", "IrradiationEventUID")
"""What tells acquisitions apart; a scan in steps of the table (step and shoot) has several."""
THICKNESS_TOLERANCE = 1.1
"""Slices of one scan are equally thick, but for rounding."""
ONE_RUN_S = 10.0
"""The table moves and the tube turns once more within 3 s; another breath-hold or phase takes longer."""
_DAY_S = 86400.0


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
            f"{folder} holds a localizer, which is not a scan: {_describe(slices)}. Move it away, or name the "
            "folder of the scan."
        )
    bare = [item.path.name for item in slices if item.rescale is None]
    if 0 < len(bare) < len(slices):
        raise VolumeError(
            f"{folder}: {len(bare)} of {len(slices)} slices lack RescaleSlope or RescaleIntercept, such as "
            f"{bare[0]}, so the scan is not in HU throughout. Export the series again."
        )
    _check_one_scan(slices, folder)
    normal = slices[0].normal
    ordered = sorted(slices, key=lambda item: float(item.position @ normal))
    _check_acquisitions(ordered, folder)
    return ordered


def _describe(stack: list[Slice]) -> str:
    first = stack[0]
    rows, columns = first.spacing
    return (
        f"{len(stack)} files (such as {first.path.name}): {'localizer ' * first.localizer}'{first.title}', "
        f"{first.size[0]}x{first.size[1]} at {rows:.4g}x{columns:.4g} mm, row and column along "
        f"{first.orientation.round(3).tolist()}, series {first.series or '(no SeriesInstanceUID)'}"
    )


def _check_one_scan(slices: Sequence[Slice], folder: Path) -> None:
    """Refuses slices of two patients, places, reconstructions or phases that bear the name of one series.

    What a file does not say, or says with an empty value, does not differ.
    """
    for tag in ONE_SCAN_TAGS:
        runs = _runs(slices, tag)
        if len(runs) > 1:
            raise VolumeError(_mixed(folder, tag, runs[0][0], runs[1][0]))
    thick = [(item.thickness, item.path) for item in slices if item.thickness]
    thinnest, thickest = (choose(thick, key=lambda entry: entry[0], default=(0.0, folder)) for choose in (min, max))
    if thickest[0] > THICKNESS_TOLERANCE * thinnest[0]:
        ends = [(f"{thickness:g} mm", path) for thickness, path in (thinnest, thickest)]
        raise VolumeError(_mixed(folder, "SliceThickness", *ends))


def _check_acquisitions(slices: Sequence[Slice], folder: Path) -> None:
    """Refuses two acquisitions in one stack; a scan in steps of the table is one, however many numbers it has.

    Steps follow each other along the scan, a few slices each. Numbers that come back after others are of scans that lie
    in each other. Two halves are two scans (two breath-holds, before and after contrast), unless their times say that
    the table just moved on.
    """
    seconds = {item.path: item.acquired_s for item in slices}
    for tag in ACQUISITION_TAGS:
        runs = _runs(slices, tag)
        values = {run[0][0].casefold() for run in runs}
        halves = len(runs) == 2 and not _within_one_run(seconds[runs[0][-1][1]], seconds[runs[1][0][1]])
        if len(values) < len(runs) or halves:
            raise VolumeError(_mixed(folder, tag, runs[0][0], runs[1][0]))


def _runs(slices: Sequence[Slice], tag: str) -> list[list[tuple[str, Path]]]:
    """What the slices say of a tag, and their files, in runs of one value; slices that say nothing are left out."""
    told = [(item.told[tag], item.path) for item in slices if tag in item.told]
    return [list(run) for _, run in groupby(told, key=lambda entry: entry[0].casefold())]


def _within_one_run(before_s: float | None, after_s: float | None) -> bool:
    if before_s is None or after_s is None:
        return False
    apart = abs(before_s - after_s)
    return min(apart, _DAY_S - apart) <= ONE_RUN_S


def _mixed(folder: Path, tag: str, one: tuple[str, Path], other: tuple[str, Path]) -> str:
    return (
        f"{folder} holds slices of more than one scan: {tag} is {one[0]!r} in {one[1].name} and {other[0]!r} in "
        f"{other[1].name}. Move the slices of each to a folder of its own; if they are one scan all the same, "
        "convert it to NIfTI."
    )
