"""What neighbours share, next to chance and the label: against brute force in fractions, and with ties."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from tapct.metrics import shortcuts
from tapct.metrics.retrieval import unit


def brute_force(similarity, patients, member, labels):
    """Of each query the shares by nearest, chance and label as fractions; None where there is none."""
    number, found = len(patients), []
    for i in range(number):
        others = [j for j in range(number) if patients[j] != patients[i]]
        nearest, chance, of_label = [], [], []
        for k in [k for k in range(member.shape[1]) if member[i, k] == 1]:
            known = [j for j in others if not math.isnan(member[j, k])]
            if not known:
                continue
            best = max(similarity[i, j] for j in known)
            tie = [j for j in known if similarity[i, j] == best]
            nearest.append(Fraction(sum(member[j, k] == 1 for j in tie), len(tie)))
            chance.append(Fraction(sum(member[j, k] == 1 for j in known), len(known)))
            for one in [one for one in range(labels.shape[1]) if labels[i, one] == 1]:
                like = [j for j in known if labels[j, one] == 1]
                if like:
                    of_label.append(Fraction(sum(member[j, k] == 1 for j in like), len(like)))
        found.append([sum(of) / len(of) if of else None for of in (nearest, chance, of_label)])
    return found


def scans(seed, number=40, levels=3, unknown=0.2, per_patient=2):
    random = np.random.default_rng(seed)
    level = [None if random.random() < unknown else f"level {random.integers(levels)}" for _ in range(number)]
    labels = np.where(random.random((number, 2)) < unknown, np.nan, random.random((number, 2)) < 0.4)
    vectors = unit(random.integers(-1, 2, (number, 3)) + np.array([3.0, 0, 0]))  # many ties
    return vectors, np.arange(number) // per_patient, level, labels


@pytest.mark.parametrize("seed", range(5))
def test_all_shares_are_those_of_brute_force_in_fractions(seed, monkeypatch):
    vectors, patients, level, labels = scans(seed)
    member = shortcuts.members(level, shortcuts.names_of(level))
    similarity = np.round(vectors @ vectors.T, 9)
    expected = brute_force(similarity, patients, member, labels)
    for first in (64, 2):  # in one go, and looking at ever more scans
        monkeypatch.setattr(shortcuts, "NEAREST", first)
        near, of_labels = shortcuts.nearest(vectors, patients, [member, labels])
        found = (near, shortcuts.by_chance(member, patients), shortcuts.by_label(labels, member, patients))
        for of, which in zip(found, range(3), strict=True):
            wanted = [np.nan if row[which] is None else float(row[which]) for row in expected]
            np.testing.assert_allclose(of, wanted, atol=1e-12)
        wanted = [row[0] for row in brute_force(similarity, patients, labels, labels)]
        np.testing.assert_allclose(of_labels, [np.nan if one is None else float(one) for one in wanted], atol=1e-12)


def test_features_that_are_the_same_for_all_share_what_chance_does():
    _, patients, level, labels = scans(7)
    member = shortcuts.members(level, shortcuts.names_of(level))
    of_level, of_labels = shortcuts.nearest(np.ones((40, 1)), patients, [member, labels])
    np.testing.assert_allclose(of_level, shortcuts.by_chance(member, patients), atol=1e-12)
    np.testing.assert_allclose(of_labels, shortcuts.by_chance(labels, patients), atol=1e-12)


def test_numbers_by_hand():
    level = ["ge", "ge", "siemens", "siemens", None]
    member = shortcuts.members(level, ["ge", "siemens"])
    patients = np.array([0, 1, 2, 3, 4])
    assert shortcuts.as_numbers(level).tolist() == [0, 0, 1, 1, -1]
    np.testing.assert_array_equal(shortcuts.by_chance(member, patients), [1 / 3] * 4 + [np.nan])
    # The second scan is of the first one's patient: nothing of GE is left to find.
    np.testing.assert_array_equal(shortcuts.by_chance(member, np.array([0, 0, 2, 3, 4]))[:2], [0, 0])
    labels = np.array([[1, 1, 1, 0, 1.0]]).T
    np.testing.assert_array_equal(
        shortcuts.by_label(labels, member, patients), [1 / 2, 1 / 2, 0, np.nan, np.nan]
    )  # who lacks the label has no share of it, unless it is the only one
    both = shortcuts.by_label(shortcuts.both_ways(labels), member, patients)
    np.testing.assert_array_equal(both, [1 / 2, 1 / 2, 0, np.nan, np.nan])  # nobody else lacks it
    with_one_more = np.append(labels, [[0.0]], axis=0)
    more = shortcuts.members([*level, "siemens"], ["ge", "siemens"])
    found = shortcuts.by_label(shortcuts.both_ways(with_one_more), more, np.arange(6))
    assert found[3] == 1  # the other one without it is of Siemens as well


def test_a_patient_alone_has_nobody_to_share_with():
    member = shortcuts.members(["ge", "ge"], ["ge"])
    for found in (*shortcuts.nearest(np.ones((2, 1)), np.zeros(2), [member]), shortcuts.by_chance(member, np.zeros(2))):
        assert np.isnan(found).all()


def test_ties_that_no_similarity_decides_are_expectations_over_all_orders():
    level = ["a", "a", "b", "b", "b"]
    member = shortcuts.members(level, ["a", "b"])
    (found,) = shortcuts.nearest(np.ones((5, 1)), np.arange(5), [member])
    orders = itertools.permutations(range(1, 5))
    assert found[0] == pytest.approx(np.mean([level[order[0]] == "a" for order in orders]))
