"""What the nearest scan shares with a query, next to what chance and the label alone would have it share.

What scans may share is given by membership: (N, K) 1 where a scan has a label or is of a level, 0 where not, NaN where
that is not known. A query is a scan with a 1; of several (findings) its number is their mean. Scans of the query's
patient, and those of which it is not known, are no part of any of the three. As in `tapct.metrics.retrieval` ties are
resolved by nobody: a share is the expectation over them.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from tapct.metrics.retrieval import ordered, similarities

NEAREST = 64
"""Scans that are put in order at first; more only where ties, or scans of which nothing is known, continue behind."""


def as_numbers(levels: Sequence[str | None]) -> np.ndarray:
    """Returns (N,) int64: the place of each scan's level among the levels in order; -1 where it is not known."""
    place = {level: number for number, level in enumerate(names_of(levels))}
    return np.array([-1 if level is None else place[level] for level in levels], dtype=np.int64)


def names_of(levels: Sequence[str | None]) -> list[str]:
    """Returns the levels that occur, in order."""
    return sorted({level for level in levels if level is not None})


def members(levels: Sequence[str | None], names: Sequence[str]) -> np.ndarray:
    """Returns (N, K) float64 membership of scans in the levels of these names; one may be of a level that is none."""
    found = np.array([[float(level == name) for name in names] for level in levels]).reshape(len(levels), len(names))
    found[[level is None for level in levels]] = np.nan
    return found


def both_ways(labels: np.ndarray) -> np.ndarray:
    """Returns (N, K) labels as they are; of a single label, that scans lack it is shared as well."""
    return np.concatenate([labels, 1 - labels], axis=1) if labels.shape[1] == 1 else labels


def nearest(
    vectors: np.ndarray, patients: np.ndarray, of: Sequence[np.ndarray], queries: int | None = None
) -> list[np.ndarray]:
    """Returns how probably the nearest scan of another patient shares what a query is a member of.

    Args:
        vectors: (N, P) unit vectors; their products are what scans are near by.
        patients: (N,) of each, as a number.
        of: Memberships, each (N, K).
        queries: How many of the scans ask, the first ones; all by default.

    Returns:
        For each membership (N,), NaN of a scan that is not a query, or has nobody to share with.
    """
    found = [np.full(len(vectors), np.nan) for _ in of]
    of = [np.asfortranarray(each) for each in of]
    for row, similarity in enumerate(similarities(vectors[:queries], vectors)):
        others = np.flatnonzero(patients != patients[row])
        if len(others):
            _fill(row, similarity[others], others, of, found)
    return found


def _fill(
    row: int, similarity: np.ndarray, others: np.ndarray, of: Sequence[np.ndarray], found: list[np.ndarray]
) -> None:
    """Fills in a query, looking at ever more scans until every number is certain."""
    todo, count = list(range(len(of))), NEAREST
    while todo:
        whole = count >= len(others)
        first = np.arange(len(others)) if whole else np.argpartition(-similarity, count - 1)[:count]
        order, level = ordered(similarity[first])
        scans = others[first[order]]
        for which in list(todo):
            shares = [_share(of[which][scans, k], level, whole) for k in np.flatnonzero(of[which][row] == 1)]
            if None not in shares:
                defined = [share for share in shares if share is not None and not np.isnan(share)]
                found[which][row] = np.mean(defined) if defined else np.nan
                todo.remove(which)
        count *= 4


def _share(member: np.ndarray, level: np.ndarray, whole: bool) -> float | None:
    """Returns the share of members in the first tie of which something is known.

    Args:
        member: (n,) 1, 0 or NaN, of the nearest scans in order.
        level: (n,) of ties.
        whole: Whether there are no others behind them.

    Returns:
        NaN where of none anything is known; None where the tie may continue behind the last scan.
    """
    known = ~np.isnan(member)
    if not known.any():
        return np.nan if whole else None
    at = level[np.argmax(known)]
    if at == level[-1] and not whole:
        return None
    return float(member[known & (level == at)].mean())


def by_chance(member: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Returns (N,) how probably any scan of another patient shares what a query is a member of, NaN as in `nearest`.

    Args:
        member: (N, K) membership.
        patients: (N,) of each, as a number.
    """
    return _mean_of_own(member, *_counts(member == 1, ~np.isnan(member), patients))


def by_label(labels: np.ndarray, member: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Returns (N,) how probably a scan of another patient with a query's label shares what it is a member of.

    That is what neighbours share which are like the query in the label and in nothing else; of several labels their
    mean. It is above chance where label and scanner go together.

    Args:
        labels: (N, L) membership in labels.
        member: (N, K) membership, of one level a scan.
        patients: (N,) of each, as a number.
    """
    is_of = (member == 1).astype(np.float64)
    has = ((labels == 1) & ~np.isnan(member).any(axis=1)[:, None]).astype(np.float64)
    like, among = has.T @ is_of, has.sum(axis=0)
    found = np.full(len(labels), np.nan)
    for rows in _of_patients(patients):
        others_like, others = like - has[rows].T @ is_of[rows], among - has[rows].sum(axis=0)
        for row in rows:
            own, mine = np.flatnonzero(is_of[row]), np.flatnonzero((has[row] > 0) & (others > 0))
            if len(own) and len(mine):
                found[row] = np.mean(others_like[mine, own[0]] / others[mine])
    return found


def _counts(has: np.ndarray, known: np.ndarray, patients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (N, K) how many scans of other patients have something, and of how many it is known."""
    relevant, items = np.empty(has.shape), np.empty(has.shape)
    for rows in _of_patients(patients):
        relevant[rows] = has.sum(axis=0) - has[rows].sum(axis=0)
        items[rows] = known.sum(axis=0) - known[rows].sum(axis=0)
    return relevant, items


def _mean_of_own(member: np.ndarray, relevant: np.ndarray, items: np.ndarray) -> np.ndarray:
    own = (member == 1) & (items > 0)
    shares = np.divide(relevant, items, out=np.zeros(member.shape), where=own)
    return np.divide(shares.sum(axis=1), own.sum(axis=1), out=np.full(len(member), np.nan), where=own.any(axis=1))


def _of_patients(patients: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the places of the scans of each patient."""
    order = np.argsort(patients, kind="stable")
    return iter(np.split(order, np.flatnonzero(np.diff(patients[order])) + 1))
