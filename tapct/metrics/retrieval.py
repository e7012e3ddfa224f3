"""Retrieval: where the items with a query's label stand among all others, ordered by similarity.

Items whose similarities differ by no more than `numeric.TOLERANCE` from one to the next are tied, and a tie is
resolved by nobody: every number here is its exact expectation over all orders of the tied items (McSherry and Najork
2008, ECIR, doi:10.1007/978-3-540-78646-7_38, give those of precision and of average precision). Features that are the
same for every scan then have what chance has, and no order of files can change a number.

`k` is that of "the k nearest"; where there are fewer items, all of them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tapct import numeric

BLOCK_NUMBERS = 25_000_000
"""Similarities at a time: 200 MB."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """The items of a query, by ties: (T,) each, the nearest first; an item that is tied with none is a tie of one.

    Attributes:
        first: How many items are nearer than a tie.
        size: Of the tie.
        hits: Relevant items in the tie.
        before: Relevant items that are nearer.
        items: Items of all ties.
    """

    first: np.ndarray
    size: np.ndarray
    hits: np.ndarray
    before: np.ndarray
    items: int

    @classmethod
    def of(cls, level: np.ndarray, relevant: np.ndarray) -> "Ranking":
        """Returns the ranking of n items, one at least.

        Args:
            level: (n,) whole numbers that do not fall; those of tied items are equal.
            relevant: (n,) bool.
        """
        first = np.flatnonzero(np.diff(level, prepend=level[0] - 1))
        hits = np.add.reduceat(relevant.astype(np.int64), first)
        return cls(first, np.diff(first, append=len(level)), hits, np.cumsum(hits) - hits, len(level))

    def average_precision(self) -> float:
        """Returns the mean, over the relevant items, of the precision down to each; NaN where none is relevant."""
        found = np.flatnonzero(self.hits)
        if not len(found):
            return math.nan
        tie = np.repeat(found, self.size[found])  # of each place in a tie with hits
        within = np.arange(len(tie)) - np.repeat(np.cumsum(self.size[found]) - self.size[found], self.size[found])
        others = within * (self.hits[tie] - 1) / np.maximum(self.size[tie] - 1, 1)  # relevant, in the tie, before it
        precisions = (self.before[tie] + 1 + others) / (self.first[tie] + within + 1)
        return math.fsum((self.hits[tie] / self.size[tie] * precisions).tolist()) / int(self.hits.sum())

    def precision(self, k: int) -> float:
        """Returns the share of relevant items among the k nearest."""
        k = min(k, self.items)
        ties = slice(int(np.searchsorted(self.first, k)))
        taken = np.minimum(self.size[ties], k - self.first[ties])
        return math.fsum((self.hits[ties] * taken / self.size[ties]).tolist()) / k

    def hit(self, k: int) -> float:
        """Returns the probability that one of the k nearest is relevant: 0 or 1 where no tie decides."""
        k = min(k, self.items)
        last = int(np.searchsorted(self.first, k)) - 1  # the tie of the k-th
        if self.before[last]:
            return 1.0
        return 1.0 - _none_of(int(self.size[last]), int(self.hits[last]), k - int(self.first[last]))


@dataclass(frozen=True, eq=False)
class Untied:
    """The ranking of a query of whose items no two are tied: the same numbers, to the bit, in a third of the time.

    Attributes:
        ranks: (H,) the places of the relevant items, from 1, rising.
        items: Items.
    """

    ranks: np.ndarray
    items: int

    def average_precision(self) -> float:
        """Returns the mean, over the relevant items, of the precision down to each; NaN where none is relevant."""
        hits = len(self.ranks)
        return math.fsum((np.arange(1, hits + 1) / self.ranks).tolist()) / hits if hits else math.nan

    def precision(self, k: int) -> float:
        """Returns the share of relevant items among the k nearest."""
        k = min(k, self.items)
        return int(np.searchsorted(self.ranks, k, side="right")) / k

    def hit(self, k: int) -> float:
        """Returns 1 if one of the k nearest is relevant, else 0."""
        return float(len(self.ranks) > 0 and self.ranks[0] <= k)


def ranking(level: np.ndarray, relevant: np.ndarray, kept: np.ndarray) -> Ranking | Untied:
    """Returns the ranking of some items of a query, one at least.

    Args:
        level: (n,) of all items, as `ordered` gives them.
        relevant: (n,) bool, in their order.
        kept: (n,) bool, the items of the ranking, in their order: the relevant ones are among them.
    """
    if level[-1] < len(level) - 1:
        return Ranking.of(level[kept], relevant[kept])
    return Untied(np.cumsum(kept)[relevant], int(np.count_nonzero(kept)))


def _none_of(size: int, hits: int, drawn: int) -> float:
    """Returns the probability that none of `hits` items is among `drawn` of `size`."""
    return math.prod((size - hits - i) / (size - i) for i in range(drawn))


@dataclass(frozen=True)
class RandomOrder:
    """What an order at random gives, in expectation: all items are one tie.

    Attributes:
        relevant: Relevant items, one at least.
        items: Items.
    """

    relevant: int
    items: int

    def average_precision(self) -> float:
        """Returns the expected average precision."""
        harmonic = math.fsum(1 / place for place in range(1, self.items + 1))
        others = (self.relevant - 1) / max(self.items - 1, 1)
        return (harmonic + others * (self.items - harmonic)) / self.items

    def precision(self, k: int) -> float:
        """Returns the share of relevant items."""
        return self.relevant / self.items

    def hit(self, k: int) -> float:
        """Returns the probability that one of k is relevant."""
        return 1.0 - _none_of(self.items, self.relevant, min(k, self.items))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Returns (N, P) finite vectors divided by their length, whose products are cosines.

    A vector of zeros stays what it is, and is as similar to one as to another.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0.0)
    scaled = vectors / np.where(largest > 0, largest, 1.0)  # squares neither overflow nor vanish
    length = np.sqrt((scaled**2).sum(axis=1, keepdims=True))
    return scaled / np.where(length > 0, length, 1.0)


def similarities(queries: np.ndarray, gallery: np.ndarray) -> Iterator[np.ndarray]:
    """Yields (N,) the cosine of each of (Q, P) unit queries with (N, P) unit items; memory is bounded whatever Q is."""
    step = max(1, BLOCK_NUMBERS // max(1, len(gallery)))
    for start in range(0, len(queries), step):
        yield from queries[start : start + step] @ gallery.T


def ordered(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the places of (n,) similarities, the nearest first, and the level of each as `Ranking.of` takes it."""
    order = np.argsort(-similarity)  # which of two that are tied is first changes no number
    apart = -np.diff(similarity[order]) > numeric.TOLERANCE
    return order, np.concatenate([[0], np.cumsum(apart)])
