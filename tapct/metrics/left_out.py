"""AUROC and average precision without each patient: what is left of sums over pairs, and no patient computed anew.

Of 50,000 patients each left out in turn, counting anew would take as long as 50,000 resamples.
"""

from typing import NamedTuple

import numpy as np

from tapct.metrics import ranks

BLOCK = 64
"""Patients at a time, where they are counted anew."""


class Without(NamedTuple):
    """A metric without each of G patients, NaN where it is undefined then.

    Attributes:
        auroc: (G,)
        average_precision: (G,)
        share: (G,) of positives.
    """

    auroc: np.ndarray
    average_precision: np.ndarray
    share: np.ndarray

    @property
    def average_precision_skill(self) -> np.ndarray:
        """(G,), see `ranks.average_precision_skill`."""
        return ranks.skill(self.average_precision, self.share)


class PatientLoss(NamedTuple):
    """What a statistic loses without the cases of one sort (a label's positives) of each of n patients.

    Attributes:
        lost: (n,) how much.
        cases: (n,) how many cases of the sort they have.
    """

    lost: np.ndarray
    cases: np.ndarray


def without_each(scores: np.ndarray, targets: np.ndarray, groups: np.ndarray, number: int) -> Without:
    """Returns the metrics of the pairs that are left without each patient, as computed anew.

    AUROC is so to the bit: its pairs are counted in integers. The average precision sums in another order.

    Args:
        scores: (N,) scores.
        targets: (N,) 0/1 targets.
        groups: (N,) number of each pair's patient, from 0; -1 of a pair that always stays.
        number: Patients G, those without a pair among them.

    Raises:
        ValueError: If a score is NaN, or a target neither 0 nor 1.
    """
    place, positive = ranks.thresholds(scores, targets), np.asarray(targets) == 1
    size = int(place.max(initial=0)) + 1
    positives, negatives = (np.bincount(place[of], minlength=size) for of in (positive, ~positive))
    own = _Own.of(place, positive, groups, size)
    left = [
        of.sum() - np.bincount(own.group, weights=each, minlength=number).astype(np.int64)
        for of, each in ((positives, own.positives), (negatives, own.negatives))
    ]
    defined = (left[0] > 0) & (left[1] > 0)
    total = left[0] + left[1]
    share = np.divide(left[0], total, out=np.full(number, np.nan), where=total > 0)
    auroc = np.divide(
        _twice_in_order(positives, negatives, own, number),
        2 * left[0] * left[1],
        out=np.full(number, np.nan),
        where=defined,
    )
    summed = _summed_precisions(positives, negatives, own, number)
    precision = np.divide(summed, left[0], out=np.full(number, np.nan), where=defined)
    return Without(auroc, precision, share)


class _Own(NamedTuple):
    """What each patient has at each threshold where they have something, by patient and then from the highest on.

    Attributes:
        group: (U,) the patient.
        place: (U,) the threshold.
        positives: (U,) how many positives they have there.
        negatives: (U,) how many negatives.
        positives_to: (U,) how many positives they have there and above.
        negatives_to: (U,) how many negatives.
        first: (U,) whether it is their highest threshold.
    """

    group: np.ndarray
    place: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    positives_to: np.ndarray
    negatives_to: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, place: np.ndarray, positive: np.ndarray, groups: np.ndarray, size: int) -> "_Own":
        """Returns it of (N,) thresholds of `size`, of whether each pair is positive, and of patients."""
        known = groups >= 0
        keys, at = np.unique(groups[known].astype(np.int64) * size + place[known], return_inverse=True)
        group, threshold = np.divmod(keys, size)
        first = np.diff(group, prepend=-1) != 0
        starts = np.flatnonzero(first)
        lengths = np.diff(starts, append=len(keys))

        def upto(counts: np.ndarray) -> np.ndarray:
            summed = counts.cumsum()
            return summed - np.repeat(summed[starts] - counts[starts], lengths)

        has, lacks = (np.bincount(at[of], minlength=len(keys)) for of in (positive[known], ~positive[known]))
        return cls(group, threshold, has, lacks, upto(has), upto(lacks), first)


def _twice_in_order(positives: np.ndarray, negatives: np.ndarray, own: _Own, number: int) -> np.ndarray:
    """Returns (G,) twice the number of pairs of the others in order, ties once."""
    above, below = positives.cumsum() - positives, negatives.sum() - negatives.cumsum()
    every = int((negatives * (2 * above + positives)).sum())
    lost = own.positives * (2 * below + negatives)[own.place] + own.negatives * (2 * above + positives)[own.place]
    lost = lost - own.negatives * (
        2 * (own.positives_to - own.positives) + own.positives
    )  # of their own with their own
    return every - _sums(own.group, lost, number)


def _summed_precisions(positives: np.ndarray, negatives: np.ndarray, own: _Own, number: int) -> np.ndarray:
    """Returns (G,) the sum of the precision at each positive of the others.

    Between two thresholds of a patient all precisions lose the same positives and negatives, those that they have
    above: with the sums of such precisions from the highest on, that is one difference. There are few such pairs of
        numbers.
    """
    pairs, which = np.unique(np.stack([own.positives_to, own.negatives_to]), axis=1, return_inverse=True)
    if pairs.shape[1] > number:  # few patients of many cases each
        return _summed_anew(positives, negatives, own, number)
    true, every = positives.cumsum(), (positives + negatives).cumsum()
    of_all_pairs = _sums_to(positives, true, every, 0, 0)
    is_last = np.append(own.first[1:], True)  # of each patient
    end = np.where(is_last, len(positives), np.append(own.place[1:], 0))
    change = np.zeros(len(own.group))
    for pair, (more, less) in enumerate(pairs.T):
        rows = np.flatnonzero(which.ravel() == pair)
        upto, at = _sums_to(positives, true, every, int(more), int(less)), own.place[rows]
        kept, of_all = true[at] - more, every[at] - more - less
        precision = np.divide(kept, of_all, out=np.zeros(len(rows)), where=of_all > 0)
        change[rows] = upto[end[rows]] - upto[at] - own.positives[rows] * precision
        change[rows] -= of_all_pairs[end[rows]] - of_all_pairs[at]
    return of_all_pairs[-1] + np.bincount(own.group, weights=change, minlength=number)


def _sums_to(positives: np.ndarray, true: np.ndarray, every: np.ndarray, more: int, less: int) -> np.ndarray:
    """Returns (thresholds + 1,) sums of the precisions at positives, from the highest on, without so many above."""
    kept, of_all = true - more, every - more - less
    there = (kept >= 0) & (of_all - kept >= 0) & (of_all > 0)
    precision = np.divide(kept, of_all, out=np.zeros(len(true)), where=there)
    return np.concatenate([[0.0], np.cumsum(precision * positives)])


def _summed_anew(positives: np.ndarray, negatives: np.ndarray, own: _Own, number: int) -> np.ndarray:
    """Returns the same, of each patient anew."""
    found = np.empty(number)
    for start in range(0, number, BLOCK):
        some = (own.group >= start) & (own.group < start + BLOCK)
        left = []
        for of, each in ((positives, own.positives), (negatives, own.negatives)):
            of_rest = np.repeat(of[:, None], min(BLOCK, number - start), axis=1)
            np.subtract.at(of_rest, (own.place[some], own.group[some] - start), each[some])
            left.append(of_rest)
        true, every = left[0].cumsum(axis=0), (left[0] + left[1]).cumsum(axis=0)
        precision = np.divide(true, every, out=np.zeros(true.shape), where=every > 0)
        found[start : start + BLOCK] = np.cumsum(precision * left[0], axis=0)[-1]
    return found


def _sums(group: np.ndarray, values: np.ndarray, number: int) -> np.ndarray:
    """Returns (G,) the sums of whole numbers by patient, as whole numbers whatever their size."""
    found = np.zeros(number, dtype=np.int64)
    np.add.at(found, group, values)
    return found
