"""Encoder x adaptor: the same stored features under several adaptors, and what the numbers' variance is made of."""

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from tapct import numeric
from tapct.records.record import Recorded
from tapct.statistics import thin
from tapct.statistics.inputs import TaskInputs, from_records
from tapct.statistics.intervals import Estimate, estimate, no_interval
from tapct.statistics.resampling import Resampled, draw_patients, resample
from tapct.statistics.summary import RESAMPLES

VarianceSource = Literal["encoder", "adaptor", "encoder x adaptor", "seed", "patients"]
SOURCES: tuple[VarianceSource, ...] = get_args(VarianceSource)

_Key = tuple[str, str]
"""A model and an adaptor."""


@dataclass(frozen=True, kw_only=True)
class AdaptorExperiment:
    """A model under an adaptor.

    Attributes:
        model: The model.
        adaptor: The adaptor.
        estimate: Mean over seeds of the metric, with its interval over patients.
        seed_spread: Standard deviation over seeds (n - 1): 0 of solved heads, which no seed decides; None with one.
    """

    model: str
    adaptor: str
    estimate: Estimate
    seed_spread: float | None


@dataclass(frozen=True, kw_only=True)
class Component:
    """What one source does to a number.

    Attributes:
        source: The source.
        sd: Its standard deviation, in the unit of the metric.
        share: Its share of the variance of one run's number.
    """

    source: VarianceSource
    sd: Estimate
    share: Estimate


@dataclass(frozen=True, kw_only=True)
class AdaptorGrid:
    """One metric of one task over encoders and adaptors.

    Attributes:
        task: Name of the task.
        metric: The metric.
        ranked: The adaptor that the task is ranked on.
        notice: What must stand next to every number, if anything.
        num_patients: Reported patients.
        warnings: What to know before reading the numbers.
        models: Best first under the ranked adaptor, those without it last.
        adaptors: The ranked one first.
        experiments: What was run.
        components: The variance components; empty where there is a reason.
        crossed: The models and the adaptors that they are of.
        reason: Why there are none.
    """

    task: str
    metric: str
    ranked: str
    notice: str | None
    num_patients: int
    warnings: tuple[str, ...]
    models: tuple[str, ...]
    adaptors: tuple[str, ...]
    experiments: Mapping[_Key, AdaptorExperiment]
    components: tuple[Component, ...] = ()
    crossed: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    reason: str | None = None


def adaptor_grid(
    records: Mapping[_Key, Recorded],
    metric: str,
    ranked: str,
    *,
    controls: Collection[str] = (),
    resamples: int = RESAMPLES,
) -> AdaptorGrid:
    """Returns the numbers of all experiments and the components of their variance.

    Args:
        records: A record per model and adaptor, which differ in nothing else than what adaptors differ in by nature.
        metric: The metric.
        ranked: The adaptor that the task is ranked on.
        controls: Models that are not pretrained encoders (random weights, chance): they are shown, but what lies
            between them and encoders is not a variance of encoders.
        resamples: Resamples of the patients.

    Raises:
        RecordError: If records do not compare.
    """
    keys = list(records)
    names = [f"{model} with {adaptor}" for model, adaptor in keys]
    inputs = from_records([records[key] for key in keys], metric, names=names, vary={"adaptor"})
    found = resample(inputs, resamples)
    experiments = {}
    for row, (model, adaptor) in enumerate(keys):
        seeds = found.value[row]
        spread = float(np.sqrt(numeric.variance(seeds))) if len(seeds) > 1 and not np.isnan(seeds).any() else None
        number = estimate(*found.mean(row), inputs.num_patients, inputs.undefined)
        experiments[model, adaptor] = AdaptorExperiment(
            model=model, adaptor=adaptor, estimate=number, seed_spread=spread
        )
    values = {key: experiment.estimate.value for key, experiment in experiments.items()}
    crossed = _crossed([key for key in keys if key[0] not in controls and values[key] is not None])
    components, reason = _of_crossed(found, keys, crossed, inputs)
    models = sorted({model for model, _ in keys})
    best_first = numeric.best_first([values.get((model, ranked)) for model in models], inputs.sign)
    others = sorted({adaptor for _, adaptor in keys} - {ranked})
    return AdaptorGrid(
        task=inputs.task,
        metric=metric,
        ranked=ranked,
        notice=inputs.notice,
        num_patients=inputs.num_patients,
        warnings=thin.of_task(inputs),
        models=tuple(models[place] for place in best_first),
        adaptors=(*(a for a in (ranked,) if any(a == other for _, other in keys)), *others),
        experiments=experiments,
        components=components,
        crossed=crossed,
        reason=reason,
    )


def _crossed(keys: Sequence[_Key]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the models and the adaptors of the largest complete part of a grid, two by two at least; else none."""
    of = {adaptor: {model for model, other in keys if other == adaptor} for adaptor in sorted({a for _, a in keys})}
    best: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    for number in range(len(of), 1, -1):
        for chosen in itertools.combinations(of, number):
            models = set.intersection(*(of[adaptor] for adaptor in chosen))
            if len(models) > 1 and len(models) * number > len(best[0]) * len(best[1]):
                best = tuple(sorted(models)), chosen
    return best


# -- Variance components -------------------------------------------------------------------------------


class MeanSquares(NamedTuple):
    """Of a two-way table, each of the shape that is behind its first two axes."""

    encoder: np.ndarray
    adaptor: np.ndarray
    both: np.ndarray


def mean_squares(table: np.ndarray) -> MeanSquares:
    """Returns the mean squares of (encoders, adaptors, ...) numbers, by experiment: of rows, columns and the rest."""
    rows, columns = table.shape[:2]
    grand, by_row, by_column = table.mean(axis=(0, 1)), table.mean(axis=1), table.mean(axis=0)
    rest = table - by_row[:, None] - by_column[None] + grand
    return MeanSquares(
        columns * ((by_row - grand) ** 2).sum(axis=0) / (rows - 1),
        rows * ((by_column - grand) ** 2).sum(axis=0) / (columns - 1),
        (rest**2).sum(axis=(0, 1)) / ((rows - 1) * (columns - 1)),
    )


def _of_crossed(
    found: Resampled, keys: Sequence[_Key], crossed: tuple[tuple[str, ...], tuple[str, ...]], inputs: TaskInputs
) -> tuple[tuple[Component, ...], str | None]:
    """Returns the components of the complete part of a grid, or why there are none."""
    if not crossed[0]:
        return (), "fewer than two pretrained encoders have two adaptors in common"
    place = np.array([[keys.index((model, adaptor)) for adaptor in crossed[1]] for model in crossed[0]])
    counts = draw_patients(inputs.num_patients, found.bootstrap.shape[-1], inputs.key)  # the resamples', once more
    return variance_components(Resampled(*(of[place] for of in found)), counts)


def variance_components(found: Resampled, counts: np.ndarray) -> tuple[tuple[Component, ...], str | None]:
    """Returns the components of a complete grid of encoders and adaptors, or why there are none.

    By the method of moments for two crossed factors: a mean square is the sum of what its factor, the interaction,
    the seeds and the choice of patients put into it. What patients put in is taken from how the numbers change without
    each of them (the jackknife; the same patients for all experiments, so what makes all of them higher or lower
    together is no difference between encoders), and taken off. Components under zero are set to zero.

    Args:
        found: The metric, of (encoders, adaptors, seeds, ...).
        counts: (patients, R) how often each patient is in each resample.
    """
    patients, resamples = counts.shape
    if why := no_interval(patients, resamples):
        return (), why
    value, bootstrap, jackknife = found
    if np.isnan(jackknife).any():
        return (), "too few patients define the metric: without one of them it is undefined in some experiment"
    moves = (patients - 1) * (jackknife.mean(axis=-1, keepdims=True) - jackknife)
    by_patient = np.stack([*_squares(moves), (moves**2).mean(axis=(0, 1, 2))]) / (patients * (patients - 1))
    noise = by_patient.sum(axis=1)
    resampled, left_out = by_patient @ counts, (noise[:, None] - by_patient) * patients / (patients - 1)
    # A resample has its own choice of patients on top of the sample's: that is taken off as well.
    whole = _moments(value, noise, noise[-1])
    drawn = _moments(bootstrap, resampled + noise[:, None], resampled[-1])
    without = _moments(jackknife, left_out, left_out[-1])
    return tuple(_as_components(whole, drawn, without, patients, one_seed=value.shape[2] == 1)), None


def _squares(numbers: np.ndarray) -> np.ndarray:
    """Returns (4, ...) of (encoders, adaptors, seeds, ...) numbers: mean squares, and the variance over seeds."""
    seeds = numbers.shape[2]
    seed = numeric.variance(numbers, axis=2).mean(axis=(0, 1)) if seeds > 1 else np.zeros(numbers.shape[3:])
    return np.stack([*mean_squares(numbers.mean(axis=2)), seed])


def _moments(numbers: np.ndarray, noise: np.ndarray, between: np.ndarray) -> np.ndarray:
    """Returns (sources, ...) components, which may be under zero.

    Args:
        numbers: (encoders, adaptors, seeds, ...).
        noise: (5, ...) what patients put into `_squares`, and anything.
        between: (...) what they put into a number.
    """
    rows, columns, seeds = numbers.shape[:3]
    encoder, adaptor, both, seed = _squares(numbers) - noise[:4]
    parts = [(encoder - both) / columns, (adaptor - both) / rows, both - seed / seeds, seed, between]
    return np.stack(parts)


def _as_components(
    whole: np.ndarray, drawn: np.ndarray, without: np.ndarray, patients: int, *, one_seed: bool
) -> list[Component]:
    """Returns the components as they are shown.

    Intervals are taken before anything is set to zero, and their ends then as the numbers: else a component that is
    often zero in resamples had none.
    """
    totals = [np.maximum(of, 0).sum(axis=0) for of in (whole, drawn, without)]
    components = []
    for row, source in enumerate(SOURCES):
        if one_seed and source == "seed":
            none = Estimate(None, None, None, "one run: what a seed does is part of encoder x adaptor")
            components.append(Component(source=source, sd=none, share=none))
            continue
        part, of_draws, of_jackknife = parts = [_cleared(of[row]) for of in (whole, drawn, without)]
        sd = estimate(float(part), of_draws, of_jackknife, patients, "")
        if totals[0] <= numeric.TOLERANCE**2:
            share = Estimate(None, None, None, "nothing varies")
        else:
            with np.errstate(invalid="ignore", divide="ignore"):
                part, of_draws, of_jackknife = (of / total for of, total in zip(parts, totals, strict=True))
            share = estimate(float(part), of_draws, of_jackknife, patients, "")
        components.append(
            Component(source=source, sd=_mapped(sd, lambda v: math.sqrt(max(v, 0))), share=_mapped(share, _as_share))
        )
    return components


def _cleared(variances: np.ndarray) -> np.ndarray:
    """Returns variances, exactly zero where they are no more than rounding."""
    return np.where(np.abs(variances) <= numeric.TOLERANCE**2, 0.0, variances)


def _as_share(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def _mapped(of: Estimate, change: Callable[[float], float]) -> Estimate:
    """Returns an estimate whose value and ends are changed by a function that keeps their order."""
    value, low, high = (None if v is None else change(v) for v in (of.value, of.low, of.high))
    return Estimate(value, low, high, of.reason)
