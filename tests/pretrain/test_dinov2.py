"""Twelve optimizer steps against DINOv2's recipe written out a second time, in float64 and from its formulas.

The second computation shares the backbone's forward pass with the first (that is compared with `transformers` and with
a computation of its own in tests/vit), and nothing else: heads of PyTorch's weight norm, all logits at once, losses
image by image, AdamW, clipping, schedules, centres and the moving average by hand.
"""

import copy
import dataclasses
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from pretrain.config import Config
from pretrain.ssl.model import Pretrainer
from pretrain.training.optim import apply_schedules, build_optimizer, clip_per_module
from pretrain.training.schedules import Schedules
from tests.pretrain.test_losses import brute_force_koleo, h
from tests.pretrain.test_schedules import as_dinov2
from tests.pretrain.tiny import random_batch, tiny_config
from tests.vit.helpers import randomise

STEPS, MICRO_BATCHES = 12, 2
RECIPE = (
    *("run.steps=12", f"run.micro_batches={MICRO_BATCHES}", "optim.warmup_steps=4", "optim.base_lr=0.05"),
    *(
        "optim.freeze_last_layer_steps=3",
        "losses.teacher_temperature_warmup_steps=5",
        "optim.teacher_momentum=[0.9, 1]",
    ),
    *("losses.teacher_temperature_warmup_steps=5", "optim.clip_norm=0.5", "optim.weight_decay=[0.04, 0.4]"),
)

PLAIN = ("heads.train_gain=true", "losses.chunk_rows=null", "run.prune_last_block=false")


class Head(nn.Module):
    """DINOv2's head of PyTorch's parts."""

    def __init__(self, ours: nn.Module, train_gain: bool) -> None:
        super().__init__()
        self.mlp = copy.deepcopy(ours.mlp)
        prototypes, width = ours.last_layer.weight.shape
        self.last_layer = weight_norm(nn.Linear(width, prototypes, bias=False, dtype=torch.float64))
        of = self.last_layer.parametrizations.weight
        of.original0.data.fill_(1)
        of.original0.requires_grad_(train_gain)
        of.original1.data.copy_(ours.last_layer.weight.data)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last_layer(functional.normalize(self.mlp(x), dim=-1))


class SecondComputation:
    """The recipe from its formulas."""

    def __init__(self, ours: Pretrainer, config: Config) -> None:
        self.config, of = config, config.optim
        self.student, self.teacher = (
            nn.ModuleDict(
                {
                    "backbone": copy.deepcopy(network.backbone),
                    "dino_head": Head(network.dino_head, config.heads.train_gain),
                    "ibot_head": Head(network.ibot_head, config.heads.train_gain),
                }
            )
            for network in (ours.student, ours.teacher)
        )
        self.centres = {name: torch.zeros(config.heads.prototypes, dtype=torch.float64) for name in ("dino", "ibot")}
        self.moments: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        samples = config.run.micro_batch_size * MICRO_BATCHES
        peak = of.base_lr * np.sqrt(samples / 1024)
        warm = config.losses.teacher_temperature_warmup_steps
        self.lr = as_dinov2(peak, of.min_lr, STEPS, of.warmup_steps)
        self.weight_decay = as_dinov2(*of.weight_decay, STEPS)
        self.momentum = as_dinov2(*of.teacher_momentum, STEPS)
        temperatures = config.losses.teacher_temperature
        self.temperature = np.concatenate([np.linspace(*temperatures, warm), np.full(STEPS, temperatures[1])])

    def step(self, number: int, batches) -> list[dict[str, float]]:
        self.student.zero_grad()
        told, seen = [], {"dino": [], "ibot": []}
        for batch in batches:
            parts, logits = self.losses(batch, self.temperature[number])
            (parts["total"] / len(batches)).backward()
            told.append({name: value.item() for name, value in parts.items()})
            for name in seen:
                seen[name].append(logits[name])
        self.clip()
        self.adamw(number)
        for name, rows in seen.items():
            self.centres[name] = 0.9 * self.centres[name] + 0.1 * torch.cat(rows).mean(0)
        with torch.no_grad():
            pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
            for theirs, own in pairs:
                theirs.copy_(self.momentum[number] * theirs + (1 - self.momentum[number]) * own)
        return told

    def losses(self, batch, temperature: float):
        config, masks = self.config, batch.masks
        with torch.no_grad():
            whole = self.teacher["backbone"](batch.global_crops)
            logits = {
                "dino": self.teacher["dino_head"](whole.cls),
                "ibot": self.teacher["ibot_head"](whole.patches[masks]),
            }
            t_cls = ((logits["dino"] - self.centres["dino"]) / temperature).chunk(2)
            t_patches = (logits["ibot"] - self.centres["ibot"]) / temperature
        masked = self.student["backbone"](batch.global_crops, masks)
        local = self.student["backbone"](batch.local_crops).cls
        s_global = (self.student["dino_head"](masked.cls) / 0.1).chunk(2)
        s_local = (self.student["dino_head"](local) / 0.1).chunk(config.crops.num_local)
        s_patches = self.student["ibot_head"](masked.patches[masks]) / 0.1
        terms = 2 + 2 * config.crops.num_local
        of_patches, image = h(t_patches, s_patches), masks.nonzero()[:, 0]
        parts = {
            "dino_local": sum(h(t, s).mean() for t in t_cls for s in s_local) / terms,
            "dino_global": (h(t_cls[1], s_global[0]).mean() + h(t_cls[0], s_global[1]).mean()) / terms,
            "ibot": sum(of_patches[image == i].mean() for i in image.unique()) / len(masks),
            "koleo": sum(brute_force_koleo(view) for view in masked.cls.chunk(2)),
        }
        parts["total"] = parts["dino_local"] + parts["dino_global"] + parts["ibot"] + 0.1 * parts["koleo"]
        return parts, logits

    def clip(self) -> None:
        for module in self.student.values():
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            norm = torch.sqrt(sum(g.square().sum() for g in gradients))
            for gradient in gradients:
                gradient *= min(1.0, self.config.optim.clip_norm / (norm.item() + 1e-6))

    @torch.no_grad()
    def adamw(self, number: int) -> None:
        for name, parameter in self.student.named_parameters():
            if parameter.grad is None:
                continue
            rests = "last_layer" in name and number < self.config.optim.freeze_last_layer_steps
            lr = 0.0 if rests else self.lr[number] * self.factor(name)
            decays = not (name.endswith(".bias") or "norm" in name.split(".")[-2] or "gamma" in name)
            first, second = self.moments.get(name, (torch.zeros_like(parameter), torch.zeros_like(parameter)))
            first = 0.9 * first + 0.1 * parameter.grad
            second = 0.999 * second + 0.001 * parameter.grad.square()
            self.moments[name] = first, second
            parameter *= 1 - lr * self.weight_decay[number] * decays
            corrected = second / (1 - 0.999 ** (number + 1))
            parameter -= lr * (first / (1 - 0.9 ** (number + 1))) / (corrected.sqrt() + 1e-8)

    def factor(self, name: str) -> float:
        """0.9 a layer: the input is the first, each block one more, what follows the last."""
        depth = len(self.student["backbone"].blocks)
        if not name.startswith("backbone.") or name.startswith("backbone.norm."):
            return 1.0
        block = re.match(r"backbone\.blocks\.(\d+)\.", name)
        layer = 0 if block is None else int(block[1]) + 1
        return 0.9 ** (depth + 1 - layer) * (0.2 if "patch_embed" in name else 1.0)


def ours_by_their_names(network: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters of ours, named as the second computation's."""
    names = {
        "last_layer.gain": "last_layer.parametrizations.weight.original0",
        "last_layer.weight": "last_layer.parametrizations.weight.original1",
    }
    return {
        next((name.replace(old, new) for old, new in names.items() if old in name), name): parameter.detach()
        for name, parameter in network.named_parameters()
    }


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ((), STEPS),
        (("heads.train_gain=true",), 5),
        pytest.param(("heads.train_gain=true",), STEPS, marks=pytest.mark.thorough),
        pytest.param(PLAIN, STEPS, marks=pytest.mark.thorough),
    ],
    ids=["gain of 1", "first steps, trained gain", "trained gain", "trained gain, plain"],
)
def test_twelve_steps_equal_dinov2s_recipe_written_out(options, steps):
    config = tiny_config(*RECIPE, *options)
    model = Pretrainer(config).double()
    randomise(model.student, seed=1, std=0.2)
    for head in (model.student.dino_head, model.student.ibot_head):
        if head.gain is not None:
            head.gain.data.fill_(1)
    model.teacher.load_state_dict(model.student.state_dict())
    second = SecondComputation(model, config)
    optimizer, schedules = build_optimizer(model.student, config), Schedules(config)
    for step in range(steps):
        batches = [random_batch(config, seed=100 * step + 10 * index) for index in range(MICRO_BATCHES)]
        expected = second.step(step, batches)
        model.student.zero_grad()
        for index, batch in enumerate(batches):
            placed = dataclasses.replace(batch, step=step, index=index)
            computed = model.forward_backward(
                placed, teacher_temperature=schedules.teacher_temperature(step), scale=1 / MICRO_BATCHES
            )
            scalars = computed.scalars()
            for name, value in expected[index].items():
                assert scalars[name].item() == pytest.approx(value, rel=1e-8, abs=1e-10), f"step {step}, {name}"
        clip_per_module(model.student, config.optim.clip_norm)
        apply_schedules(optimizer, schedules, step)
        optimizer.step()
        model.update_centres(model.centre_statistics().clone())
        model.update_teacher(schedules.momentum(step))
    for name, centre in second.centres.items():
        torch.testing.assert_close(getattr(model, f"{name}_centre"), centre, rtol=0, atol=1e-8)
    for ours, theirs in ((model.student, second.student), (model.teacher, second.teacher)):
        own = ours_by_their_names(ours)
        wanted = {n: p for n, p in theirs.named_parameters() if config.heads.train_gain or "original0" not in n}
        assert own.keys() == wanted.keys()
        for name, parameter in wanted.items():
            torch.testing.assert_close(own[name], parameter.detach(), rtol=0, atol=1e-8, msg=name)
    gains = [p for name, p in ours_by_their_names(model.student).items() if "original0" in name]
    assert len(gains) == 2 * config.heads.train_gain
    assert all((gain - 1).abs().max() > 1e-3 for gain in gains), "they are trained"
