"""The kind retrieval: labels that are missing, numbers by hand, resampling, what neighbours share, and refusals."""

import math

import numpy as np
import pytest

from tapct import kinds
from tapct.kinds import Cases
from tapct.kinds.retrieval import at_chance, case_loss, outcome, shared_by_nearest
from tapct.metrics.retrieval import unit

KIND = kinds.kind("retrieval")
CLASSES = ("tumor", "trauma", "maker=ge", "maker=siemens")


def cases(features: np.ndarray, targets: np.ndarray, classes=CLASSES, patients=None) -> Cases:
    """What a record holds of scans with these features."""
    vectors, number = unit(features), len(features)
    patients = np.arange(number) if patients is None else np.asarray(patients)
    found = []
    for i in range(number):
        others = np.flatnonzero(patients != patients[i])
        found.append(outcome(targets[i], targets[others], vectors[others] @ vectors[i], classes))
        assert KIND.outcome_fault(found[-1], classes) is None
    values = {
        field.name: np.array([[of[field.name][name] for name in classes] for of in found], dtype=np.float64)
        for field in KIND.fields
    }
    return Cases(tuple(map(str, range(number))), tuple(map(str, patients)), classes, values)


def planted(seed: int, *, scanner: float = 0.0, disease: float = 0.0, number: int = 160) -> Cases:
    """Scans whose features know the scanner, the disease, both or nothing; neither tells the other."""
    random = np.random.default_rng(seed)
    tumor, ge = random.random(number) < 0.3, random.random(number) < 0.5
    features = random.normal(size=(number, 16))
    features[:, 0] += scanner * (2 * ge - 1)
    features[:, 1] += disease * (2 * tumor - 1)
    return cases(features, np.stack([tumor, ge, ~ge], axis=1).astype(float), ("tumor", "maker=ge", "maker=siemens"))


def test_a_label_that_is_not_known_leaves_a_scan_out_of_that_label_alone():
    nan = math.nan
    similarity = np.array([0.9, 0.8, 0.7, 0.6])
    targets = np.array([[nan, 0, 1, 0], [0, 1, 0, 1], [1, nan, 1, 0], [0, 1, nan, nan]])
    of = outcome(np.array([1, 1, nan, 1.0]), targets, similarity, CLASSES)
    assert of["relevant"] == {"tumor": 1, "trauma": 2, "maker=ge": None, "maker=siemens": 1}
    assert of["items"] == {"tumor": 3, "trauma": 3, "maker=ge": None, "maker=siemens": 3}
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
    of, random = planted(0, disease=1), np.random.default_rng(1)
    counts = random.integers(0, 3, (len(of), 5)).astype(np.float64)
    found = KIND.metric("mAP").of.of(of, counts)
    for column, value in zip(counts.T, found, strict=True):
        drawn = np.repeat(np.arange(len(of)), column.astype(int))
        assert value == pytest.approx(np.nanmean(of["average_precision"][drawn, 0]), abs=1e-12)


def test_constant_features_have_what_chance_has():
    random = np.random.default_rng(3)
    targets = (random.random((30, 4)) < 0.4).astype(float)
    targets[:, 3] = 1 - targets[:, 2]
    of = cases(np.ones((30, 5)), targets)
    assert KIND.numbers(of) == pytest.approx(KIND.numbers(at_chance(of)), abs=1e-12)


def test_a_planted_shortcut_is_found_and_matching_takes_it_away():
    of = planted(0, scanner=6)
    shared, chance = (
        {name: np.nanmean(values) for name, values in shared_by_nearest(one).items()} for one in (of, at_chance(of))
    )
    assert shared["maker"] > 0.99
    assert abs(chance["maker"] - 0.5) < 0.02
    assert abs(shared["label"] - chance["label"]) < 0.15


def test_features_that_know_nothing_share_what_chance_does():
    gaps = []
    for seed in range(20):
        of = planted(seed, number=60)
        one, other = (shared_by_nearest(each) for each in (of, at_chance(of)))
        gaps.append([np.nanmean(one[name] - other[name]) for name in ("label", "maker")])
    means, errors = np.mean(gaps, axis=0), np.std(gaps, axis=0, ddof=1) / math.sqrt(20)
    assert (np.abs(means) < 3 * errors).all()


def test_a_label_that_the_scanner_gives_away_is_at_chance_among_scans_of_one_scanner():
    random = np.random.default_rng(4)
    ge = random.random(200) < 0.5
    tumor = random.random(200) < np.where(ge, 0.8, 0.2)
    features = random.normal(size=(200, 8))
    features[:, 0] += 8 * (2 * ge - 1)
    of = cases(features, np.stack([tumor, ge, ~ge], axis=1).astype(float), ("tumor", "maker=ge", "maker=siemens"))
    found, chance = KIND.numbers(of), KIND.numbers(at_chance(of))
    assert found["mAP"] - chance["mAP"] > 0.1
    ours = of["matched_average_precision"][:, 0]
    same = of["items"][:, 0] > 0
    assert np.nanmean(ours[same]) < np.nanmean(at_chance(of)["matched_average_precision"][same, 0]) + 0.1


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
    targets = np.array([[1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1], [1, 1, 0, 1]], dtype=float)
    of = outcome(np.array([1.0, 0, 0, 1]), targets, np.array([0.4, 0.3, 0.2, 0.1]), CLASSES)
    assert KIND.outcome_fault(of, CLASSES) is None
    of[field]["tumor"] = value
    assert message in (KIND.outcome_fault(of, CLASSES) or "")
