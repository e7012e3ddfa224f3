"""The random pyramid against scipy, and what makes it another."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

import tapct
from tapct.errors import EncoderError


def window() -> torch.Tensor:
    return 600 * torch.randn(1, 1, 8, 24, 16, generator=torch.Generator().manual_seed(0))


def means(x: np.ndarray, block: tuple[int, int, int]) -> np.ndarray:
    """Means (..., d, h, w) of blocks of (..., D, H, W)."""
    (z, y, x_), (d, h, w) = block, x.shape[-3:]
    return x.reshape(*x.shape[:-3], d // z, z, h // y, y, w // x_, x_).mean(axis=(-5, -3, -1))


def by_hand(hu: np.ndarray, draw: int) -> np.ndarray:
    """The features of a window, filter by filter."""
    random, layers, found = np.random.RandomState(draw), [np.clip(hu, -1000, 1000) / 1000], []
    for filters, step, patch in ((16, (1, 2, 2), (4, 8, 8)), (32, (2, 2, 2), (4, 4, 4)), (64, (2, 2, 2), (2, 2, 2))):
        weights = random.standard_normal((filters, len(layers), 3, 3, 3)) * np.sqrt(2 / (27 * len(layers)))
        layers = [sum(correlate(x, w, mode="nearest") for x, w in zip(layers, of, strict=True)) for of in weights]
        layers = [np.maximum(x, 0) for x in layers]
        found += [means(x, patch) for x in layers]
        layers = [means(x, step) for x in layers]
    return np.array(found)


def test_features_are_the_means_of_rectified_responses_of_each_layer_in_a_patch():
    features = tapct.load_encoder("random-pyramid")(window())
    assert features.map.shape == (1, 112, 2, 3, 2)
    expected = by_hand(window()[0, 0].double().numpy(), 0)
    np.testing.assert_allclose(features.map[0], expected, atol=2e-6)
    np.testing.assert_allclose(features.embedding[0], expected.mean((1, 2, 3)), atol=2e-6)


def test_another_draw_is_another_model_and_the_same_one_is_not():
    one, again, other = (tapct.load_encoder("random-pyramid", draw=draw) for draw in (0, 0, 1))
    assert one(window()).map.equal(again(window()).map)
    assert not one(window()).map.allclose(other(window()).map, rtol=0.1)
    assert other.options == {"draw": 1}
    assert other.describe()["draw"] == 1
    assert one.describe()["parameters"] == 0
    with pytest.raises(EncoderError, match="from 0 on, not -1"):
        tapct.load_encoder("random-pyramid", draw=-1)
