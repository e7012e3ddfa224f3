import numpy as np
import torch

from tapct.features import FeatureStatistics
from tapct.features.statistics import CASES


def test_statistics_over_cases_of_different_sizes_are_those_of_all_values_together():
    rng = np.random.default_rng(0)
    cases = [
        rng.normal(size=(5, n)) * [[1], [10], [0.1], [0], [1]] + [[0], [100], [0], [3], [-5]] for n in (7, 50, 200)
    ]
    cases = [case.astype(np.float32) for case in cases]
    statistics = FeatureStatistics()
    for i, case in enumerate(cases):
        statistics.add(str(i), torch.from_numpy(case))
    found, together = statistics.describe(), np.concatenate(cases, axis=1).astype(np.float64)
    assert found["cases"] == 3
    assert (found["channels"], found["values_per_channel"]) == together.shape
    assert found["non_finite"] == found["repeated_cases"] == 0
    assert found["constant_channels"] == 1
    expected = (together.min(), together.max(), together.mean(), np.sqrt(together.var(axis=1).mean()))
    np.testing.assert_allclose([found[k] for k in ("min", "max", "mean", "std")], expected, rtol=1e-5)


def test_a_channel_that_differs_only_between_cases_is_not_constant():
    statistics = FeatureStatistics()
    for i in range(2):
        statistics.add(str(i), torch.full((3, 4), float(i)))
    assert statistics.describe()["constant_channels"] == 0


def test_what_is_not_finite_is_counted_and_leaves_the_rest_undefined():
    statistics = FeatureStatistics()
    statistics.add("a", torch.tensor([[1.0, float("nan"), float("inf")], [1.0, 2.0, 3.0]]))
    found = statistics.describe()
    assert found["non_finite"] == 2
    assert [found[k] for k in ("constant_channels", "min", "max", "mean", "std")] == [None] * 5


def test_cases_with_the_same_features_are_counted():
    statistics, one = FeatureStatistics(), torch.randn(3, 10)
    for name, features in (("a", one), ("b", one.clone()), ("c", one + 1), ("d", one.clone())):
        statistics.add(name, features)
    assert statistics.describe()["repeated_cases"] == 2


def test_only_so_many_cases_are_looked_at_each_once():
    statistics = FeatureStatistics()
    assert statistics.describe() is None
    for i in range(CASES):
        assert statistics.needs(str(i))
        statistics.add(str(i), torch.randn(2, 3))
        assert not statistics.needs(str(i))
    assert not statistics.needs("one more")
