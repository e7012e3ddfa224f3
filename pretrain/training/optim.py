"""AdamW with DINOv2's parameter groups: layer-wise learning rates, selective weight decay, clipping by module."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.config import Config
from pretrain.training.schedules import Schedules

_INPUT_PARAMETERS = ("pos_embed", "patch_embed", "mask_token", "cls_token", "register_tokens")


def layer_of(name: str, num_blocks: int) -> int:
    """Returns the layer that a parameter of the student belongs to, for the layer-wise decay.

    Args:
        name: Its name in the student, such as "backbone.blocks.3.mlp.fc1.weight".
        num_blocks: Blocks of the backbone.

    Returns:
        0 for what makes the input tokens, 1 + the block's index for a block, ``num_blocks + 1`` for the final
        norm and the heads.
    """
    module, _, rest = name.partition(".")
    if module == "backbone" and rest.startswith(_INPUT_PARAMETERS):
        return 0
    block = re.match(r"backbone\.blocks\.(\d+)\.", name)
    return num_blocks + 1 if block is None else int(block.group(1)) + 1


def parameter_groups(student: nn.Module, config: Config) -> list[dict[str, Any]]:
    """Groups the student's parameters by their factors on the learning rate and the weight decay.

    As DINOv2: no weight decay on biases, norms and LayerScales (the CLS token, registers, mask token and
    positions do have it); the learning rate falls by ``layer_decay`` a layer towards the input, and once more by
    ``patch_embed_lr_factor`` in the patch embedding; the prototypes stand apart, for they are frozen at first.

    Args:
        student: With the children "backbone", "dino_head" and "ibot_head".
        config: The settings of the run.

    Returns:
        Groups for an optimizer, in a fixed order. Besides "params" each has "lr_factor",
        "weight_decay_factor", "is_last_layer" and the "names" of its parameters.
    """
    blocks = student.get_submodule("backbone.blocks")
    assert isinstance(blocks, nn.ModuleList)
    groups: dict[tuple[float, float, bool], dict[str, Any]] = {}
    for name, parameter in student.named_parameters():
        lr_factor = config.optim.layer_decay ** (len(blocks) + 1 - layer_of(name, len(blocks)))
        if name.startswith("backbone.patch_embed."):
            lr_factor *= config.optim.patch_embed_lr_factor
        decays = not (name.endswith(".bias") or "norm" in name or "gamma" in name)
        key = (lr_factor, float(decays), "last_layer" in name)
        names = ("lr_factor", "weight_decay_factor", "is_last_layer")
        group = groups.setdefault(key, {"params": [], "names": [], **dict(zip(names, key, strict=True))})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def build_optimizer(student: nn.Module, config: Config) -> torch.optim.AdamW:
    """Builds AdamW, fused, over the parameter groups; the learning rates are 0 until `apply_schedules` sets them."""
    return torch.optim.AdamW(
        parameter_groups(student, config), lr=0.0, weight_decay=0.0, betas=config.optim.betas, fused=True
    )


def apply_schedules(optimizer: torch.optim.Optimizer, schedules: Schedules, step: int) -> None:
    """Sets the learning rate and the weight decay of every group for a step."""
    lr, last_layer_lr = schedules.lr(step), schedules.last_layer_lr(step)
    weight_decay = schedules.weight_decay(step)
    for group in optimizer.param_groups:
        group["lr"] = (last_layer_lr if group["is_last_layer"] else lr) * group["lr_factor"]
        group["weight_decay"] = weight_decay * group["weight_decay_factor"]


def clip_per_module(student: nn.Module, max_norm: float) -> dict[str, Tensor]:
    """Clips the gradients of the backbone and of each head by their own norm, in place.

    Healthy norms before clipping lie below ``max_norm`` for most of a run; a norm that stays above it for
    thousands of steps says that the learning rate is too high.

    Args:
        student: Its children are clipped one by one.
        max_norm: Largest norm that is left as it is.

    Returns:
        The norm of each child before clipping, scalars on the device; not finite if a gradient is not, in
        which case the gradients are spoiled and must not be applied.
    """
    norms = {}
    for name, module in student.named_children():
        norms[name] = torch.nn.utils.clip_grad_norm_(module.parameters(), max_norm)
    return norms
