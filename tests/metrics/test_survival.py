"""Metrics of survival against scikit-survival, and the examples that a hand can compute."""

import numpy as np
import pytest
from scipy import stats
from sksurv.compare import compare_survival
from sksurv.metrics import (
    brier_score,
    concordance_index_censored,
    concordance_index_ipcw,
    cumulative_dynamic_auc,
    integrated_brier_score,
)
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

from tapct.metrics.survival import (
    GRID_DAYS,
    HORIZONS_DAYS,
    Outcomes,
    auroc,
    auroc_name,
    brier,
    evaluate,
    harrell_c,
    integrated_brier,
    kaplan_meier,
    log_rank,
    uno_c,
)

KINDS = {
    "no ties": {"step": 1e-6, "round_risk": 9},
    "tied times": {"step": 80, "round_risk": 9},
    "tied times and risks": {"step": 80, "round_risk": 0},
    "tied risks": {"step": 1e-6, "round_risk": 0},
}


def simulated(kind: str, patients: int = 150, seed: int = 0) -> tuple[Outcomes, np.ndarray, np.ndarray]:
    """Deaths within some years, four in ten lost before, risks that know a little, and survival to match."""
    random = np.random.default_rng(seed)
    truth = random.normal(size=patients)
    died, lost = 900 * random.exponential(size=patients) * np.exp(-truth), random.uniform(100, 4000, patients)
    step = KINDS[kind]["step"]
    days = np.maximum(np.ceil(np.minimum(died, lost) / step), 1) * step
    risk = np.round(truth + random.normal(size=patients), KINDS[kind]["round_risk"])
    survival = np.exp(-np.array(GRID_DAYS) / 900 * np.exp(0.5 * risk)[:, None])
    return Outcomes(days, died <= lost), risk, survival


def theirs(outcomes: Outcomes):
    return Surv.from_arrays(outcomes.event, outcomes.days)


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_are_those_of_scikit_survival(kind):
    outcomes, risk, survival = simulated(kind)
    y, until = theirs(outcomes), HORIZONS_DAYS[-1]
    found = {name: values[0] for name, values in evaluate(outcomes, risk, survival).items()}
    assert found["HarrellC"] == pytest.approx(
        concordance_index_censored(outcomes.event, outcomes.days, risk)[0], abs=1e-12
    )
    assert found["UnoC"] == pytest.approx(concordance_index_ipcw(y, y, risk, tau=until)[0], abs=1e-12)
    assert uno_c(outcomes, risk, until_days=None)[0] == pytest.approx(concordance_index_ipcw(y, y, risk)[0], abs=1e-12)
    areas, _ = cumulative_dynamic_auc(y, y, risk, HORIZONS_DAYS)
    assert [found[auroc_name(days)] for days in HORIZONS_DAYS] == pytest.approx(list(areas), abs=1e-12)
    times, scores = brier_score(y, y, survival, GRID_DAYS)
    assert brier(outcomes, survival, GRID_DAYS)[:, 0] == pytest.approx(scores, abs=1e-12)
    from_first = integrated_brier_score(y, y, survival, GRID_DAYS) * (times[-1] - times[0])
    first = scores[0] * times[0] / 2  # ours begins at 0, where the score is 0
    assert found["IBS"] == pytest.approx((from_first + first) / times[-1], abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_curves_and_the_log_rank_test_are_those_of_scikit_survival(kind):
    outcomes, risk, _ = simulated(kind)
    curve = kaplan_meier(outcomes)
    days, alive = kaplan_meier_estimator(outcomes.event, outcomes.days)
    assert curve.days == pytest.approx(days)
    assert curve.values[:, 0] == pytest.approx(alive, abs=1e-12)
    assert curve.at(days[3] - 1e-9)[0] == curve.values[2, 0], "constant up to the next moment"
    assert curve.at(0.0)[0] == 1.0
    thirds = np.digitize(risk, np.quantile(risk, [1 / 3, 2 / 3]))
    expected, p = compare_survival(theirs(outcomes), thirds)
    found = log_rank(outcomes, thirds)
    assert found.statistic == pytest.approx(expected, rel=1e-9)
    assert found.p == pytest.approx(p, rel=1e-6)
    assert found.freedom == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_resample_is_the_metric_of_the_repeated_patients(kind):
    outcomes, risk, survival = simulated(kind, 60)
    counts = np.random.default_rng(1).multinomial(60, np.full(60, 1 / 60), size=20).T
    together = evaluate(outcomes, risk, survival, counts)
    for resample in range(20):
        rows = np.repeat(np.arange(60), counts[:, resample])
        alone = evaluate(outcomes[rows], risk[rows], survival[rows])
        for name, values in together.items():
            assert values[resample] == pytest.approx(alone[name][0], abs=1e-12, nan_ok=True), name


def test_harrells_index_of_four_patients_by_hand():
    # Deaths at 10 and 30, a loss at 10 (who outlived the death of that day) and one at 20.
    outcomes = Outcomes(np.array([10.0, 10.0, 20.0, 30.0]), np.array([True, False, False, True]))
    # The pairs: the death at 10 with each of the other three. In order with the first, tied with the second, not third.
    assert harrell_c(outcomes, np.array([2.0, 1.0, 2.0, 3.0]))[0] == (1 + 0.5 + 0) / 3


def test_two_deaths_of_one_day_are_no_pair():
    outcomes = Outcomes(np.array([10.0, 10.0]), np.array([True, True]))
    assert np.isnan(harrell_c(outcomes, np.array([1.0, 2.0]))[0])


def test_constant_risks_give_one_half():
    outcomes, risk, survival = simulated("tied times")
    found = evaluate(outcomes, np.zeros_like(risk), survival)
    assert [found[name][0] for name in ("UnoC", "HarrellC", "AUROC@365d", "AUROC@730d", "AUROC@1095d")] == [0.5] * 5


def test_what_nothing_is_known_of_is_undefined():
    random = np.random.default_rng(0)
    risk, survival = random.normal(size=30), random.random((30, len(GRID_DAYS)))
    days = random.uniform(1, 4000, 30)
    nobody = evaluate(Outcomes(days, np.zeros(30, dtype=bool)), risk, survival)
    assert all(np.isnan(nobody[name][0]) for name in nobody if name != "IBS")
    late = evaluate(Outcomes(days + HORIZONS_DAYS[-1], np.ones(30, dtype=bool)), risk, survival)
    assert np.isnan([late[name][0] for name in ("UnoC", "AUROC@365d", "AUROC@1095d")]).all()
    assert late["HarrellC"][0] == pytest.approx(
        concordance_index_censored(np.ones(30, dtype=bool), days, risk)[0], abs=1e-12
    )
    early = evaluate(Outcomes(days / 4, random.random(30) < 0.7), risk, survival)
    assert np.isnan([early[name][0] for name in ("AUROC@1095d", "IBS")]).all()


def test_the_quarters_of_three_years():
    assert pytest.approx([365.25 * quarter / 4 for quarter in range(1, 13)]) == GRID_DAYS
    assert pytest.approx([365.25, 730.5, 1095.75]) == HORIZONS_DAYS


@pytest.mark.parametrize("kind", KINDS)
def test_the_curve_of_a_resample_is_that_of_the_repeated_patients(kind):
    outcomes, _, _ = simulated(kind, 20)
    counts = np.random.default_rng(1).multinomial(20, np.full(20, 1 / 20), size=10).T
    counts[np.argmax(outcomes.days), :5] = 0  # the last of all is not drawn
    together = kaplan_meier(outcomes, counts)
    for resample in range(10):
        alone = kaplan_meier(outcomes[np.repeat(np.arange(20), counts[:, resample])])
        assert together.values[:, resample] == pytest.approx(alone.at(outcomes.moments)[:, 0], abs=1e-12)


def test_a_death_that_is_not_drawn_needs_no_weight():
    """In the resample nobody is under observation from day 5 on, and who died on day 10 is not in it."""
    outcomes = Outcomes(np.array([1.0, 5.0, 10.0]), np.array([True, False, True]))
    counts = np.array([[1, 1], [1, 1], [0, 1]])
    assert uno_c(outcomes, np.array([2.0, 1.0, 3.0]), counts)[0] == 1


def test_who_dies_on_the_day_of_the_horizon_has_died_by_then():
    outcomes = Outcomes(np.array([100.0, 101.0]), np.array([True, True]))
    assert auroc(outcomes, np.array([2.0, 1.0]), 100.0)[0] == 1
    assert np.isnan(auroc(outcomes, np.array([2.0, 1.0]), 101.0)[0]), "nobody outlived it"


@pytest.mark.parametrize(
    ("days", "event"),
    [(np.ones(2), np.ones(3, dtype=bool)), (np.ones((2, 2)), np.ones((2, 2), dtype=bool)), (np.ones(2), np.ones(2))],
)
def test_what_are_no_outcomes_is_refused(days, event):
    with pytest.raises(ValueError, match="days and"):
        Outcomes(days, event)


@pytest.mark.parametrize("days", [-1.0, 0.0, np.nan, np.inf])
def test_times_that_cannot_be_are_refused(days):
    with pytest.raises(ValueError, match="positive numbers of days"):
        Outcomes(np.array([10.0, days]), np.array([True, False]))


def test_noise_is_at_chance_at_the_nominal_rate():
    """Of 200 data sets without a signal, Uno's index lies as far from 1/2 as the normal law of its own spread says."""
    found, widths = [], []
    for seed in range(200):
        outcomes, _, _ = simulated("tied times", 100, seed)
        random = np.random.default_rng([7, seed])
        counts = random.multinomial(100, np.full(100, 0.01), size=100).T
        values = uno_c(outcomes, random.normal(size=100), np.concatenate([np.ones((100, 1)), counts], axis=1))
        found.append(values[0])
        widths.append(values[1:].std())
    outside = (np.abs(np.array(found) - 0.5) > 1.96 * np.array(widths)).sum()
    assert stats.binomtest(int(outside), 200, 0.05).pvalue > 0.001
    assert np.mean(found) == pytest.approx(0.5, abs=0.015)


def test_auroc_leaves_out_those_who_were_lost_before():
    outcomes, risk, _ = simulated("no ties")
    lost = ~outcomes.event & (outcomes.days <= HORIZONS_DAYS[1])
    changed = np.where(lost, -risk, risk)
    assert lost.sum() > 5
    assert auroc(outcomes, changed, HORIZONS_DAYS[1])[0] == auroc(outcomes, risk, HORIZONS_DAYS[1])[0]


def test_the_truth_has_the_best_integrated_brier_score():
    random = np.random.default_rng(3)
    truth = random.normal(size=2000)
    outcomes = Outcomes(900 * random.exponential(size=2000) * np.exp(-truth), np.ones(2000, dtype=bool))
    scores = [
        integrated_brier(outcomes, np.exp(-np.array(GRID_DAYS) / 900 * np.exp(slope * truth)[:, None]))[0]
        for slope in (0.0, 0.5, 1.0, 2.0)
    ]
    assert int(np.argmin(scores)) == 2
