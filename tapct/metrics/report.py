"""Findings of reports: what is found in a text next to what is in its reference, and how like the two are in words.

Counts may be fractions, where somebody says a finding with a probability: the numbers are then those of the expected
counts. All functions take (C, R) how often each case counts and give one number a resample, NaN where it is undefined.
"""

from typing import NamedTuple

import numpy as np

from tapct import numeric

ORDERS = (1, 2, 3, 4)
"""Of the n-grams that BLEU-4 counts."""


class Counts(NamedTuple):
    """How often each finding is said rightly, wrongly and not where it should be: (K, R) each."""

    right: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray

    @classmethod
    def of(cls, found: np.ndarray, reference: np.ndarray, counts: np.ndarray) -> "Counts":
        """Returns the counts of (C, K) findings next to their references, in [0, 1]."""
        right, said, there = (
            numeric.exact_sums(of.T, counts) for of in (found * reference, found, reference.astype(np.float64))
        )
        return cls(right, said - right, there - right)

    def over_findings(self) -> "Counts":
        """Returns the counts of all findings together: (1, R) each."""
        return Counts(*(of.sum(axis=0, keepdims=True) for of in self))

    def precision(self) -> np.ndarray:
        """Returns (K, R) the share of what is said that is right; NaN where nothing is said."""
        return _ratio(self.right, self.right + self.wrong)

    def recall(self) -> np.ndarray:
        """Returns (K, R) the share of what is there that is said; NaN where nothing is there."""
        return _ratio(self.right, self.right + self.missed)

    def f1(self) -> np.ndarray:
        """Returns (K, R) the harmonic mean of both; NaN where nothing is there and nothing said."""
        return _ratio(2 * self.right, 2 * self.right + self.wrong + self.missed)

    def macro_f1(self) -> np.ndarray:
        """Returns (R,) the mean F1 of the findings that are in a reference.

        Which these are is no business of who is scored: a finding that is nowhere there is one that nobody can find,
        and who never says it would gain by it.
        """
        there = self.right + self.missed > 0
        return _ratio(np.where(there, self.f1(), 0.0).sum(axis=0), there.sum(axis=0).astype(np.float64))


def bleu(matched: np.ndarray, words: np.ndarray, reference_words: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns (R,) BLEU-4 of all texts as one corpus, in [0, 1]; NaN where no text has four words.

    It is Papineni et al.'s, without smoothing (`sacrebleu` with `smooth_method="none"`).

    Args:
        matched: (C, 4) n-grams of each text that its reference has, by order.
        words: (C,) words of each text.
        reference_words: (C,) words of its reference.
        counts: (C, R) how often each case counts.
    """
    total = np.stack([np.maximum(words - order + 1, 0) for order in ORDERS])
    with np.errstate(divide="ignore"):
        logs = np.log(_ratio(numeric.exact_sums(matched.T, counts), numeric.exact_sums(total, counts)))
    ours, theirs = (numeric.exact_sums(of[None], counts)[0] for of in (words, reference_words))
    brevity = np.minimum(0.0, 1 - _ratio(theirs, ours))
    return np.exp(logs.mean(axis=0) + brevity)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan), where=whole > 0)
