from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from tapct.statistics import resampling, summarise_task
from tapct.statistics.intervals import bca, estimate, tail
from tests.leaderboard.simulated import clusters, task, within


def three_errors(simulations: int) -> float:
    """Three standard errors of a share of 95 % of the simulations."""
    return 3 * np.sqrt(0.95 * 0.05 / simulations)


SKEWED = np.random.default_rng(0).exponential(size=30)
RARE = np.repeat([0.0, 1.0], [27, 3])  # many resamples have exactly the value
SYMMETRIC = np.linspace(-7, 7, 29).round()[np.r_[0:29, 14]]  # some patients have no influence at all


@pytest.mark.parametrize("x", [SKEWED, -SKEWED, RARE, SYMMETRIC], ids=["skewed", "turned", "rare", "symmetric"])
@pytest.mark.parametrize("cut", [0.025, 0.01])
def test_the_interval_is_scipys_bca_of_the_same_resamples(cut, x):
    counts = resampling.draw_patients(30, 2000, "any")
    every = np.concatenate([np.ones((30, 1)), counts, 1 - np.eye(30)], axis=1)
    found = resampling.mean_over_cases(x, np.arange(30), every)
    expected = stats.bootstrap(
        (x,),
        np.mean,
        n_resamples=0,
        bootstrap_result=SimpleNamespace(bootstrap_distribution=found[1:2001]),
        confidence_level=1 - 2 * cut,
        method="BCa",
    ).confidence_interval
    assert bca(found[0], found[1:2001], found[2001:], cut) == pytest.approx(expected, rel=1e-9)


def test_the_tails_make_the_interval_of_a_normal_mean_students():
    """On resamples as they would be without end: normal, of the plug-in variance."""
    x = np.random.default_rng(0).normal(size=10)
    plug_in = stats.norm(x.mean(), x.std() / np.sqrt(10))
    expected = stats.t(9, x.mean(), x.std(ddof=1) / np.sqrt(10)).interval(0.95)
    assert (plug_in.ppf(tail(10)), plug_in.ppf(1 - tail(10))) == pytest.approx(expected)
    assert tail(100_000) == pytest.approx(0.025, rel=1e-3)


def holds(inputs, truth: float) -> bool:
    interval = summarise_task(inputs, 500).models[0].estimate
    return interval.low <= truth <= interval.high


def coverage(simulate, ignore_clusters: bool, simulations: int) -> float:
    rng, held = np.random.default_rng(1), 0
    for index in range(simulations):
        patients = clusters(60, rng)
        values, targets, truth = simulate(patients, rng)
        own = np.arange(len(patients)) if ignore_clusters else patients
        held += holds(task(values, own, targets, name=f"simulation {index}"), truth)
    return held / simulations


def mean_of_skewed_scores(patients, rng):
    return stats.expon.ppf(stats.norm.cdf(within(patients, rng)))[None], None, 1.0


def auroc_of_alike_scans(patients, rng):
    """Scans of one patient share their two labels, and mostly their scores; truth is the AUROC of two normals."""
    targets = (rng.random((patients.max() + 1, 2)) < 0.4).astype(int)[patients]
    values = np.stack([within(patients, rng), within(patients, rng)], axis=1) + 1.2 * targets
    return values[None, None], targets, float(stats.norm.cdf(1.2 / np.sqrt(2)))


@pytest.mark.parametrize("simulations", [40, pytest.param(300, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("simulate", [mean_of_skewed_scores, auroc_of_alike_scans])
def test_intervals_hold_the_truth_as_often_as_they_say_and_only_by_patients(simulate, simulations):
    assert coverage(simulate, ignore_clusters=False, simulations=simulations) >= 0.95 - three_errors(simulations)
    assert coverage(simulate, ignore_clusters=True, simulations=simulations) < 0.95 - 3 * three_errors(300)


def test_intervals_are_not_too_long_either():
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    interval = summarise_task(task(x[None])).models[0].estimate
    expected = stats.t(199, x.mean(), x.std(ddof=1) / np.sqrt(200)).interval(0.95)
    assert (interval.low, interval.high) == pytest.approx(expected, abs=0.05 * (expected[1] - expected[0]))


@pytest.mark.parametrize(
    ("values", "patients", "targets", "value", "reason"),
    [
        ([[0.5, 0.7]], [0, 0], None, 0.6, "a single patient"),
        ([[0.5, 0.7]], None, None, 0.6, "2 patients are too few"),
        ([[0.5, 0.7, 0.9]], None, None, 0.7, "3 patients are too few"),
        ([[np.nan] * 60], None, None, None, "no case of a seed defines it"),
        ([[0.5] * 60], None, None, 0.5, "the same in every resample"),
        (np.full((1, 1, 60, 1), 0.5), None, np.ones((60, 1)), None, "the references have only one class"),
        (np.linspace(0, 1, 60).reshape(1, 1, 60, 1), None, np.eye(60)[:, -1:], 1.0, "undefined in 3"),
    ],
)
def test_what_is_undefined_is_none_with_its_reason(values, patients, targets, value, reason):
    found = summarise_task(task(values, patients, targets)).models[0].estimate
    assert found.value == (None if value is None else pytest.approx(value))
    assert (found.low, found.high) == (None, None)
    assert reason in found.reason


def test_few_undefined_resamples_are_left_out():
    x = np.random.default_rng(0).normal(size=2000)
    bootstrap = np.where(np.arange(2000) % 200 == 0, np.nan, x)
    jackknife = np.linspace(-0.1, 0.1, 60)
    found, expected = (estimate(0.0, d, jackknife, 60, "") for d in (bootstrap, bootstrap[~np.isnan(bootstrap)]))
    assert found == expected
    assert found.reason is None


def test_one_resample_in_a_hundred_may_be_undefined_and_no_more():
    x = np.random.default_rng(0).normal(size=2000)
    jackknife = np.linspace(-0.1, 0.1, 60)
    for undefined, has_interval in ((20, True), (21, False)):
        found = estimate(0.0, np.where(np.arange(2000) < undefined, np.nan, x), jackknife, 60, "")
        assert (found.low is not None) == has_interval
        assert found.value == 0.0
    assert "undefined in 1.1%" in found.reason


def test_a_patient_without_whom_it_is_undefined_leaves_no_interval():
    x = np.random.default_rng(0).normal(size=2000)
    found = estimate(0.0, x, np.r_[np.linspace(-0.1, 0.1, 59), np.nan], 60, "")
    assert (found.low, found.high) == (None, None)
    assert "too few patients define it" in found.reason


@pytest.mark.parametrize("value", [-5.0, 5.0])
def test_a_value_beyond_all_resamples_has_no_interval(value):
    x = np.random.default_rng(0).normal(size=200)
    found = estimate(value, x, np.linspace(-0.1, 0.1, 60), 60, "")
    assert (found.value, found.low, found.high) == (value, None, None)


def test_an_interval_needs_a_resample_beyond_its_ends():
    """Of 500 resamples, 7 patients would cut off half a one, and 10 a whole one and a half."""
    x = np.random.default_rng(0).normal(size=500)
    for patients in range(2, 30):
        plug_in = np.sqrt(patients / (patients - 1))
        cut_off = 500 * stats.norm.cdf(-plug_in * stats.t(patients - 1).ppf(0.975))
        found = estimate(0.0, x, np.linspace(-0.1, 0.1, patients), patients, "")
        assert (found.low is not None) == (cut_off >= 1)
