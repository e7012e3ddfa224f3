"""Scores that are the same on every machine: how they are summed, when two are equal, and which digits are written.

Floats that are equal on paper differ in their last digits by the order in which they were summed, and that order is the
business of a BLAS kernel, a number of threads, or the place of a row. Here sums have no order, and whatever asks
whether a score equals or exceeds another one (ranks, ties, marks, p-values, flags) asks this module.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

TOLERANCE = 1e-12
"""Scores that differ by no more are equal; a share of the larger one where that is above 1 (distances in mm).

A mean has a rounding error of 1e-16; scores that really differ are further apart: one pair in a million moves an AUROC
by 1e-6, one voxel of a class of ten million a mean Dice over 1,000 cases by 1e-10."""

DIGITS = 12
"""Significant digits of what is written: what is beyond them is not of the score but of how it was computed."""

_AT_ONCE = 2**23
"""Weights that are looked at together: 64 MB."""

_FINE = 2.0**30
"""Parts of a unit in `exact_sums`: with them, weights may add up to 2**23."""


def exact_sums(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns `values @ weights` without rounding on the way: the same bits whatever the order of summation.

    Values are cut into whole multiples of a unit, and of a fine part of it, so large that no sum exceeds the 53 bits of
    a float: all of them are exact, by any kernel of any BLAS (the pre-rounding of Rump, Ogita and Oishi 2008,
    doi:10.1137/050645671). The unit is a row's own, so that it does not matter what other rows there are. What is lost
    is less than the one rounding at the end.

    Args:
        values: (M, n), finite.
        weights: (n, R) whole numbers, of any dtype.

    Returns:
        (M, R).
    """
    step = max(1, _AT_ONCE // max(1, len(weights)))
    blocks = [slice(start, start + step) for start in range(0, weights.shape[1], step)]
    total = max((float(np.abs(weights[:, block]).sum(axis=0).max()) for block in blocks), default=0.0)
    bound = np.abs(values).max(axis=1, keepdims=True, initial=0.0) * total
    unit = np.ldexp(1.0, np.frexp(bound)[1] - 52)
    whole = np.rint(values / unit)
    parts = np.rint((values / unit - whole) * _FINE)
    found = np.empty((len(values), weights.shape[1]))
    for block in blocks:
        some = weights[:, block].astype(np.float64, copy=False)
        found[:, block] = (whole @ some) * unit + (parts @ some) * (unit / _FINE)
    return found


def mean(values: Iterable[float | None]) -> float:
    """Returns the mean of the values that are defined, in whatever order; NaN where none is."""
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else math.nan


def means(values: np.ndarray) -> np.ndarray:
    """Returns the mean of each row's defined numbers, in whatever order.

    Args:
        values: (M, n), NaN where undefined.

    Returns:
        (M,), NaN where a row has none.
    """
    defined = ~np.isnan(values)
    total = exact_sums(np.where(defined, values, 0.0), np.ones((values.shape[1], 1)))[:, 0]
    number = defined.sum(axis=1)
    return np.divide(total, number, out=np.full(len(values), np.nan), where=number > 0)


def equal(one: ArrayLike, other: ArrayLike) -> np.ndarray:
    """Returns where scores are equal, within `TOLERANCE`; NaN equals nothing."""
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    largest = np.maximum(np.abs(one), np.abs(other))
    return np.abs(one - other) <= TOLERANCE * np.maximum(largest, 1)


def at_least(one: ArrayLike, other: ArrayLike) -> np.ndarray:
    """Returns where a score is above another one, or equal."""
    return (np.asarray(one) > np.asarray(other)) | equal(one, other)


def difference(one: ArrayLike, other: ArrayLike) -> np.ndarray:
    """Returns one score minus the other: 0 where they are equal, NaN where one is."""
    return np.where(equal(one, other), 0.0, np.subtract(one, other))


def variance(values: ArrayLike, axis: int = 0) -> np.ndarray:
    """Returns the variance (n - 1) of scores along an axis: exactly 0 where they are equal, NaN where one is."""
    found = np.var(np.asarray(values, dtype=np.float64), axis=axis, ddof=1)
    return np.where(found <= TOLERANCE**2, 0.0, found)


def levels(scores: ArrayLike | Sequence[Any]) -> np.ndarray:
    """Returns whole numbers in the order of the scores, from 0; equal scores share one.

    That two scores share a level is transitive: what lies between equal ones is their equal.

    Args:
        scores: (M, ...), compared along the first axis, all defined.

    Raises:
        ValueError: If a score is NaN.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if np.isnan(scores).any():
        raise ValueError("a score that is undefined has no rank")
    ascending = np.argsort(scores, axis=0, kind="stable")
    ordered = np.take_along_axis(scores, ascending, axis=0)
    found = np.zeros(scores.shape, dtype=np.int64)
    steps = np.cumsum(~equal(ordered[1:], ordered[:-1]), axis=0)
    np.put_along_axis(found, ascending[1:], steps, axis=0)
    return found


def ranks(scores: ArrayLike, sign: int = 1, method: Literal["average", "min"] = "average") -> np.ndarray:
    """Returns the rank of each score, from 1 for the best; equal scores share theirs.

    Args:
        scores: (M, ...), ranked along the first axis, all defined.
        sign: -1 where lower is better.
        method: Which rank equal scores share: the average of theirs, or the best.
    """
    level = sign * levels(scores)
    better = (level[None] > level[:, None]).sum(axis=1)
    if method == "min":
        return 1.0 + better
    return better + (1 + (level[None] == level[:, None]).sum(axis=1)) / 2


def best_first(scores: Sequence[float | None] | np.ndarray, sign: int = 1) -> list[int]:
    """Returns the places of (M,) scores, best first and None last; equal ones stay in the order that they are in."""
    defined = [place for place, score in enumerate(scores) if score is not None]
    order = np.argsort(-sign * levels([scores[place] for place in defined]), kind="stable")
    return [*(defined[place] for place in order), *(p for p, score in enumerate(scores) if score is None)]


def rounded(content: Any) -> Any:
    """Returns content for a file, every float of it to `DIGITS` significant digits, at any depth."""
    if isinstance(content, float):
        return float(f"{content:.{DIGITS}g}") + 0.0  # never -0
    if isinstance(content, Mapping):
        return {key: rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [rounded(value) for value in content]
    return content


def fixed(value: float, decimals: int) -> str:
    """Returns a number as text: a half is rounded alike whatever the digits beyond `DIGITS`."""
    return f"{rounded(float(value)):.{decimals}f}"
