"""Metrics under resampling of patients: computed once for all resamples, from how often each patient was drawn."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from tapct import numeric
from tapct.kinds import PairRank, Statistic
from tapct.leaderboard.inputs import TaskInputs
from tapct.metrics import ranks

BLOCK = 16
"""Resamples at a time: 10,000 pairs of them stay in cache, which is more than twice as fast as 128 at a time."""

OfCounts = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""A metric of the (thresholds, R) numbers of positives and negatives at each threshold, see `tapct.metrics.ranks`."""


def draw_patients(patients: int, resamples: int, key: str) -> np.ndarray:
    """Draws patients with replacement.

    Whole patients are drawn, and all their cases come along: cases of one patient are alike, and drawn one by one
    they would count as independent evidence, which makes intervals too short (a test shows by how much).

    Args:
        patients: Number of patients.
        resamples: Number of resamples.
        key: Seeds the draw; the task's, so that all models and all metrics of a task share one set.

    Returns:
        (patients, resamples) how often each patient is in each resample, float64; each column sums to `patients`.
    """
    shares = np.full(patients, 1 / patients)
    return _generator(f"patients:{key}").multinomial(patients, shares, size=resamples).T.astype(np.float64)


def draw_swaps(patients: int, resamples: int, key: str) -> np.ndarray:
    """Draws the patients in whom the signs of what they add to a difference are turned (see `differences.measure`).

    For a mean over cases, that two models swap their results in these patients.

    Args:
        patients: Number of patients.
        resamples: Number of resamples.
        key: Seeds the draw; the task's, so that all pairs of models share one set.

    Returns:
        (patients, resamples) -1 where they are turned, else 1, each with probability 1/2.
    """
    return _generator(f"swaps:{key}").choice([-1.0, 1.0], size=(patients, resamples))


def _generator(key: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]))


class Resampled(NamedTuple):
    """A metric of M models and S seeds: as it is, in R resamples of n patients, and without each patient.

    Attributes:
        value: (M, S), NaN where undefined.
        draws: (M, S, R) likewise.
        jackknife: (M, S, n) likewise.
    """

    value: np.ndarray
    draws: np.ndarray
    jackknife: np.ndarray

    def mean(self, *rows: int) -> tuple[float, np.ndarray, np.ndarray]:
        """Returns the mean over the seeds of these models: the number, (R,) and (n,)."""
        value, draws, jackknife = (of[list(rows)].mean(axis=(0, 1)) for of in self)
        return float(value), draws, jackknife

    def difference(self, one: int, other: int) -> tuple[float, np.ndarray, np.ndarray]:
        """Returns the difference of two models' means over seeds, likewise; what is equal but for rounding is 0."""
        (value, *draws), (base, *base_draws) = self.mean(one), self.mean(other)
        apart = [numeric.difference(a, b) for a, b in zip(draws, base_draws, strict=True)]
        return float(numeric.difference(value, base)), apart[0], apart[1]


def resample(inputs: TaskInputs, resamples: int) -> Resampled:
    """Returns the metric under resampling of patients; of one task the resamples are always the same."""
    patients = inputs.num_patients
    drawn = draw_patients(patients, resamples, inputs.key)
    # Three questions in one pass: every patient once; the resamples; each patient left out in turn.
    counts = np.concatenate([np.ones((patients, 1)), drawn, 1 - np.eye(patients)], axis=1)
    value, draws, jackknife = np.split(evaluate(inputs, counts), [1, 1 + resamples], axis=2)
    return Resampled(value[:, :, 0], draws, jackknife)


def evaluate(inputs: TaskInputs, counts: np.ndarray) -> np.ndarray:
    """Returns the metric of every model and seed when each patient counts as often as he was drawn.

    With a column of ones this is the metric itself.

    Args:
        inputs: The task.
        counts: (patients, R) how often each patient was drawn, in the order of `inputs.patient_index`.

    Returns:
        (models, seeds, R), NaN where undefined.
    """
    of = inputs.of_metric.of
    if isinstance(of, Statistic):
        assert inputs.samples is not None
        drawn = counts[inputs.patient_index]
        return np.array([[of.of(cases, drawn) for cases in model] for model in inputs.samples])
    assert inputs.values is not None
    if not isinstance(of, PairRank):
        return mean_over_cases(inputs.values, inputs.patient_index, counts)
    metric = auroc if of.rank == "auroc" else average_precision
    pairs, targets, patients = inputs.pairs
    return np.array([[metric(seed, targets, patients, counts) for seed in model] for model in pairs])


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


def auroc(scores: np.ndarray, targets: np.ndarray, patients: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the area under the ROC curve in each resample, as `tapct.metrics.ranks.auroc` of the repeated cases.

    Args:
        scores: (N,) scores.
        targets: (N,) 0/1 references.
        patients: (N,) index of each pair's patient.
        counts: (patients, R) how often each patient was drawn, whole numbers.

    Returns:
        (R,), NaN where a resample lacks positives or negatives.
    """
    return _by_threshold(ranks.auroc_of_counts, scores, targets, patients, counts)


def average_precision(
    scores: np.ndarray,
    targets: np.ndarray,
    patients: np.ndarray,
    counts: np.ndarray,
    of_negatives: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the average precision in each resample; for the rest see `auroc`.

    Args:
        scores: See `auroc`.
        targets: Likewise.
        patients: Likewise.
        counts: Likewise; of the positives alone where the next is given.
        of_negatives: (patients, R) how often each patient's negatives count, where that is another number.
    """
    return _by_threshold(ranks.average_precision_of_counts, scores, targets, patients, counts, of_negatives)


def _by_threshold(
    metric: OfCounts,
    scores: np.ndarray,
    targets: np.ndarray,
    patients: np.ndarray,
    counts: np.ndarray,
    of_negatives: np.ndarray | None = None,
) -> np.ndarray:
    """Returns a metric in each resample; the pairs are sorted once, whatever the number of resamples."""
    threshold, positive = ranks.thresholds(scores, targets), targets == 1
    drawn = [each.astype(np.int64) for each in (counts, counts if of_negatives is None else of_negatives)]
    if (drawn[0] != counts).any():
        raise ValueError("counts must be whole numbers: how often each patient was drawn")
    # (thresholds, patients): how many pairs a patient has at a score. Times counts: how many there are in a resample.
    shape = (threshold.max(initial=0) + 1, len(counts))
    pairs = [
        csr_array((np.ones(of.sum(), dtype=np.int64), (threshold[of], patients[of])), shape)
        for of in (positive, ~positive)
    ]
    found = []
    for start in range(0, counts.shape[1], BLOCK):
        blocks = (np.ascontiguousarray(each[:, start : start + BLOCK]) for each in drawn)
        found.append(metric(*(each @ block for each, block in zip(pairs, blocks, strict=True))))
    return np.concatenate(found)
