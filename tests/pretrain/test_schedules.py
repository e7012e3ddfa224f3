"""Schedules of the paper's run against arrays built as DINOv2 builds them."""

import numpy as np
import pytest

from pretrain.settings import load_config
from pretrain.training.schedules import Schedules
from tests.pretrain.tiny import CONFIGS, tiny_config


def as_dinov2(base, final, total, warmup=0, start=0.0):
    """Warm-up by linspace, then half a cosine over what is left (dinov2/utils/utils.py)."""
    rest = np.arange(total - warmup)
    falling = final + 0.5 * (base - final) * (1 + np.cos(np.pi * rest / len(rest)))
    return np.concatenate((np.linspace(start, base, warmup), falling))


@pytest.fixture(scope="module")
def paper() -> Schedules:
    return Schedules(load_config(CONFIGS / "tap_b_3d.yaml"))


STEPS = np.unique(np.concatenate([np.arange(0, 125_000, 61), [1249, 1250, 24_999, 25_000, 37_499, 37_500, 124_999]]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lr", as_dinov2(0.0035 * np.sqrt(2), 1e-6, 125_000, 25_000)),
        ("weight_decay", as_dinov2(0.04, 0.4, 125_000)),
        ("momentum", as_dinov2(0.992, 1.0, 125_000)),
        ("teacher_temperature", np.concatenate([np.linspace(0.04, 0.07, 37_500), np.full(87_500, 0.07)])),
    ],
)
def test_whole_run_equals_dinov2s_arrays(paper, name, expected):
    computed = [getattr(paper, name)(int(step)) for step in STEPS]
    np.testing.assert_allclose(computed, expected[STEPS], rtol=1e-12, atol=0)


def test_prototypes_rest_for_1250_steps(paper):
    assert [paper.last_layer_lr(step) for step in (0, 600, 1249)] == [0, 0, 0]
    assert paper.last_layer_lr(1250) == paper.lr(1250) > 0
    assert paper.last_layer_lr(124_999) == paper.lr(124_999)


def test_ends(paper):
    assert paper.lr(0) == 0
    assert paper.lr(24_999) == paper.lr(25_000) == pytest.approx(0.00494975, rel=1e-6)
    assert paper.lr(125_000) == 1e-6, "a run that resumes stays at the end"
    assert paper.momentum(125_000) == 1.0
    assert paper.weight_decay(62_500) == pytest.approx(0.22)


def test_batch_scales_the_rate_by_its_square_root():
    one = tiny_config("run.micro_batch_size=16", "run.micro_batches=1")
    four = tiny_config("run.micro_batch_size=16", "run.micro_batches=4")
    assert four.peak_lr == pytest.approx(2 * one.peak_lr)
    assert tiny_config("run.micro_batch_size=512", "run.micro_batches=2").peak_lr == one.optim.base_lr


def test_stopping_early_leaves_the_schedules():
    whole = load_config(CONFIGS / "tap_b_3d.yaml")
    stopped = load_config(CONFIGS / "tap_b_3d.yaml", ["run.stop_at=10"])
    assert Schedules(stopped).lr(9) == Schedules(whole).lr(9)
