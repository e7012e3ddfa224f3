"""Differences between models, studentised: of what size they are, and of what size chance makes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tapct import numeric
from tapct.kinds import Mean, PairRank, Statistic
from tapct.statistics.contributions import Contribution, of_means, of_pairs, of_statistic
from tapct.statistics.inputs import TaskInputs

FEWEST_PATIENTS = 6
"""In five, 2 of the 32 ways to turn signs do as much as any difference: p is never below 1/16."""
FEWEST_OF_A_CLASS = 5
"""With three positives among 100 patients, six equal models were told apart in 12 % of 500 simulated tasks (AUROC)."""
CERTAIN = 1e6
"""Errors that a difference is of where it is the same in every patient, hence without error."""
LARGE = 50.0
"""Square of a difference in errors beyond which no resample is compared with anything."""
BLOCK = 128
"""Pairs at a time: their resamples stay in cache."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """The differences of P pairs of models.

    Attributes:
        first: (P,) row of one model.
        second: (P,) row of the other.
        gap: (P,) metric of the first minus that of the second; 0 where they are equal.
        error: (P,) its standard error over patients.
        chance: (P, R) how many errors it would be of in each resample if there were none.
        cases: (P,) number of cases that both are defined on, which it is of.
    """

    first: np.ndarray
    second: np.ndarray
    gap: np.ndarray
    error: np.ndarray
    chance: np.ndarray
    cases: np.ndarray

    @property
    def evidence(self) -> np.ndarray:
        """(P,) how many errors the difference is of, at most `CERTAIN`."""
        return _in_errors(np.abs(self.gap), self.error)


def too_few(inputs: TaskInputs) -> str | None:
    """Returns why this many patients tell no models apart, None where they may."""
    if inputs.num_patients < FEWEST_PATIENTS:
        number, verb = inputs.num_patients, "s are" if inputs.num_patients != 1 else " is"
        return f"{number} patient{verb} too few to compare models: {FEWEST_PATIENTS} are needed"
    needed = inputs.needed
    if needed and min(needed.values()) < FEWEST_OF_A_CLASS:
        first, *others = (f"{number} patients {what}" for what, number in needed.items())
        named = " and ".join([first, *(one.replace(" patients", "", 1) for one in others)])
        of_each = " of each" if others else ""
        return f"{named} are too few to compare models: {FEWEST_OF_A_CLASS}{of_each} are needed"
    return None


def measure(
    inputs: TaskInputs, rows: np.ndarray, value: np.ndarray, swaps: np.ndarray, before: TaskInputs | None = None
) -> Pairs:
    """Returns the differences of all pairs of some models.

    A difference is divided by its standard error (DeLong's for AUROC), and so is what chance does: the signs of what
    each patient adds to it are turned in random patients, and the error is taken anew of what that gives (a wild
    bootstrap over patients with Rademacher signs, studentised; Liu 1988, doi:10.1214/aos/1176351062; after Neubert and
    Brunner 2007, doi:10.1016/j.csda.2006.05.024). Without the errors anew, the few positives of a rare finding would
    pass for enough to know the error: equal models, of 100 patients 10 positive, were told apart in 13.5 % of tasks.
    What is common to all models, easy and hard patients, cancels; all pairs share one set of signs.

    Models that are defined on different cases are compared on those where both are, in every seed. Pairs that have too
    few of them are left out.

    Args:
        inputs: The task, which is not `too_few`.
        rows: (K,) the models.
        value: (M,) numbers of all models of the task, those of `rows` defined.
        swaps: (n, R) from `resampling.draw_swaps`.
        before: The same models on the same cases, where differences are of what has changed since, and `value` is that
            change: what a patient adds to it is what they add now less what he added before.
    """
    of = inputs.of_metric.of
    if before is not None and (before.models, before.cases) != (inputs.models, inputs.cases):
        raise ValueError("a change is of the same models and cases")
    if before is not None and isinstance(of, Mean):
        assert inputs.values is not None
        assert before.values is not None
        inputs, before = replace(inputs, values=inputs.values - before.values), None
    if not isinstance(of, Mean):
        first, second = (rows[of] for of in np.triu_indices(len(rows), 1))
        gap = numeric.difference(value[first], value[second])
        parts = _parts(inputs)
        if before is not None:
            now_and_then = zip(parts, _parts(before), strict=True)
            parts = [Contribution(now.added - then.added, now.share) for now, then in now_and_then]
        error, chance = studentised(parts, first, second, swaps)
        if isinstance(of, Statistic) or (of == PairRank("average_precision") and _has_several_pairs(inputs)):
            chance = as_of_few(parts, first, second, chance)
        return _pairs(first, second, gap, error, chance, np.full(len(gap), len(inputs.cases)))
    found = [_of_means(inputs, *group, value, swaps) for group in _by_cases(inputs, rows)]
    if not found:
        none = np.zeros(0)
        return Pairs(none.astype(int), none.astype(int), none, none, np.zeros((0, swaps.shape[1])), none.astype(int))
    joined = [np.concatenate([getattr(each, name) for each in found]) for name in Pairs.__dataclass_fields__]
    order = np.lexsort((joined[1], joined[0]))
    return Pairs(*(of[order] for of in joined))


def _parts(inputs: TaskInputs) -> list[Contribution]:
    return of_pairs(inputs) if isinstance(inputs.of_metric.of, PairRank) else of_statistic(inputs)


def _has_several_pairs(inputs: TaskInputs) -> bool:
    return inputs.targets is not None and inputs.stated.sum() > inputs.num_patients


def _by_cases(inputs: TaskInputs, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields pairs (first, second) that are defined on the same cases, and these (C,) cases."""
    assert inputs.values is not None
    defined = ~np.isnan(inputs.values).any(axis=1)
    first, second = (rows[of] for of in np.triu_indices(len(rows), 1))
    both = defined[first] & defined[second]
    patterns, which = np.unique(both, axis=0, return_inverse=True)
    for number, cases in enumerate(patterns):
        if len(np.unique(inputs.patient_index[cases])) >= FEWEST_PATIENTS:
            members = which.ravel() == number
            yield first[members], second[members], cases


def _of_means(
    inputs: TaskInputs, first: np.ndarray, second: np.ndarray, cases: np.ndarray, value: np.ndarray, swaps: np.ndarray
) -> Pairs:
    """Returns the differences of pairs on the cases that they share."""
    assert inputs.values is not None
    models, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    scores = inputs.values[models][:, :, cases].mean(axis=1)
    one, other = np.split(place.ravel(), 2)
    means = value[models]
    if not cases.all():
        means = numeric.exact_sums(scores, np.ones((scores.shape[1], 1)))[:, 0] / scores.shape[1]
    part = of_means(scores, inputs.patient_index[cases], inputs.num_patients)
    error, chance = studentised((part,), one, other, swaps)
    gap = numeric.difference(means[one], means[other])
    return _pairs(first, second, gap, error, chance, np.full(len(gap), cases.sum()))


def _pairs(
    first: np.ndarray, second: np.ndarray, gap: np.ndarray, error: np.ndarray, chance: np.ndarray, cases: np.ndarray
) -> Pairs:
    # Of one model twice there is nothing but rounding errors, which must not be divided by each other.
    nothing = (gap == 0) & numeric.equal(error, 0)
    chance[nothing] = 0
    return Pairs(first, second, gap, np.where(nothing, 0.0, error), chance, cases)


def studentised(
    parts: Sequence[Contribution], first: np.ndarray, second: np.ndarray, swaps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the standard errors of differences, and the differences in turned signs over their own errors.

    The error is the square root of the sum of squares of what patients add, each part of it over sqrt(1 - their share):
    what a mean of as few cases leaves out (for a case a patient, the n - 1 of a variance; MacKinnon and White 1985,
    doi:10.1016/0304-4076(85)90158-7). In turned signs the mean of each part is not 0 any more, and is taken off.

    Args:
        parts: Of M models and n patients.
        first: (P,) row of one model of each pair.
        second: (P,) row of the other.
        swaps: (n, R) signs.

    Returns:
        (P,) errors, and (P, R) differences in errors, at most `CERTAIN`.
    """
    scaled = _scaled(parts)
    lever = [part.share / np.sqrt(1 - part.share) for part in parts]
    moved = [numeric.exact_sums(part.added, swaps) for part in parts]
    turned = [numeric.exact_sums(scaled * of, swaps) for of in lever]
    once = np.ones((len(swaps), 1))
    cross = numeric.exact_sums(np.array([a * b for a in lever for b in lever]), once).reshape(len(parts), -1)
    square = numeric.exact_sums((scaled[first] - scaled[second]) ** 2, once)[:, 0]
    chance = np.empty((len(first), swaps.shape[1]))
    for start in range(0, len(first), BLOCK):
        block = slice(start, start + BLOCK)
        by, of = ([each[first[block]] - each[second[block]] for each in group] for group in (moved, turned))
        left = np.repeat(square[block, None], swaps.shape[1], axis=1)
        for g, (shift, other) in enumerate(zip(by, of, strict=True)):
            left -= 2 * shift * other
            for h, again in enumerate(by):
                left += cross[g, h] * shift * again
        left[left <= numeric.TOLERANCE * square[block, None]] = 0
        chance[block] = _in_errors(np.sum(by, axis=0), np.sqrt(left))
    return np.sqrt(square), chance


def _scaled(parts: Sequence[Contribution]) -> np.ndarray:
    """Returns (M, n) what patients add, so that the sum of squares is the square of the standard error."""
    return np.sum([part.added / np.sqrt(1 - part.share) for part in parts], axis=0)


def as_of_few(parts: Sequence[Contribution], first: np.ndarray, second: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Returns chance as it is where the error itself is not known well: Student's instead of normal, to first order.

    For statistics that are far from linear in patients. It was found for average precision of several pairs a patient,
    where a few patients at the top bring many pairs along: with turned signs alone, equal models were told apart in
    10 % of tasks (8 models, 86 or 300 patients of one to five
    cases; 6 models, 120 patients of four labels). The degrees of freedom are 2 over the relative variance of the sum of
    squares that the error is from: n for n normal contributions.

    Args:
        parts: As in `studentised`.
        first: Likewise.
        second: Likewise.
        chance: (P, R) from there.

    Returns:
        (P, R), each of its sign and larger.
    """
    square = (_scaled(parts)[first] - _scaled(parts)[second]) ** 2
    once = np.ones((square.shape[1], 1))
    total, fourth = (numeric.exact_sums(of, once) for of in (square, square * square))
    relative = np.divide(fourth, total * total, out=np.ones_like(total), where=total > 0) - 1 / square.shape[1]
    # Student's quantile by the normal one (Cornish and Fisher): t = z + z (z^2 + 1) / (4 degrees of freedom).
    larger = chance * (1 + (np.minimum(chance * chance, LARGE) + 1) * np.maximum(relative, 0) / 8)
    return np.clip(larger, -CERTAIN, CERTAIN)


def _in_errors(gap: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Returns differences over their errors, at most `CERTAIN` of either sign; 0 where there is no difference."""
    found = np.divide(gap, error, out=np.sign(gap) * CERTAIN, where=error > 0)
    return np.clip(found, -CERTAIN, CERTAIN)
