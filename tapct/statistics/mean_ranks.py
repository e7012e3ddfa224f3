"""Between which mean ranks a model may truly be, over several tasks."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from tapct.statistics.comparison import ALPHA
from tapct.statistics.levels import STEPS, Levels

DECIDED, COUNTED = 0.8, 0.2
"""Shares of `ALPHA`: for the pairs that are decided one by one, and for the count of the others."""
LIMITS = np.array([0, 8, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 64]) * STEPS // 16
"""Levels above which differences are counted: 0 to 4 standard deviations."""


def decided(tasks: Sequence[Levels], alpha: float = ALPHA) -> list[np.ndarray]:
    """Returns which pairs of which tasks differ, with a probability of `alpha` or less that any of all these does not.

    The step-down of Romano and Wolf (see `comparison.corrected_p_values`) over all pairs of all tasks.

    Returns:
        Per task (P,) bool.
    """
    found = [np.zeros(len(task.found), dtype=bool) for task in tasks]
    resamples = tasks[0].chance.shape[1]
    allowed = math.floor(alpha * (1 + resamples))
    if allowed < 1:
        return found
    while True:
        largest = np.zeros(resamples, dtype=np.int16)
        for task, done in zip(tasks, found, strict=True):
            np.maximum(largest, np.abs(task.chance[~done]).max(axis=0, initial=0), out=largest)
        limit = np.partition(largest, -allowed)[-allowed]
        new = [(np.abs(task.found) > limit) & ~done for task, done in zip(tasks, found, strict=True)]
        if not any(of.any() for of in new):
            return found
        found = [done | of for done, of in zip(found, new, strict=True)]


def ends(tasks: Sequence[Levels], models: int) -> np.ndarray:
    """Returns the lowest and the highest mean rank that each model may truly have.

    A model's mean rank is 1 + the number of (other model, task) in which the other is truly better, over the number of
    tasks. So it takes no more than to know *how many* of these differences are real, not which. Some are decided one by
    one. Of the others, as many are real as exceed a limit, less those that chance alone puts above it: a number that
    it exceeds, for any model, limit or side, with probability `ALPHA` or less (a bound on false discoveries: Blanchard,
    Neuvial, Roquain 2020, doi:10.1214/19-AOS1847). Which pairs are how much alike is in the resamples. So with 95 % all
    intervals hold at once, whatever the truth, near ties included, where the resampled mean rank does not hold it.

    Args:
        tasks: The pairs by level; rows are the models, and a pair that is missing in a task is left open.
        models: Number of models.

    Returns:
        (models, 2).
    """
    sure = decided(tasks, DECIDED * ALPHA)
    counts = np.zeros((2, models), dtype=np.int64)  # surely better than, surely worse than
    resamples = tasks[0].chance.shape[1]
    above = np.zeros((2, models, len(LIMITS)), dtype=np.int64)
    chance = np.zeros((2, models, len(LIMITS), resamples), dtype=np.int32)
    for task, done in zip(tasks, sure, strict=True):
        for model, rows, turn in _by_model(task):
            found, by_chance, is_done = turn * task.found[rows], task.chance[rows], done[rows]
            counts[:, model] += ((found > 0) & is_done).sum(), ((found < 0) & is_done).sum()
            for side, way in enumerate((1, -1)):
                above[side, model] += ((way * found[~is_done])[:, None] > LIMITS).sum(axis=0)
                chance[side, model] += _above((way * turn[~is_done])[:, None] * by_chance[~is_done])
    counts += np.maximum(above - _allowed(chance, COUNTED * ALPHA), 0).max(axis=2)
    better, worse = counts
    return np.stack([1 + worse / len(tasks), models - better / len(tasks)], axis=1)


def _by_model(task: Levels) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields each model, the pairs that it is in, and 1 where it is the first of the two, else -1, int8."""
    for model in np.union1d(task.first, task.second):
        rows = np.flatnonzero((task.first == model) | (task.second == model))
        yield model, rows, np.where(task.first[rows] == model, 1, -1).astype(np.int8)


def _above(levels: np.ndarray) -> np.ndarray:
    """Returns how many of (N, R) levels are above each of `LIMITS`, as (limits, R)."""
    resamples = levels.shape[1]
    # How many limits a level is above, looked up; level -128 cannot be.
    passed = np.searchsorted(LIMITS, np.arange(-128, 128), side="left")[levels.astype(np.int16) + 128]
    places = passed + (len(LIMITS) + 1) * np.arange(resamples)
    number = np.bincount(places.ravel(), minlength=resamples * (len(LIMITS) + 1)).reshape(resamples, -1)
    return np.cumsum(number[:, :0:-1], axis=1, dtype=np.int32)[:, ::-1].T


def _allowed(chance: np.ndarray, alpha: float) -> np.ndarray:
    """Returns the numbers that chance exceeds, anywhere, in a share `alpha` of the resamples or less.

    Each is exceeded in as many resamples as the others, as many as that allows.

    Args:
        chance: (..., R) numbers in resamples.
        alpha: The share.

    Returns:
        (...) numbers.
    """
    flat = chance.reshape(-1, chance.shape[-1])
    ordered = np.sort(flat, axis=1)[:, ::-1]
    few, many = 0, ordered.shape[1] - 1
    while few < many:
        half = (few + many + 1) // 2
        exceeded = int((flat > ordered[:, half : half + 1]).any(axis=0).sum())
        few, many = (half, many) if 1 + exceeded <= alpha * (1 + flat.shape[1]) else (few, half - 1)
    return ordered[:, few].reshape(chance.shape[:-1]).astype(np.int64)
