"""Sums without an order, one rule of when scores are equal, and the digits that are written."""

import math
from fractions import Fraction

import numpy as np
import pytest

from tapct import numeric


def true_sums(values, weights):
    """In rational numbers, rounded once."""
    return [
        [float(sum(Fraction(v) * int(w) for v, w in zip(row, column, strict=True))) for column in weights.T]
        for row in values
    ]


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_sums_are_the_true_ones_rounded_once(scale):
    rng = np.random.default_rng(0)
    values = scale * rng.random((4, 50)) * 10 ** rng.uniform(-6, 0, (4, 50)) * rng.choice([-1, 1], (4, 50))
    weights = np.concatenate([rng.multinomial(50, np.full(50, 1 / 50), 7).T, rng.choice([-1, 1], (50, 5))], axis=1)
    assert numeric.exact_sums(values, weights.astype(float)).tolist() == true_sums(values, weights)


def test_sums_depend_neither_on_the_order_nor_on_other_rows():
    rng = np.random.default_rng(0)
    values, weights = rng.random((30, 301)), rng.integers(0, 9, (301, 40)).astype(float)
    found = numeric.exact_sums(values, weights)
    order = rng.permutation(301)
    np.testing.assert_array_equal(numeric.exact_sums(values[:, order], weights[order]), found)
    for row in range(30):
        np.testing.assert_array_equal(numeric.exact_sums(values[row : row + 1], weights)[0], found[row])
    twice = numeric.exact_sums(np.concatenate([values, 1e6 * values, values]), weights)
    np.testing.assert_array_equal(twice[[*range(30), *range(60, 90)]], np.tile(found, (2, 1)))


def test_sums_of_nothing_are_0():
    assert numeric.exact_sums(np.zeros((2, 3)), np.ones((3, 1))).tolist() == [[0], [0]]
    assert numeric.exact_sums(np.ones((1, 3)), np.zeros((3, 2))).tolist() == [[0, 0]]
    assert numeric.exact_sums(np.ones((1, 0)), np.ones((0, 2))).tolist() == [[0, 0]]


def test_a_mean_is_of_the_defined_and_has_no_order():
    values = [0.1, None, 0.7, 0.2, 1e-17]
    assert numeric.mean(values) == numeric.mean(reversed(values)) == pytest.approx(0.25)
    assert math.isnan(numeric.mean([None, None]))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (0.1 + 0.2, 0.3, True),
        (0.0, 1e-13, True),
        (0.8, 0.8 + 1e-11, False),  # a really better score is not tied away
        (-0.8, 0.8, False),
        (250.0, 250.0 + 1e-10, True),  # mm
        (250.0, 250.0 + 1e-8, False),
        (math.nan, math.nan, False),
    ],
)
def test_equal_is_what_differs_by_no_more_than_rounding(one, other, same):
    assert numeric.equal(one, other) == numeric.equal(other, one) == same
    if not math.isnan(one):
        assert (numeric.difference(one, other) == 0) == same
        assert numeric.ranks([one, other]).tolist() == ([1.5, 1.5] if same else [1 + (one < other), 1 + (other < one)])
        assert (numeric.at_least(one, other) and numeric.at_least(other, one)) == same


def test_differences_are_those_of_subtraction_where_they_are_any():
    found = numeric.difference([0.3, 0.1 + 0.2, math.nan, 0.5], [0.1, 0.3, 0.1, math.nan])
    np.testing.assert_array_equal(found, [0.3 - 0.1, 0, math.nan, math.nan])


def test_equal_scores_share_a_rank_in_every_column():
    scores = np.array([[0.3, 5.0], [0.1 + 0.2, 7.0], [0.9, 5.0], [0.3, 1.0]])
    assert numeric.ranks(scores).tolist() == [[3, 2.5], [3, 1], [1, 2.5], [3, 4]]
    assert numeric.ranks(scores, sign=-1, method="min").tolist() == [[1, 2], [1, 4], [4, 2], [1, 1]]
    with pytest.raises(ValueError, match="undefined"):
        numeric.ranks([0.1, math.nan])


def test_the_order_of_equal_scores_is_the_given_one_and_nothing_comes_last():
    assert numeric.best_first([0.3, None, 0.1 + 0.2, 0.9, 0.3]) == [3, 0, 2, 4, 1]
    assert numeric.best_first([0.3, None, 0.1 + 0.2, 0.9, 0.3], sign=-1) == [0, 2, 4, 3, 1]
    assert numeric.best_first([None, None]) == [0, 1]
    assert numeric.best_first([]) == []


def test_what_is_written_has_twelve_digits_at_any_depth():
    content = {
        "a": 1 / 3,
        "b": [np.float64(2e-20) / 3, (100000 / 3, -0.0)],
        "n": 2**60,
        "t": "1/3",
        "x": None,
        "y": True,
    }
    found = numeric.rounded(content)
    assert found == {
        "a": 0.333333333333,
        "b": [6.66666666667e-21, [33333.3333333, 0]],
        **{k: content[k] for k in "ntxy"},
    }
    assert math.copysign(1, found["b"][1][1]) == 1
    assert type(found["n"]) is int
    assert numeric.rounded(found) == found


def test_a_half_is_rounded_alike_however_it_was_summed():
    # 0.0005 as such prints 0.001 (it is a hair above one half); a hair less would print 0.000.
    assert numeric.fixed(0.0005, 3) == numeric.fixed(0.0005 - 1e-18, 3) == numeric.fixed(np.float64(0.0005) + 1e-18, 3)
    assert numeric.fixed(2, 1) == "2.0"
