"""What two representations of the same cases have in common, whatever their axes, scale and number of features.

Linear CKA (Kornblith et al. 2019, arXiv 1905.00414) compares how cases are similar to each other in both. As it is
defined it is biased upwards: of few cases and many features, any two representations look alike, random ones too. So
the debiased one is what is reported: the HSIC in it is the unbiased estimate of Song et al. (JMLR 13, 2012), as Nguyen
et al. (2021, arXiv 2010.15327) use it. It is about 0 of representations that have nothing in common, may be a little
under 0, and is 1 as well of features that were rotated, shifted or multiplied by one number.

Mutual nearest neighbours (Huh et al. 2024, arXiv 2405.07987) ask the same of the nearest cases alone.
"""

from typing import NamedTuple

import numpy as np

FEWEST = 4
"""Cases that the debiased CKA needs: it divides by their number less 3."""

_TIE = 1e-9
"""Cosines that differ by no more are equal: a rotation of features rounds them by less."""

_CONSTANT = 1e-12
"""Share of the magnitude of features below which what they differ by is rounding."""

_ROWS = 512
"""Cases whose cosines with all others are held at a time."""


class Alike(NamedTuple):
    """How alike two representations are.

    Attributes:
        cka: Debiased linear CKA, at most 1; None where one says the same of every case.
        cka_biased: As it is defined, 0 to 1; likewise.
    """

    cka: float | None
    cka_biased: float | None


def linear_cka(one: np.ndarray, other: np.ndarray) -> Alike:
    """Returns the linear CKA of two representations.

    Through sums over features, so that nothing of the size of cases times cases is held.

    Args:
        one: (N, P) features of N cases.
        other: (N, Q) of the same cases.

    Raises:
        ValueError: If they are not of the same `FEWEST` cases at least.
    """
    if len(one) != len(other) or len(one) < FEWEST:
        raise ValueError(f"CKA is of the same {FEWEST} cases or more, not of {len(one)} and {len(other)}")
    x, y = _centred(one), _centred(other)
    if x is None or y is None:
        return Alike(None, None)
    norms = (_cross(x, x), _cross(y, y))
    unbiased = [_unbiased(a, b, cross) for a, b, cross in ((x, x, norms[0]), (y, y, norms[1]), (x, y, _cross(x, y)))]
    own, others, both = unbiased
    debiased = float(min(both / np.sqrt(own * others), 1.0)) if own > 0 and others > 0 else None
    return Alike(debiased, float(min(_cross(x, y) / np.sqrt(norms[0] * norms[1]), 1.0)))


def _centred(features: np.ndarray) -> np.ndarray | None:
    """Returns features about their mean and of unit size; None of such that say the same of every case."""
    features = features.astype(np.float64)
    centred = features - features.mean(axis=0)
    size = float(np.sqrt((centred**2).sum()))
    if size <= _CONSTANT * float(np.sqrt((features**2).sum())):
        return None
    return centred / size


def _cross(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the sum over pairs of cases of the products of their similarities, tr(K L)."""
    return float(((x.T @ y) ** 2).sum())


def _unbiased(x: np.ndarray, y: np.ndarray, cross: float) -> float:
    """Returns the unbiased HSIC (Song et al. 2012, equation 5), times what is the same of all three in a CKA."""
    n = len(x)
    own_x, own_y = (x**2).sum(axis=1), (y**2).sum(axis=1)
    sums_x, sums_y = x @ x.sum(axis=0) - own_x, y @ y.sum(axis=0) - own_y  # of a row of K, without its diagonal
    trace = cross - float(own_x @ own_y)
    return trace + float(sums_x.sum() * sums_y.sum()) / ((n - 1) * (n - 2)) - 2 * float(sums_x @ sums_y) / (n - 2)


def neighbour_overlap(one: np.ndarray, other: np.ndarray, patients: np.ndarray, neighbours: int) -> float | None:
    """Returns how many of a case's nearest cases are the same in two representations: the mean share.

    Nearest by the cosine about the mean of the cases, among those of other patients: two scans of a patient lie near
    each other in any. Where cases are tied for the last places, each has its share of these. By chance it is
    `neighbours` over the number of others, on average.

    Args:
        one: (N, P) features of N cases.
        other: (N, Q) of the same cases.
        patients: (N,) patient of each, as whole numbers.
        neighbours: How many nearest cases.

    Returns:
        None where a representation says the same of every case, or a case has too few of other patients.
    """
    x, y = (_unit(of) for of in (one, other))
    if x is None or y is None:
        return None
    shared = 0.0
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        others = patients[rows, None] != patients[None]
        if others.sum(axis=1).min() < neighbours:
            return None
        first, second = (_places(of[rows] @ of.T, others, neighbours) for of in (x, y))
        shared += float((first * second).sum())
    return shared / (len(x) * neighbours)


def _unit(features: np.ndarray) -> np.ndarray | None:
    centred = _centred(features)
    if centred is None:
        return None
    length = np.sqrt((centred**2).sum(axis=1, keepdims=True))
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)


def _places(cosines: np.ndarray, others: np.ndarray, neighbours: int) -> np.ndarray:
    """Returns (n, N) the share of a place that each case has among the nearest of each row; `neighbours` in sum."""
    cosines = np.where(others, cosines, -np.inf)
    last = -np.partition(-cosines, neighbours - 1, axis=1)[:, neighbours - 1 : neighbours]
    sure, tied = cosines > last + _TIE, np.abs(cosines - last) <= _TIE
    left = neighbours - sure.sum(axis=1, keepdims=True)
    return sure + tied * (left / tied.sum(axis=1, keepdims=True))
