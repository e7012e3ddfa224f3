"""AUROC and average precision of pairs that count as often as their patient was drawn."""

from collections.abc import Callable, Sequence

import numpy as np

from tapct.metrics import ranks

BLOCK = 32
"""Resamples at a time, of which some thousand pairs stay in cache; 128 at a time take a third longer."""

OfCounts = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""A metric of the (thresholds, R) numbers of positives and negatives at each threshold, see `tapct.metrics.ranks`."""


def in_resamples(
    metrics: Sequence[OfCounts],
    scores: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    counts: np.ndarray,
    of_negatives: np.ndarray | None = None,
) -> np.ndarray:
    """Returns metrics in each resample, as those of the repeated pairs, to the bit.

    Args:
        metrics: M metrics.
        scores: (N,) scores.
        targets: (N,) 0/1 targets.
        groups: (N,) number of each pair's patient (or case).
        counts: (G, R) how often each was drawn, whole numbers; of the positives alone where the next is given.
        of_negatives: (G, R) how often each one's negatives count, where that is another number.

    Returns:
        (M, R), NaN where undefined.

    Raises:
        ValueError: If counts are no whole numbers, a score is NaN, or a target neither 0 nor 1.
    """
    place = ranks.thresholds(scores, targets)
    number = int(place.max(initial=0)) + 1
    positive = _ByThreshold(place, groups, targets == 1, number)
    negative = _ByThreshold(place, groups, targets == 0, number)
    found = np.empty((len(metrics), counts.shape[1]))
    for start in range(0, counts.shape[1], BLOCK):
        block = slice(start, start + BLOCK)
        of_positives = _whole(counts[:, block])
        drawn = of_positives if of_negatives is None else _whole(of_negatives[:, block])
        both = positive.sums(of_positives), negative.sums(drawn)
        for row, metric in enumerate(metrics):
            found[row, block] = metric(*both)
    return found


class _ByThreshold:
    """Pairs of one class in the order of their thresholds."""

    def __init__(self, place: np.ndarray, groups: np.ndarray, chosen: np.ndarray, number: int) -> None:
        rows = np.flatnonzero(chosen)
        rows = rows[np.argsort(place[rows], kind="stable")]
        self._groups, self._number = groups[rows], number
        self._there, self._starts = np.unique(place[rows], return_index=True)

    def sums(self, drawn: np.ndarray) -> np.ndarray:
        """Returns (thresholds, R) int64 how many pairs there are at each threshold, of (G, R) how often one counts."""
        total = np.zeros((self._number, drawn.shape[1]), dtype=np.int64)
        if len(self._there):
            total[self._there] = np.add.reduceat(drawn.take(self._groups, axis=0), self._starts, axis=0, dtype=np.int64)
        return total


def _whole(counts: np.ndarray) -> np.ndarray:
    whole = counts.astype(np.int32)
    if (whole != counts).any():
        raise ValueError("counts must be whole numbers: how often each patient was drawn")
    return whole
