"""The kind reliability: the intraclass correlation against an analysis of variance by hand, agreement, invariances."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from tapct import kinds
from tapct.kinds import Cases
from tapct.kinds.reliability import at_chance, case_loss, correlations, outcomes
from tapct.metrics.reliability import LEAST, icc, standardised

KIND = kinds.kind("reliability")
ICCS = ("MedianICC", "GoodICC", "ExcellentICC")


def by_hand(first: np.ndarray, second: np.ndarray) -> float:
    """ICC(2,1) as Shrout and Fleiss have it, from the mean squares of a two-way table in fractions."""
    table = [[Fraction(a), Fraction(b)] for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    n, k = len(table), 2
    grand = sum(map(sum, table)) / (n * k)
    rows, columns = [sum(row) / k for row in table], [sum(column) / n for column in zip(*table, strict=True)]
    bms = k * sum((row - grand) ** 2 for row in rows) / (n - 1)
    jms = n * sum((column - grand) ** 2 for column in columns) / (k - 1)
    ems = sum((table[i][j] - rows[i] - columns[j] + grand) ** 2 for i in range(n) for j in range(k)) / (n - 1)
    return float((bms - ems) / (bms + (k - 1) * ems + k * (jms - ems) / n))


def scans(first: np.ndarray, second: np.ndarray, kernel: float = 0.0) -> Cases:
    """What a record holds of the two scans of each patient, the second ones in another order."""
    number = len(first)
    order = np.random.default_rng(9).permutation(number)
    features, patients = np.concatenate([first, second[order]]), np.concatenate([np.arange(number), order])
    occasion = np.repeat([1.0, 2.0], number)
    targets = np.stack([occasion, np.full(2 * number, kernel), np.full(2 * number, math.nan)], axis=1)
    centre, scale = standardised(features)
    vectors = np.where(scale > 0, (features - centre) / np.where(scale > 0, scale, 1), 0)
    found = outcomes(vectors, patients, targets, "scan")
    for one in found:
        assert KIND.outcome_fault(one, ("scan",)) is None
    values = {}
    for field in KIND.fields:
        column = [one[field.name]["scan"] for one in found]
        if field.many:
            values[field.name] = np.empty((len(column), 1), dtype=object)
            values[field.name][:, 0] = [np.array(one) for one in column]
        else:
            values[field.name] = np.array(column, dtype=np.float64)[:, None]
    return Cases(tuple(map(str, range(2 * number))), tuple(map(str, patients)), ("scan",), values)


def pairs(random, number: int, features: int, error: float) -> tuple[np.ndarray, np.ndarray]:
    truth = random.normal(size=(number, features))
    return tuple(truth + error * random.normal(size=truth.shape) for _ in range(2))


# -- The intraclass correlation --------------------------------------------------------------------------


@pytest.mark.parametrize("patients", [2, 3, 31])
def test_it_is_that_of_an_analysis_of_variance_by_hand(patients):
    random = np.random.default_rng(patients)
    first, second = pairs(random, patients, 6, 0.7)
    second += 0.5 * np.arange(6)  # a drift between the occasions counts: it is of absolute agreement
    found = icc(first, second, np.ones((patients, 1)))[:, 0]
    expected = [max(LEAST, by_hand(a, b)) for a, b in zip(first.T, second.T, strict=True)]
    assert found == pytest.approx(expected, abs=1e-10)


def test_the_mean_squares_are_those_of_scipy():
    """Of two occasions the F of columns is the square of the paired t, which ties the three mean squares together."""
    random = np.random.default_rng(0)
    first, second = pairs(random, 20, 1, 0.5)
    second += 0.3
    t = stats.ttest_rel(first[:, 0], second[:, 0]).statistic
    sums, apart = (first + second)[:, 0], (first - second)[:, 0]
    bms, ems = np.var(sums, ddof=1) / 2, np.var(apart, ddof=1) / 2
    expected = (bms - ems) / (bms + ems + 2 * (t**2 * ems - ems) / 20)
    assert icc(first, second, np.ones((20, 1))) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("error", "drift"), [(0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (0.5, 1.0)])
def test_it_is_the_share_of_the_variance_that_is_of_the_patient(error, drift):
    random = np.random.default_rng(1)
    first, second = pairs(random, 40_000, 1, error)
    second += drift
    of_occasions = drift**2 / 2  # the unbiased variance of two means that far apart
    expected = 1 / (1 + error**2 + of_occasions)
    assert icc(first, second, np.ones((len(first), 1))) == pytest.approx(expected, abs=0.01)


def test_resamples_are_of_patients_repeated_as_often_as_they_were_drawn():
    random = np.random.default_rng(2)
    first, second = pairs(random, 12, 3, 0.4)
    counts = random.multinomial(12, np.full(12, 1 / 12), 5).T.astype(float)
    found = icc(first, second, counts)
    for column, value in zip(counts.T, found.T, strict=True):
        rows = np.repeat(np.arange(12), column.astype(int))
        expected = [max(LEAST, by_hand(a, b)) for a, b in zip(first[rows].T, second[rows].T, strict=True)]
        assert value == pytest.approx(expected, abs=1e-9)


def test_what_does_not_vary_has_none_and_what_disagrees_is_below_zero():
    first = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    second = np.array([[1.0, 3.0], [1.0, 2.0], [1.0, 1.0]])
    constant, turned = icc(first, second, np.ones((3, 1)))[:, 0]
    assert math.isnan(constant)
    assert turned == LEAST


# -- A record --------------------------------------------------------------------------------------------


def test_the_metrics_are_medians_and_shares_of_correlations_by_hand_over_features_that_vary():
    random = np.random.default_rng(3)
    first, second = pairs(random, 25, 40, 0.45)
    first[:, :3] = second[:, :3] = [7.0, 0.0, 1e6]
    cases = scans(first, second)
    by_feature = np.array([by_hand(a, b) for a, b in zip(first.T[3:], second.T[3:], strict=True)])
    found = KIND.numbers(cases)
    assert correlations(cases) == pytest.approx(by_feature, abs=1e-5)
    assert found["MedianICC"] == pytest.approx(np.median(by_feature), abs=1e-5)
    assert found["GoodICC"] == pytest.approx(np.mean(by_feature >= 0.75))
    assert found["ExcellentICC"] == pytest.approx(np.mean(by_feature >= 0.9))
    assert found["ConstantFeatures"] == 3
    assert 0 < found["ExcellentICC"] < found["GoodICC"] < 1


def test_agreement_is_that_of_standardised_features_by_hand():
    random = np.random.default_rng(4)
    first, second = pairs(random, 15, 6, 0.8)
    cases, every = scans(first, second), np.concatenate([first, second])
    z = np.round((every - every.mean(axis=0)) / every.std(axis=0), 5)
    one, other = z[:15], z[15:]
    cosine = [a @ b / np.sqrt(a @ a * (b @ b)) for a, b in zip(one, other, strict=True)]
    directions = [of / np.linalg.norm(of, axis=1, keepdims=True) for of in (one, other)]
    alike = directions[0] @ directions[1].T
    ranks = [(row > row[i]).sum() + 1 for turned in (alike, alike.T) for i, row in enumerate(turned)]
    away = np.linalg.norm(one[:, None] - other, axis=2)
    off = ~np.eye(15, dtype=bool)
    ratios = [row[i] / row[off[i]].mean() for turned in (away, away.T) for i, row in enumerate(turned)]
    found = KIND.numbers(cases)
    assert found["PairCosine"] == pytest.approx(np.mean(cosine), abs=1e-12)
    assert found["Identification"] == pytest.approx(np.mean(np.array(ranks) == 1), abs=1e-12)
    assert found["PartnerMRR"] == pytest.approx(np.mean(1 / np.array(ranks)), abs=1e-12)
    assert found["DistanceRatio"] == pytest.approx(np.mean(ratios), abs=1e-9)
    assert case_loss({"cosine": {"scan": cases["cosine"][0, 0]}}) == pytest.approx(1 - cosine[0])


def test_no_number_depends_on_shift_or_scale_of_a_feature_and_all_on_a_rotation():
    random = np.random.default_rng(5)
    first, second = pairs(random, 20, 8, 0.6)
    first, second = first * (spread := np.geomspace(0.1, 3, 8)), second * spread
    found = KIND.numbers(scans(first, second))
    scale, shift = 10.0 ** random.integers(-6, 7, 8), random.normal(size=8) * 100
    moved = KIND.numbers(scans(first * scale + shift * scale, second * scale + shift * scale))
    assert moved == pytest.approx(found, abs=1e-3)
    turn = stats.ortho_group.rvs(8, random_state=0)
    turned = KIND.numbers(scans(first @ turn, second @ turn))
    assert abs(turned["MedianICC"] - found["MedianICC"]) > 1e-3


def test_features_that_say_nothing_identify_what_chance_does_and_have_no_correlation():
    cases = scans(np.full((9, 2), 3.0), np.full((9, 2), 3.0))
    found = KIND.numbers(cases)
    chance = KIND.numbers(at_chance(cases))
    for name in ("Identification", "PartnerMRR", "PairCosine"):
        assert found[name] == pytest.approx(chance[name], abs=1e-12)
    assert found["Identification"] == pytest.approx(1 / 9)
    assert found["PartnerMRR"] == pytest.approx(np.mean(1 / np.arange(1, 10)))
    assert found["ConstantFeatures"] == 2
    assert not {*ICCS, "DistanceRatio"} & found.keys()


def test_who_cannot_tell_patients_apart_has_no_correlation():
    first, second = pairs(np.random.default_rng(8), 200, 50, 0.3)
    chance = KIND.numbers(at_chance(scans(first, second)))
    assert abs(chance["MedianICC"]) < 0.03
    assert chance["GoodICC"] == 0
    assert (chance["PairCosine"], chance["DistanceRatio"], chance["Identification"]) == (0, 1, pytest.approx(1 / 200))


def test_the_same_scan_twice_agrees_with_itself():
    features = np.random.default_rng(6).normal(size=(12, 5))
    found = KIND.numbers(scans(features, features))
    assert [found[name] for name in (*ICCS, "PairCosine", "Identification", "PartnerMRR")] == pytest.approx([1] * 6)
    assert found["DistanceRatio"] == 0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("occasion", 1.5, "the occasion is 1.5"),
        ("others", 2.5, "other scans are 2.5"),
        ("cosine", 1.5, "cosine of scan is 1.5"),
        ("identified", None, "identified of scan is missing"),
        ("features", [], "has no features"),
        ("features", [math.nan], "must be finite"),
    ],
)
def test_numbers_that_cannot_be_are_refused(field, value, message):
    features = np.random.default_rng(7).normal(size=(6, 3))
    targets = np.array([[1, 0, 1.25], [2, 0, 1.25]] * 3)
    of = outcomes(features, np.repeat([0, 1, 2], 2), targets, "scan")[0]
    assert KIND.outcome_fault(of, ("scan",)) is None
    of[field]["scan"] = value
    assert message in (KIND.outcome_fault(of, ("scan",)) or "")
