from collections import Counter

import numpy as np
import pytest
import torch

from pretrain.data.counters import Stream, generator
from pretrain.data.sampling import SampleOrder


def test_every_volume_comes_once_an_epoch():
    order = SampleOrder(10, seed=3)
    epochs = [[order[10 * epoch + place] for place in range(10)] for epoch in range(20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 20


def test_the_order_needs_no_history():
    forwards = [SampleOrder(7, seed=0)[sample] for sample in range(30)]
    order = SampleOrder(7, seed=0)
    assert [order[sample] for sample in reversed(range(30))] == forwards[::-1]
    assert [SampleOrder(7, seed=1)[sample] for sample in range(30)] != forwards


def test_one_volume_is_enough():
    assert {SampleOrder(1, seed=0)[sample] for sample in range(5)} == {0}


@pytest.mark.parametrize("position", range(5))
def test_every_counter_counts(position):
    counters = [5, 6, 7, int(Stream.CROPS), 8]
    other = counters.copy()
    other[position] += 1
    first, second, again = (
        torch.rand(8, generator=generator(*c[:3], Stream(c[3]), c[4])) for c in (counters, other, counters)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_neighbouring_generators_are_not_correlated():
    draws = np.array([torch.rand(2000, generator=generator(0, step, 0, Stream.CROPS)).numpy() for step in range(12)])
    between = np.corrcoef(draws)[np.triu_indices(12, 1)]
    assert abs(between).max() < 4.5 / np.sqrt(2000)
    firsts = [float(torch.rand(1, generator=generator(0, step, 0, Stream.CROPS))) for step in range(1000)]
    assert np.mean(firsts) == pytest.approx(0.5, abs=0.04)
    assert Counter(int(10 * value) for value in firsts).most_common()[-1][1] > 60
