"""Metrics under resampling of patients: computed once for all resamples, from how often each patient was drawn."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tapct import numeric
from tapct.kinds import PairRank, Statistic
from tapct.metrics.by_label import RANKS
from tapct.metrics.left_out import without_each
from tapct.metrics.resampled import in_resamples
from tapct.statistics.inputs import TaskInputs

AT_ONCE = 2**23
"""Numbers of cases times resamples that are looked at together: 64 MB."""


def draw_patients(patients: int, resamples: int, key: str) -> np.ndarray:
    """Draws patients with replacement.

    Whole patients are drawn, and all their cases come along: cases of one patient are alike, and drawn one by one
    they would count as independent evidence, which makes intervals too short (a test shows by how much).

    Args:
        patients: Number of patients.
        resamples: Number of resamples.
        key: Seeds the draw; the task's, so that all models and all metrics of a task share one set.

    Returns:
        (patients, resamples) how often each patient is in each resample, int32; each column sums to `patients`.
    """
    shares, generator = np.full(patients, 1 / patients), _generator(f"patients:{key}")
    found = np.empty((patients, resamples), dtype=np.int32)
    for block in _blocks(resamples, patients):  # one after the other, as all at once
        found[:, block] = generator.multinomial(patients, shares, size=block.stop - block.start).T
    return found


def draw_swaps(patients: int, resamples: int, key: str) -> np.ndarray:
    """Draws the patients in whom the signs of what they add to a difference are turned (see `differences.measure`).

    For a mean over cases, that two models swap their results in these patients.

    Args:
        patients: Number of patients.
        resamples: Number of resamples.
        key: Seeds the draw; the task's, so that all pairs of models share one set.

    Returns:
        (patients, resamples) -1 where they are turned, else 1, each with probability 1/2, int8.
    """
    generator, found = _generator(f"swaps:{key}"), np.empty((patients, resamples), dtype=np.int8)
    for block in _blocks(patients, resamples):
        found[block] = generator.choice([-1.0, 1.0], size=(block.stop - block.start, resamples))
    return found


def _blocks(number: int, each: int) -> Iterator[slice]:
    """Yields slices of so many rows or columns of `each` numbers that they may be looked at together."""
    step = max(1, AT_ONCE // max(1, each))
    return (slice(start, min(start + step, number)) for start in range(0, number, step))


def _generator(key: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]))


class Resampled(NamedTuple):
    """A metric of M models and S seeds: as it is, in R resamples of n patients, and without each patient.

    Attributes:
        value: (M, S), NaN where undefined.
        bootstrap: (M, S, R) likewise.
        jackknife: (M, S, n) likewise.
    """

    value: np.ndarray
    bootstrap: np.ndarray
    jackknife: np.ndarray

    def mean(self, *rows: int) -> tuple[float, np.ndarray, np.ndarray]:
        """Returns the mean over the seeds of these models: the number, (R,) and (n,)."""
        value, bootstrap, jackknife = (of[list(rows)].mean(axis=(0, 1)) for of in self)
        return float(value), bootstrap, jackknife

    def difference(self, one: int, other: int) -> tuple[float, np.ndarray, np.ndarray]:
        """Returns the difference of two models' means over seeds, likewise; what is equal but for rounding is 0."""
        (value, *bootstrap), (base, *base_bootstrap) = self.mean(one), self.mean(other)
        apart = [numeric.difference(a, b) for a, b in zip(bootstrap, base_bootstrap, strict=True)]
        return float(numeric.difference(value, base)), apart[0], apart[1]


def resample(inputs: TaskInputs, resamples: int) -> Resampled:
    """Returns the metric under resampling of patients; of one task the resamples are always the same."""
    patients = inputs.num_patients
    value = evaluate(inputs, np.ones((patients, 1), dtype=np.int32))[:, :, 0]
    return Resampled(value, evaluate(inputs, draw_patients(patients, resamples, inputs.key)), left_out(inputs))


def evaluate(inputs: TaskInputs, counts: np.ndarray) -> np.ndarray:
    """Returns the metric of every model and seed when each patient counts as often as they were drawn.

    With a column of ones this is the metric itself. Memory is bounded, whatever the number of cases.

    Args:
        inputs: The task.
        counts: (patients, R) how often each patient was drawn, in the order of `inputs.patient_index`.

    Returns:
        (models, seeds, R), NaN where undefined.
    """
    of = inputs.of_metric.of
    if isinstance(of, PairRank):
        pairs, targets, patients = inputs.pairs
        metric = [RANKS[of.rank].of_counts]
        ranked = [[in_resamples(metric, seed, targets, patients, counts)[0] for seed in model] for model in pairs]
        return np.array(ranked)
    found = [
        _of_cases(inputs, counts[inputs.patient_index, block].astype(np.float64))
        for block in _blocks(counts.shape[1], len(inputs.cases))
    ]
    return np.concatenate(found, axis=2)


def _of_cases(inputs: TaskInputs, drawn: np.ndarray) -> np.ndarray:
    """Returns the same of (C, R) how often each case was drawn."""
    of = inputs.of_metric.of
    if isinstance(of, Statistic):
        assert inputs.samples is not None
        return np.array([[of.of(cases, drawn) for cases in model] for model in inputs.samples])
    assert inputs.values is not None
    return mean_over_cases(inputs.values, np.arange(len(drawn)), drawn)


def left_out(inputs: TaskInputs) -> np.ndarray:
    """Returns (models, seeds, n) the metric of every model and seed without each patient, NaN where undefined."""
    of, patients = inputs.of_metric.of, inputs.num_patients
    if isinstance(of, PairRank):
        pairs, targets, index = inputs.pairs
        without = RANKS[of.rank].without
        return np.array([[without(without_each(seed, targets, index, patients)) for seed in model] for model in pairs])
    if isinstance(of, Statistic) and of.without is not None:
        assert inputs.samples is not None
        return np.array([[of.without(cases, inputs.patient_index) for cases in model] for model in inputs.samples])
    found = []
    for block in _blocks(patients, max(patients, len(inputs.cases))):
        counts = np.ones((patients, block.stop - block.start), dtype=np.int32)
        counts[np.arange(block.start, block.stop), np.arange(block.stop - block.start)] = 0
        found.append(evaluate(inputs, counts))
    return np.concatenate(found, axis=2)


def mean_over_cases(scores: np.ndarray, patients: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the mean of the defined cases in each resample.

    Args:
        scores: (..., C), NaN where undefined.
        patients: (C,) index of each case's patient.
        counts: (patients, R) how often each patient was drawn.

    Returns:
        (..., R), NaN where no case that was drawn is defined.
    """
    flat, drawn = scores.reshape(-1, scores.shape[-1]), counts[patients]
    defined = ~np.isnan(flat)
    total = numeric.exact_sums(np.where(defined, flat, 0.0), drawn)
    number = defined.astype(np.float64) @ drawn
    with np.errstate(invalid="ignore"):
        return (total / number).reshape(*scores.shape[:-1], counts.shape[1])
