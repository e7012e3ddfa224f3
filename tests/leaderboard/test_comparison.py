from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from tapct.kinds import Cases
from tapct.statistics import TaskInputs, comparison, summarise_task
from tapct.statistics.contributions import of_means, of_pairs, of_statistic
from tapct.statistics.differences import measure
from tapct.statistics.resampling import draw_swaps, evaluate
from tapct.statistics.summary import compare
from tests.leaderboard.simulated import clusters, task, within

SIMULATIONS = [25, pytest.param(250, marks=pytest.mark.thorough)]


def three_errors(simulations: int) -> float:
    """Three standard errors of a share of 5 % of the simulations."""
    return 3 * np.sqrt(0.95 * 0.05 / simulations)


def step_down_by_hand(evidence, chance):
    """Romano and Wolf's algorithm as they write it: one hypothesis after the other."""
    order = sorted(range(len(evidence)), key=lambda k: -evidence[k])
    corrected, before = {}, 0.0
    for place, k in enumerate(order):
        largest = [max(chance[j][r] for j in order[place:]) for r in range(len(chance[0]))]
        p = (1 + sum(c >= evidence[k] for c in largest)) / (1 + len(largest))
        before = corrected[k] = max(p, before)
    return [corrected[k] for k in range(len(evidence))]


def test_the_correction_is_the_step_down_of_romano_and_wolf():
    rng = np.random.default_rng(0)
    evidence, chance = rng.gamma(2, size=12), np.abs(rng.normal(size=(12, 200)))
    expected = step_down_by_hand(evidence, chance)
    np.testing.assert_allclose(comparison.corrected_p_values(evidence, chance), expected)
    alone = comparison.p_values(evidence, chance)
    assert (alone <= expected).all()
    np.testing.assert_allclose(comparison.corrected_p_values(evidence[:1], chance[:1]), alone[:1])


def test_the_p_value_of_a_pair_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(0)
    common = rng.normal(size=400)
    values = common + 0.3 * rng.normal(size=(2, 400)) + [[0.0], [0.04]]
    (found,) = summarise_task(task(values), 20_000).comparison.differences
    expected = stats.ttest_rel(*values).pvalue
    assert 0.001 < expected < 0.2
    assert found.p_value == pytest.approx(expected, abs=4 * np.sqrt(expected / 20_000) + 0.003)
    assert found.corrected == found.p_value
    # The two are strongly paired: taken for independent they would be far from different.
    assert stats.ttest_ind(*values).pvalue > 0.3


def false_differences(
    simulations: int, models: int, patients: int, alike: int = 5, better: float = 0.0
) -> tuple[float, float, float]:
    """Share of simulations with a false difference after correction and before, and with a true one found.

    The first model is better than the others by `better`; all others are equal. A patient has up to `alike` cases.
    """
    rng, after, before, found = np.random.default_rng(2), 0, 0, 0
    for index in range(simulations):
        patient = clusters(patients, rng, alike)
        values = within(patient, rng) + within(patient, rng, (models,))
        values[0] += better
        differences = summarise_task(task(values, patient, name=f"simulation {index}"), 500).comparison.differences
        null = [d for d in differences if d.first != "a" or not better]
        after += any(d.better for d in null)
        before += any(d.p_value <= 0.05 for d in null)
        found += any(d.better == "a" for d in differences if d.first == "a")
    return after / simulations, before / simulations, found / simulations


@pytest.mark.parametrize("simulations", SIMULATIONS)
@pytest.mark.parametrize(("patients", "alike"), [(24, 1), (80, 5)])  # 24 scans of 24 patients: as in three tasks
def test_equal_models_differ_in_no_more_than_one_of_twenty_tasks(patients, alike, simulations):
    after, before, _ = false_differences(simulations, 8, patients, alike)
    assert after <= 0.05 + three_errors(simulations)
    assert before > 0.3  # without the correction


@pytest.mark.parametrize("simulations", SIMULATIONS)
@pytest.mark.parametrize("metric", ["MicroAUROC", "MicroAP"])
@pytest.mark.parametrize(("patients", "positives"), [(50, 5), (100, 10)])
def test_equal_models_with_few_positives_are_not_told_apart_more_often(metric, patients, positives, simulations):
    """More in `benchmarks/leaderboard_simulations.py equal`."""
    rng, apart = np.random.default_rng(7), 0
    targets = (np.arange(patients) < positives).astype(int)[:, None]
    for index in range(simulations):
        scores = rng.normal(size=patients) + rng.normal(size=(5, patients))
        inputs = task(scores[:, None, :, None] + targets, targets=targets, name=f"simulation {index}", metric=metric)
        value = evaluate(inputs, np.ones((patients, 1)))[:, 0, 0]
        apart += any(d.better for d in compare(inputs, value, np.ones(5, dtype=bool), 300)[0].differences)
    assert apart / simulations <= 0.05 + three_errors(simulations)


@pytest.mark.parametrize("simulations", SIMULATIONS)
def test_a_true_difference_is_found_and_opens_no_door_to_false_ones(simulations):
    after, _, found = false_differences(simulations, 5, 80, better=0.8)
    assert found > 0.9
    assert after <= 0.05 + three_errors(simulations)


def test_models_of_clear_order_get_one_rank_each():
    rng = np.random.default_rng(0)
    values = rng.normal(size=100) + 0.1 * rng.normal(size=(20, 100)) - np.linspace(0, 5, 20)[:, None]
    found = summarise_task(task(values)).comparison
    # 190 pairs: by Holm's correction of 2,000 resamples none of them could differ.
    assert all(d.better == min(d.first, d.second) for d in found.differences)
    assert found.rank_intervals == {name: (i + 1, i + 1) for i, name in enumerate("abcdefghijklmnopqrst")}
    assert found.groups == tuple((name,) for name in "abcdefghijklmnopqrst")


def test_lower_is_better_where_it_is():
    values = np.random.default_rng(0).gamma(5, size=60) + np.array([[9.0], [0.0]])
    values[0] += np.random.default_rng(1).random(60)
    (found,) = summarise_task(task(values, metric="hd95_mm_native")).comparison.differences
    assert found.better == "b"
    assert found.estimate.value > 0


@pytest.mark.parametrize("targets", [None, (np.arange(60) % 3 == 0).astype(int)[:, None]])
def test_identical_models_are_a_tie_of_p_1(targets):
    one = np.random.default_rng(0).random((1, 60) if targets is None else (1, 2, 60, 1))
    found = summarise_task(task(np.repeat(one, 3, axis=0), targets=targets)).comparison
    assert [(d.p_value, d.corrected, d.better, d.estimate.value) for d in found.differences] == [(1, 1, None, 0)] * 3
    assert found.groups == (("a", "b", "c"),)
    assert set(found.rank_intervals.values()) == {(1, 3)}


def test_a_difference_that_is_the_same_in_every_patient_is_certain():
    one = np.random.default_rng(0).random(60)
    (found,) = summarise_task(task([one, one + 0.01])).comparison.differences
    assert found.better == "b"
    assert found.corrected == pytest.approx(1 / 2001)


def in_errors(added, parts):
    """A difference over its standard error, as one writes it for one case a patient: Welch's, of two means or one."""
    groups = [added[part] for part in parts]
    error = np.sqrt(sum(group.var(ddof=1) / len(group) for group in groups))
    return sum(group.mean() for group in groups) / error


def test_the_p_value_of_few_patients_is_that_of_all_signs():
    """With 10 patients there are 1024 ways to turn signs, of which the p-value is the share that does as much."""
    values = np.random.default_rng(3).normal(size=(2, 10)) + np.array([[0.0], [1.2]])
    gap = values[1] - values[0]
    ways = [np.array(way) * (gap - gap.mean()) for way in product([-1, 1], repeat=10)]
    observed = in_errors(gap, [slice(None)])
    assert observed == pytest.approx(stats.ttest_1samp(gap, 0).statistic)
    expected = np.mean([abs(in_errors(way, [slice(None)])) >= abs(observed) for way in ways])
    (found,) = summarise_task(task(values), 20_000).comparison.differences
    assert 0.005 < expected < 0.1
    assert found.p_value == pytest.approx(expected, abs=4 * np.sqrt(expected / 20_000))


@pytest.mark.parametrize("positives", [5, 40])
def test_the_error_of_an_auroc_difference_is_delongs_and_chance_is_of_errors_anew(positives):
    rng = np.random.default_rng(positives)
    targets = np.arange(80) < positives
    scores = rng.normal(size=(2, 80)) + rng.normal(size=80) + targets * np.array([[2.0], [0.8]])
    ahead = np.sign(scores[:, targets, None] - scores[:, None, ~targets]) / 2 + 0.5
    (of_positives, of_negatives) = ((ahead[0] - ahead[1]).mean(axis=axis) for axis in (1, 0))
    parts = [slice(positives), slice(positives, None)]
    error = np.sqrt(of_positives.var(ddof=1) / positives + of_negatives.var(ddof=1) / (80 - positives))
    inputs = task(scores[:, None, :, None], targets=targets.astype(int)[:, None])
    swaps = draw_swaps(80, 400, inputs.key)
    pairs = measure(inputs, np.arange(2), np.array([roc_auc_score(targets, each) for each in scores]), swaps)
    assert pairs.gap[0] == pytest.approx(of_positives.mean())
    assert pairs.error[0] == pytest.approx(error)
    centred = np.concatenate([of_positives - of_positives.mean(), of_negatives - of_negatives.mean()])
    expected = [in_errors(column * centred, parts) for column in swaps[inputs.patient_index].T]
    np.testing.assert_allclose(pairs.chance[0], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("metric", "most", "error"),
    [("dice_native", 1, 0.02), ("dice_native", 4, 0.05), ("MicroAUROC", 4, 0.05), ("MicroAP", 1, 0.02)],
)
def test_what_patients_add_is_what_the_metric_loses_without_them(metric, most, error):
    """To first order the jackknife says the same, of patients of one or of several cases."""
    rng = np.random.default_rng(most)
    patient, labels = clusters(200, rng, most), 2 if most > 1 else 1
    targets = None if metric == "dice_native" else (rng.random((len(patient), labels)) < 0.4).astype(int)
    values = rng.normal(size=(1, 2, len(patient), *(() if targets is None else (labels,))))
    inputs = task(values + (0 if targets is None else targets), patient, targets, metric=metric)
    parts = of_pairs(inputs) if targets is not None else (of_means(values.mean(axis=1), inputs.patient_index, 200),)
    for part in parts:
        assert part.share.sum() == pytest.approx(1)
        np.testing.assert_allclose(part.added.sum(axis=1), 0, atol=1e-12)
    lost = -evaluate(inputs, 1 - np.eye(200)).mean(axis=1)[0]
    if metric == "MicroAP":  # which, unlike the others, depends on how many patients there are of either class
        for part in parts:
            lost[part.share > 0] -= lost[part.share > 0].mean()
    added = np.sum([part.added[0] for part in parts], axis=0)
    np.testing.assert_allclose(added, lost - lost.mean(), atol=error * np.abs(added).max())


@pytest.mark.parametrize("metric", ["dice_native", "hd95_mm_native", "MicroAUROC", "MicroAP"])
def test_the_interval_of_a_difference_is_without_0_where_its_p_value_says_so_and_nowhere_else(metric):
    agreed = {True: 0, False: 0}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        targets = (np.arange(60) < 12).astype(int)[:, None] if metric.startswith("Micro") else None
        values = rng.normal(size=(4, 1, 60)) + 0.25 * np.arange(4)[:, None, None]
        values = values / 20 if targets is None else values[..., None] * (1 + 2 * targets) + targets
        for found in summarise_task(task(values, targets=targets, metric=metric), 300).comparison.differences:
            without = not found.estimate.low <= 0 <= found.estimate.high
            assert without == (found.p_value <= comparison.ALPHA)
            assert found.estimate.low <= found.estimate.value <= found.estimate.high
            agreed[without] += 1
    assert min(agreed.values()) > 3


def test_models_that_are_defined_on_different_cases_are_compared_on_those_of_both():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 60)) + rng.normal(size=60)
    values[1, :15] = np.nan
    values[2, 50:] = np.nan
    values[3, 5:] = np.nan
    found = summarise_task(task(values)).comparison
    pairs = {(d.first, d.second): d for d in found.differences}
    assert set(pairs) == {("a", "b"), ("a", "c"), ("b", "c")}  # d is defined on too few
    assert {pair: d.cases for pair, d in pairs.items()} == {("a", "b"): 45, ("a", "c"): 50, ("b", "c"): 35}
    assert pairs["b", "c"].estimate.value == pytest.approx((values[1] - values[2])[15:50].mean())
    alone = summarise_task(task(values[1:3, 15:50])).comparison.differences[0]
    assert pairs["b", "c"].p_value == pytest.approx(alone.p_value, abs=0.03)
    assert found.reason == (
        "3 pairs of models have too few patients in common on whom both are defined; "
        "3 pairs of models are compared on the cases alone on which both are defined, 35 or more of 60"
    )


def test_no_difference_is_claimed_of_five_patients_or_of_four_of_a_class():
    one = np.random.default_rng(0).random(5)
    found = summarise_task(task([one, one + 0.5])).comparison
    assert (found.differences, found.rank_intervals) == ((), {})
    assert found.reason == "5 patients are too few to compare models: 6 are needed"
    targets = (np.arange(60) < 4).astype(int)[:, None]
    scores = np.random.default_rng(0).random((2, 1, 60, 1)) + targets
    found = summarise_task(task(scores, targets=targets)).comparison
    assert found.reason.startswith("4 patients with a positive and 56 with a negative are too few")


def test_rank_intervals_count_who_is_better_and_who_is_worse():
    better = np.zeros((4, 4), dtype=bool)
    better[0, 2] = better[0, 3] = better[1, 3] = True
    assert comparison.rank_intervals(better).tolist() == [[1, 2], [1, 3], [2, 4], [3, 4]]


def maximal_cliques_by_hand(tied, order):
    sets = [s for n in range(1, len(order) + 1) for s in combinations(order, n)]
    cliques = [set(s) for s in sets if all(tied[i, j] for i, j in combinations(s, 2))]
    return [c for c in cliques if not any(c < other for other in cliques)]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_tie_groups_are_all_maximal_sets_without_a_difference(share):
    rng = np.random.default_rng(3)
    for _ in range(10):
        better = np.triu(rng.random((8, 8)) < share, 1)
        order = rng.permutation(8).tolist()
        found = comparison.tie_groups(better, order)
        expected = maximal_cliques_by_hand(~(better | better.T), order)
        assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
        for i, j in combinations(range(8), 2):  # a compact letter display
            assert any(i in group and j in group for group in found) == (not better[i, j])
        assert [group[0] for group in found] == sorted((group[0] for group in found), key=order.index)


def test_without_enough_patients_or_models_there_is_no_comparison():
    rng = np.random.default_rng(0)
    few = summarise_task(task(rng.random((2, 3)))).comparison
    assert (few.differences, few.groups, few.rank_intervals) == ((), (), {})
    assert "too few" in few.reason
    assert "fewer than two" in summarise_task(task(rng.random((1, 60)))).comparison.reason


def test_a_model_without_a_score_is_left_out_of_the_comparison():
    values = np.random.default_rng(0).random((3, 60))
    values[1] = np.nan
    found = summarise_task(task(values)).comparison
    assert list(found.rank_intervals) == ["a", "c"]
    assert found.reason.startswith("1 model")


def of_labels(logits, targets, patients, metric):
    """A task of (models, cases, labels) logits that is ranked by a mean over labels."""
    cases, labels = targets.shape
    names = [tuple(map(str, of)) for of in (range(cases), patients, range(labels))]
    samples = tuple((Cases(*names, {"logit": of, "target": targets}),) for of in logits)
    models = tuple("abcdefgh"[: len(logits)])
    own = {"models": models, "cases": names[0], "patients": names[1], "samples": samples}
    return TaskInputs(task="labels", version="1", metric=metric, **own)


@pytest.mark.parametrize("metric", ["AUROC", "AP"])
def test_a_mean_over_one_label_is_the_number_over_all_its_pairs(metric):
    """Number, interval and what patients add are the same to the last digits; another label changes them."""
    rng = np.random.default_rng(4)
    patients = clusters(60, rng, 3)
    targets = (rng.random((len(patients), 1)) < 0.4).astype(float)
    logits = targets + rng.normal(size=(2, len(patients), 1))
    macro = of_labels(logits, targets, patients, f"Macro{metric}")
    micro = replace(task(logits[:, None], patients, targets, name="labels", metric=f"Micro{metric}"), cases=macro.cases)
    micro = replace(micro, patients=macro.patients)
    for one, other in zip(summarise_task(macro, 300).models, summarise_task(micro, 300).models, strict=True):
        ends = [(of.estimate.value, of.estimate.low, of.estimate.high) for of in (one, other)]
        assert ends[0] == pytest.approx(ends[1], rel=1e-12)
    for one, other in zip(of_statistic(macro), of_pairs(micro), strict=True):
        np.testing.assert_allclose(one.added, other.added, atol=1e-14)
        np.testing.assert_array_equal(one.share, other.share)
    both = of_labels(np.repeat(logits, 2, axis=2), np.repeat(targets, 2, axis=1), patients, f"Macro{metric}")
    assert len(of_statistic(both)) == 4


def test_models_are_told_apart_by_a_mean_over_labels_and_not_where_a_label_is_of_few_patients():
    rng = np.random.default_rng(5)
    targets = (rng.random((200, 3)) < 0.3).astype(float)
    hard = rng.normal(size=targets.shape)
    logits = np.array([[2.5], [1.0]])[..., None] * targets + hard + 0.3 * rng.normal(size=(2, *targets.shape))
    targets[rng.random(targets.shape) < 0.2] = np.nan
    (found,) = summarise_task(of_labels(logits, targets, range(200), "MacroAUROC"), 400).comparison.differences
    assert found.better == "a"
    low, high = found.estimate.low, found.estimate.high
    assert 0 < low < found.estimate.value < high
    patients = np.arange(200)
    patients[targets[:, 0] == 1] = np.arange(int((targets[:, 0] == 1).sum())) % 3 + 1000
    reason = summarise_task(of_labels(logits, targets, patients, "MacroAUROC"), 400).comparison.reason
    assert reason.startswith("3 patients with a positive of 0")
