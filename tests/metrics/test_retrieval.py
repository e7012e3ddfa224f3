"""Numbers of rankings: against scikit-learn, and against every order of tied items."""

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.metrics.pairwise import cosine_similarity

from tapct.metrics import retrieval
from tapct.metrics.retrieval import RandomOrder, Ranking, Untied, ordered, similarities, unit


def ranking(similarity, relevant) -> Ranking:
    order, level = ordered(np.asarray(similarity, dtype=np.float64))
    return Ranking.of(level, np.asarray(relevant, dtype=bool)[order])


def test_the_smallest_galleries():
    assert Untied(np.empty(0, dtype=int), 3).hit(1) == 0
    assert (Untied(np.array([2]), 3).hit(1), Untied(np.array([2]), 3).hit(2)) == (0, 1)
    assert [RandomOrder(*one).average_precision() for one in ((1, 1), (2, 2), (1, 2))] == [1, 1, 0.75]


def test_units_are_of_float64_whatever_the_vectors_are():
    found = unit(np.array([[1, 2, 2], [0, 0, 0], [3, 0, 0]], dtype=np.float32))
    assert found == pytest.approx(np.array([[1 / 3, 2 / 3, 2 / 3], [0, 0, 0], [1, 0, 0]]), rel=1e-15)


def by_hand(order, relevant, k):
    """Average precision, precision and hit at k of one order of the items."""
    found = [relevant[i] for i in order]
    at = [sum(found[: i + 1]) / (i + 1) for i in range(len(found)) if found[i]]
    return sum(at) / len(at) if at else math.nan, sum(found[:k]) / min(k, len(found)), float(any(found[:k]))


def test_without_ties_it_is_scikit_learns():
    random = np.random.default_rng(0)
    for _ in range(50):
        similarity, relevant = random.normal(size=40), random.random(40) < 0.2
        relevant[0] = True
        expected = average_precision_score(relevant, similarity)
        assert ranking(similarity, relevant).average_precision() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("seed", range(12))
def test_a_tie_counts_as_the_mean_over_all_its_orders(seed):
    random = np.random.default_rng(seed)
    similarity, relevant = random.integers(0, 3, 7) / 10, random.random(7) < 0.4
    relevant[seed % 7] = True
    orders = [o for o in itertools.permutations(range(7)) if all(np.diff(similarity[list(o)]) <= 0)]
    of = ranking(similarity, relevant)
    for k in (1, 3, 5, 10):
        expected = np.mean([by_hand(order, relevant, k) for order in orders], axis=0)
        assert [of.average_precision(), of.precision(k), of.hit(k)] == pytest.approx(expected.tolist(), abs=1e-12)


@pytest.mark.parametrize(("relevant", "items"), [(1, 1), (1, 6), (3, 6), (6, 6), (2, 9)])
def test_chance_is_one_tie(relevant, items):
    of, chance = ranking(np.zeros(items), np.arange(items) < relevant), RandomOrder(relevant, items)
    assert chance.average_precision() == pytest.approx(of.average_precision(), abs=1e-14)
    for k in (1, 5, 10):
        assert chance.precision(k) == pytest.approx(of.precision(k), abs=1e-14)
        assert chance.hit(k) == pytest.approx(of.hit(k), abs=1e-14)


def test_the_order_of_the_items_changes_nothing():
    random = np.random.default_rng(1)
    similarity, relevant = random.integers(0, 5, 60) / 7, random.random(60) < 0.3
    of = ranking(similarity, relevant)
    for _ in range(5):
        shuffled = random.permutation(60)
        again = ranking(similarity[shuffled], relevant[shuffled])
        assert again.average_precision() == of.average_precision()
        assert [again.hit(k) for k in (1, 5)] == [of.hit(k) for k in (1, 5)]


def test_what_differs_by_rounding_alone_is_tied():
    similarity = np.array([0.5, 0.5 + 1e-16, 0.5 - 1e-15, 0.2])
    assert ordered(similarity)[1].tolist() == [0, 0, 0, 1]
    assert ranking(similarity, [1, 0, 0, 0]).hit(1) == pytest.approx(1 / 3)


def test_nothing_relevant_has_no_average_precision():
    of = ranking([0.1, 0.2], [0, 0])
    assert math.isnan(of.average_precision())
    assert (of.precision(5), of.hit(5)) == (0, 0)


@pytest.mark.parametrize("tied", [False, True])
def test_of_some_items_it_is_the_ranking_of_these_alone_to_the_bit(tied):
    random = np.random.default_rng(3)
    for _ in range(60):
        similarity = random.normal(size=30)
        similarity[3] = similarity[9] if tied else similarity[3]
        _, level = ordered(similarity)
        kept = random.random(30) < 0.8
        relevant = kept & (random.random(30) < 0.3)
        found, expected = retrieval.ranking(level, relevant, kept), Ranking.of(level[kept], relevant[kept])
        assert isinstance(found, Ranking) == tied
        np.testing.assert_equal(found.average_precision(), expected.average_precision())
        for k in (1, 5, 10, 50):
            assert (found.precision(k), found.hit(k)) == (expected.precision(k), expected.hit(k))


def test_cosines_are_scikit_learns_in_blocks_of_any_size(monkeypatch):
    vectors = np.random.default_rng(2).normal(size=(23, 8)) * 1e-200  # squares of which are 0 in float64
    vectors[5] = 0
    expected = cosine_similarity(vectors * 1e200)
    for numbers in (1, 50, 10_000):
        monkeypatch.setattr(retrieval, "BLOCK_NUMBERS", numbers)
        found = np.array(list(similarities(unit(vectors), unit(vectors))))
        assert found == pytest.approx(expected, abs=1e-14)
