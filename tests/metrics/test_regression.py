"""Metrics of numbers against scikit-learn and scipy, and under resampling against the cases written out."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as theirs

from tapct.metrics import regression


def scored(cases: int = 80, ties: bool = True, seed: int = 0) -> tuple[np.ndarray, np.ndarray, float]:
    """Predictions that know a little, references (years), and the mean of a training set elsewhere."""
    random = np.random.default_rng(seed)
    targets = random.normal(60, 15, cases)
    predictions = 60 + 0.5 * (targets - 60) + random.normal(0, 8, cases)
    if ties:
        predictions, targets = predictions.round(-1), targets.round()
    return predictions, targets, 57.3


METRICS = {
    "RMSE": regression.root_mean_squared_error,
    "R2": regression.r_squared,
    "Spearman": regression.spearman,
    "CalibrationSlope": regression.calibration_slope,
}


def one(name: str, predictions, targets, centre, counts=None) -> np.ndarray:
    counts = np.ones((len(targets), 1)) if counts is None else counts
    return METRICS[name](predictions, targets, np.full(len(targets), centre), counts)


@pytest.mark.parametrize("ties", [False, True])
def test_each_metric_is_that_of_scikit_learn_or_scipy(ties):
    predictions, targets, centre = scored(ties=ties)
    expected = {
        "RMSE": theirs.root_mean_squared_error(targets, predictions),
        "R2": 1 - theirs.mean_squared_error(targets, predictions) / np.mean((targets - centre) ** 2),
        "Spearman": stats.spearmanr(targets, predictions).statistic,
        "CalibrationSlope": stats.linregress(predictions, targets).slope,
    }
    found = {name: float(one(name, predictions, targets, centre)[0]) for name in METRICS}
    assert found == pytest.approx(expected, rel=1e-12)
    errors = regression.absolute_errors(predictions[:, None], targets[:, None])
    assert errors.mean() == pytest.approx(theirs.mean_absolute_error(targets, predictions), rel=1e-12)
    assert float(one("R2", predictions, targets, targets.mean())[0]) == pytest.approx(
        theirs.r2_score(targets, predictions), rel=1e-12
    )


@pytest.mark.parametrize("name", METRICS)
def test_a_resample_is_the_cases_written_out_as_often_as_they_were_drawn(name):
    predictions, targets, centre = scored(30)
    counts = np.random.default_rng(1).multinomial(30, np.full(30, 1 / 30), size=20).T.astype(float)
    written = [
        float(one(name, *(np.repeat(of, drawn.astype(int)) for of in (predictions, targets)), centre)[0])
        for drawn in counts.T
    ]
    assert one(name, predictions, targets, centre, counts) == pytest.approx(written, rel=1e-12)


def test_the_training_mean_explains_nothing_and_orders_nothing():
    _, targets, centre = scored()
    constant = np.full(len(targets), centre)
    counts = np.random.default_rng(0).multinomial(80, np.full(80, 1 / 80), size=50).T.astype(float)
    assert not one("R2", constant, targets, centre, counts).any(), "0 to the bit"
    assert np.isnan(one("Spearman", constant, targets, centre, counts)).all()
    assert np.isnan(one("CalibrationSlope", constant, targets, centre, counts)).all()


def test_references_that_are_all_the_training_mean_leave_nothing_to_explain():
    assert np.isnan(one("R2", np.array([1.0, 2.0]), np.array([5.0, 5.0]), 5.0)).all()
    assert one("R2", np.array([0.0, 0.01]), np.array([0.0, 0.02]), 0.0)[0] == pytest.approx(0.75), "of a small unit"


def test_two_cases_have_an_order():
    assert one("Spearman", np.array([1.0, 2.0]), np.array([3.0, 4.0]), 0.0)[0] == 1
    assert one("Spearman", np.array([1.0, 2.0]), np.array([4.0, 3.0]), 0.0)[0] == -1


def test_a_mean_over_targets_is_one_of_each_resample():
    predictions, targets, _ = scored(30)
    counts = np.random.default_rng(1).multinomial(30, np.full(30, 1 / 30), size=7).T.astype(float)
    arguments = (predictions[:, None], targets[:, None], np.full((30, 1), 57.3), counts)
    found = regression.mean_over_targets(METRICS["RMSE"], *arguments)
    assert found == pytest.approx(one("RMSE", predictions, targets, 57.3, counts))


def test_the_order_of_cases_changes_no_bit():
    predictions, targets, centre = scored(ties=False)
    order = np.random.default_rng(3).permutation(len(targets))
    for name in METRICS:
        assert one(name, predictions, targets, centre) == one(name, predictions[order], targets[order], centre)


def test_a_shift_of_thousands_costs_no_digits():
    """A slope of values far from 0, such as ml of a liver to the nearest of a millionth."""
    predictions, targets, centre = scored(ties=False)
    near = float(one("CalibrationSlope", predictions, targets, centre)[0])
    assert float(one("CalibrationSlope", predictions + 1e6, targets, centre)[0]) == pytest.approx(near, rel=1e-8)


def test_a_missing_reference_is_left_out_of_its_target_alone():
    (first, of_first, _), (second, of_second, _) = scored(seed=0), scored(seed=1)
    predictions, targets = np.stack([first, second], axis=1), np.stack([of_first, of_second], axis=1)
    targets[:30, 1] = np.nan
    both = np.abs(predictions - targets)
    found = regression.absolute_errors(predictions, targets)
    assert found == pytest.approx(np.concatenate([both[:30, 0], both[30:].mean(axis=1)]))
    each = [
        one("RMSE", first, of_first, 57.3)[0],
        one("RMSE", second[30:], of_second[30:], 57.3)[0],
    ]
    arguments = (predictions, targets, np.full((80, 2), 57.3), np.ones((80, 1)))
    assert regression.mean_over_targets(METRICS["RMSE"], *arguments) == pytest.approx(np.mean(each))
    targets[:, 1] = np.nan
    assert regression.mean_over_targets(METRICS["RMSE"], *arguments) == pytest.approx(each[0])
    targets[:] = np.nan
    assert np.isnan(regression.mean_over_targets(METRICS["RMSE"], *arguments)).all()
    assert np.isnan(regression.absolute_errors(predictions, targets)).all()
