"""Rank metrics against scikit-learn, and against the pairs counted one by one in fractions."""

from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tapct.metrics.ranks import (
    auroc,
    auroc_of_counts,
    average_precision,
    average_precision_of_counts,
    average_precision_skill,
    stated,
    thresholds,
)

SCORES = {
    "no ties": lambda normal: normal,
    "some ties": lambda normal: normal.round(1),
    "hardly anything but ties": lambda normal: normal.round(),
    "one value": np.zeros_like,
    "logits up to 1e4": lambda normal: 1e4 * np.tanh(normal),
    "where float32 sigmoids are 1": lambda normal: (20 + normal).astype(np.float32),
    "where float64 sigmoids are 1": lambda normal: 1000 + normal,
    "below the smallest normal number": lambda normal: normal * 1e-310,
}


def scored(kind: str, cases: int = 120, share: float = 0.3):
    """Scores that know a little, and targets."""
    rng = np.random.default_rng(0)
    targets = (rng.random(cases) < share).astype(int)
    return SCORES[kind](rng.normal(size=cases) + targets), targets


def pairs_in_order(scores, targets) -> float:
    """The share of pairs that are in order, ties half, in fractions."""
    positives, negatives = ([Fraction(float(s)) for s in scores[targets == of]] for of in (1, 0))
    twice = sum(2 * (p > n) + (p == n) for p in positives for n in negatives)
    return float(Fraction(int(twice), 2 * len(positives) * len(negatives)))


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("kind", SCORES)
def test_ranks_are_those_of_scikit_learn_and_of_counting_pairs(kind, share):
    scores, targets = scored(kind, share=share)
    assert auroc(scores, targets) == pairs_in_order(scores, targets), "to the bit"
    assert auroc(scores, targets) == pytest.approx(roc_auc_score(targets, scores), rel=1e-12)
    assert average_precision(scores, targets) == pytest.approx(average_precision_score(targets, scores), rel=1e-12)


@pytest.mark.parametrize("metric", [auroc, average_precision])
@pytest.mark.parametrize("kind", ["no ties", "some ties"])
def test_only_the_order_counts(kind, metric):
    scores, targets = scored(kind)
    expected = metric(scores, targets)
    for mapped in (8 * scores - 3, scores**3, np.exp(scores), scores * 2.0**-60, np.argsort(np.argsort(scores))):
        if kind == "no ties" or len(np.unique(mapped)) == len(np.unique(scores)):
            assert metric(mapped, targets) == expected, "to the bit"
    shuffled = np.random.default_rng(1).permutation(len(scores))
    assert metric(scores[shuffled], targets[shuffled]) == expected


def test_scores_turned_round_are_as_far_below_chance():
    scores, targets = scored("some ties")
    assert auroc(-scores, targets) == pytest.approx(1 - auroc(scores, targets), rel=1e-14)
    assert auroc(scores, 1 - targets) == auroc(-scores, targets)


def test_infinite_scores_have_their_place_and_are_ties_of_each_other():
    scores, targets = np.array([np.inf, np.inf, 1e300, 0.0, -0.0, -np.inf]), np.array([1, 0, 1, 0, 1, 0])
    finite = np.array([3, 3, 2, 1, 1, 0])
    for metric in (auroc, average_precision):
        assert metric(scores, targets) == metric(finite, targets)


def test_the_counts_of_a_sample_are_its_cases_as_often_as_they_are_in_it():
    scores, targets = scored("some ties")
    times = np.random.default_rng(2).multinomial(len(scores), np.full(len(scores), 1 / len(scores)), size=40)
    at = thresholds(scores, targets)
    positives, negatives = np.zeros((2, at.max() + 1, len(times)), dtype=np.int64)
    for k, (place, target) in enumerate(zip(at, targets, strict=True)):
        (positives if target else negatives)[place] += times[:, k]
    for of_counts, metric, reference in (
        (auroc_of_counts, auroc, roc_auc_score),
        (average_precision_of_counts, average_precision, average_precision_score),
    ):
        found = of_counts(positives, negatives)
        repeated = [metric(np.repeat(scores, t), np.repeat(targets, t)) for t in times]
        np.testing.assert_array_equal(found, repeated, "to the bit, however many samples there are")
        np.testing.assert_array_equal(found[:1], of_counts(positives[:, :1], negatives[:, :1]))
        np.testing.assert_allclose(found, [reference(targets, scores, sample_weight=t) for t in times], rtol=1e-12)


def test_pairs_beyond_what_float64_counts_are_counted():
    positives, negatives = np.array([[10**8 + 1], [2 * 10**8]]), np.array([[3], [2 * 10**8 + 5]])
    p, n = positives.ravel().tolist(), negatives.ravel().tolist()
    twice = 2 * p[0] * n[1] + p[0] * n[0] + p[1] * n[1]
    assert twice > 2**53
    assert auroc_of_counts(positives, negatives)[0] == float(Fraction(twice, 2 * sum(p) * sum(n)))


def test_thresholds_are_numbered_from_the_highest_score_on_and_negatives_alone_share_one():
    assert thresholds([4, 9, 8, 3, 2, 2, 1], [1, 0, 0, 0, 0, 1, 0]).tolist() == [1, 0, 0, 2, 3, 3, 4]
    assert thresholds([1, 2, 3], [1, 1, 1]).tolist() == [2, 1, 0]
    assert thresholds([], []).tolist() == []


def test_only_pairs_that_are_stated_are_ranked():
    scores, targets = stated([[3.0, 1.0], [np.nan, 2.0]], [[1, np.nan], [np.nan, 0]])
    assert (scores.tolist(), targets.tolist()) == ([3.0, 2.0], [1.0, 0.0])


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_the_skill_is_how_far_the_average_precision_is_from_chance(share):
    scores, targets = scored("some ties", share=share)
    positives = targets.mean()
    expected = (average_precision_score(targets, scores) - positives) / (1 - positives)
    assert average_precision_skill(scores, targets) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("targets", [[0, 0, 0], [1, 1, 1], []])
@pytest.mark.parametrize("metric", [auroc, average_precision, average_precision_skill])
def test_without_a_positive_and_a_negative_they_are_undefined(targets, metric, recwarn):
    assert np.isnan(metric([0.1, 0.2, 0.3][: len(targets)], targets))
    assert not recwarn.list


@pytest.mark.parametrize(
    ("scores", "targets"),
    [([0.1, np.nan], [0, 1]), ([0.1, 0.2], [0, 2]), ([0.1, 0.2], [-1, 1]), ([0.1, 0.2], [0.5, 1])],
)
def test_what_cannot_be_ranked_is_refused(scores, targets):
    for metric in (auroc, average_precision):
        with pytest.raises(ValueError, match="must not be NaN, and targets must be 0 or 1"):
            metric(scores, targets)


def test_targets_of_any_type_are_taken():
    scores, targets = scored("no ties")
    for kind in (bool, np.float32, np.int8):
        assert auroc(scores, targets.astype(kind)) == auroc(scores, targets)
    assert average_precision(scores.tolist(), targets.tolist()) == average_precision(scores, targets)
