"""Solved heads against scikit-learn, in float64."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from tapct.probes.label_heads import solve
from tapct.probes.solved import PooledCases
from tapct.probes.solvers import STRENGTHS, Design, logistic, neighbour_votes, prototype, ridge


def planted(cases: int, features: int, seed: int = 0, signal: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Features far from 0 (a constant and a doubled one among them), and two labels that depend on some."""
    random = np.random.default_rng(seed)
    plain = random.normal(size=(cases, features))
    logits = signal * plain[:, :2]
    targets = (random.random((cases, 2)) < 1 / (1 + np.exp(-logits))).astype(float)
    values = plain + 5 * random.normal(size=features)
    values[:, 2], values[:, 3] = values[:, 4], 7.0
    return values, targets


@pytest.mark.parametrize(("cases", "features"), [(120, 10), (40, 90)])
def test_logistic_regression_is_that_of_scikit_learn(cases, features):
    values, targets = planted(cases, features)
    heads = logistic(Design(values), targets)
    for strength, head in zip(STRENGTHS, heads, strict=True):
        assert head.is_solved
        for label in range(2):
            theirs = LogisticRegression(C=1 / (strength * cases), solver="newton-cholesky", tol=1e-12, max_iter=1000)
            theirs.fit(values, targets[:, label])
            assert head(values)[:, label] == pytest.approx(theirs.decision_function(values), rel=1e-6, abs=1e-6)


def test_ridge_is_that_of_scikit_learn():
    values, targets = planted(60, 20)
    for strength in (1e-4, 1e-1, 10.0):
        theirs = Ridge(alpha=strength * len(values)).fit(values, targets)
        assert ridge(Design(values), targets, strength)(values) == pytest.approx(theirs.predict(values), abs=1e-6)


def test_neighbours_and_prototypes_are_those_of_scikit_learn():
    (train, targets), (values, _) = planted(80, 6), planted(50, 6, seed=1)
    for count, votes in zip((1, 5, 20), neighbour_votes(train, targets, values, (1, 5, 20)), strict=True):
        theirs = KNeighborsClassifier(count, metric="cosine", algorithm="brute").fit(train, targets)
        expected = np.stack([of_label[:, 1] for of_label in theirs.predict_proba(values)], axis=1)
        assert votes == pytest.approx(expected, abs=1e-12)
    logits = prototype(train, targets)(values)
    for label in range(2):
        nearest = NearestCentroid().fit(train, targets[:, label]).predict(values)
        assert np.array_equal(logits[:, label] > 0, nearest == 1)


def test_a_label_with_one_answer_gets_its_rate_and_no_weights():
    values, targets = planted(30, 5)
    targets[:, 1] = 1
    head = logistic(Design(values), targets, (0.1,))[0]
    assert not head.weight[1].any()
    assert head.bias[1] == pytest.approx(np.log(30.5 / 0.5))
    assert not prototype(values, targets).weight[1].any()


def pooled_cases(values: np.ndarray, targets: np.ndarray, per_patient: int = 1) -> PooledCases:
    names = [f"case-{i}" for i in range(len(values))]
    return PooledCases(names, [f"patient-{i // per_patient}" for i in range(len(values))], values, targets)


def auroc(logits: np.ndarray, targets: np.ndarray) -> float | None:
    return roc_auc_score(targets.ravel(), logits.ravel()) if 0 < targets.mean() < 1 else None


def logits_of(solution, values: np.ndarray) -> np.ndarray:
    return np.stack([solution.head(torch.from_numpy(one)).numpy() for one in values])


@pytest.mark.parametrize("kind", ["linear", "knn", "prototype"])
def test_scale_shift_and_order_of_channels_change_nothing(kind):
    (train, targets), (test, _) = planted(60, 12), planted(20, 12, seed=1)
    expected = solve(kind, pooled_cases(train, targets), None, auroc, scale=True)
    assert expected.scale.constant == 1
    random = np.random.default_rng(0)
    factors, shift, order = 10.0 ** random.uniform(-3, 3, 12), 3 * random.normal(size=12), random.permutation(12)
    for change in (lambda x: x * 1e3, lambda x: x * factors, lambda x: x + shift, lambda x: x[:, order]):
        found = solve(kind, pooled_cases(change(train), targets), None, auroc, scale=True)
        assert logits_of(found, change(test)) == pytest.approx(logits_of(expected, test), abs=1e-6)
        assert found.selection.setting == expected.selection.setting


def test_planted_information_is_found_up_to_what_is_there():
    random = np.random.default_rng(5)
    plain, fresh = random.normal(size=(800, 20)), random.normal(size=(800, 20))
    labels, answers = ((random.random((800, 1)) < 1 / (1 + np.exp(-2 * x[:, :1]))) * 1.0 for x in (plain, fresh))
    found = solve("linear", pooled_cases(plain, labels), None, auroc, scale=True)
    assert auroc(logits_of(found, fresh), answers) == pytest.approx(auroc(fresh[:, :1], answers), abs=0.01)


@pytest.mark.parametrize(("draws", "most"), [(12, 3), pytest.param(40, 6, marks=pytest.mark.thorough)])
def test_noise_is_not_found(draws, most):
    """More than these outside an interval of 95 % have a probability of 0.2 and 0.3 %."""
    outside = 0
    for seed in range(draws):
        random = np.random.default_rng(100 + seed)
        noise, answers = random.normal(size=(240, 8)), (random.random((240, 1)) < 0.5) * 1.0
        found = solve("linear", pooled_cases(noise[:120], answers[:120]), None, auroc, scale=True)
        value = auroc(logits_of(found, noise[120:]), answers[120:])
        positives = int(answers[120:].sum())
        deviation = np.sqrt((121) / (12 * positives * (120 - positives)))  # of Mann and Whitney's U under chance
        outside += abs(value - 0.5) > 1.96 * deviation
    assert outside <= most


def test_few_selection_patients_do_not_choose_alone():
    values, targets = planted(60, 30)
    train, selection = pooled_cases(values[:54], targets[:54], 2), pooled_cases(values[54:], targets[54:], 2)
    about = solve("linear", train, selection, auroc, scale=True).selection
    assert about.patients == 27 + 3
    assert about.folds == 5
    assert len(about.candidates) == len(STRENGTHS)


def test_ties_take_the_lower_loss_then_the_stronger_penalty():
    values, targets = planted(40, 6)
    same = solve("linear", pooled_cases(values, targets), None, lambda logits, targets: 0.5, scale=True).selection
    losses = [row.loss for row in same.candidates]
    assert same.setting == same.candidates[int(np.argmin(losses))].setting
    constant = solve("linear", pooled_cases(np.ones((40, 3)), targets), None, lambda *_: 0.5, scale=True).selection
    assert constant.setting == STRENGTHS[-1]


def test_whole_patients_are_held_out():
    """Two crops of one patient with one answer each: a fold with one of them inside would know the other."""
    random = np.random.default_rng(0)
    patients = random.normal(size=(30, 40))
    values = np.repeat(patients, 2, axis=0) + 1e-3 * random.normal(size=(60, 40))
    targets = np.repeat((random.random((30, 1)) < 0.5) * 1.0, 2, axis=0)  # noise, but the same for both crops
    about = solve("knn", pooled_cases(values, targets, 2), None, auroc, scale=True).selection
    assert about.score < 0.8  # 1 with crops held out one by one


def test_a_label_is_solved_on_the_cases_that_state_it():
    values, targets = planted(90, 12)
    stated = np.random.default_rng(2).random(targets.shape) < 0.6
    known = np.where(stated, targets, np.nan)
    heads, (others, _) = logistic(Design(values), known), planted(40, 12, seed=1)
    votes, logits = neighbour_votes(values, known, others, (1, 5, 80)), prototype(values, known)(others)
    for label in range(2):
        rows = stated[:, label]
        own, answers = values[rows], targets[rows, label]
        assert 5 < rows.sum() < 80
        for strength, head in zip(STRENGTHS, heads, strict=True):
            theirs = LogisticRegression(C=1 / (strength * rows.sum()), solver="newton-cholesky", tol=1e-12)
            theirs.set_params(max_iter=1000).fit(own, answers)
            assert head(others)[:, label] == pytest.approx(theirs.decision_function(others), rel=1e-5, abs=1e-5)
        for count, found in zip((1, 5, rows.sum()), votes, strict=True):
            near = KNeighborsClassifier(int(count), metric="cosine", algorithm="brute").fit(own, answers)
            assert found[:, label] == pytest.approx(near.predict_proba(others)[:, 1], abs=1e-12)
        nearest = NearestCentroid().fit(own, answers).predict(others)
        assert np.array_equal(logits[:, label] > 0, nearest == 1)


@pytest.mark.parametrize("kind", ["linear", "knn", "prototype"])
def test_a_label_that_nobody_states_says_nothing_and_moves_no_other(kind):
    values, targets = planted(60, 6)
    names = [f"c{i:02}" for i in range(60)]
    targets[np.random.default_rng(4).random(60) < 0.3, 0] = np.nan
    unstated = np.column_stack([targets[:, 0], np.full(60, np.nan)])

    def rank(scores, references):
        known = ~np.isnan(references)
        return float(roc_auc_score(references[known], scores[known]))

    heads = [
        solve(kind, PooledCases(names, names, values, of), None, rank, scale=True).head
        for of in (unstated, targets[:, :1])
    ]
    both, alone = (head(torch.from_numpy(values[3]) + 0.1).numpy() for head in heads)
    assert both[1] == 0
    assert both[0] == pytest.approx(alone[0], abs=1e-9)
