"""The kind retrieval: labels that are missing, numbers by hand, resampling, matched negatives, and refusals."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from tapct import kinds
from tapct.kinds import Cases
from tapct.kinds.retrieval import at_chance, case_loss, outcome
from tapct.metrics.retrieval import unit

KIND = kinds.kind("retrieval")
CLASSES = ("tumor", "trauma")


def cases(features: np.ndarray, targets: np.ndarray, classes=CLASSES, patients=None, scanners=None) -> Cases:
    """What a record holds of scans with these features, each of a scanner where these are given."""
    vectors, number = unit(features), len(features)
    patients = np.arange(number) if patients is None else np.asarray(patients)
    found = []
    for i in range(number):
        others = np.flatnonzero(patients != patients[i])
        like = None if scanners is None else scanners == scanners[i]
        found.append(outcome(targets[i], targets, vectors @ vectors[i], classes, others, like))
        assert KIND.outcome_fault(found[-1], classes) is None
    values = {
        field.name: np.array([[of[field.name][name] for name in classes] for of in found], dtype=np.float64)
        for field in KIND.fields
    }
    return Cases(tuple(map(str, range(number))), tuple(map(str, patients)), classes, values)


def test_a_label_that_is_not_known_leaves_a_scan_out_of_that_label_alone():
    nan = math.nan
    similarity = np.array([0.9, 0.8, 0.7, 0.6])
    targets = np.array([[nan, 0], [0, 1], [1, nan], [0, 1]])
    siemens = np.array([False, True, False, False])
    of = outcome(np.array([1, 1.0]), targets, similarity, CLASSES, like=siemens)
    assert of["relevant"] == {"tumor": 1, "trauma": 2}
    assert of["items"] == {"tumor": 3, "trauma": 3}
    assert of["average_precision"]["tumor"] == 1 / 2  # behind one scan without it; the nearest is not known
    assert of["average_precision"]["trauma"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    # Of what shares the scanner, the second alone; it has no tumor, and the third has one.
    assert of["matched_items"]["tumor"] == 2
    assert of["matched_average_precision"]["tumor"] == 1 / 2
    assert of["matched_average_precision"]["trauma"] is None  # all that are left have it
    assert KIND.outcome_fault(of, CLASSES) is None
    assert case_loss(of) == pytest.approx(1 - (1 / 2 + 7 / 12) / 2)


def test_means_are_over_labels_and_over_queries():
    targets = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 0], [1, 1]], dtype=float)
    random = np.random.default_rng(0)
    of = cases(random.normal(size=(6, 4)), targets, ("tumor", "trauma"))
    precision = of["average_precision"]
    assert np.isnan(precision).sum(axis=0).tolist() == [3, 3]
    found = KIND.numbers(of)
    assert found["mAP"] == pytest.approx(np.nanmean(np.nanmean(precision, axis=0)))
    assert found["QueryMAP"] == pytest.approx(np.nanmean(np.nanmean(precision[[0, 1, 2, 3, 5]], axis=1)))
    assert found["UndefinedQueries"] == 0
    assert "MatchedMAP" not in found  # there is no table


def test_a_label_of_one_patient_is_undefined_and_counted():
    targets = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=float)
    of = cases(np.eye(4) + 1, targets, ("tumor", "trauma"), patients=[0, 0, 1, 2])
    assert KIND.numbers(of)["UndefinedQueries"] == 2
    assert KIND.numbers(of)["R@1"] == pytest.approx(1 / 3)  # of trauma: one of three others that are tied
    assert of["relevant"][:, 0].tolist()[:2] == [0, 0]


def test_resampled_patients_are_queries_and_the_gallery_stays():
    random = np.random.default_rng(0)
    of = cases(random.normal(size=(50, 4)), (random.random((50, 1)) < 0.3).astype(float), ("tumor",))
    counts = random.integers(0, 3, (len(of), 5)).astype(np.float64)
    found = KIND.metric("mAP").of.of(of, counts)
    for column, value in zip(counts.T, found, strict=True):
        drawn = np.repeat(np.arange(len(of)), column.astype(int))
        assert value == pytest.approx(np.nanmean(of["average_precision"][drawn, 0]), abs=1e-12)


def test_constant_features_have_what_chance_has():
    random = np.random.default_rng(3)
    targets = (random.random((30, 2)) < 0.4).astype(float)
    of = cases(np.ones((30, 5)), targets, scanners=random.integers(0, 3, 30))
    assert KIND.numbers(of) == pytest.approx(KIND.numbers(at_chance(of)), abs=1e-12)


GE = np.arange(8) < 4
"""Eight scans of two scanners: three of four of GE have a tumor, and one of four of Siemens."""
TUMOR = np.array([[1, 1, 1, 0, 1, 0, 0, 0]]).T.astype(float)


def expected(ties: list[tuple[int, int]]) -> Fraction:
    """The average precision of ties (scans with the label, scans), over all orders of each, in fractions."""
    orders = [set(itertools.permutations([True] * hits + [False] * (size - hits))) for hits, size in ties]
    total, number, relevant = Fraction(0), 0, sum(hits for hits, _ in ties)
    for order in itertools.product(*orders):
        row = [hit for tie in order for hit in tie]
        precisions = [Fraction(sum(row[: place + 1]), place + 1) for place, hit in enumerate(row) if hit]
        total, number = total + sum(precisions) / relevant, number + 1
    return total / number


def test_who_sorts_by_scanner_is_above_chance_and_with_matched_negatives_below_it():
    of = cases(np.stack([GE, ~GE], axis=1).astype(float), TUMOR, ("tumor",), scanners=GE)
    # A query of GE: 2 of the 3 others of GE have one, then 1 of 4 of Siemens. That of Siemens: 0 of 3, then 3 of 4.
    of_ge, of_siemens = expected([(2, 3), (1, 4)]), expected([(0, 3), (3, 4)])
    by_chance = expected([(3, 7)])
    assert float(of_ge) > float(by_chance)
    # Matched: of the 3 and 4 that have none, those of the query's scanner alone are left.
    matched_ge, matched_siemens = expected([(2, 3), (1, 1)]), expected([(0, 3), (3, 3)])
    chance_ge, chance_siemens = expected([(3, 4)]), expected([(3, 6)])
    found, chance = KIND.numbers(of), KIND.numbers(at_chance(of))
    assert found["mAP"] == pytest.approx(float((3 * of_ge + of_siemens) / 4), abs=1e-12)
    assert chance["mAP"] == pytest.approx(float(by_chance), abs=1e-12)
    assert found["MatchedMAP"] == pytest.approx(float((3 * matched_ge + matched_siemens) / 4), abs=1e-12)
    assert chance["MatchedMAP"] == pytest.approx(float((3 * chance_ge + chance_siemens) / 4), abs=1e-12)
    assert matched_ge < chance_ge  # what lies behind all negatives cannot be found before them
    assert matched_siemens < chance_siemens
    assert found["mAP"] > chance["mAP"]
    assert found["MatchedMAP"] < chance["MatchedMAP"]


def test_who_knows_the_label_is_above_chance_with_matched_negatives_too():
    of = cases(np.concatenate([TUMOR, 1 - TUMOR], axis=1), TUMOR, ("tumor",), scanners=GE)
    found, chance = KIND.numbers(of), KIND.numbers(at_chance(of))
    assert found["mAP"] == found["MatchedMAP"] == 1
    assert chance["MatchedMAP"] < 1


def test_the_more_the_scanner_counts_the_less_is_found_among_matched_scans():
    random = np.random.default_rng(4)
    ge = random.random(120) < 0.5
    tumor = (random.random(120) < np.where(ge, 0.8, 0.2))[:, None].astype(float)
    noise, gains = random.normal(size=(120, 8)), []
    for scanner in (0.0, 2.0, 8.0):
        features = noise.copy()
        features[:, 0] += scanner * (2 * ge - 1)
        of = cases(features, tumor, ("tumor",), scanners=ge)
        found, chance = KIND.numbers(of), KIND.numbers(at_chance(of))
        gains.append([(found[name] - chance[name]) / (1 - chance[name]) for name in ("mAP", "MatchedMAP")])
    plain, matched = np.transpose(gains)
    assert (np.diff(plain) > 0.03).all()
    assert (np.diff(matched) < -0.03).all()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("average_precision", None, "lacks others"),
        ("relevant", 99.0, "99 relevant scans of"),
        ("matched_items", 99.0, "99 matched scans of"),
        ("hit_1", 1.5, "hit_1 of tumor is 1.5"),
        ("matched_average_precision", None, "matched average precision"),
    ],
)
def test_numbers_that_cannot_be_are_refused(field, value, message):
    targets = np.array([[1, 0], [0, 1], [0, 1], [1, 1.0]])
    alike = np.array([False, True, False, True])
    of = outcome(np.array([1.0, 0]), targets, np.array([0.4, 0.3, 0.2, 0.1]), CLASSES, like=alike)
    assert KIND.outcome_fault(of, CLASSES) is None
    of[field]["tumor"] = value
    assert message in (KIND.outcome_fault(of, CLASSES) or "")
