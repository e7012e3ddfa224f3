"""How much arithmetic a step needs: the counted FLOP model behind MFU, GPU hours and energy.

One multiply and one add are 2 FLOPs; only matrix products and attention count; a backward pass is twice its
forward pass. Recomputed and padded work does not count, so MFU measures how well the machine is used. What the
settings leave out does not count either: samples that stochastic depth drops, and the tokens that the pruned
last block skips. Fewer FLOPs for the same step then show as fewer seconds, not as a higher MFU.
"""

import math
from dataclasses import dataclass, fields

import torch

from pretrain.config import Config
from pretrain.ssl.model import build_backbone
from tapct.vit.blocks import num_kept_samples

_SIZES: dict[str, tuple[int, int]] = {}
"""Width and depth by the name of a size. A network is built once to know them: they are asked for at each step."""


@dataclass(frozen=True)
class SampleFlops:
    """FLOPs for one sample, its two global and its local crops, forward and backward.

    Attributes:
        teacher: The teacher's backbone on the global crops, forward only.
        student_global: The student's backbone on the global crops.
        student_local: The student's backbone on the local crops.
        heads: Both heads of student and teacher, MLPs and prototypes.
    """

    teacher: float
    student_global: float
    student_local: float
    heads: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(getattr(self, field.name) for field in fields(self))


def step_flops(config: Config) -> float:
    """Counts the FLOPs of an optimizer step of one phase, over all processes."""
    return sample_flops(config).total * config.batch_size


def run_flops(config: Config, first: int = 0, last: int | None = None) -> float:
    """Counts the FLOPs of some steps of a run, of whatever phases: all from ``first`` to before ``last``.

    Args:
        config: The settings of the run.
        first: The first step.
        last: The one after the last; None for all of the run.
    """
    last = config.run.steps if last is None else last
    ends = [start for start, _ in config.phases[1:]] + [config.run.steps]
    return sum(
        max(0, min(last, end) - max(first, start)) * step_flops(phase)
        for (start, phase), end in zip(config.phases, ends, strict=True)
    )


def masked_patches_per_sample(config: Config) -> float:
    """Returns the expected masked patches of both global crops of a sample (705.6 in TAP-B-3D)."""
    masking = config.masking
    return config.crops.num_global * masking.probability * sum(masking.ratio) / 2 * math.prod(config.global_grid)


def sample_flops(config: Config) -> SampleFlops:
    """Counts the FLOPs of one sample of one phase (`Config.phases`); a step has ``config.batch_size`` of them.

    TAP-B-3D needs 5.44 TFLOP a sample and TAP-S-3D 1.97; without pruning 5.81 and 2.10.
    """
    crops, masked = config.crops, masked_patches_per_sample(config)
    backbone = _Backbone(config)
    per_crop = masked / crops.num_global
    teacher = backbone.forward(config.global_grid, per_crop)
    student_global = backbone.training(config.global_grid, config.computed_patches, per_crop, crops.num_global)
    student_local = backbone.training(config.local_grid, math.prod(config.local_grid), 0, crops.num_local)
    return SampleFlops(
        teacher=crops.num_global * teacher,
        student_global=crops.num_global * student_global,
        student_local=crops.num_local * student_local,
        heads=_heads(config, backbone.dim, masked),
    )


class _Backbone:
    """Counts one crop through the backbone."""

    def __init__(self, config: Config) -> None:
        if config.model.size not in _SIZES:
            with torch.device("meta"):
                backbone = build_backbone(config)
            _SIZES[config.model.size] = backbone.embed_dim, len(backbone.blocks)
        self.config = config
        self.dim, self.depth = _SIZES[config.model.size]
        self.extra_tokens = 1 + config.model.num_register_tokens

    def forward(self, grid: tuple[int, ...], chosen_patches: float) -> float:
        """Counts a forward pass without stochastic depth; ``chosen_patches`` and the CLS token are read."""
        return self._embed(grid) + self._blocks(math.prod(grid), chosen_patches)

    def training(self, grid: tuple[int, ...], computed_patches: int, chosen_patches: float, views: int) -> float:
        """Counts a forward and a backward pass with stochastic depth; the input needs no gradient.

        All patches are embedded, and ``computed_patches`` of them enter the blocks.
        """
        batch = views * self.config.run.micro_batch_size
        share = num_kept_samples(batch, self.config.model.drop_path_rate) / batch
        return 2 * self._embed(grid) + 3 * share * self._blocks(computed_patches, chosen_patches)

    def _embed(self, grid: tuple[int, ...]) -> float:
        return 2 * math.prod(grid) * math.prod(self.config.model.patch_size) * self.dim

    def _blocks(self, patches: int, chosen_patches: float) -> float:
        tokens = self.extra_tokens + patches
        rows = 1 + chosen_patches if self.config.run.prune_last_block else tokens
        return (self.depth - 1) * self._block(tokens, tokens) + self._block(tokens, rows)

    def _block(self, tokens: float, rows: float) -> float:
        """Counts a block: keys and values of all tokens; queries, both projections and the MLP of ``rows``."""
        return 4 * self.dim**2 * tokens + 20 * self.dim**2 * rows + 4 * self.dim * tokens * rows


def _heads(config: Config, dim: int, masked: float) -> float:
    """Counts both heads: forward of the teacher, forward and backward of the student."""
    heads, crops = config.heads, config.crops
    mlp = (
        dim * heads.hidden_dim + (heads.num_layers - 2) * heads.hidden_dim**2 + heads.hidden_dim * heads.bottleneck_dim
    )
    row = 2 * (mlp + heads.bottleneck_dim * heads.prototypes)
    return row * (crops.num_global + masked + 3 * (crops.num_global + crops.num_local + masked))
