"""Segmentation: a label map on the grid of each scan, compared class by class."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tapct import numeric
from tapct.kinds.base import Cases, Field, Kind, Mean, Metric, Number, linear_head_fault
from tapct.metrics.dice import Summary, summarise


def _mean_over_classes(field: str) -> Mean:
    """Returns the mean over cases of the mean over a case's classes that define it."""
    return Mean(lambda cases: numeric.means(cases[field]))


def _summary(cases: Cases, field: str) -> Summary:
    without = np.full((len(cases), 1), np.nan)
    return summarise(np.concatenate([without, cases[field]], axis=1))


def _class_mean(field: str) -> Number:
    """Returns the mean over classes of the mean over the cases that define one."""
    return Number(lambda cases: _summary(cases, field).class_mean)


def _one_sided(cases: Cases) -> float:
    """Returns how many entries have a surface in one of prediction and reference, hence NSD and no HD95."""
    hd95, nsd = (_summary(cases, field).undefined_entries for field in ("hd95_mm_native", "nsd_native"))
    return float(hd95 - nsd)


def _hd95(name: str, title: str, of: Mean | Number, *, shown: bool = True) -> Metric:
    return Metric(
        name=name,
        title=title,
        of=of,
        high=np.inf,
        lower_is_better=True,
        unit="mm",
        digits=1,
        shown=shown,
        fields=("hd95_mm_native",),
    )


def _doubts(case: Any, classes: Sequence[str]) -> Iterator[str]:
    """Yields what cannot be of the Dice, surfaces and voxels of a case."""
    if case.dice is None or case.nsd is None or case.hd95_mm is None or case.reference_voxels is None:
        yield "it has no Dice, NSD, HD95 or voxels of the reference"
        return
    if any(list(row) != list(classes[1:]) for row in case.dice.values()):
        yield "its Dice is not of the task's classes"
    for name, dice in case.dice["native"].items():
        voxels, nsd, hd95 = case.reference_voxels.get(name), case.nsd.get(name), case.hd95_mm.get(name)
        if dice is None and voxels:
            yield f"{name} has {voxels:,} voxels in the reference, and no Dice"
        if dice and not voxels:
            yield f"{name} has Dice {dice:.3g}, and no voxel in the reference"
        if (dice is None) != (nsd is None):
            yield f"{name} has one of Dice and NSD without the other"
        if hd95 is not None and (dice is None or not voxels):
            yield f"{name} has HD95 {hd95:.3g}, and is in only one of prediction and reference"
        if dice and hd95 is None:
            yield f"{name} has Dice {dice:.3g} and no HD95"
    if case.voxels is not None and sum(case.reference_voxels.values()) > case.voxels:
        yield "its reference has more voxels than its scan"


KIND = Kind(
    name="segmentation",
    title="Segmentation",
    target="a label map on the grid of the scan",
    metrics=(
        Metric(name="dice_native", title="Dice", of=_mean_over_classes("dice_native"), fields=("dice_native",)),
        Metric(
            name="dice_native_class_mean",
            title="Dice, by class",
            of=_class_mean("dice_native"),
            fields=("dice_native",),
        ),
        Metric(
            name="dice_paper",
            title="Dice",
            column="Dice, encoder's grid",
            of=_mean_over_classes("dice_paper"),
            fields=("dice_paper",),
        ),
        Metric(
            name="dice_paper_class_mean",
            title="Dice, encoder's grid, by class",
            of=_class_mean("dice_paper"),
            fields=("dice_paper",),
            shown=False,
        ),
        Metric(name="nsd_native", title="NSD", of=_mean_over_classes("nsd_native"), fields=("nsd_native",)),
        Metric(
            name="nsd_native_class_mean",
            title="NSD, by class",
            of=_class_mean("nsd_native"),
            fields=("nsd_native",),
            shown=False,
        ),
        _hd95("hd95_mm_native", "HD95", _mean_over_classes("hd95_mm_native")),
        _hd95("hd95_mm_native_class_mean", "HD95, by class", _class_mean("hd95_mm_native"), shown=False),
        Metric(
            name="hd95_mm_native_one_sided",
            title="without HD95",
            of=Number(_one_sided),
            fields=("hd95_mm_native", "nsd_native"),
            high=np.inf,
            lower_is_better=True,
            digits=1,
        ),
    ),
    ranked=("dice_native",),
    fields=(
        Field(name="dice_native", title="Dice on the scan's own grid", low=0, high=1, missing=True),
        Field(name="dice_paper", title="Dice on the encoder's grid", low=0, high=1, missing=True),
        Field(name="nsd_native", title="normalised surface Dice", low=0, high=1, missing=True),
        Field(name="hd95_mm_native", title="95th percentile of the Hausdorff distance", low=0, missing=True),
    ),
    probe="tapct.probes.segmentation:SegmentationProbe",
    dataset="tapct.tasks.segmentation:SegmentationDataset",
    page="tapct.leaderboard.page.kinds.segmentation",
    outcome=False,
    doubts=_doubts,
    head_fault=linear_head_fault,
    settings=("start_bias", "nsd_tolerance_mm"),
    background=True,
    dense=True,
    on_paper_grid={"dice_native": "dice_paper"},
    rows_to_beat=("chance", "intensity", "random-pyramid", "random weights"),
)
