"""Encoder x adaptor: the same stored features under several adaptors, and what the numbers' variance is made of."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from tapct import numeric
from tapct.leaderboard import thin
from tapct.leaderboard.inputs import Metric, from_records
from tapct.leaderboard.intervals import Estimate, estimate, no_interval
from tapct.leaderboard.resampling import Resampled, resample
from tapct.leaderboard.summary import RESAMPLES
from tapct.records.record import Record

Source = Literal["encoder", "adaptor", "encoder x adaptor", "seed", "patients"]
SOURCES: tuple[Source, ...] = get_args(Source)

Key = tuple[str, str]
"""A model and an adaptor."""


@dataclass(frozen=True, kw_only=True)
class AdaptorCell:
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

    source: Source
    sd: Estimate
    share: Estimate


@dataclass(frozen=True, kw_only=True)
class AdaptorGrid:
    """One metric of one task over encoders and adaptors.

    Attributes:
        task: Name of the task.
        metric: The metric.
        ranked: The adaptor that the task is ranked on.
        notice: What must stand beside every number, if anything.
        num_patients: Reported patients.
        warnings: What to know before reading the numbers.
        models: Best first under the ranked adaptor, those without it last.
        adaptors: The ranked one first.
        cells: What was run.
        components: The variance components; empty where there is a reason.
        crossed: The models and the adaptors that they are of.
        reason: Why there are none.
    """

    task: str
    metric: Metric
    ranked: str
    notice: str | None
    num_patients: int
    warnings: tuple[str, ...]
    models: tuple[str, ...]
    adaptors: tuple[str, ...]
    cells: Mapping[Key, AdaptorCell]
    components: tuple[Component, ...] = ()
    crossed: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    reason: str | None = None


def adaptor_grid(
    records: Mapping[Key, Record],
    metric: Metric,
    ranked: str,
    *,
    controls: Collection[str] = (),
    resamples: int = RESAMPLES,
) -> AdaptorGrid:
    """Returns the numbers of all cells and the components of their variance.

    Args:
        records: A record per model and adaptor, which differ in nothing else than what adaptors differ in by nature.
        metric: The metric.
        ranked: The adaptor that the task is ranked on.
        controls: Models that are no pretrained encoders (random weights, chance): they are shown, but what lies
            between them and encoders is no variance of encoders.
        resamples: Resamples of the patients.

    Raises:
        RecordError: If records do not compare.
    """
    keys = list(records)
    names = [f"{model} with {adaptor}" for model, adaptor in keys]
    inputs = from_records([records[key] for key in keys], metric, names=names, vary={"adaptor"})
    found = resample(inputs, resamples)
    cells = {}
    for row, (model, adaptor) in enumerate(keys):
        seeds = found.value[row]
        spread = float(np.sqrt(numeric.variance(seeds))) if len(seeds) > 1 and not np.isnan(seeds).any() else None
        number = estimate(*found.mean(row), inputs.num_patients, inputs.undefined)
        cells[model, adaptor] = AdaptorCell(model=model, adaptor=adaptor, estimate=number, seed_spread=spread)
    values = {key: cell.estimate.value for key, cell in cells.items()}
    crossed = _crossed([key for key in keys if key[0] not in controls and values[key] is not None])
    components, reason = _components(found, keys, crossed, inputs.num_patients)
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
        cells=cells,
        components=components,
        crossed=crossed,
        reason=reason,
    )


def _crossed(keys: Sequence[Key]) -> tuple[tuple[str, ...], tuple[str, ...]]:
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
    """Returns the mean squares of (encoders, adaptors, ...) numbers, one per cell: of rows, columns and the rest."""
    rows, columns = table.shape[:2]
    grand, by_row, by_column = table.mean(axis=(0, 1)), table.mean(axis=1), table.mean(axis=0)
    rest = table - by_row[:, None] - by_column[None] + grand
    return MeanSquares(
        columns * ((by_row - grand) ** 2).sum(axis=0) / (rows - 1),
        rows * ((by_column - grand) ** 2).sum(axis=0) / (columns - 1),
        (rest**2).sum(axis=(0, 1)) / ((rows - 1) * (columns - 1)),
    )


def _components(
    found: Resampled, keys: Sequence[Key], crossed: tuple[tuple[str, ...], tuple[str, ...]], patients: int
) -> tuple[tuple[Component, ...], str | None]:
    """Returns the components of a complete part of the grid, or why there are none.

    By the method of moments for two crossed factors: a mean square is the sum of what its factor, the interaction,
    the seeds and the choice of patients put into it. What patients put in is what resampling them puts in (the same
    patients for all cells, so what makes all of them higher or lower together is no difference between encoders). In
    resamples it is there twice, and is taken off twice. Components under zero are set to zero.
    """
    if not crossed[0]:
        return (), "fewer than two pretrained encoders have two adaptors in common"
    resamples = found.draws.shape[2]
    if why := no_interval(patients, resamples):
        return (), why
    place = np.array([[keys.index((model, adaptor)) for adaptor in crossed[1]] for model in crossed[0]])
    value, draws, jackknife = (of[place] for of in found)  # (encoders, adaptors, seeds, ...)
    defined = ~np.isnan(draws).any(axis=(0, 1, 2))
    if not defined.any():
        return (), "no resample defines the metric in every cell"
    short = patients / (patients - 1)
    of_cells = draws[..., defined].mean(axis=2)
    noise = of_cells - of_cells.mean(axis=-1, keepdims=True)
    taken = MeanSquares(*(short * square.mean() for square in mean_squares(noise)))
    between = float(short * (noise**2).mean())

    def variances(numbers: np.ndarray, times: int) -> np.ndarray:
        """Returns (sources, ...) components of (encoders, adaptors, seeds, ...) numbers."""
        seeds = numbers.shape[2]
        seed = numeric.variance(numbers, axis=2).mean(axis=(0, 1)) if seeds > 1 else np.zeros(numbers.shape[3:])
        e, a, both = (got - times * off for got, off in zip(mean_squares(numbers.mean(axis=2)), taken, strict=True))
        columns, rows = len(crossed[1]), len(crossed[0])
        parts = [(e - both) / columns, (a - both) / rows, both - seed / seeds, seed, np.full_like(seed, between)]
        stacked = np.stack(np.broadcast_arrays(*parts))
        return np.where(stacked <= numeric.TOLERANCE**2, 0.0, stacked)

    whole, drawn, without = variances(value, 1), variances(draws, 2), variances(jackknife, 1)
    return tuple(_as_components(whole, drawn, without, patients, one_seed=value.shape[2] == 1)), None


def _as_components(
    whole: np.ndarray, drawn: np.ndarray, without: np.ndarray, patients: int, *, one_seed: bool
) -> list[Component]:
    total = whole.sum()
    components = []
    for row, source in enumerate(SOURCES):
        if one_seed and source == "seed":
            none = Estimate(None, None, None, "one run: what a seed does is part of encoder x adaptor")
            components.append(Component(source=source, sd=none, share=none))
            continue
        sd = estimate(float(np.sqrt(whole[row])), np.sqrt(drawn[row]), np.sqrt(without[row]), patients, "")
        if source == "patients":
            sd = Estimate(sd.value, None, None, "it is what the intervals are made of")
        if total == 0:
            share = Estimate(None, None, None, "nothing varies")
        else:
            with np.errstate(invalid="ignore"):
                resampled, left_out = (of[row] / of.sum(axis=0) for of in (drawn, without))
            share = estimate(float(whole[row] / total), resampled, left_out, patients, "")
        components.append(Component(source=source, sd=sd, share=share))
    return components
