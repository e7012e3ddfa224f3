import numpy as np
import pytest

from tapct.errors import RecordError
from tapct.statistics import TaskInputs, robustness, summarise_task
from tests.leaderboard.experiments import experiment
from tests.leaderboard.simulated import clusters, task, within

NOISE = {"perturbation": "noise-30hu", "perturbation_parameters": {"kind": "noise", "std_hu": 30.0}}


def scores(*means, cases=60, spread=0.1, seed=0):
    rng = np.random.default_rng(seed)
    return np.array(means)[:, None, None] + rng.normal(size=cases) + spread * rng.normal(size=(len(means), 2, cases))


def experiments(values, **settings):
    return [experiment(name, v, **settings) for name, v in zip("abcd", values, strict=False)]


def test_the_drop_is_the_paired_difference():
    clean, noisy = scores(3, 2, 1), scores(2.5, 1.9, 1.2, seed=1)
    found = robustness([*experiments(clean), *experiments(noisy, **NOISE)], "dice_native")
    assert (found.task, found.metric, found.num_patients) == ("made", "dice_native", 60)
    assert [(d.model, d.perturbation) for d in found.drops] == [(m, "noise-30hu") for m in "abc"]
    for index, drop in enumerate(found.drops):
        assert drop.clean.value == pytest.approx(clean[index].mean())
        assert drop.perturbed.value == pytest.approx(noisy[index].mean())
        assert drop.drop.value == pytest.approx(clean[index].mean() - noisy[index].mean())
        assert drop.same_probes


def test_its_interval_is_that_of_the_mean_difference_of_each_case():
    """A mean's paired difference is the mean of the differences: one "model" of them has the same interval."""
    clean, noisy = scores(3, 2), scores(2.5, 1.9, seed=1)
    found = robustness([*experiments(clean), *experiments(noisy, **NOISE)], "dice_native").drops
    order = np.argsort([f"c{i}" for i in range(60)])
    inputs = task((clean - noisy)[:, :, order], patients=order, name="made")
    names = tuple(f"p{i}" for i in order)
    inputs = TaskInputs(**{**vars(inputs), "version": f"1:{'0' * 64}:test", "patients": names})
    for drop, expected in zip(found, summarise_task(inputs).models, strict=True):
        ends = (expected.estimate.low, expected.estimate.high)
        assert (drop.drop.low, drop.drop.high) == pytest.approx(ends)


def test_what_makes_patients_easy_or_hard_cancels():
    clean = scores(0, spread=0.0)
    noisy = clean - 0.1 + 0.02 * np.random.default_rng(5).normal(size=clean.shape)
    (drop,) = robustness([*experiments(clean), *experiments(noisy, **NOISE)], "dice_native").drops
    assert drop.drop.high - drop.drop.low < 0.02
    assert drop.clean.high - drop.clean.low > 0.3
    assert drop.drop.value == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("simulations", [20, pytest.param(150, marks=pytest.mark.thorough)])
def test_the_interval_holds_the_truth(simulations):
    rng, held = np.random.default_rng(0), 0
    for index in range(simulations):
        patient = clusters(60, rng, 3)
        clean = within(patient, rng)
        noisy = clean - 0.2 + 0.5 * within(patient, rng)
        name = {"name": f"simulation {index}"}  # seeds the resamples
        pair = [experiment("a", clean[None], patient, **name), experiment("a", noisy[None], patient, **name, **NOISE)]
        (drop,) = robustness(pair, "dice_native", resamples=500).drops
        held += drop.drop.low <= 0.2 <= drop.drop.high
    assert held / simulations >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / simulations)


def test_ranks_before_and_after():
    clean, noisy = scores(3, 2, 1, 0), scores(0.5, 2, 1, -1, seed=1)
    a, b, c, d = robustness([*experiments(clean), *experiments(noisy, **NOISE)], "dice_native").drops
    assert [drop.rank_clean.value for drop in (a, b, c, d)] == [1, 2, 3, 4]
    assert [drop.rank_change for drop in (a, b, c, d)] == [2, -1, -1, 0]
    for drop in (a, b, c, d):  # every difference is clear
        for rank in (drop.rank_clean, drop.rank_perturbed):
            assert rank.low == rank.value == rank.high
    alike = scores(0, 0.001, spread=0.5)
    for drop in robustness([*experiments(alike), *experiments(scores(0, -5), **NOISE)], "dice_native").drops:
        assert (drop.rank_clean.low, drop.rank_clean.high) == (1, 2)


def test_a_model_that_misses_a_number_moves_nobody():
    clean, noisy = scores(3, 2, 1), scores(3, 2, 1, seed=1)
    found = robustness([*experiments(clean[:2]), *experiments(noisy, **NOISE)], "dice_native").drops
    assert [drop.rank_clean.value for drop in found] == [1, 2, None]
    assert found[2].drop.reason == "not run on the scans as they are"
    blur = {"perturbation": "slices-x2"}
    found = robustness(
        [*experiments(clean), *experiments(noisy[:2], **NOISE), *experiments(noisy[2:], **blur)], "dice_native"
    ).drops
    assert [(d.perturbation, d.model, d.drop.value is None) for d in found] == [
        *(("noise-30hu", "a", False), ("noise-30hu", "b", False), ("noise-30hu", "c", True)),
        *(("slices-x2", "a", False), ("slices-x2", "b", True), ("slices-x2", "c", True)),
    ]
    assert found[2].drop.reason == "not run on the perturbed scans"
    assert found[3].rank_clean.value == 1
    assert found[3].rank_clean.low is None, "alone in the comparison"


def test_a_model_without_a_score_has_neither_drop_nor_rank():
    clean, noisy = scores(3, 2), scores(3, 2, seed=1)
    noisy[1] = np.nan
    a, b = robustness([*experiments(clean), *experiments(noisy, **NOISE)], "dice_native").drops
    assert a.drop.value is not None
    assert (b.drop.value, b.drop.reason) == (None, "no case of a seed defines it")
    assert (a.rank_change, b.rank_change) == (None, None)


def test_a_larger_distance_is_a_drop():
    clean, noisy = scores(1), scores(2, seed=1)
    (drop,) = robustness([*experiments(clean), *experiments(noisy, **NOISE)], "hd95_mm_native").drops
    assert drop.drop.value == pytest.approx(10 * (noisy.mean() - clean.mean()))
    assert drop.drop.value > 5


def test_heads_of_another_training_are_told():
    pair = [*experiments(scores(1)), *experiments(scores(1, seed=1), heads="1", **NOISE)]
    assert not robustness(pair, "dice_native").drops[0].same_probes


def test_what_does_not_compare_is_refused():
    clean, noisy = experiments(scores(1)), experiments(scores(1, seed=1), **NOISE)
    with pytest.raises(RecordError, match="two records are of a under noise-30hu"):
        robustness([*clean, *noisy, *noisy], "dice_native")
    few = experiments(scores(1, seed=1), train_fraction=0.1, **NOISE)
    with pytest.raises(RecordError, match=r"do not compare: train_fraction is 1\.0 and 0\.1"):
        robustness([*clean, *few], "dice_native")
    other = {**NOISE, "perturbation_parameters": {"kind": "noise", "std_hu": 50.0}}
    two = experiments(scores(1, 2))
    levels = [*experiments(scores(1), **NOISE), experiment("b", scores(1)[0], **other)]
    with pytest.raises(RecordError, match="do not compare: perturbation"):
        robustness([*two, *levels], "dice_native")
