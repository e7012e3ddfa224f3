"""The baselines without parameters, against NumPy on a real scan."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
from eva.__main__ import main
from torch import nn

import tapct
from baselines.chance import Chance
from baselines.intensity import KNOTS_HU, NUM_STATISTICS, Intensity
from tapct.encoders import Encoder, Features
from tapct.encoders.base import identity
from tapct.errors import EncoderError, WeightsError
from tapct.records import read_record
from tests.data import quickstart
from tests.small import small_card
from tests.test_configs import CONFIGS


@pytest.fixture(scope="module")
def window() -> np.ndarray:
    """(12, 96, 120) HU of the quickstart's abdomen, with a mark of what was not measured and a piece of metal."""
    from tests.small import abdomen

    hu = abdomen((slice(40, 52), slice(0, 96), slice(0, 120)))[0].hu.copy()
    hu[:, :3, :3], hu[5, 50, 50] = -3024, 9000
    return hu


def by_hand(hu: np.ndarray) -> np.ndarray:
    """The statistics of some values, in double precision."""
    v = np.clip(hu.astype(np.float64).ravel(), -1024, 3071)
    hats = np.eye(len(KNOTS_HU))
    shares = [np.interp(v, KNOTS_HU, hat).mean() for hat in hats]
    plain = [v.mean(), v.std(), v.min(), v.max(), *np.percentile(v, [5, 25, 50, 75, 95])]
    return np.array([*(p / 1000 for p in plain), *shares])


def test_each_feature_is_the_statistics_of_its_own_block(window):
    features = Intensity()(torch.from_numpy(window)[None, None])
    assert features.map.shape == (1, NUM_STATISTICS, 3, 12, 15)
    for z, y, x in [(0, 0, 0), (1, 6, 6), (2, 11, 14), (1, 3, 9)]:
        block = window[4 * z : 4 * z + 4, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8]
        np.testing.assert_allclose(features.map[0, :, z, y, x], by_hand(block), atol=2e-6)
    np.testing.assert_allclose(features.embedding[0], by_hand(window), atol=2e-5)
    assert features.cls is None


def test_the_mean_under_a_display_window_is_linear_in_the_features(window):
    """So a linear probe has every window whose edges are knots, without a feature for it."""
    features = Intensity()(torch.from_numpy(window)[None, None])
    shares = features.map[0, -len(KNOTS_HU) :, 1, 6, 6].double()
    block = np.clip(window[4:8, 48:56, 48:56].astype(np.float64), -1024, 3071)
    for low, high in ((-160, 240), (-500, 1300)):
        weights = torch.from_numpy(np.clip((np.array(KNOTS_HU) - low) / (high - low), 0, 1))
        assert float(weights @ shares) == pytest.approx(np.clip((block - low) / (high - low), 0, 1).mean(), abs=1e-5)


def test_how_voxels_are_arranged_says_nothing(window):
    shuffled = window.copy()
    block = (slice(4, 8), slice(48, 56), slice(48, 56))
    shuffled[block] = np.random.default_rng(0).permutation(window[block].ravel()).reshape(4, 8, 8)
    assert not np.array_equal(shuffled, window)
    first, second = (Intensity()(torch.from_numpy(hu)[None, None]).map for hu in (window, shuffled))
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)


def test_chance_says_the_same_of_every_scan(window):
    air = np.full_like(window, -1000)
    features = Chance()(torch.from_numpy(np.stack([window, air]))[:, None])
    assert features.map.shape == (2, 1, 3, 12, 15)
    assert not features.map.any()
    assert not features.embedding.any()


@pytest.mark.parametrize("name", ["chance", "intensity"])
def test_what_has_no_parameters_needs_no_weights_and_takes_none(name, tmp_path):
    plain, asked = (tapct.load_encoder(name, weights) for weights in (None, "random"))
    assert plain.card.name == name
    described = plain.describe()
    assert (described["weights"], described["weights_sha256"], described["parameters"]) == ("none", None, 0)
    assert identity(plain, torch.device("cpu")) == identity(asked, torch.device("cpu"))
    with pytest.raises(WeightsError, match="has no parameters"):
        tapct.load_encoder(name, tmp_path / "weights.pth")


def test_a_card_that_denies_its_parameters_is_refused():
    class Liar(Encoder):
        card = dataclasses.replace(small_card(), weights=dataclasses.replace(small_card().weights, needed=False))

        def build(self):
            return nn.Conv3d(1, 48, 8)

        def _encode(self, windows_hu):
            return Features(windows_hu, windows_hu, None)

    with pytest.raises(EncoderError, match="has parameters"):
        Liar()


@pytest.mark.parametrize("name", ["chance", pytest.param("intensity", marks=pytest.mark.thorough)])
def test_a_baseline_is_an_ordinary_patch(name, monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_ROOT", str(quickstart.write(tmp_path / "data")))
    for variable, value in (("ENCODER", name), ("MAX_STEPS", "4"), ("N_RUNS", "1"), ("ACCELERATOR", "cpu")):
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "argv", ["eva", "fit", "--config", str(CONFIGS / "quickstart.yaml")])
    main()
    (path,) = tmp_path.glob("logs/quickstart/*/record.json")
    record = read_record(path)
    assert (record.encoder.card.name, record.encoder.weights) == (name, "none")
    dice = record.runs[0].cases["test"][0].dice["native"]
    if name == "chance":  # one class in every voxel: its Dice is that of a constant, all others are 0
        assert sum(bool(value) for value in dice.values()) <= 1
