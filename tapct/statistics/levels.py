"""Differences of tasks that have little in common, on one scale, and small enough to keep those of all tasks."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from tapct.statistics.differences import Pairs

STEPS = 16
"""Levels in one standard deviation of the normal distribution."""
_POOL = 1_000_000
"""So many resampled differences tell how large chance makes them."""


@dataclass(frozen=True, eq=False)
class Levels:
    """The differences of P pairs of models on one task.

    A difference has the level l if chance makes a pair of this task differ by as much as rarely as a normal variable
    exceeds l / `STEPS`, either way: twenty errors in a task of five positives say no more than three in one of a
    thousand patients. Levels keep the order, so whatever is calibrated on resamples holds by levels as well.

    Attributes:
        first: (P,) row of one model.
        second: (P,) row of the other.
        found: (P,) int8; above 0 if the first is better.
        chance: (P, R) int8 what it would be in each resample if there were none.
    """

    first: np.ndarray
    second: np.ndarray
    found: np.ndarray
    chance: np.ndarray


def levels(pairs: Pairs, sign: int) -> Levels:
    """Returns the differences of a task by level.

    Args:
        pairs: The differences.
        sign: -1 where lower is better.
    """
    sizes = np.abs(pairs.chance)
    if not len(sizes):
        return no_levels(sizes.shape[1])
    pool = np.sort(sizes.ravel()[:: max(1, sizes.size // _POOL)])[::-1]
    tails = 2 * ndtr(-np.arange(1, 127) / STEPS) * len(pool)
    cuts = pool[np.floor(tails[tails >= 1]).astype(int) - 1]
    cuts = np.append(cuts, np.nextafter(cuts[-1:], np.inf))  # what chance never did has a level above it

    def level(of: np.ndarray, size: np.ndarray) -> np.ndarray:
        return (sign * np.sign(of) * np.searchsorted(cuts, size, side="right")).astype(np.int8)

    return Levels(pairs.first, pairs.second, level(pairs.gap, pairs.evidence), level(pairs.chance, sizes))


def no_levels(resamples: int) -> Levels:
    """Returns those of a task without a pair that can be compared."""
    none = np.zeros(0, dtype=np.int64)
    return Levels(none, none, none.astype(np.int8), np.zeros((0, resamples), dtype=np.int8))
