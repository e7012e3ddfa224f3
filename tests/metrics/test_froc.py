"""FROC against a brute-force reference in fractions, LUNA16's recipe on scikit-learn's ROC, and planted detections."""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from tapct.metrics.froc import BANDS_MM, RATES, Detections, Marks, mark


class Scan(NamedTuple):
    candidates_mm: np.ndarray
    scores: np.ndarray
    points_mm: np.ndarray
    diameters_mm: np.ndarray
    excluded: np.ndarray


def made_scans(seed: int, number: int = 12, decimals: int | None = None) -> list[Scan]:
    """Scans with up to four findings (some excluded), candidates near some of them and anywhere."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(number):
        points = rng.uniform(0, 60, (rng.integers(0, 5), 3))
        near = points + rng.normal(0, 3, points.shape)
        candidates = np.concatenate([near, near[:1] + 0.5, rng.uniform(0, 60, (rng.integers(0, 15), 3))])
        scores = rng.normal(size=len(candidates)) + np.arange(len(candidates)) * -0.05
        scores = scores if decimals is None else scores.round(decimals)
        made.append(Scan(candidates, scores, points, rng.uniform(4, 25, len(points)), rng.random(len(points)) < 0.2))
    return made


def detections(scans: list[Scan]) -> Detections:
    return Detections.of([[mark(*scan)] for scan in scans])


def once(found: Detections) -> list[float]:
    """The sensitivities without resampling."""
    return found.sensitivities(np.ones((found.scans, 1)))[:, 0].tolist()


def by_hand(scans: list[Scan]) -> list[float]:
    """The sensitivity at each rate: thresholds gone through one by one, in fractions."""
    findings, false, best = 0, [], []
    for scan in scans:
        credit: dict[int, list[float]] = {i: [] for i in range(len(scan.points_mm)) if not scan.excluded[i]}
        findings += len(credit)
        for place, score in zip(scan.candidates_mm, scan.scores, strict=True):
            within = {i: math.dist(place, point) for i, point in enumerate(scan.points_mm)}
            within = {i: far for i, far in within.items() if far < scan.diameters_mm[i] / 2}
            mine = [i for i in sorted(within, key=within.__getitem__) if i in credit]
            if mine:
                credit[mine[0]].append(score)
            elif not within:
                false.append(score)
        best += [max(found) for found in credit.values() if found]
    curve = [(Fraction(0), Fraction(0))]
    for threshold in sorted({*best, *false}, reverse=True):
        hit, wrong = sum(s >= threshold for s in best), sum(s >= threshold for s in false)
        curve.append((Fraction(wrong, len(scans)), Fraction(hit, findings)))
    found = []
    for rate in map(Fraction, RATES):
        left = [at for at in curve if at[0] <= rate][-1]
        right = next((at for at in curve if at[0] > rate), left)
        share = (rate - left[0]) / (right[0] - left[0]) if right != left else Fraction(0)
        found.append(float(left[1] + share * (right[1] - left[1])))
    return found


@pytest.mark.parametrize("decimals", [None, 1, 0, -2])
@pytest.mark.parametrize("seed", range(5))
def test_is_what_counting_by_hand_gives(seed, decimals):
    scans = made_scans(seed, decimals=decimals)
    found, reference = detections(scans), by_hand(scans)
    assert once(found) == pytest.approx(reference, abs=1e-15)
    assert found.froc(np.ones((12, 1))) == pytest.approx(np.mean(reference), abs=1e-15)


def test_is_what_luna16s_recipe_gives():
    scans = made_scans(3, number=40)
    marks = [mark(*scan) for scan in scans]
    best = np.concatenate([one.scores for one in marks])
    false = np.concatenate([one.false for one in marks])
    hit = best[~np.isnan(best)]
    scores, truth = np.concatenate([hit, false]), np.repeat([1, 0], [len(hit), len(false)])
    false_rate, true_rate, _ = roc_curve(truth, scores)
    reference = np.interp(RATES, false_rate * len(false) / 40, true_rate * len(hit) / len(best))
    assert once(detections(scans)) == pytest.approx(reference, abs=1e-12)


def test_the_order_of_scans_and_candidates_changes_no_bit():
    scans = made_scans(1, decimals=0)
    turned = [Scan(*(of[::-1] for of in scan)) for scan in scans[::-1]]
    assert once(detections(turned)) == once(detections(scans))


@pytest.mark.parametrize("decimals", [None, 0])
def test_resamples_are_what_repeated_scans_give(decimals):
    scans = made_scans(2, decimals=decimals)
    counts = np.random.default_rng(0).multinomial(4, [0.25] * 4, size=300).T[np.arange(12) % 4]  # of four patients
    every = detections(scans)
    found, errors = every.sensitivities(counts), every.error_mm(counts)
    for column in (0, 7, 255, 256, 299):
        repeated = [scan for scan, count in zip(scans, counts[:, column], strict=True) for _ in range(count)]
        assert found[:, column] == pytest.approx(by_hand(repeated))
        one_by_one = np.concatenate([mark(*scan).errors_mm for scan in repeated])
        assert errors[column] == pytest.approx(np.nanmedian(one_by_one))


def test_a_detector_keeps_its_sensitivity_at_rates_that_it_never_reaches():
    """Found are .8, .9 and .95 at 1/8, 1/4 and 1/2, and nothing beyond: 0.921, which UNICORN's getCPM makes 0.379."""
    order = [*[1] * 16, *[0] * 3, *[1] * 2, *[0] * 2, 1]  # in 16 scans, 1/8 allows two false positives, and 1/4 four
    scores = -np.arange(len(order), dtype=float)
    is_hit = np.array(order) == 1
    hits = np.append(scores[is_hit], np.nan)
    first = Marks(hits, np.ones(20), np.full(20, 8.0), scores[~is_hit])
    nothing = Marks(*[np.empty(0)] * 4)
    found = Detections.of([[first], *[[nothing]] * 15])
    assert once(found) == pytest.approx([0.8, 0.9, *[0.95] * 5])
    assert found.froc(np.ones((16, 1))) == pytest.approx(0.921, abs=5e-4)


def test_a_tie_of_hits_and_false_positives_is_a_straight_line():
    tied = Marks(np.zeros(1), np.zeros(1), np.full(1, 8.0), np.zeros(4))
    assert once(Detections.of([[tied]] * 4)) == [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 1]


def test_classes_share_the_false_positives_of_a_scan():
    one, other = (Marks(np.array([score]), np.zeros(1), np.full(1, 8.0), np.array([0.5])) for score in (0.9, 0.1))
    assert once(Detections.of([[one, other]])) == [0.5, 0.5, 0.5, 0.5, 1, 1, 1]


def one_scan(candidates, scores, points, diameters, excluded=()) -> Marks:
    is_excluded = np.array([*excluded, *[False] * (len(points) - len(excluded))], dtype=bool)
    return mark(np.array(candidates), np.array(scores), np.array(points), np.array(diameters), is_excluded)


def test_a_hit_lies_within_the_radius_and_not_on_it():
    found = one_scan([[0, 0, 3.999], [20, 0, 4]], [0.5, 0.4], [[0, 0, 0], [20, 0, 0]], [8.0, 8.0])
    assert found.scores[0] == 0.5
    assert math.isnan(found.scores[1])
    assert found.false.tolist() == [0.4]


def test_a_second_candidate_on_a_finding_counts_neither_way_and_the_surer_one_counts():
    found = one_scan([[1, 0, 0], [2, 0, 0]], [0.1, 0.7], [[0, 0, 0]], [10.0])
    assert (found.scores.tolist(), found.errors_mm.tolist(), found.false.tolist()) == ([0.7], [2.0], [])


def test_of_equal_scores_the_nearer_candidate_is_the_match():
    assert one_scan([[2, 0, 0], [1, 0, 0]], [0.7, 0.7], [[0, 0, 0]], [10.0]).errors_mm.tolist() == [1.0]


def test_a_candidate_in_two_findings_finds_the_nearer_one_alone():
    found = one_scan([[2, 0, 0]], [0.7], [[0, 0, 0], [6, 0, 0]], [10.0, 10.0])
    assert found.scores[0] == 0.7
    assert math.isnan(found.scores[1])


def test_an_excluded_finding_counts_neither_way():
    found = one_scan([[0, 0, 1], [50, 0, 0]], [0.9, 0.8], [[0, 0, 0], [90, 0, 0]], [10.0, 10.0], [True, True])
    assert (len(found.scores), found.false.tolist()) == (0, [0.8])


def test_a_finding_goes_before_an_excluded_one_in_which_the_candidate_lies():
    found = one_scan([[0, 0, 1]], [0.9], [[0, 0, 0], [0, 0, 2]], [10.0, 10.0], [True, False])
    assert found.scores.tolist() == [0.9]


def test_scans_without_findings_count_for_false_positives():
    hit = one_scan([[0, 0, 0], [40, 0, 0]], [0.5, 0.9], [[0, 0, 0]], [10.0])
    empty = one_scan(np.empty((0, 3)), [], np.empty((0, 3)), [])
    assert once(Detections.of([[hit]])) == [0, 0, 0, 1, 1, 1, 1]
    assert once(Detections.of([[hit], *[[empty]] * 7])) == [1] * 7


def test_without_a_finding_nothing_is_defined():
    empty = Detections.of([[one_scan([[0, 0, 0]], [0.5], np.empty((0, 3)), [])]])
    assert np.isnan([*once(empty), *empty.error_mm(np.ones((1, 1)))]).all()


def test_without_a_candidate_nothing_is_found():
    found = Detections.of([[one_scan(np.empty((0, 3)), [], [[0, 0, 0]], [5.0])]])
    assert once(found) == [0] * 7
    assert np.isnan(found.error_mm(np.ones((1, 1)))).all()


def test_bands_share_the_findings_out():
    every = detections(made_scans(4, number=40))
    parts = [every.within(*band) for band in BANDS_MM]
    weights = [len(part.scores) for part in parts]
    together = sum(w * np.array(once(part)) for w, part in zip(weights, parts, strict=True) if w) / sum(weights)
    assert sum(weights) == len(every.scores)
    assert together == pytest.approx(once(every))


def test_the_error_is_the_median_of_what_is_drawn():
    """Found 1, 3 and 7 mm off, in a scan each; of an even number, the mean of the middle two."""
    found = Detections.of([[one_scan([[off, 0, 0]], [0.5], [[0, 0, 0]], [20.0])] for off in (1.0, 3.0, 7.0)])
    counts = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1], [2, 0, 1], [1, 1, 2], [0, 0, 0]]).T
    assert found.error_mm(counts) == pytest.approx([1, 3, 2, 3, 5, 1, 5, math.nan], nan_ok=True)


def test_the_smallest_findings_are_in_a_band():
    tiny = Detections.of([[one_scan([[0, 0, 0]], [0.5], [[0, 0, 0]], [0.5])]])
    assert [len(tiny.within(*band).scores) for band in BANDS_MM] == [1, 0, 0, 0]


def test_the_curve_passes_through_the_sensitivities():
    every = detections(made_scans(5))
    false, sensitivity = every.curve()
    assert (false[0], sensitivity[0]) == (0, 0)
    assert np.interp(RATES, false, sensitivity) == pytest.approx(once(every))


@pytest.mark.parametrize(
    ("candidate", "score", "diameter"),
    [(math.nan, 0.5, 5.0), (0.0, math.nan, 5.0), (0.0, 0.5, 0.0), (0.0, 0.5, -3.0), (0.0, 0.5, math.nan)],
)
def test_what_cannot_be_is_refused(candidate, score, diameter):
    with pytest.raises(ValueError, match="must be finite, and diameters positive"):
        one_scan([[candidate, 0, 0]], [score], [[0, 0, 0]], [diameter])
