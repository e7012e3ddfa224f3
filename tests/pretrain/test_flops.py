"""The FLOP model against a count of what really runs, and against the hand count of the recipe."""

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pretrain.settings import load_config
from pretrain.ssl.model import Pretrainer
from pretrain.training.flops import masked_patches_per_sample, sample_flops
from tests.pretrain.tiny import CONFIGS, random_batch, tiny_config


@pytest.mark.parametrize(
    ("name", "teacher", "student", "heads", "total"),
    [("tap_s_3d", 405.9, 1574.7, 127.2, 2108), ("tap_b_3d", 1212.2, 4473.0, 131.7, 5817)],
)
def test_recipe_equals_the_hand_count(name, teacher, student, heads, total):
    """GFLOP a sample, counted by hand with the drop path's shares 0.9 and 0.8 and without the patch embedding."""
    config = load_config(CONFIGS / f"{name}.yaml", ["run.prune_last_block=false"])
    flops = sample_flops(config)
    assert masked_patches_per_sample(config) == pytest.approx(705.6)
    assert flops.teacher / 1e9 == pytest.approx(teacher, rel=0.005)
    assert (flops.student_global + flops.student_local) / 1e9 == pytest.approx(student, rel=0.01)
    assert flops.heads / 1e9 == pytest.approx(heads, rel=0.002)
    assert flops.total / 1e9 == pytest.approx(total, rel=0.007)


def test_pruning_saves_what_the_last_block_does_not_compute():
    full, pruned = (
        sample_flops(load_config(CONFIGS / "tap_b_3d.yaml", [f"run.prune_last_block={flag}"])).total
        for flag in ("false", "true")
    )
    assert 0.03 < 1 - pruned / full < 0.07


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("model.drop_path_rate=0.5",),
        ("masking.drop=0.4375",),
        ("early.global_size=[4, 16, 32]", "early.local_size=[4, 16, 8]"),
    ],
    ids=["plain", "drop path", "patches left out", "early"],
)
def test_model_equals_what_pytorch_counts(options):
    _, config = tiny_config(
        *("run.prune_last_block=false", "run.micro_batch_size=4", "masking.ratio=[0.25, 0.5]"), *options
    ).phases[0]
    patches = math.prod(config.global_grid)
    masks = torch.zeros(8, patches, dtype=torch.bool)
    masks[:3, : patches // 2] = True
    assert masks.sum() == 4 * masked_patches_per_sample(config)
    batch = random_batch(config, torch.float32, masks=masks)
    model = Pretrainer(config)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:  # the counter does not know the fused CPU attention
        model.forward_backward(batch, teacher_temperature=0.05, scale=1.0)
    # The loss against local crops takes each of them twice, once a teacher view: padding, not needed work.
    heads = config.heads
    repeated = 4 * config.crops.num_local * 2 * heads.bottleneck_dim * heads.prototypes
    extra = repeated * 3 + repeated * 2  # student forward and backward once more; teacher once for each pair
    counted = counter.get_total_flops() - extra
    assert counted == pytest.approx(4 * sample_flops(config).total, rel=0.003)
