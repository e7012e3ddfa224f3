"""Mean ranks hold the truth, and are no wider than they need be (`benchmarks/leaderboard_simulations.py ranks`)."""

import numpy as np
import pytest

from tapct.statistics.differences import Pairs, measure
from tapct.statistics.levels import STEPS, Levels, levels
from tapct.statistics.mean_ranks import decided, ends
from tapct.statistics.resampling import draw_swaps
from tests.leaderboard.simulated import task

PATIENTS = 60
TASKS = 10


def measured(truth, rng, resamples=300, name="simulation"):
    """The differences of models whose true scores are `truth` standard errors of a difference apart."""
    scores = (
        np.sqrt(2 / PATIENTS) * truth[:, None] + rng.normal(size=(len(truth), PATIENTS)) + rng.normal(size=PATIENTS)
    )
    inputs = task(scores, name=f"{name} {rng.integers(1 << 30)}")
    swaps = draw_swaps(PATIENTS, resamples, inputs.key)
    return levels(measure(inputs, np.arange(len(truth)), scores.mean(axis=1), swaps), inputs.sign)


def test_levels_say_how_rare_a_difference_is_by_chance():
    rng = np.random.default_rng(0)
    chance = rng.standard_t(4, size=(6, 20_000))  # heavier tails than a normal's
    first, second = np.triu_indices(4, 1)
    gap = np.array([-1.0, 0.0, 2.776, 4.604, 50.0, 1e9])  # Student's of 4 degrees: 5 % and 1 % are 2.776 and 4.604
    found = levels(Pairs(first, second, gap, np.ones(6), chance, np.full(6, 9)), 1)
    assert found.found[1] == 0
    assert found.found[0] < 0 < found.found[2]
    assert found.found[2:4] / STEPS == pytest.approx([1.96, 2.576], abs=0.1)  # the normal's
    assert found.found[5] > np.abs(found.chance).max()  # what chance never did
    turned = levels(Pairs(first, second, gap, np.ones(6), chance, np.full(6, 9)), -1)
    np.testing.assert_array_equal(turned.found, -found.found)


def test_ends_count_those_that_are_decided_and_those_that_exceed_what_chance_does():
    """Two of three models are far ahead of the third in both tasks, and one pair is never told apart."""
    first, second = np.triu_indices(3, 1)
    chance = np.random.default_rng(0).integers(-40, 40, size=(3, 1000)).astype(np.int8)
    one = Levels(first, second, np.array([3, 90, 90], dtype=np.int8), chance)
    assert [sure.tolist() for sure in decided([one, one])] == [[False, True, True]] * 2
    np.testing.assert_array_equal(ends([one, one], 3), [[1, 2], [1, 2], [3, 3]])


def test_a_clear_first_reads_so_among_many_whom_nothing_tells_apart_one_by_one():
    rng = np.random.default_rng(1)
    tasks = [measured(np.eye(20)[0] * 4.2, rng) for _ in range(TASKS)]
    (low, high), *_ = ends(tasks, 20)
    beaten = sum(sure[task.first == 0].sum() for task, sure in zip(tasks, decided(tasks), strict=True))
    assert low == 1
    assert high < 4
    assert 20 - beaten / TASKS > 8  # if each difference had to be sure


@pytest.mark.parametrize("simulations", [10, pytest.param(60, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("apart", [0.0, 0.05, 0.5], ids=["equal", "near ties", "half an error apart"])
def test_all_intervals_hold_at_once(apart, simulations):
    """Six models in one order on all tasks; near ties are what resampled ranks never hold."""
    rng, held, false = np.random.default_rng(3), 0, 0
    truth = -apart * np.arange(6)
    mean_rank = 1 + np.arange(6) if apart else np.full(6, 3.5)
    for _ in range(simulations):
        tasks = [measured(truth, rng, 200) for _ in range(TASKS)]
        low, high = ends(tasks, 6).T
        held += bool(((low <= mean_rank) & (mean_rank <= high)).all())
        wrong = (task.found[sure] <= 0 if apart else sure for task, sure in zip(tasks, decided(tasks), strict=True))
        false += any(each.any() for each in wrong)
    error = 3 * np.sqrt(0.95 * 0.05 / simulations)
    assert held / simulations >= 0.95 - error
    assert false / simulations <= 0.05 + error  # 41 % of pages, where tasks are corrected one by one
