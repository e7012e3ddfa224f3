"""How well each model does with few labels: the metric over the fraction of patients that trained the probe."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tapct import numeric
from tapct.errors import RecordError
from tapct.records.record import Recorded
from tapct.statistics.header import OfMetric, header
from tapct.statistics.inputs import from_records, model_names, require_one_encoder
from tapct.statistics.intervals import Estimate, estimate
from tapct.statistics.resampling import Resampled, resample
from tapct.statistics.summary import RESAMPLES


@dataclass(frozen=True, kw_only=True)
class LabelPoint:
    """A model that was trained on a fraction of the patients.

    Attributes:
        fraction: The share of the training patients.
        patients: Their number; None where the records do not say it.
        estimate: Mean over subsets and seeds of the metric, with its interval over the reported patients.
        subsets: Mean over seeds for each subset, by its number; None where it is undefined.
        subset_spread: Standard deviation over subsets (n - 1) of these means: how much depends on who happened to be
            labelled. None with one subset, or where one is undefined.
        seed_spread: Standard deviation over seeds (n - 1), the root of its mean square over subsets; None with one
            seed, or where one is undefined.
    """

    fraction: float
    patients: int | None
    estimate: Estimate
    subsets: dict[int, float | None]
    subset_spread: float | None
    seed_spread: float | None


@dataclass(frozen=True, kw_only=True)
class LabelEfficiency(OfMetric):
    """One metric of one task over the fraction of patients that trained.

    Attributes:
        curves: Model to its points, one for each fraction that any model has, ascending.
    """

    curves: dict[str, tuple[LabelPoint, ...]]


def label_efficiency(
    records: Sequence[Recorded],
    metric: str,
    *,
    split: str = "test",
    names: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
) -> LabelEfficiency:
    """Returns every model's numbers for every fraction.

    In each resample the metric is computed for every subset and seed by itself, then averaged: the interval is that of
    the mean over these subsets and seeds for other reported patients, the same resamples for all points of a task. What
    other subsets of the training patients would give is not in it; their spread stands next to it. Where a model lacks
    a subset that another one has, its mean would be of other patients, and is left out.

    Args:
        records: One record per model, fraction and subset, which differ in nothing else.
        metric: The metric.
        split: The split that is reported.
        names: Name of the model of each record; by default its `model_names`.
        resamples: Number of resamples.

    Raises:
        RecordError: If records do not compare, or two are of one experiment.
    """
    models = list(names or model_names(records))
    experiments = [(m, *_trained_on(record)) for m, record in zip(models, records, strict=True)]
    twice = next((experiment for experiment in experiments if experiments.count(experiment) > 1), None)
    if twice:
        raise RecordError(f"two records are of {twice[0]} with the fraction {twice[1]:g}, subset {twice[2]}")
    require_one_encoder(models, records)
    labels = [f"{model}, fraction {fraction:g}, subset {subset}" for model, fraction, subset in experiments]
    inputs = from_records(records, metric, split=split, names=labels, vary={"train_fraction", "train_draw"})
    found = resample(inputs, resamples)
    wanted = {
        fraction: sorted({d for _, f, d in experiments if f == fraction})
        for fraction in sorted({c[1] for c in experiments})
    }
    patients = {_trained_on(record)[0]: record.task.patients.get("train") for record in records}

    def point(model: str, fraction: float) -> LabelPoint:
        rows = {
            subset: experiments.index(experiment)
            for subset in wanted[fraction]
            if (experiment := (model, fraction, subset)) in experiments
        }
        return _point(
            fraction, patients[fraction], rows, wanted[fraction], found, inputs.num_patients, inputs.undefined
        )

    return LabelEfficiency(
        **header(inputs),
        curves={model: tuple(point(model, fraction) for fraction in wanted) for model in dict.fromkeys(models)},
    )


def _trained_on(record: Recorded) -> tuple[float, int]:
    """Returns the fraction of the training patients and the subset."""
    return float(record.task.train_fraction), record.task.train_draw


def _point(
    fraction: float,
    patients: int | None,
    rows: dict[int, int],
    wanted: Sequence[int],
    found: Resampled,
    reported: int,
    undefined: str,
) -> LabelPoint:
    """Returns a point from the rows of `found` that its subsets are in."""
    missing = [str(subset) for subset in wanted if subset not in rows]
    if missing:
        reason = f"draw {', '.join(missing)} of the fraction {fraction:g} is missing" if rows else "not run"
        number = Estimate(None, None, None, reason)
    else:
        number = estimate(*found.mean(*rows.values()), reported, undefined)
    seeds = found.value[list(rows.values())]
    means = seeds.mean(axis=1)
    return LabelPoint(
        fraction=fraction,
        patients=patients,
        estimate=number,
        subsets={subset: None if np.isnan(mean) else float(mean) for subset, mean in zip(rows, means, strict=True)},
        subset_spread=_spread(means[:, None]),
        seed_spread=_spread(seeds.T),
    )


def _spread(values: np.ndarray) -> float | None:
    """Returns the root mean square over columns of the standard deviations of (n, columns) values."""
    if len(values) < 2 or values.size == 0 or np.isnan(values).any():
        return None
    return float(np.sqrt(numeric.variance(values).mean()))
