"""DINOv2's parameter groups, learning rates, weight decay and clipping, by name and by number."""

import pytest
import torch

from pretrain.settings import load_config
from pretrain.ssl.model import Network, Pretrainer
from pretrain.training.optim import apply_schedules, build_optimizer, clip_per_module, parameter_groups
from pretrain.training.schedules import Schedules
from tests.pretrain.tiny import CONFIGS, tiny_config
from tests.vit.helpers import noise


@pytest.fixture(scope="module")
def tap_b() -> dict[str, dict]:
    """Every parameter of TAP-B-3D's student with the factors of its group."""
    config = load_config(CONFIGS / "tap_b_3d.yaml", ["run.compile=false"])
    with torch.device("meta"):
        student = Network(config)
    groups = parameter_groups(student, config)
    factors = {name: group for group in groups for name in group["names"]}
    assert set(factors) == {name for name, _ in student.named_parameters()}
    assert sum(len(group["params"]) for group in groups) == len(factors), "each parameter stands in one group"
    return factors


@pytest.mark.parametrize(
    ("name", "lr_factor", "decays"),
    [
        # 12 blocks: the input counts as layer 0, block i as layer i + 1, what follows as layer 13.
        ("backbone.pos_embed", 0.9**13, True),
        ("backbone.cls_token", 0.9**13, True),
        ("backbone.mask_token", 0.9**13, True),
        ("backbone.register_tokens", 0.9**13, True),
        ("backbone.patch_embed.proj.weight", 0.2 * 0.9**13, True),
        ("backbone.patch_embed.proj.bias", 0.2 * 0.9**13, False),
        ("backbone.blocks.0.attn.qkv.weight", 0.9**12, True),
        ("backbone.blocks.0.attn.qkv.bias", 0.9**12, False),
        ("backbone.blocks.0.norm1.weight", 0.9**12, False),
        ("backbone.blocks.0.ls1.gamma", 0.9**12, False),
        ("backbone.blocks.10.mlp.fc1.weight", 0.9**2, True),
        ("backbone.blocks.11.mlp.fc2.weight", 0.9, True),
        ("backbone.blocks.11.ls2.gamma", 0.9, False),
        ("backbone.norm.weight", 1, False),
        ("backbone.norm.bias", 1, False),
        ("dino_head.mlp.0.weight", 1, True),
        ("dino_head.mlp.0.bias", 1, False),
        ("ibot_head.mlp.4.weight", 1, True),
        ("dino_head.last_layer.weight", 1, True),
        ("ibot_head.last_layer.weight", 1, True),
    ],
)
def test_factors_are_dinov2s(tap_b, name, lr_factor, decays):
    group = tap_b[name]
    assert group["lr_factor"] == pytest.approx(lr_factor, rel=1e-12)
    assert group["weight_decay_factor"] == float(decays)
    assert group["is_last_layer"] == ("last_layer" in name)


def test_schedules_reach_every_group():
    config = tiny_config()
    optimizer = build_optimizer(Network(config), config)
    schedules = Schedules(config)
    frozen, free = config.optim.freeze_last_layer_steps - 1, config.optim.freeze_last_layer_steps
    for step in (0, frozen, free, 40):
        apply_schedules(optimizer, schedules, step)
        for group in optimizer.param_groups:
            lr = 0 if group["is_last_layer"] and step <= frozen else schedules.lr(step)
            assert group["lr"] == pytest.approx(lr * group["lr_factor"])
            assert group["weight_decay"] == pytest.approx(schedules.weight_decay(step) * group["weight_decay_factor"])
    assert schedules.lr(frozen) > 0


def test_one_step_equals_adamw_written_out():
    config = tiny_config()
    student = Network(config)
    optimizer = build_optimizer(student, config)
    apply_schedules(optimizer, Schedules(config), 20)
    before = {name: parameter.detach().double() for name, parameter in student.named_parameters()}
    for parameter in student.parameters():
        parameter.grad = noise(*parameter.shape)
    factors = {name: group for group in optimizer.param_groups for name in group["names"]}
    optimizer.step()
    for name, parameter in student.named_parameters():
        group, gradient = factors[name], parameter.grad.double()
        # At the first step both bias-corrected moments are the gradient and its square.
        decayed = before[name] * (1 - group["lr"] * group["weight_decay"])
        expected = decayed - group["lr"] * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach().double(), expected, rtol=1e-5, atol=1e-7)


def test_frozen_prototypes_do_not_move():
    config = tiny_config()
    student = Network(config)
    optimizer = build_optimizer(student, config)
    apply_schedules(optimizer, Schedules(config), config.optim.freeze_last_layer_steps - 1)
    before = {name: parameter.detach().clone() for name, parameter in student.named_parameters()}
    for parameter in student.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    still = {name for name, parameter in student.named_parameters() if torch.equal(parameter, before[name])}
    assert still == {"dino_head.last_layer.weight", "ibot_head.last_layer.weight"}


def test_each_module_is_clipped_by_its_own_norm():
    student = Pretrainer(tiny_config()).student
    sizes = {"backbone": 50.0, "dino_head": 2.0, "ibot_head": 3.5}
    for name, size in sizes.items():
        module = student.get_submodule(name)
        for parameter in module.parameters():
            parameter.grad = noise(*parameter.shape)
        norm = sum(parameter.grad.square().sum() for parameter in module.parameters()).sqrt()
        for parameter in module.parameters():
            parameter.grad *= size / norm
    norms = clip_per_module(student, 3.0)
    for name, size in sizes.items():
        assert norms[name].item() == pytest.approx(size, rel=1e-4)
        after = sum(p.grad.square().sum() for p in student.get_submodule(name).parameters()).sqrt()
        assert after.item() == pytest.approx(min(size, 3.0), rel=1e-4), name


def test_a_gradient_that_is_not_finite_shows_in_the_norm_of_its_module():
    student = Pretrainer(tiny_config()).student
    for parameter in student.parameters():
        parameter.grad = torch.zeros_like(parameter)
    student.dino_head.mlp[0].weight.grad[0, 0] = float("nan")
    norms = clip_per_module(student, 3.0)
    assert {name: bool(norm.isfinite()) for name, norm in norms.items()} == {
        "backbone": True,
        "dino_head": False,
        "ibot_head": True,
    }
