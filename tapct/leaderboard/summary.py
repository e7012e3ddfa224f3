"""The statistics of one task: every model's number, what separates them, and the ranks that are left open."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tapct import numeric
from tapct.leaderboard import comparison, resampling
from tapct.leaderboard.inputs import LOWER_IS_BETTER, Metric, TaskInputs
from tapct.leaderboard.intervals import UNDEFINED_RESAMPLES, Estimate, estimate, no_interval

RESAMPLES = 2000
FEW_PATIENTS = 50
"""Below this many, intervals of a mean are often too short (André et al., "Some hidden traps of confidence intervals in
medical image segmentation", BRIDGE workshop at MICCAI 2025; for other metrics it takes more: arXiv:2601.17103)."""


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """One model on one task.

    Attributes:
        name: The model.
        estimate: The mean over seeds of the metric, with its interval over patients.
        seeds: The metric of each seed; None where it is undefined.
        seed_spread: Standard deviation over seeds (n - 1), which says nothing about patients; None with one seed, or
            where a seed is undefined.
    """

    name: str
    estimate: Estimate
    seeds: tuple[float | None, ...]
    seed_spread: float | None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two models on one task.

    Attributes:
        first: One model.
        second: The other.
        estimate: The metric of the first minus that of the second, with its interval: of this pair alone.
        p_value: Two-sided, of this pair alone.
        corrected: Two-sided, corrected for all pairs of the task: the one to judge by.
        better: The better of the two beyond chance; None if they cannot be told apart.
    """

    first: str
    second: str
    estimate: Estimate
    p_value: float
    corrected: float
    better: str | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How the models of a task compare.

    Attributes:
        differences: All pairs of the models that could be compared.
        rank_intervals: Per model that could be compared, the best and the worst rank that it may have.
        groups: Models that cannot be told apart, best first (see `comparison.tie_groups`).
        reason: Why models are left out, or nothing is here; None if all are compared.
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
        notice: What must stand beside every number, if anything.
        num_cases: Number of cases.
        num_patients: Number of patients.
        warnings: What to know before reading the numbers.
        models: M models.
        comparison: Their differences.
        value: (M,) the mean over seeds, NaN where undefined.
        draws: (M, R) the same in each resample.
        jackknife: (M, patients) the same with one patient left out at a time.
        swaps: (patients, R) the signs that chance is judged by (see `comparison.pairs`).
    """

    task: str
    metric: Metric
    notice: str | None
    num_cases: int
    num_patients: int
    warnings: tuple[str, ...]
    models: tuple[ModelSummary, ...]
    comparison: Comparison
    value: np.ndarray
    draws: np.ndarray
    jackknife: np.ndarray
    swaps: np.ndarray

    @property
    def sign(self) -> int:
        """1 where a higher value is better, else -1."""
        return -1 if self.metric in LOWER_IS_BETTER else 1

    @property
    def comparable(self) -> np.ndarray:
        """(M,) whether a model has a score, whoever is left out, and in (nearly) every resample."""
        everywhere = ~np.isnan(self.value) & ~np.isnan(self.jackknife).any(axis=1)
        return everywhere & (np.isnan(self.draws).mean(axis=1) <= UNDEFINED_RESAMPLES)


def summarise_task(inputs: TaskInputs, resamples: int = RESAMPLES) -> TaskSummary:
    """Returns the statistics of a task.

    Seeds: in each resample the metric is computed for every seed by itself, then averaged. The interval is that of
    the mean over these seeds for other patients, and does not hold what other seeds would give: three are too few to
    resample, so their spread stands beside the interval as a number of its own.
    """
    patients = inputs.num_patients
    found = resampling.resample(inputs, resamples)
    value, draws, jackknife = (of.mean(axis=1) for of in found)
    estimates = [
        estimate(float(v), d, j, patients, inputs.undefined) for v, d, j in zip(value, draws, jackknife, strict=True)
    ]
    summary = TaskSummary(
        task=inputs.task,
        metric=inputs.metric,
        notice=inputs.notice,
        num_cases=len(inputs.cases),
        num_patients=patients,
        warnings=few_patients(patients),
        models=tuple(
            _model(name, each, seeds) for name, each, seeds in zip(inputs.models, estimates, found.value, strict=True)
        ),
        comparison=Comparison(rank_intervals={}),
        value=value,
        draws=draws,
        jackknife=jackknife,
        swaps=resampling.draw_swaps(patients, resamples, inputs.key),
    )
    return replace(summary, comparison=compare(summary))


def few_patients(patients: int) -> tuple[str, ...]:
    """Returns what to know before reading intervals over so few patients, if anything."""
    few = f"{patients} patient{'s' * (patients > 1)}: under {FEW_PATIENTS}, intervals are often too short"
    return (few,) if patients < FEW_PATIENTS else ()


def compare(summary: TaskSummary) -> Comparison:
    """Returns the differences between the models of a task, and what follows from them."""
    patients, chosen = summary.num_patients, np.flatnonzero(summary.comparable)
    reason = no_interval(patients, summary.draws.shape[1])
    if reason or len(chosen) < 2:
        return Comparison(rank_intervals={}, reason=reason or "fewer than two models have a score to compare")
    names = [summary.models[index].name for index in chosen]
    value, draws, jackknife = (of[chosen] for of in (summary.value, summary.draws, summary.jackknife))
    found = comparison.pairs(value, jackknife, summary.swaps, summary.sign)
    alone, corrected = (of(found.evidence, found.chance) for of in (comparison.p_values, comparison.corrected_p_values))
    better = comparison.wins(found, corrected, len(chosen))
    differences = []
    for i, j, p, q in zip(found.first, found.second, alone, corrected, strict=True):
        apart, of_draws, of_jackknife = (numeric.difference(of[i], of[j]) for of in (value, draws, jackknife))
        gap = estimate(float(apart), of_draws, of_jackknife, patients, "")
        winner = names[i] if better[i, j] else names[j] if better[j, i] else None
        differences.append(
            Difference(
                first=names[i], second=names[j], estimate=gap, p_value=float(p), corrected=float(q), better=winner
            )
        )
    groups = comparison.tie_groups(better, numeric.best_first(value, summary.sign))
    left_out = len(summary.models) - len(chosen)
    return Comparison(
        differences=tuple(differences),
        rank_intervals={
            n: (int(a), int(b)) for n, (a, b) in zip(names, comparison.rank_intervals(better), strict=True)
        },
        groups=tuple(tuple(names[index] for index in group) for group in groups),
        reason=f"{left_out} models have no score in enough resamples" if left_out else None,
    )


def _model(name: str, value: Estimate, seeds: np.ndarray) -> ModelSummary:
    defined = len(seeds) > 1 and not np.isnan(seeds).any()
    return ModelSummary(
        name=name,
        estimate=value,
        seeds=tuple(None if np.isnan(seed) else float(seed) for seed in seeds),
        seed_spread=float(np.sqrt(numeric.variance(seeds))) if defined else None,
    )
