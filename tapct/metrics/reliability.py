"""How much of what features say of two scans of a patient is of the patient, and how much of the occasion.

The intraclass correlation is ICC(2,1) of Shrout and Fleiss 1979 (doi:10.1037/0033-2909.86.2.420): single measurement,
absolute agreement. Koo and Li 2016 (doi:10.1016/j.jcm.2016.02.012) ask for absolute agreement of repeated scans, since
a measurement that has drifted is another one; whether occasions are taken for random (2,1) or for fixed changes the
name and not the number (ICC(A,1) of McGraw and Wong 1996, doi:10.1037/1082-989X.1.1.30).
"""

from collections.abc import Iterator

import numpy as np

from tapct import numeric
from tapct.metrics.retrieval import ordered, ranking, unit

GOOD, EXCELLENT = 0.75, 0.9
"""From which on Koo and Li call a reliability good, and above which excellent."""

CONSTANT = 1e-9
"""Share of the largest value up to which the deviation of a feature is rounding, as in `tapct.probes.scaling`."""

LEAST = -1.0
"""What an estimate below it counts as: with few patients ICC(2,1) has no lower bound, and no reliability is below 0."""

_AT_ONCE = 2**21
"""Numbers of features times resamples that are looked at together: 16 MB."""


def standardised(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns what standardises features over scans: (P,) their means, and (P,) their deviations, 0 of constant ones.

    Args:
        features: (N, P), finite.
    """
    largest = np.abs(features).max(axis=0)
    scaled = features / np.where(largest > 0, largest, 1.0)  # squares neither overflow nor vanish
    deviation = scaled.std(axis=0)
    return features.mean(axis=0), np.where(deviation > CONSTANT, deviation * largest, 0.0)


def icc(first: np.ndarray, second: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns (P, R) the ICC(2,1) of each feature in each resample, at least `LEAST`; NaN where nothing varies.

    Args:
        first: (n, P) features of the first scans of n patients.
        second: (n, P) those of the second.
        counts: (n, R) how often each patient counts, whole numbers.
    """
    sums, differences = (first + second).T, (first - second).T
    patients = counts.sum(axis=0)
    of = [numeric.exact_sums(each, counts) for each in (sums, sums**2, differences, differences**2)]
    total, squares, shift, apart = of
    with np.errstate(invalid="ignore", divide="ignore"):
        between_occasions = shift**2 / (2 * patients)  # one degree of freedom
        between_patients = (squares - total**2 / patients) / 2 / (patients - 1)
        error = (apart / 2 - between_occasions) / (patients - 1)
        whole = between_patients + error + 2 / patients * (between_occasions - error)
        found = (between_patients - error) / whole
    varies = (patients > 1) & (whole > numeric.TOLERANCE * np.maximum(squares, apart))
    return np.where(varies, np.clip(found, LEAST, 1.0), np.nan)


def icc_in_blocks(first: np.ndarray, second: np.ndarray, counts: np.ndarray) -> Iterator[np.ndarray]:
    """Yields `icc` of some resamples after the others; memory is bounded, whatever their number."""
    step = max(1, _AT_ONCE // max(1, first.shape[1]))
    for start in range(0, counts.shape[1], step):
        yield icc(first, second, counts[:, start : start + step])


def agreement(vectors: np.ndarray, partner: np.ndarray, others: np.ndarray) -> list[dict[str, float | None]]:
    """Returns what is said of each scan and its partner, among the scans of the other occasion.

    Args:
        vectors: (N, P) standardised features of scans.
        partner: (N,) the place of the other scan of its patient.
        others: (N, N) bool, which scans are of other patients and of the occasion of the partner.

    Returns:
        Of each scan: `cosine` with its partner; `identified`, whether no other scan is as near by the cosine, and
        `reciprocal_rank` of the partner, each in expectation over orders of ties; `distance_ratio`, the distance to the
        partner over the mean distance to the others, None where that is 0.
    """
    directions = unit(vectors)
    squares = (vectors**2).sum(axis=1)
    found = []
    for row, other in enumerate(partner):
        items = np.concatenate([[other], np.flatnonzero(others[row])])
        cosines = directions[items] @ directions[row]
        order, level = ordered(cosines)
        relevant = order == 0
        place = ranking(level, relevant, np.ones(len(items), dtype=bool))
        apart = np.sqrt(np.maximum(squares[items] + squares[row] - 2 * vectors[items] @ vectors[row], 0))
        apart[0] = np.linalg.norm(vectors[other] - vectors[row])  # without cancellation: it may be near 0
        between = apart[1:].mean()
        found.append(
            {
                "cosine": float(np.clip(cosines[0], -1, 1)),
                "identified": place.hit(1),
                "reciprocal_rank": place.average_precision(),
                "distance_ratio": float(apart[0] / between) if between > numeric.TOLERANCE else None,
            }
        )
    return found
