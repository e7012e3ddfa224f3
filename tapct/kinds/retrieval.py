"""Retrieval: which scans lie nearest to a scan, by the cosine of their pooled features; nothing is trained.

Every scan is a query, and all others make the gallery but for those of the same patient. A label of a query is scored
by where the scans with that label stand (`tapct.metrics.retrieval`). Scans of which a label is not known are no part of
the gallery of that label. The gallery stays whole when patients are resampled: the interval is of the queries.

`MatchedMAP` leaves out, of the scans without a label, those that do not share the query's scanner
(`TaskSpec.matched`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import methodcaller
from typing import Any

import numpy as np

from tapct import numeric
from tapct.kinds.base import Cases, Field, Kind, Mean, Metric, Number, Statistic
from tapct.metrics.retrieval import RandomOrder, Ranking, Untied, ordered, ranking

PRECISIONS, HITS = (5, 10), (1, 5, 10)
"""How many of the nearest are looked at."""

Scores = Callable[[Ranking | Untied | RandomOrder], float]

SCORES: Mapping[str, Scores] = {
    "average_precision": methodcaller("average_precision"),
    **{f"precision_{k}": methodcaller("precision", k) for k in PRECISIONS},
    **{f"hit_{k}": methodcaller("hit", k) for k in HITS},
}
"""By field, the number of a query and label."""

MATCHED = "matched_average_precision"


# -- A query -------------------------------------------------------------------------------------------


def outcome(
    query: np.ndarray,
    targets: np.ndarray,
    similarity: np.ndarray,
    classes: Sequence[str],
    among: np.ndarray | None = None,
    like: np.ndarray | None = None,
) -> dict[str, dict[str, float | None]]:
    """Returns what a record holds of a query.

    Args:
        query: (K,) its targets: 1 where it has the label, 0 where not, NaN where that is not known.
        targets: (n, K) of scans.
        similarity: (n,) to them.
        classes: The labels.
        among: The places of the scans of other patients; None where all are.
        like: (n,) which scans share the query's scanner; None where nothing is known of it.
    """
    among = np.arange(len(targets)) if among is None else among
    order, level = ordered(similarity[among])
    order = among[order]
    found: dict[str, dict[str, float | None]] = {field.name: dict.fromkeys(classes) for field in KIND.fields}
    for place, name in enumerate(classes):
        if query[place] != 1:
            continue
        of_class = targets[order, place]
        relevant, known = of_class == 1, ~np.isnan(of_class)
        total = int(relevant.sum())
        found["relevant"][name], found["items"][name] = float(total), float(known.sum())
        if total:
            of_label = ranking(level, relevant, known)
            for field, score in SCORES.items():
                found[field][name] = score(of_label)
        if like is not None:
            kept = relevant | (like[order] & known)
            found["matched_items"][name] = float(kept.sum())
            if 0 < total < kept.sum():
                found[MATCHED][name] = ranking(level, relevant, kept).average_precision()
    return found


def case_loss(fields: Mapping[str, Mapping[str, Any]]) -> float:
    """Returns 1 minus the mean average precision of a query's labels; 0 where none of them has one."""
    values = fields["average_precision"].values()
    defined = [value for value in values if value is not None and not math.isnan(value)]
    return 1 - math.fsum(defined) / len(defined) if defined else 0.0


def _fault(fields: Mapping[str, Mapping[str, Any]]) -> str | None:
    for name, relevant in fields["relevant"].items():
        items, scores = fields["items"][name], [fields[field][name] for field in SCORES]
        if (relevant is None) != (items is None) or any((one is None) != (not relevant) for one in scores):
            return f"{name} has some of its numbers and lacks others"
        if relevant is not None and (items < relevant or relevant % 1 or items % 1):
            return f"{name} has {relevant:g} relevant scans of {items:g}"
        matched, score = fields["matched_items"][name], fields[MATCHED][name]
        if (score is not None) != bool(relevant and matched is not None and matched > relevant):
            return f"{name} has {matched} matched scans, and the matched average precision {score}"
        if matched is not None and (relevant is None or not relevant <= matched <= items):
            return f"{name} has {matched:g} matched scans of {items}"
    return None


# -- Metrics -------------------------------------------------------------------------------------------


def _macro(field: str) -> Statistic:
    """Returns the mean over labels of the mean over the queries of each; labels without a query are left out."""

    def value(cases: Cases, counts: np.ndarray) -> np.ndarray:
        of_labels = by_class(cases[field], counts)
        defined = ~np.isnan(of_labels)
        total = np.where(defined, of_labels, 0.0).sum(axis=0)
        number = defined.sum(axis=0)
        return np.divide(total, number, out=np.full(len(number), np.nan), where=number > 0)

    return Statistic(value)


def by_class(scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns (K, R) the mean score of each class over the queries that have one, NaN where none has.

    Args:
        scores: (C, K), NaN where a case is not a query of a class.
        counts: (C, R) how often each case counts.
    """
    defined = ~np.isnan(scores)
    total = numeric.exact_sums(np.where(defined, scores, 0.0).T, counts)
    number = defined.T.astype(np.float64) @ counts
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def _of_query(cases: Cases) -> np.ndarray:
    return numeric.means(cases["average_precision"])


def _undefined(cases: Cases) -> float:
    return float((cases["relevant"] == 0).sum())


def _queries(cases: Cases) -> dict[str, np.ndarray]:
    return {"that are queries": np.any(cases["relevant"] > 0, axis=1)}


def at_chance(cases: Cases) -> Cases:
    """Returns the cases as any order at random would have them, in expectation."""
    relevant, values = cases["relevant"], dict(cases.values)
    for field, score in SCORES.items():
        values[field] = _chance(score, relevant, cases["items"])
    matched = np.where(np.isnan(cases[MATCHED]), np.nan, cases["matched_items"])
    values[MATCHED] = _chance(SCORES["average_precision"], relevant, matched)
    return replace(cases, values=values)


def _chance(score: Scores, relevant: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Returns (C, K) what chance gives, NaN where nothing is relevant; computed once for each pair of numbers."""
    pairs = np.stack([relevant.ravel(), items.ravel()])
    found = np.full(pairs.shape[1], np.nan)
    there = (pairs[0] > 0) & ~np.isnan(pairs[1])
    unique, back = np.unique(pairs[:, there], axis=1, return_inverse=True)
    of_pair = np.array([score(RandomOrder(int(one), int(all_of))) for one, all_of in unique.T])
    if len(of_pair):
        found[there] = of_pair[back.ravel()]
    return found.reshape(relevant.shape)


_NONE = "no query has another patient with its label"


def _metric(name: str, title: str, field: str, **about: Any) -> Metric:
    return Metric(name=name, title=title, of=_macro(field), undefined=_NONE, needs=_queries, **about)


KIND = Kind(
    name="retrieval",
    title="Retrieval",
    target="0 or 1 for each label, any may be missing; other scans with the label are to lie nearest",
    metrics=(
        _metric("mAP", "mAP", "average_precision"),
        Metric(name="QueryMAP", title="mAP, by query", of=Mean(_of_query), undefined=_NONE, needs=_queries),
        *(_metric(f"P@{k}", f"P@{k}", f"precision_{k}") for k in PRECISIONS),
        *(_metric(f"R@{k}", f"R@{k}", f"hit_{k}") for k in HITS),
        _metric("MatchedMAP", "mAP, matched", MATCHED, column="mAP, others from the same scanner"),
        Metric(
            name="UndefinedQueries",
            title="undefined queries",
            of=Number(_undefined),
            high=math.inf,
            lower_is_better=True,
            digits=0,
            shown=False,
        ),
    ),
    ranked=("mAP", "QueryMAP", "R@1"),
    fields=(
        Field(name="relevant", title="other patients' scans with the label", given=True, low=0, missing=True),
        Field(name="items", title="other patients' scans", given=True, low=0, missing=True),
        *(Field(name=name, title=name.replace("_", " "), low=0, high=1, missing=True) for name in SCORES),
        Field(
            name="matched_items",
            title="those with the label, and those without it that share the query's scanner",
            given=True,
            low=0,
            missing=True,
        ),
        Field(name=MATCHED, title="average precision among these", low=0, high=1, missing=True),
    ),
    probe="tapct.probes.retrieval:RetrievalProbe",
    dataset="tapct.tasks.retrieval:RetrievalDataset",
    page="tapct.leaderboard.page.kinds.retrieval",
    fault=_fault,
    loss=case_loss,
    labels=True,
    heads=("cosine",),
    trains=False,
    chance=at_chance,
    rows_to_beat=("chance", "intensity", "radiomics", "random-pyramid", "random weights"),
)
