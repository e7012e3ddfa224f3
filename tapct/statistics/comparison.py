"""Which models differ: p-values, corrected for their number, intervals that agree, and the ranks left open."""

import math
from collections.abc import Sequence

import numpy as np

from tapct import numeric
from tapct.statistics.differences import CERTAIN, Pairs
from tapct.statistics.intervals import Estimate

ALPHA = 0.05
"""Probability of one or more false differences in a family."""


def p_values(evidence: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Returns two-sided bootstrap p-values, each on its own.

    (1 + resamples in which chance does as much) / (1 + R): the observation counts as one, so that p is never 0
    (Davison and Hinkley 1997, section 4.2). What is equal but for rounding counts as as much.

    Args:
        evidence: (P,) as in `Pairs`.
        chance: (P, R) sizes.
    """
    return (1 + numeric.at_least(chance, evidence[:, None]).sum(axis=1)) / (1 + chance.shape[1])


def corrected_p_values(evidence: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Returns p-values corrected for the number of differences, by the step-down of Romano and Wolf.

    Like Holm's correction it bounds the probability of one or more false differences, whatever the truth, and steps
    down from the strongest; but it compares with the largest chance evidence among the differences still open, in
    the same resamples, instead of multiplying by their number. Holm's would be useless here: 20 models make 190
    pairs, the smallest p-value of 2,000 resamples is 1/2001, and 190/2001 > 0.05, so nothing could ever differ. It
    also takes pairs for unrelated, where 19 of them share each model. J. Romano, M. Wolf, "Efficient computation of
    adjusted p-values for resampling-based stepdown multiple testing" (2016, doi:10.1016/j.spl.2016.02.012).

    Args:
        evidence: (P,) as in `Pairs`.
        chance: (P, R) sizes.
    """
    order = numeric.best_first(evidence)
    still_open = np.maximum.accumulate(chance[order][::-1], axis=0)[::-1]
    corrected = np.empty_like(evidence)
    corrected[order] = np.maximum.accumulate(p_values(evidence[order], still_open))
    return corrected


def estimates(found: Pairs, alone: np.ndarray, largest: float) -> list[Estimate]:
    """Returns each difference with its interval, which holds 0 if and only if its own p-value is above `ALPHA`.

    The p-value and the interval are one statement: the interval reaches as many errors to both sides as chance exceeds
    in no more resamples than `ALPHA` allows.

    Args:
        found: The pairs.
        alone: (P,) their `p_values`.
        largest: The largest difference that the metric can have; infinite where it has no bound.
    """
    resamples = found.chance.shape[1]
    allowed = math.floor(ALPHA * (1 + resamples))
    if allowed < 1:
        return [
            Estimate(float(gap), None, None, f"{resamples} resamples are too few for an interval") for gap in found.gap
        ]
    reach = -np.partition(-np.abs(found.chance), allowed - 1, axis=1)[:, allowed - 1]
    intervals = []
    for gap, error, errors, p in zip(found.gap, found.error, reach, alone, strict=True):
        if errors >= CERTAIN and error > 0:
            intervals.append(Estimate(float(gap), None, None, "too few patients decide it for an interval"))
            continue
        low, high = max(gap - errors * error, -largest), min(gap + errors * error, largest)
        if p > ALPHA:
            low, high = min(low, 0.0), max(high, 0.0)
        intervals.append(Estimate(float(gap), float(low), float(high)))
    return intervals


def wins(found: Pairs, corrected: np.ndarray, models: int, sign: int) -> np.ndarray:
    """Returns the (models, models) matrix of whether row i is better than column j, beyond chance.

    Args:
        found: All pairs.
        corrected: (P,) their corrected p-values.
        models: Number of models.
        sign: -1 where lower is better.
    """
    better = np.zeros((models, models), dtype=bool)
    sure = corrected <= ALPHA
    ahead, behind = sure & (sign * found.gap > 0), sure & (sign * found.gap < 0)
    better[found.first[ahead], found.second[ahead]] = True
    better[found.second[behind], found.first[behind]] = True
    return better


def rank_intervals(better: np.ndarray) -> np.ndarray:
    """Returns the ranks that each model may truly have.

    From 1 + the models that are better to n - the models that are worse. As no difference is false with probability
    95 %, all intervals hold together with 95 % (Mogstad, Romano, Shaikh, Wilhelm, "Inference for ranks", Review of
    Economic Studies 2024, doi:10.1093/restud/rdad006). Resampled ranks do not: chance can only push the best model
    down, so their interval leaves out its true rank.

    Args:
        better: (models, models) from `wins`.

    Returns:
        (models, 2) best and worst rank.
    """
    return np.stack([1 + better.sum(axis=0), len(better) - better.sum(axis=1)], axis=1)


def tie_groups(better: np.ndarray, order: Sequence[int]) -> list[tuple[int, ...]]:
    """Returns the groups of models that cannot be told apart: all maximal sets without a single difference.

    These are the letters of a compact letter display (Piepho 2004, doi:10.1198/1061860043515): two models differ if
    and only if they share no group. A model may be in several, because "not separable" is not transitive; a chain
    that made it so (A like B, B like C, hence A like C) would hide a difference that was found.

    Args:
        better: (models, models) from `wins`.
        order: The models, best first: groups and their members come in this order.
    """
    place = {model: index for index, model in enumerate(order)}
    ties = {i: {j for j in order if j != i and not (better[i, j] or better[j, i])} for i in order}

    def grow(group: set[int], candidates: set[int], seen: set[int]) -> list[set[int]]:
        # Bron and Kerbosch 1973, doi:10.1145/362342.362367, with pivot.
        if not candidates and not seen:
            return [group]
        pivot = max(candidates | seen, key=lambda model: len(ties[model] & candidates))
        found = []
        for model in candidates - ties[pivot]:
            found += grow(group | {model}, candidates & ties[model], seen & ties[model])
            candidates, seen = candidates - {model}, seen | {model}
        return found

    groups = [tuple(sorted(group, key=place.__getitem__)) for group in grow(set(), set(order), set())]
    return sorted(groups, key=lambda group: [place[model] for model in group])
