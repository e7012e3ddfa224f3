"""Segmentation: a label map on the grid of each scan, compared class by class."""

import numpy as np

from tapct import numeric
from tapct.kinds.base import Cases, Field, Kind, Mean, Metric, Number
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
    """Returns how many cells have a surface in one of prediction and reference, hence NSD and no HD95."""
    hd95, nsd = (_summary(cases, field).undefined_cells for field in ("hd95_mm_native", "nsd_native"))
    return float(hd95 - nsd)


def _hd95(name: str, title: str, of: Mean | Number, *, shown: bool = True) -> Metric:
    return Metric(name=name, title=title, of=of, high=np.inf, lower_is_better=True, unit="mm", digits=1, shown=shown)


KIND = Kind(
    name="segmentation",
    title="Segmentation",
    target="a label map on the grid of the scan",
    metrics=(
        Metric(name="dice_native", title="Dice", of=_mean_over_classes("dice_native")),
        Metric(name="dice_native_class_mean", title="Dice, by class", of=_class_mean("dice_native")),
        Metric(name="dice_paper", title="Dice", column="Dice, encoder's grid", of=_mean_over_classes("dice_paper")),
        Metric(
            name="dice_paper_class_mean",
            title="Dice, encoder's grid, by class",
            of=_class_mean("dice_paper"),
            shown=False,
        ),
        Metric(name="nsd_native", title="NSD", of=_mean_over_classes("nsd_native")),
        Metric(name="nsd_native_class_mean", title="NSD, by class", of=_class_mean("nsd_native"), shown=False),
        _hd95("hd95_mm_native", "HD95", _mean_over_classes("hd95_mm_native")),
        _hd95("hd95_mm_native_class_mean", "HD95, by class", _class_mean("hd95_mm_native"), shown=False),
        Metric(
            name="hd95_mm_native_one_sided",
            title="without HD95",
            of=Number(_one_sided),
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
    background=True,
    dense=True,
    on_paper_grid={"dice_native": "dice_paper"},
    beside=("chance", "intensity"),
)
