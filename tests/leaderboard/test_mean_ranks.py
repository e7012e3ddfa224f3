"""Mean ranks hold the truth, and are no wider than they need be (`benchmarks/leaderboard_simulations.py ranks`)."""

import itertools

import numpy as np
import pytest

from tapct.statistics.differences import Pairs, measure
from tapct.statistics.levels import STEPS, Levels, levels
from tapct.statistics.mean_ranks import LIMITS, decided, ends
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


STANDARD_DEVIATIONS = (0, 0.5, 1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3, 3.25, 3.5, 4)


def as_written_decided(tasks, alpha):
    """Pairs with a corrected p-value of `alpha` or less, one after the other: the step-down in its usual form."""
    resamples = tasks[0].chance.shape[1]
    left = {(t, p) for t, task in enumerate(tasks) for p in range(len(task.found))}
    done = set()
    while True:
        largest = [max((abs(int(tasks[t].chance[p, r])) for t, p in left), default=0) for r in range(resamples)]
        size = {(t, p): abs(int(tasks[t].found[p])) for t, p in left}
        new = {one for one in left if 1 + sum(each >= size[one] for each in largest) <= alpha * (1 + resamples)}
        if not new:
            return done
        left, done = left - new, done | new


def as_written_ends(tasks, models):
    """The docstring of `ends`, in loops: 80 % of the error decides pairs, 20 % is for the counts of the others.

    And whether these counts added anything.
    """
    resamples = tasks[0].chance.shape[1]
    sure, count, by_chance = as_written_decided(tasks, 0.8 * 0.05), {}, {}
    surely = {(side, model): 0 for side in (1, -1) for model in range(models)}
    for t, of in enumerate(tasks):
        for p, (first, second) in enumerate(zip(of.first, of.second, strict=True)):
            for side, (model, turn) in itertools.product((1, -1), ((first, 1), (second, -1))):
                level, drawn = side * turn * int(of.found[p]), side * turn * of.chance[p].astype(int)
                if (t, p) in sure:
                    surely[side, model] += level > 0
                    continue
                for limit in STANDARD_DEVIATIONS:
                    key = (side, model, limit)
                    count[key] = count.get(key, 0) + (level > limit * STEPS)
                    by_chance[key] = by_chance.get(key, 0) + (drawn > limit * STEPS)
    allowed = dict.fromkeys(count, 0)
    ordered = {key: sorted(numbers, reverse=True) for key, numbers in by_chance.items()}
    for place in range(resamples):  # the lowest numbers that chance exceeds rarely enough, anywhere
        numbers = {key: each[place] for key, each in ordered.items()}
        exceeded = np.any([by_chance[key] > numbers[key] for key in numbers], axis=0).sum()
        if place and 1 + exceeded > 0.2 * 0.05 * (1 + resamples):
            break
        allowed = numbers
    real = {}
    for side, model in surely:
        exceeding = [count[key] - allowed[key] for key in count if key[:2] == (side, model)]
        real[side, model] = surely[side, model] + max([0, *exceeding])
    low_and_high = [[1 + real[-1, model] / len(tasks), models - real[1, model] / len(tasks)] for model in range(models)]
    return low_and_high, real != surely


def compared(rng, models, resamples, spread, most):
    """A task of random levels, which pairs share in part, as those of one task do; two are as far as levels go."""
    first, second = np.triu_indices(models, 1)
    chance = rng.normal(size=(len(first), resamples)) + rng.normal(size=resamples)
    chance[0, rng.integers(resamples, size=2)] = 127 / spread, -127 / spread
    found = rng.integers(-most, most + 1, size=len(first))
    return Levels(first, second, found.astype(np.int8), np.clip(spread * chance, -127, 127).astype(np.int8))


@pytest.mark.parametrize("resamples", [10, 98, 99, 198, 299])
def test_decided_and_ends_are_what_is_written_of_them(resamples):
    rng, sure, counted = np.random.default_rng(resamples), 0, 0
    for models, tasks, spread, most in ((4, 2, 9, 70), (5, 3, 12, 60), (6, 3, 8, 45), (7, 2, 5, 40), (5, 4, 11, 120)):
        some = [compared(rng, models, resamples, spread, most) for _ in range(tasks)]
        for alpha in (0.04, 0.05, 0.25):
            found = {(t, int(p)) for t, of in enumerate(decided(some, alpha)) for p in np.flatnonzero(of)}
            assert found == as_written_decided(some, alpha)
            sure += len(found) if alpha < 0.1 else 0
        written, more = as_written_ends(some, models)
        np.testing.assert_allclose(ends(some, models), written, rtol=1e-12)
        counted += more
    assert (sure > 0) == (resamples > 98)  # ten say nothing at 5 %, and of 98 the furthest levels take the most
    assert counted > 0  # in the place of what is decided one by one


@pytest.mark.parametrize(("resamples", "seed"), [(998, 357), (999, 0), (1999, 5)])  # where one more or less shows
def test_what_is_taken_off_is_exceeded_in_a_hundredth_of_the_resamples(resamples, seed):
    rng = np.random.default_rng(seed)
    some = [compared(rng, 3, resamples, 14, 40) for _ in range(3)]
    np.testing.assert_allclose(ends(some, 3), as_written_ends(some, 3)[0], rtol=1e-12)


def test_differences_are_counted_above_these_numbers_of_standard_deviations():
    np.testing.assert_array_equal(LIMITS, np.multiply(STANDARD_DEVIATIONS, STEPS))


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
