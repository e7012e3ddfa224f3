"""Which models differ: paired differences, corrected for their number, and the ranks that they leave open."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tapct import numeric

ALPHA = 0.05
"""Probability of one or more false differences in a family."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """The differences of all pairs of K models, as evidence against "there is none".

    Attributes:
        first: (P,) index of one model, P = K (K - 1) / 2.
        second: (P,) index of the other.
        gain: (P,) first minus second, signed so that positive means that the first is better; 0 if they are equal.
        evidence: (P,) size of the difference, as a share of the largest that patients so far apart could give.
        chance: (P, R) what it would be in each resample if there were no difference.
    """

    first: np.ndarray
    second: np.ndarray
    gain: np.ndarray
    evidence: np.ndarray
    chance: np.ndarray


def pairs(value: np.ndarray, jackknife: np.ndarray, swaps: np.ndarray, sign: int = 1) -> Pairs:
    """Returns the evidence for a difference of each pair of models.

    What each patient contributes to a difference is his jackknife pseudo-value; for a mean of one case each, it is the
    difference in that case. If two equal models swap their results in some patients, nothing is lost, so the sums with
    the signs of those patients turned are what chance does (a wild bootstrap over patients with Rademacher signs; Liu
    1988, doi:10.1214/aos/1176351062; Kline and Santos 2012, doi:10.1515/2156-6674.1006). What is common to all models,
    easy and hard patients, cancels; all pairs share one set of swaps.

    Preferred to the differences in drawn patients, whose tails are Student's in few patients and skewed near the
    bounds of a metric. In simulation (`benchmarks/leaderboard.py --equal`), equal models were told apart in 4 to 6 % of
    tasks, as intended; by drawn patients in 8 % (20 models, 24 patients) to 2 % (AUROC). Where 24 patients have one to
    five cases each it is 8 to 10 % with either.

    Args:
        value: (K,) numbers, all defined.
        jackknife: (K, n) with one patient left out at a time, all defined, n >= 2.
        swaps: (n, R) from `resampling.draw_swaps`.
        sign: -1 where lower is better.
    """
    first, second = np.triu_indices(len(value), 1)
    patients = jackknife.shape[1]
    gain = sign * numeric.difference(value[first], value[second])
    contribution = patients * gain[:, None] - sign * (patients - 1) * (jackknife[first] - jackknife[second])
    # Of one model twice there is nothing but rounding errors, which must not be divided by each other.
    contribution[numeric.equal(contribution / patients, 0).all(axis=1)] = 0
    size = np.sqrt(patients * (contribution**2).sum(axis=1))[:, None]
    size[size == 0] = 1
    as_it_is = np.ones((patients, 1))
    sums = np.abs(numeric.exact_sums(contribution, np.hstack([as_it_is, swaps]))) / size
    return Pairs(first, second, gain, sums[:, 0], sums[:, 1:])


def p_values(evidence: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Returns two-sided bootstrap p-values, each on its own.

    (1 + resamples in which chance does as much) / (1 + R): the observation counts as one, so that p is never 0
    (Davison and Hinkley 1997, section 4.2). What is equal but for rounding counts as as much.

    Args:
        evidence: (P,) as in `Pairs`.
        chance: (P, R).
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
        evidence: (P,) as in `Pairs`; the family may join the pairs of several tasks.
        chance: (P, R).
    """
    order = numeric.best_first(evidence)
    still_open = np.maximum.accumulate(chance[order][::-1], axis=0)[::-1]
    corrected = np.empty_like(evidence)
    corrected[order] = np.maximum.accumulate(p_values(evidence[order], still_open))
    return corrected


def wins(found: Pairs, corrected: np.ndarray, models: int) -> np.ndarray:
    """Returns the (models, models) matrix of whether row i is better than column j, beyond chance.

    Args:
        found: All pairs.
        corrected: (P,) their corrected p-values.
        models: Number of models.
    """
    better = np.zeros((models, models), dtype=bool)
    sure = corrected <= ALPHA
    ahead, behind = sure & (found.gain > 0), sure & (found.gain < 0)
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
