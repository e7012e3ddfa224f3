import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tapct.kinds import Cases
from tapct.metrics import ranks
from tapct.metrics.by_label import RANKS
from tapct.metrics.resampled import in_resamples
from tapct.statistics import TaskInputs, contributions, resampling
from tests.leaderboard.simulated import clusters, task

METRICS = {"MicroAUROC": roc_auc_score, "MicroAP": average_precision_score}
EXACT = {"MicroAUROC": ranks.auroc, "MicroAP": ranks.average_precision}


@pytest.mark.parametrize("decimals", [1, 2, 8])  # of the scores: many ties, some, none
@pytest.mark.parametrize("metric", METRICS)
def test_pairs_are_weighted_as_scikit_learn_scores_the_repeated_cases(metric, decimals):
    rng = np.random.default_rng(decimals)
    patients = clusters(20, rng)
    cases = len(patients)
    targets = (rng.random((cases, 3)) < 0.3).astype(int)
    values = (0.3 * targets + 0.7 * rng.random((2, 2, cases, 3))).round(decimals)
    inputs = task(values, patients, targets, metric=metric)
    counts = resampling.draw_patients(20, 50, "any")
    found = resampling.evaluate(inputs, counts)
    assert found.shape == (2, 2, 50)
    for r in range(50):
        again = np.repeat(np.arange(cases), counts[inputs.patient_index, r].astype(int))
        for model, seed in np.ndindex(2, 2):
            scores, references = values[model, seed][again].ravel(), targets[again].ravel()
            assert found[model, seed, r] == pytest.approx(METRICS[metric](references, scores), rel=1e-12)
            assert found[model, seed, r] == EXACT[metric](scores, references), "to the bit"


def test_means_are_of_the_defined_cases_as_often_as_their_patient_was_drawn():
    rng = np.random.default_rng(0)
    patients = clusters(10, rng)
    values = rng.random((2, 3, len(patients)))
    values[rng.random(values.shape) < 0.2] = np.nan
    inputs = task(values, patients)
    counts = resampling.draw_patients(10, 20, "any")
    expected = np.stack(
        [np.nanmean(np.repeat(values, counts[inputs.patient_index, r].astype(int), axis=2), axis=2) for r in range(20)],
        axis=2,
    )
    np.testing.assert_allclose(resampling.evaluate(inputs, counts), expected, rtol=1e-12)


OF_COUNTS = [of.of_counts for of in RANKS.values()]


def test_a_resample_of_one_class_is_undefined():
    counts = np.array([[1, 2, 0], [1, 0, 2]], dtype=float)
    found = in_resamples(OF_COUNTS, np.array([0.2, 0.8]), np.array([0, 1]), np.array([0, 1]), counts)
    np.testing.assert_array_equal(found, [[1, np.nan, np.nan]] * 3)


def test_patients_are_drawn_whole_times():
    counts = np.array([[1.0, 2.0], [1.0, 0.5]])
    with pytest.raises(ValueError, match="whole numbers"):
        in_resamples(OF_COUNTS, np.array([0.2, 0.8]), np.array([0, 1]), np.array([0, 1]), counts)


@pytest.mark.parametrize("metric", METRICS)
def test_logits_of_any_size_keep_their_order_in_every_resample(metric):
    rng = np.random.default_rng(0)
    targets, patients = (rng.random((60, 2)) < 0.3).astype(int), clusters(30, rng)[:60]
    logits = targets + rng.normal(size=(1, 1, 60, 2))
    counts = resampling.draw_patients(len(set(patients)), 50, "any")
    expected = resampling.evaluate(task(logits, patients, targets, metric=metric), counts)
    for moved in (logits + 20, 1e4 * logits - 1e4, np.where(logits > 0, np.expm1(8 * logits), logits)):
        found = resampling.evaluate(task(moved, patients, targets, metric=metric), counts)
        np.testing.assert_array_equal(found, expected)


def test_a_resample_without_a_defined_case_is_undefined():
    counts = np.array([[1, 2, 0], [1, 0, 2]], dtype=float)
    found = resampling.mean_over_cases(np.array([0.5, np.nan]), np.array([0, 1]), counts)
    np.testing.assert_array_equal(found, [0.5, 0.5, np.nan])


def test_the_resamples_are_whole_sets_of_patients_and_the_tasks_own():
    counts = resampling.draw_patients(30, 4000, "task")
    assert counts.shape == (30, 4000)
    assert (counts.sum(axis=0) == 30).all()
    np.testing.assert_array_equal(counts, resampling.draw_patients(30, 4000, "task"))
    assert (counts != resampling.draw_patients(30, 4000, "another")).any()
    # How often one patient is drawn is binomial(30, 1/30): mean 1, variance 29/30, over 4000 resamples.
    np.testing.assert_allclose(counts.mean(axis=1), 1, atol=4.5 * np.sqrt(1 / 4000))
    np.testing.assert_allclose(counts.var(axis=1).mean(), 29 / 30, rtol=0.02)


def test_resamples_stay_those_that_published_intervals_are_of():
    assert resampling.draw_patients(4, 3, "task").tolist() == [[1, 0, 1], [0, 3, 1], [2, 0, 2], [1, 1, 0]]
    assert resampling.draw_swaps(2, 6, "task").tolist() == [[1, -1, 1, 1, 1, 1], [1, 1, -1, 1, -1, -1]]


def test_what_is_done_a_block_at_a_time_is_as_all_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    inputs = task(rng.random((2, 3, 40)), np.repeat(np.arange(10), 4))
    whole = resampling.resample(inputs, 30), resampling.draw_swaps(10, 30, "any")
    monkeypatch.setattr(resampling, "AT_ONCE", 130)
    parts = resampling.resample(inputs, 30), resampling.draw_swaps(10, 30, "any")
    for one, other in zip((*whole[0], whole[1]), (*parts[0], parts[1]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_difference_of_two_models_is_that_of_their_means_over_seeds():
    rng = np.random.default_rng(0)
    values = rng.random((3, 2, 12))
    found = resampling.resample(task(values, None), 20)
    value, resampled, without = found.difference(2, 0)
    each = values[2].mean(axis=0) - values[0].mean(axis=0)
    assert value == pytest.approx(each.mean(), rel=1e-12)
    assert resampled == pytest.approx((found.bootstrap[2] - found.bootstrap[0]).mean(axis=0), rel=1e-9)
    assert sorted(without) == pytest.approx(sorted((each.sum() - each) / 11), rel=1e-9)
    assert [of.tolist() for of in found.difference(1, 1)[1:]] == [[0] * 20, [0] * 12]


def test_a_statistic_is_of_the_cases_as_often_as_their_patient_was_drawn(monkeypatch):
    rng = np.random.default_rng(0)
    patients = tuple(f"patient {p}" for p in rng.permutation(np.repeat(np.arange(20), 4)))
    names, targets = tuple(f"case {i}" for i in range(80)), (rng.random((80, 2)) < 0.5).astype(float)
    logits = targets + rng.normal(size=(2, 3, 80, 2))
    samples = [
        [Cases(names, patients, ("a", "b"), {"logit": seed, "target": targets}) for seed in model] for model in logits
    ]
    inputs = TaskInputs(
        task="simulated", version="1", metric="MacroAUROC", models=("a", "b"), cases=names, patients=patients,
        samples=tuple(map(tuple, samples)),
    )  # fmt: skip
    counts = resampling.draw_patients(20, 15, "any")
    monkeypatch.setattr(resampling, "AT_ONCE", 300)
    found, without = resampling.evaluate(inputs, counts), resampling.left_out(inputs)
    for model, seed in np.ndindex(2, 3):
        for r in range(15):
            rows = np.repeat(np.arange(80), counts[inputs.patient_index, r])
            expected = roc_auc_score(targets[rows], logits[model, seed, rows])
            assert found[model, seed, r] == pytest.approx(expected, rel=1e-12)
        for patient in range(20):
            rows = np.flatnonzero(inputs.patient_index != patient)
            expected = roc_auc_score(targets[rows], logits[model, seed, rows])
            assert without[model, seed, patient] == pytest.approx(expected, rel=1e-12)


def test_half_of_the_patients_swap():
    swaps = resampling.draw_swaps(30, 4000, "task")
    assert set(np.unique(swaps)) == {-1, 1}
    np.testing.assert_allclose(swaps.mean(axis=1), 0, atol=4.5 / np.sqrt(4000))
    np.testing.assert_array_equal(swaps, resampling.draw_swaps(30, 4000, "task"))


def test_the_order_of_cases_and_patients_is_of_no_consequence():
    rng = np.random.default_rng(0)
    patients = clusters(12, rng)
    values = rng.random((2, len(patients)))
    shuffled = rng.permutation(len(patients))
    counts = resampling.draw_patients(12, 30, "any")
    one, other = task(values, patients), task(values[:, shuffled], patients[shuffled])
    np.testing.assert_allclose(resampling.evaluate(one, counts), resampling.evaluate(other, counts), rtol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_pairs_without_a_reference_are_drawn_and_count_in_nothing(metric):
    rng = np.random.default_rng(5)
    patients = clusters(20, rng)
    cases = len(patients)
    targets = (rng.random((cases, 3)) < 0.3).astype(float)
    values = (0.3 * targets + 0.7 * rng.random((2, 2, cases, 3))).round(2)
    targets[rng.random(targets.shape) < 0.4] = np.nan
    inputs = task(values, patients, targets, metric=metric)
    counts = resampling.draw_patients(20, 30, "any")
    found = resampling.evaluate(inputs, counts)
    for r in range(30):
        again = np.repeat(np.arange(cases), counts[inputs.patient_index, r].astype(int))
        references = targets[again].ravel()
        known = ~np.isnan(references)
        for model, seed in np.ndindex(2, 2):
            scores = values[model, seed][again].ravel()[known]
            assert found[model, seed, r] == pytest.approx(METRICS[metric](references[known], scores), rel=1e-12)
            assert found[model, seed, r] == EXACT[metric](scores, references[known]), "to the bit"
    parts, one = contributions.of_pairs(inputs), inputs.pairs[1] == 1
    for part, of in zip(parts, (one, ~one), strict=True):
        pairs = np.bincount(inputs.pairs[2][of], minlength=20)
        assert part.share == pytest.approx(pairs / pairs.sum())
        assert part.added.sum(axis=1) == pytest.approx(0, abs=1e-15)
    assert inputs.needed == {
        "with a positive": len({p for p, row in zip(patients, targets, strict=True) if (row == 1).any()}),
        "with a negative": len({p for p, row in zip(patients, targets, strict=True) if (row == 0).any()}),
    }


def test_without_a_patient_the_metric_is_that_of_the_others_whatever_they_leave_out():
    rng = np.random.default_rng(3)
    targets = (rng.random((15, 2)) < 0.5).astype(float)
    targets[rng.random(targets.shape) < 0.3] = np.nan
    values = rng.random((1, 1, 15, 2))
    found = resampling.resample(task(values, None, targets), 10).jackknife[0, 0]
    index = task(values, None, targets).patient_index
    for case in range(15):
        rest = np.arange(15) != case
        known = ~np.isnan(targets[rest])
        assert found[index[case]] == ranks.auroc(values[0, 0, rest][known], targets[rest][known])
