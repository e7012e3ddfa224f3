"""Means over labels in resamples and without each patient, against scikit-learn on the weighted cases."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tapct.kinds import Cases, kind
from tapct.metrics import by_label, left_out, ranks
from tapct.metrics.classification import METRICS, OVER_LABELS, sigmoid


def skill(targets, scores, sample_weight):
    share = np.average(targets, weights=sample_weight)
    return (average_precision_score(targets, scores, sample_weight=sample_weight) - share) / (1 - share)


REFERENCES = {"MacroAUROC": roc_auc_score, "MacroAP": average_precision_score, "MacroAPSkill": skill}


def random_set(seed):
    """Cases of patients, some with several; labels of any frequency, some rare, a fifth missing; scores with ties."""
    rng = np.random.default_rng(seed)
    cases, labels = rng.integers(60, 140), rng.integers(1, 5)
    patients = np.unique(rng.integers(0, rng.integers(20, 60), cases), return_inverse=True)[1]
    targets = (rng.random((cases, labels)) < rng.choice([0.05, 0.3, 0.8], labels)).astype(float)
    scores = np.round(rng.normal(size=targets.shape) + targets, rng.integers(0, 3))
    targets[rng.random(targets.shape) < 0.2] = np.nan
    return scores, targets, patients, rng.integers(0, 4, (patients.max() + 1, 8)).astype(float)


def expected(reference, scores, targets, weights):
    """The mean over the labels with twenty of both, of those that the weights leave both."""
    found = []
    for s, t in zip(scores.T, targets.T, strict=True):
        own = ~np.isnan(t)
        if min((t == 1).sum(), (t == 0).sum()) >= 20 and all((weights * (t == one)).sum() > 0 for one in (0, 1)):
            found.append(reference(t[own], s[own], sample_weight=weights[own]))
    return np.mean(found) if found else np.nan


@pytest.mark.parametrize("metric", OVER_LABELS)
def test_means_over_labels_are_those_of_scikit_learn_with_weights(metric):
    defined = 0
    for seed in range(12):
        scores, targets, patients, counts = random_set(seed)
        found = METRICS[metric](scores, targets, counts[patients])
        wanted = [expected(REFERENCES[metric], scores, targets, of) for of in counts[patients].T]
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)
        defined += np.isfinite(wanted).sum()
    assert defined > 50


@pytest.mark.parametrize("metric", OVER_LABELS)
def test_without_a_patient_a_mean_is_that_of_the_others(metric):
    for seed in range(12):
        scores, targets, patients, _ = random_set(seed)
        others = (1 - np.eye(patients.max() + 1))[patients]
        found = by_label.mean_without_each(OVER_LABELS[metric], scores, targets, patients)
        np.testing.assert_allclose(found, METRICS[metric](scores, targets, others), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("metric", OVER_LABELS)
def test_what_a_mean_loses_without_the_positives_or_the_negatives_of_a_patient(metric):
    for seed in (0, 1):
        scores, targets, patients, _ = random_set(seed)
        wanted = []
        for s, t in zip(scores.T, targets.T, strict=True):
            if min((t == 1).sum(), (t == 0).sum()) < 20:
                continue
            for own in (t == 1, t == 0):
                kept = [~np.isnan(t) & ~(own & (patients == of)) for of in (-1, *range(patients.max() + 1))]
                whole, *left = (REFERENCES[metric](t[k], s[k], sample_weight=np.ones(k.sum())) for k in kept)
                wanted.append(
                    (whole - np.array(left), [(own & (patients == of)).sum() for of in range(patients.max() + 1)])
                )
        found = by_label.lost_by_mean(OVER_LABELS[metric], scores, targets, patients)
        assert len(found) == len(wanted) > 0
        for one, (lost, cases) in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one.lost, lost / (len(wanted) / 2), rtol=1e-11, atol=1e-14)
            np.testing.assert_array_equal(one.cases, cases)


def test_a_label_with_one_positive_or_one_negative_is_defined():
    targets = np.array([[0, 1, 0, 1, np.nan], [0, 1, 0, 0, 1], [0, 1, 1, 1, 1]])
    assert by_label.is_defined(targets).tolist() == [False, False, True, True, False]


@pytest.mark.parametrize("patients", [3, 40])  # of many cases each, which are counted anew, and of few
def test_what_is_left_without_a_patient_is_as_counted_anew(patients):
    for seed in range(15):
        rng = np.random.default_rng(seed)
        targets, groups = (rng.random(50) < 0.3).astype(int), rng.integers(-1, patients, 50)  # -1: always stays
        scores = np.round(rng.normal(size=50) + targets, rng.integers(0, 3))
        left = left_out.without_each(scores, targets, groups, patients)
        for patient in range(patients):
            stays = groups != patient
            rest = scores[stays], targets[stays]
            np.testing.assert_equal(left.auroc[patient], ranks.auroc(*rest))
            for found, anew in (
                (left.average_precision[patient], ranks.average_precision(*rest)),
                (left.average_precision_skill[patient], ranks.average_precision_skill(*rest)),
            ):
                np.testing.assert_allclose(found, anew, rtol=1e-13, atol=1e-14)


def test_a_label_that_a_resample_leaves_without_positives_is_no_part_of_its_mean_for_any_model():
    """By hand: two labels of 40 cases; all positives of the first are of one patient, who is not drawn."""
    rng = np.random.default_rng(0)
    patients = np.repeat([0, *range(1, 21)], [20, *[1] * 20])
    targets = np.stack([patients == 0, rng.permutation(np.arange(40) < 20)], axis=1).astype(float)
    counts = np.ones((40, 2))
    counts[patients == 0, 1] = 0
    for scores in rng.normal(size=(3, 40, 2)):
        whole, without = METRICS["MacroAUROC"](scores, targets, counts)
        alone = [roc_auc_score(targets[:, k], scores[:, k]) for k in range(2)]
        assert whole == pytest.approx(np.mean(alone))
        others = patients > 0
        assert without == pytest.approx(roc_auc_score(targets[others, 1], scores[others, 1]))
    cases = Cases(tuple(map(str, range(40))), tuple(map(str, patients)), ("a", "b"), {"target": targets})
    needed = kind("classification").metric("MacroAUROC").needs(cases)
    assert {what: len(set(patients[of])) for what, of in needed.items()}["with a positive of a"] == 1


def test_calibration_is_weighted_and_left_out_like_repeated_cases():
    metric = kind("classification").metric("CalibrationError").of
    for seed in range(8):
        scores, targets, patients, counts = random_set(seed)
        values = {"probability": sigmoid(scores), "target": targets}
        cases = Cases(tuple(map(str, patients)), tuple(map(str, patients)), (), values)
        found = metric.of(cases, counts[patients])
        for r, weights in enumerate(counts[patients].T.astype(int)):
            again = np.repeat(np.arange(len(patients)), weights)
            known = ~np.isnan(targets[again])
            p, t = values["probability"][again][known], targets[again][known]
            bins = np.minimum((p * 15).astype(int), 14)
            apart = sum(abs((p[bins == b] - t[bins == b]).sum()) for b in range(15))
            assert found[r] == pytest.approx(apart / len(t), rel=1e-11)
        others = (1 - np.eye(patients.max() + 1))[patients]
        np.testing.assert_allclose(metric.without(cases, patients), metric.of(cases, others), rtol=1e-11)
