"""Ridge regression against scikit-learn, on planted numbers and on noise."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import Ridge

from tapct.errors import TaskError
from tapct.probes.ridge import STRENGTHS, solve
from tapct.probes.solved import PooledCases, Solution
from tapct.records import SolvedSelection


def cases(features: np.ndarray, targets: np.ndarray, per_patient: int = 1) -> PooledCases:
    names = [f"case {i}" for i in range(len(features))]
    return PooledCases(names, [f"patient {i // per_patient}" for i in range(len(names))], features, targets)


def predicted(solution: Solution, features: np.ndarray) -> np.ndarray:
    return np.stack([solution.head(torch.from_numpy(one)).numpy() for one in features])


def planted(number: int, channels: int, seed: int = 0, noise: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """Features of unlike size far from 0, and ages of which the first two channels know something."""
    random = np.random.default_rng(seed)
    plain = random.normal(size=(number, channels))
    ages = 60 + 8 * plain[:, :1] - 6 * plain[:, 1:2] + noise * random.normal(size=(number, 1))
    return 10.0 ** np.linspace(-2, 2, channels) * plain + 5, ages


@pytest.mark.parametrize(("number", "channels"), [(120, 10), (40, 90)])
def test_the_head_is_scikit_learns_at_the_chosen_strength(number, channels):
    features, ages = planted(number, channels)
    volumes = 1500 + 20 * features[:, :1] + np.random.default_rng(1).normal(size=(number, 1))
    found = solve(cases(features, np.hstack([ages, volumes])), None, ("age", "liver"), scale=True)
    fresh, _ = planted(30, channels, seed=9)
    deviation = features.std(axis=0)
    for k, (name, own) in enumerate((("age", ages), ("liver", volumes))):
        theirs = Ridge(alpha=found.selection.targets[name].setting * number).fit(features / deviation, own[:, 0])
        assert predicted(found, fresh)[:, k] == pytest.approx(theirs.predict(fresh / deviation), rel=1e-9)


def test_a_target_that_is_missing_leaves_its_case_out_of_this_target_alone():
    features, ages = planted(80, 12)
    two = np.hstack([ages, 30 * ages])
    two[::3, 1] = np.nan
    found = solve(cases(features, two), None, ("age", "liver"), scale=False)
    for k, rows in ((0, slice(None)), (1, ~np.isnan(two[:, 1]))):
        name = ("age", "liver")[k]
        alone = solve(cases(features[rows], two[rows][:, [k]]), None, (name,), scale=False)
        assert predicted(found, features)[:, k] == pytest.approx(predicted(alone, features)[:, 0], rel=1e-9)
        assert found.selection.targets[name].patients == len(ages[rows])


def test_features_that_say_nothing_predict_the_training_mean_to_the_bit():
    _, ages = planted(77, 2)
    found = solve(cases(np.zeros((77, 1)), ages), None, ("age",), scale=True)
    assert predicted(found, np.zeros((3, 1))).ravel().tolist() == [ages.mean()] * 3
    assert found.selection.setting == STRENGTHS[-1]


def test_the_score_is_the_mean_absolute_error_and_the_loss_the_share_of_the_variance_that_is_left():
    """Of features that say nothing: folds that others predict by their mean, which is nearly that of all."""
    _, ages = planted(200, 2)
    about = solve(cases(np.zeros((200, 1)), ages), None, ("age",), scale=True).selection
    assert about.is_solved
    assert about.score == pytest.approx(np.abs(ages - ages.mean()).mean(), rel=0.02)
    assert about.loss == pytest.approx(1, rel=0.02)


def test_penalties_go_from_a_millionth_to_a_million():
    assert pytest.approx([10.0**power for power in range(-6, 7)]) == STRENGTHS


def test_of_a_single_penalty_nothing_is_chosen():
    features, ages = planted(40, 3)
    found = solve(replace(cases(features, ages), table=3), None, ("age",), scale=True)
    assert (found.selection.setting, found.selection.candidates, found.selection.is_solved) == (None, (), True)


def test_a_unit_changes_the_numbers_and_nothing_else():
    features, ages = planted(60, 20)
    years, days = (solve(cases(features, ages * by), None, ("age",), scale=True) for by in (1.0, 365.25))
    assert years.selection.setting == days.selection.setting
    assert predicted(days, features) == pytest.approx(365.25 * predicted(years, features), rel=1e-9)
    assert days.selection.score == pytest.approx(365.25 * years.selection.score)


def test_scale_shift_and_order_of_channels_change_nothing():
    features, ages = planted(60, 20)
    fresh, _ = planted(10, 20, seed=3)
    expected = predicted(solve(cases(features, ages), None, ("age",), scale=True), fresh)
    random = np.random.default_rng(0)
    factors, shift, order = 10.0 ** random.uniform(-3, 3, 20), random.normal(size=20), random.permutation(20)
    for change in (lambda x: x * factors, lambda x: x + shift, lambda x: x[:, order]):
        found = solve(cases(change(features), ages), None, ("age",), scale=True)
        assert predicted(found, change(fresh)) == pytest.approx(expected, rel=1e-7)


def test_planted_information_is_found_up_to_what_is_there():
    (features, ages), (fresh, of_fresh) = planted(800, 40), planted(800, 40, seed=1)
    error = np.abs(predicted(solve(cases(features, ages), None, ("age",), scale=True), fresh) - of_fresh).mean()
    least = 8 * np.sqrt(2 / np.pi)  # the mean absolute value of the noise
    assert least * 0.95 < error < least * 1.08


def test_noise_is_no_better_than_the_training_mean_at_the_nominal_rate():
    """100 data sets in which features say nothing: the correlation is significant in 5 of them, and R2 about 0."""
    significant, explained = 0, []
    for seed in range(100):
        random = np.random.default_rng(1000 + seed)
        features, ages = random.normal(size=(160, 30)), random.normal(60, 15, size=(160, 1))
        found = solve(cases(features[:80], ages[:80]), None, ("age",), scale=True)
        guess, truth = predicted(found, features[80:])[:, 0], ages[80:, 0]
        significant += stats.spearmanr(guess, truth).pvalue < 0.05
        explained.append(1 - ((guess - truth) ** 2).sum() / ((ages[:80].mean() - truth) ** 2).sum())
    assert 1 <= significant <= 11  # nominal 5; outside with a probability of 1 %
    assert -0.2 < np.mean(explained) < 0.01


def test_selection_patients_and_all_training_patients_decide():
    features, ages = planted(66, 30)
    found = solve(cases(features[:60], ages[:60], 2), cases(features[60:], ages[60:], 2), ("age",), scale=True)
    about = found.selection
    assert (about.patients, about.folds, len(about.candidates)) == (30 + 3, 5, len(STRENGTHS))
    assert about.score == min(row.score for row in about.candidates), "of an MAE, the least"
    assert SolvedSelection.model_validate(about.model_dump()) == about


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ages: np.full_like(ages, 50), "age is 50 in all 20 training cases.*constant"),
        (lambda ages: np.full_like(ages, np.nan), "none of 20 training cases has age"),
    ],
)
def test_a_target_that_cannot_be_learnt_is_refused_by_name(change, message):
    features, ages = planted(20, 3)
    with pytest.raises(TaskError, match=message):
        solve(cases(features, change(ages)), None, ("age",), scale=True)
