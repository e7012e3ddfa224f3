"""CKA and common neighbours against their definitions on all pairs of cases, and on features that are the same."""

import numpy as np
import pytest
from scipy.stats import ortho_group

from tapct.metrics.similarity import linear_cka, neighbour_overlap


def features(cases: int, number: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(cases, number)) * np.linspace(0.2, 3, number) + 5


def by_pairs(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Debiased and biased CKA by the matrices of their definitions."""
    n, k, other = len(x), x @ x.T, y @ y.T
    centre = np.eye(n) - 1 / n

    def biased(a, b):
        return np.trace(a @ centre @ b @ centre)

    def unbiased(a, b):
        a, b, one = a - np.diag(np.diag(a)), b - np.diag(np.diag(b)), np.ones(n)
        ends = (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2))
        return (np.trace(a @ b) + ends - 2 / (n - 2) * (one @ a @ b @ one)) / (n * (n - 3))

    return tuple(of(k, other) / np.sqrt(of(k, k) * of(other, other)) for of in (unbiased, biased))


@pytest.mark.parametrize(("cases", "p", "q"), [(4, 3, 5), (12, 40, 7), (60, 5, 8)])
def test_cka_is_that_of_the_matrices_of_all_pairs(cases, p, q):
    x = features(cases, p, 0)
    y = np.tanh(x @ features(p, q, 1)) + 0.3 * features(cases, q, 2)
    found = linear_cka(x, y)
    assert (found.cka, found.cka_biased) == pytest.approx(by_pairs(x, y), rel=1e-9)
    assert linear_cka(y, x) == pytest.approx(found, rel=1e-12)


def test_features_that_are_rotated_shifted_and_multiplied_by_a_number_are_the_same():
    x = features(30, 12, 0)
    turned = 0.03 * x @ ortho_group.rvs(12, random_state=0) - 40
    longer = np.concatenate([x, np.zeros((30, 5))], axis=1)
    patients = np.arange(30)
    for same in (x, turned, longer):
        assert linear_cka(x, same) == pytest.approx((1, 1), abs=1e-12)
        assert neighbour_overlap(x, same, patients, 5) == pytest.approx(1)
    stretched = x * np.linspace(20, 1, 12)
    assert linear_cka(x, stretched).cka < 0.95


def test_of_few_cases_and_many_features_noise_looks_alike_to_the_biased_cka_alone():
    pairs = [(features(20, 300, seed), features(20, 300, 1000 + seed)) for seed in range(30)]
    debiased, biased = np.transpose([linear_cka(*pair) for pair in pairs])
    assert biased.mean() > 0.8
    assert abs(debiased.mean()) < 3 * debiased.std() / np.sqrt(30) + 1e-3
    overlap = np.mean([neighbour_overlap(*pair, np.arange(20), 4) for pair in pairs])
    assert overlap == pytest.approx(4 / 19, abs=0.02)


def test_common_neighbours_are_those_of_a_search_among_other_patients():
    x, y = features(25, 6, 0), features(25, 9, 1)
    y[:, :6] += 2 * x
    patients = np.repeat(np.arange(5), 5)
    nearest = []
    for of in (x, y):
        unit = (of - of.mean(axis=0)) / np.linalg.norm(of - of.mean(axis=0), axis=1, keepdims=True)
        cosines = unit @ unit.T
        cosines[patients[:, None] == patients] = -2
        nearest.append(np.argsort(-cosines, axis=1)[:, :3])
    shared = [len(set(a) & set(b)) / 3 for a, b in zip(*nearest, strict=True)]
    assert neighbour_overlap(x, y, patients, 3) == pytest.approx(np.mean(shared))


def test_cases_that_are_tied_share_the_places_that_are_left():
    x = np.array([[0.0, 1], [1, 0], [1, 0], [1, 0], [0, -3]])
    patients = np.arange(5)
    unit = x - x.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = []
    for i in range(5):
        cosines = {j: round(float(unit[i] @ unit[j]), 9) for j in range(5) if j != i}
        last = sorted(cosines.values(), reverse=True)[1]
        sure, tied = sum(c > last for c in cosines.values()), sum(c == last for c in cosines.values())
        expected.append(sure + tied * ((2 - sure) / tied) ** 2)
    assert neighbour_overlap(x, x, patients, 2) == pytest.approx(sum(expected) / 10)


def test_what_says_the_same_of_every_case_has_no_likeness():
    x, constant = features(10, 4, 0), np.full((10, 3), 7.1)
    assert linear_cka(x, constant) == (None, None)
    assert neighbour_overlap(constant, x, np.arange(10), 2) is None
    assert neighbour_overlap(x, x, np.zeros(10, dtype=int), 2) is None, "all are of one patient"
    with pytest.raises(ValueError, match="of 3 and 3"):
        linear_cka(x[:3], x[:3])
