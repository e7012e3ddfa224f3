"""The statistics of one task: every model's number, what separates them, and the ranks that are left open."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tapct import kinds, numeric
from tapct.statistics import comparison, resampling, thin
from tapct.statistics.differences import Pairs, measure, too_few
from tapct.statistics.inputs import TaskInputs
from tapct.statistics.intervals import UNDEFINED_RESAMPLES, Estimate, estimate
from tapct.statistics.levels import Levels, levels, no_levels

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """One model on one task.

    Attributes:
        name: The model.
        estimate: The mean over seeds of the metric, with its interval over patients.
        seeds: The metric of each seed; None where it is undefined.
        seed_spread: Standard deviation over seeds (n - 1), which says nothing about patients; None with one seed, or
            where a seed is undefined.
        warnings: What to know before reading this number (see `thin.of_model`).
    """

    name: str
    estimate: Estimate
    seeds: tuple[float | None, ...]
    seed_spread: float | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two models on one task.

    Attributes:
        first: One model.
        second: The other.
        estimate: The metric of the first minus that of the second, with its interval: of this pair alone.
        p_value: Two-sided, of this pair alone: 5 % or less if and only if the interval is without 0.
        corrected: Two-sided, corrected for all pairs of the task: the one to judge by.
        better: The better of the two beyond chance; None if they cannot be told apart.
        cases: Cases on which both are defined, which it is of: all, or `ModelComparison.reason` says so.
    """

    first: str
    second: str
    estimate: Estimate
    p_value: float
    corrected: float
    better: str | None
    cases: int


@dataclass(frozen=True, kw_only=True)
class ModelComparison:
    """How the models of a task compare.

    Attributes:
        differences: All pairs of the models that could be compared.
        rank_intervals: Per model that could be compared, the best and the worst rank that it may have.
        groups: Models that cannot be told apart, best first (see `comparison.tie_groups`).
        reason: Why models or cases are left out, or nothing is here; None if all are compared on all cases.
    """

    differences: tuple[Difference, ...] = ()
    rank_intervals: Mapping[str, tuple[int, int]]
    groups: tuple[tuple[str, ...], ...] = ()
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskSummary:
    """The statistics of one metric of one task.

    Attributes:
        task: Name of the task.
        metric: The metric.
        unit: Its unit; None where it has none.
        notice: What must stand next to every number, if anything.
        num_cases: Number of cases.
        num_patients: Number of patients.
        warnings: What to know before reading the numbers.
        models: M models.
        comparison: Their differences.
        value: (M,) the mean over seeds, NaN where undefined.
        bootstrap: (M, R) the same in each resample.
        jackknife: (M, patients) the same with one patient left out at a time.
        levels: The differences and what chance makes of them, for several tasks together.
    """

    task: str
    metric: str
    unit: str | None
    notice: str | None
    num_cases: int
    num_patients: int
    warnings: tuple[str, ...]
    models: tuple[ModelSummary, ...]
    comparison: ModelComparison
    value: np.ndarray
    bootstrap: np.ndarray
    jackknife: np.ndarray
    levels: Levels

    @property
    def sign(self) -> int:
        """1 where a higher value is better, else -1."""
        return kinds.metric(self.metric).sign


def summarise_task(inputs: TaskInputs, resamples: int = RESAMPLES) -> TaskSummary:
    """Returns the statistics of a task.

    Seeds: in each resample the metric is computed for every seed by itself, then averaged. The interval is that of
    the mean over these seeds for other patients, and does not hold what other seeds would give: three are too few to
    resample, so their spread stands next to the interval as a number of its own.
    """
    patients = inputs.num_patients
    found = resampling.resample(inputs, resamples)
    value, bootstrap, jackknife = (of.mean(axis=1) for of in found)
    estimates = [
        estimate(float(v), d, j, patients, inputs.undefined)
        for v, d, j in zip(value, bootstrap, jackknife, strict=True)
    ]
    models = zip(inputs.models, estimates, found.value, jackknife, strict=True)
    named = tuple(_model(name, each, seeds, thin.of_model(left_out)) for name, each, seeds, left_out in models)
    return _summary(inputs, named, (value, bootstrap, jackknife))


def summarise_change(
    before: TaskInputs, after: TaskInputs, summaries: tuple[TaskSummary, TaskSummary], name: str
) -> TaskSummary:
    """Returns the statistics of how much each model's number has changed: its number now less that before.

    The better of two models is the one that has lost less (or gained more), in the order of the metric.

    Args:
        before: The models before.
        after: The same models on the same cases now.
        summaries: Their statistics, of as many resamples.
        name: What the change is called, in place of the task.
    """
    then, now = (resampling.Resampled(of.value, of.bootstrap, of.jackknife) for of in summaries)
    value, bootstrap, jackknife = (numeric.difference(b, a) for a, b in zip(then, now, strict=True))
    seeds = [
        np.array([np.nan if None in pair else pair[1] - pair[0] for pair in zip(a.seeds, b.seeds, strict=True)])
        for a, b in zip(*(of.models for of in summaries), strict=True)
    ]
    named = tuple(
        _model(model, estimate(float(v), d, j, after.num_patients, after.undefined), of_seeds, ())
        for model, v, d, j, of_seeds in zip(after.models, value, bootstrap, jackknife, seeds, strict=True)
    )
    return replace(_summary(after, named, (value, bootstrap, jackknife), before), task=name)


def _summary(
    inputs: TaskInputs,
    models: tuple[ModelSummary, ...],
    numbers: tuple[np.ndarray, np.ndarray, np.ndarray],
    before: TaskInputs | None = None,
) -> TaskSummary:
    """Returns the statistics of a task, given its models, and (M, ...) numbers as they are, resampled, and left out."""
    value, bootstrap, jackknife = numbers
    # A score, whoever is left out, and in (nearly) every resample.
    comparable = ~np.isnan(value) & ~np.isnan(jackknife).any(axis=1)
    comparable &= np.isnan(bootstrap).mean(axis=1) <= UNDEFINED_RESAMPLES
    of_models, by_level = compare(inputs, value, comparable, bootstrap.shape[1], before)
    return TaskSummary(
        task=inputs.task,
        metric=inputs.metric,
        unit=inputs.unit,
        notice=inputs.notice,
        num_cases=len(inputs.cases),
        num_patients=inputs.num_patients,
        warnings=thin.of_task(inputs),
        models=models,
        comparison=of_models,
        value=value,
        bootstrap=bootstrap,
        jackknife=jackknife,
        levels=by_level,
    )


def compare(
    inputs: TaskInputs, value: np.ndarray, comparable: np.ndarray, resamples: int, before: TaskInputs | None = None
) -> tuple[ModelComparison, Levels]:
    """Returns the differences between the models of a task, what follows from them, and their levels.

    Args:
        inputs: The task.
        value: (M,) the mean over seeds, NaN where undefined.
        comparable: (M,) which models are compared.
        resamples: Number of resamples.
        before: The same models on the same cases, where it is changes that are compared (see `differences.measure`).
    """
    chosen = np.flatnonzero(comparable)
    reason = too_few(inputs) or ("fewer than two models have a score to compare" if len(chosen) < 2 else None)
    if reason:
        return ModelComparison(rank_intervals={}, reason=reason), no_levels(resamples)
    swaps = resampling.draw_swaps(inputs.num_patients, resamples, inputs.key)
    found = measure(inputs, chosen, value, swaps, before)
    sizes, count = np.abs(found.chance), len(inputs.models)
    alone, corrected = (of(found.evidence, sizes) for of in (comparison.p_values, comparison.corrected_p_values))
    better = comparison.wins(found, corrected, count, inputs.sign)
    gaps = comparison.estimates(found, alone, inputs.of_metric.span)
    differences = [
        Difference(
            first=inputs.models[i],
            second=inputs.models[j],
            estimate=gap,
            p_value=float(p),
            corrected=float(q),
            better=inputs.models[i] if better[i, j] else inputs.models[j] if better[j, i] else None,
            cases=int(cases),
        )
        for i, j, gap, p, q, cases in zip(found.first, found.second, gaps, alone, corrected, found.cases, strict=True)
    ]
    better = better[np.ix_(chosen, chosen)]
    names = [inputs.models[index] for index in chosen]
    ends = comparison.rank_intervals(better).tolist()
    groups = comparison.tie_groups(better, numeric.best_first(value[chosen], inputs.sign))
    return ModelComparison(
        differences=tuple(differences),
        rank_intervals={name: (best, worst) for name, (best, worst) in zip(names, ends, strict=True)},
        groups=tuple(tuple(names[index] for index in group) for group in groups),
        reason="; ".join(_left_out(inputs, chosen, found)) or None,
    ), levels(found, inputs.sign)


def _left_out(inputs: TaskInputs, chosen: np.ndarray, found: Pairs) -> Iterator[str]:
    """Yields which models, pairs and cases are not in the comparison."""
    left_out = len(inputs.models) - len(chosen)
    if left_out:
        yield f"{left_out} models have no score in enough resamples"
    pairs = len(chosen) * (len(chosen) - 1) // 2 - len(found.gap)
    if pairs:
        yield f"{pairs} pairs of models have too few patients in common on whom both are defined"
    partly = found.cases < len(inputs.cases)
    if partly.any():
        yield (
            f"{partly.sum()} pairs of models are compared on the cases alone on which both are defined, "
            f"{found.cases.min()} or more of {len(inputs.cases)}"
        )


def _model(name: str, value: Estimate, seeds: np.ndarray, warnings: tuple[str, ...]) -> ModelSummary:
    defined = len(seeds) > 1 and not np.isnan(seeds).any()
    return ModelSummary(
        name=name,
        estimate=value,
        seeds=tuple(None if np.isnan(seed) else float(seed) for seed in seeds),
        seed_spread=float(np.sqrt(numeric.variance(seeds))) if defined else None,
        warnings=warnings,
    )
