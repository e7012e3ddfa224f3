from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import bootstrap, rankdata

from tapct.statistics import summarise_task, summarise_tasks
from tapct.statistics.intervals import tail
from tests.leaderboard.simulated import task


def scores(*means, cases=100, spread=0.1, seed=0):
    rng = np.random.default_rng(seed)
    return np.array(means)[:, None] + rng.normal(size=cases) + spread * rng.normal(size=(len(means), cases))


def test_seeds_are_averaged_and_their_spread_stands_beside():
    rng = np.random.default_rng(0)
    values = rng.random((2, 3, 60))
    (one, two) = summarise_task(task(values)).models
    assert one.seeds == pytest.approx(values[0].mean(axis=1).tolist())
    assert one.estimate.value == pytest.approx(values[0].mean())
    assert one.seed_spread == pytest.approx(values[0].mean(axis=1).std(ddof=1))
    assert two.name == "b"
    (single,) = summarise_task(task(values[:1, :1])).models
    assert single.seed_spread is None


def test_the_interval_is_about_patients_and_not_about_seeds():
    rng = np.random.default_rng(0)
    base = rng.normal(size=60)
    alike, apart = (base + shift * np.array([-1, 0, 1])[:, None] for shift in (0, 5))
    one, two = summarise_task(task([alike, apart])).models
    assert two.seed_spread == pytest.approx(5)
    assert (one.estimate.low, one.estimate.high) == pytest.approx((two.estimate.low, two.estimate.high))


def test_models_and_metrics_of_a_task_share_their_resamples():
    values = scores(0, 1)
    one, other = summarise_task(task(values)), summarise_task(task(values[::-1], metric="nsd_native"))
    np.testing.assert_allclose(one.bootstrap, other.bootstrap[::-1], rtol=1e-12)


def test_few_patients_are_warned_of():
    assert not summarise_task(task(scores(0, cases=50))).warnings
    (warning,) = summarise_task(task(scores(0, cases=49))).warnings
    assert "49 patients" in warning


def test_mean_ranks_and_mean_scores_are_over_all_tasks():
    values = [scores(0, 1, 2, seed=0), scores(2, 1, 0, seed=1), scores(0, 2, 1, seed=2)]
    tasks = [summarise_task(task(v, name=f"task {i}")) for i, v in enumerate(values)]
    found = {model.name: model for model in summarise_tasks(tasks)}
    assert {name: model.mean_rank.value for name, model in found.items()} == pytest.approx(
        {"a": 7 / 3, "b": 5 / 3, "c": 2}
    )
    for index, model in enumerate(found.values()):
        rank, mean = model.mean_rank, model.mean_score
        assert (rank.low, rank.high) == pytest.approx((rank.value, rank.value))  # every difference is clear
        assert mean.value == pytest.approx(np.mean([v[index].mean() for v in values]))
        # Independent tasks: the variance of the mean is the mean of the variances over their number.
        error = np.sqrt(sum(v[index].var(ddof=1) / 100 for v in values)) / 3
        assert mean.high - mean.low == pytest.approx(2 * 1.984 * error, rel=0.1)


def test_the_interval_of_a_mean_score_is_scipys_bca_of_several_samples():
    samples = [mean + np.random.default_rng(mean).exponential(size=30) for mean in range(3)]
    tasks = [summarise_task(task(x[None], name=f"task {i}")) for i, x in enumerate(samples)]
    expected = bootstrap(
        samples,
        lambda *each, axis=-1: np.mean([x.mean(axis=axis) for x in each], axis=0),
        n_resamples=0,
        bootstrap_result=SimpleNamespace(bootstrap_distribution=np.mean([t.bootstrap[0] for t in tasks], axis=0)),
        confidence_level=1 - 2 * tail(30),
        method="BCa",
    ).confidence_interval
    (model,) = summarise_tasks(tasks)
    assert (model.mean_score.low, model.mean_score.high) == pytest.approx(expected, rel=1e-9)


def test_equal_scores_share_a_rank():
    values = scores(0, 1)[[0, 1, 1]]
    (a, b, c) = summarise_tasks([summarise_task(task(values))])
    assert (a.mean_rank.value, b.mean_rank.value, c.mean_rank.value) == (3, 1.5, 1.5)
    assert (b.mean_rank.low, b.mean_rank.high) == (1, 2)


def test_a_model_that_misses_a_task_has_no_mean_and_moves_nobody():
    whole = scores(0, 1, 2)
    partly = np.concatenate([whole[:2], np.full((1, 100), np.nan)])
    first, second = summarise_task(task(whole, name="first")), summarise_task(task(partly, name="second"))
    a, b, c = summarise_tasks([first, second])
    for number in (c.mean_rank, c.mean_score):
        assert (number.value, number.low, number.high) == (None, None, None)
        assert number.reason == "no score in second, of 2 tasks of the suite"
    without = summarise_tasks([summarise_task(task(whole[:2], name=name)) for name in ("first", "second")])
    assert [a.mean_rank, b.mean_rank] == [model.mean_rank for model in without]
    assert a.mean_rank.value == 2
    absent = summarise_tasks([first, summarise_task(task(whole[:2], name="second"))])
    assert absent[2].mean_rank.reason == "no score in second, of 2 tasks of the suite"


def test_a_task_with_too_few_patients_leaves_all_ranks_of_it_open():
    tasks = [summarise_task(task(scores(0, 1, cases=n), name=f"{n}")) for n in (60, 2)]
    for model, ends in zip(summarise_tasks(tasks), [(1.5, 2), (1, 1.5)], strict=True):
        assert (model.mean_rank.low, model.mean_rank.high) == ends
        assert model.mean_score.low is None
    (alone, _) = summarise_tasks(tasks[1:])
    assert (alone.mean_rank.value, alone.mean_rank.low) == (2, None)
    assert alone.mean_rank.reason.startswith("2 patients are too few")


def test_no_mean_score_over_different_metrics():
    tasks = [summarise_task(task(scores(0, 1), name=m, metric=m)) for m in ("dice_native", "nsd_native")]
    for model in summarise_tasks(tasks):
        assert model.mean_score.value is None
        assert "different metrics: dice_native, nsd_native" in model.mean_score.reason
        assert model.mean_rank.value is not None


def test_a_task_counts_once():
    one = summarise_task(task(scores(0, 1)))
    with pytest.raises(ValueError, match="one summary per task"):
        summarise_tasks([one, one])


@pytest.mark.parametrize("simulations", [20, pytest.param(150, marks=pytest.mark.thorough)])
def test_intervals_of_the_mean_rank_hold_the_truth_where_resampled_ranks_do_not(simulations):
    """Six models, the first truly best by little, the others apart by as little, in three tasks."""
    truth = 0.03 * np.arange(6)[::-1]
    rng, held, held_resampled = np.random.default_rng(0), 0, 0
    for index in range(simulations):
        values = [rng.normal(size=80) + 0.5 * rng.normal(size=(6, 80)) + truth[:, None] for _ in range(3)]
        tasks = [summarise_task(task(v, name=f"{index} {i}"), 500) for i, v in enumerate(values)]
        ranks = [model.mean_rank for model in summarise_tasks(tasks)]
        held += all(rank.low <= i + 1 <= rank.high for i, rank in enumerate(ranks))
        resampled = np.mean([rankdata(-t.bootstrap, axis=0) for t in tasks], axis=0)
        held_resampled += bool(np.quantile(resampled[0], 0.025) <= 1)
    assert held / simulations >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / simulations)
    assert held_resampled / simulations < 0.8  # of the best model alone
