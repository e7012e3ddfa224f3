"""A configuration of real structure that runs in a moment, and a micro-batch for it."""

import math
from pathlib import Path

import torch

import pretrain
from pretrain.config import Config
from pretrain.data.batches import MicroBatch
from pretrain.settings import load_config
from tests.vit.helpers import noise

CONFIGS = Path(pretrain.__file__).parent / "configs"
PAPER = ("tap_s_2d", "tap_b_2d", "tap_s_2_5d", "tap_b_2_5d", "tap_s_3d", "tap_b_3d")

SMALL = (
    "crops.global_size=[4, 32, 32]",
    "crops.local_size=[4, 16, 16]",
    "crops.num_local=3",
    "heads.prototypes=40",
    "heads.hidden_dim=24",
    "heads.bottleneck_dim=12",
    "losses.chunk_rows=7",
    "model.drop_path_rate=0.0",
    "model.layer_scale_init=0.5",
    "run.micro_batch_size=3",
)


def tiny_config(*overrides: str) -> Config:
    return load_config(CONFIGS / "tap_debug.yaml", [*SMALL, *overrides])


def random_batch(config: Config, dtype=torch.float64, masks: torch.Tensor | None = None, seed: int = 1) -> MicroBatch:
    """Draws crops; every other global crop is masked, by 1, 3, 5 ... patches, unless masks are given."""
    size = config.run.micro_batch_size
    patches = math.prod(config.global_grid)
    if masks is None:
        masks = torch.zeros(2 * size, patches, dtype=torch.bool)
        for crop in range(0, 2 * size, 2):
            masks[crop, torch.randperm(patches, generator=torch.Generator().manual_seed(crop))[: crop + 1]] = True
    return MicroBatch(
        step=3,
        index=1,
        global_crops=noise(2 * size, 1, *config.crops.global_size, seed=seed, dtype=dtype),
        local_crops=noise(config.crops.num_local * size, 1, *config.crops.local_size, seed=seed + 1, dtype=dtype),
        masks=masks,
        samples=[],
        num_masked=int(masks.sum()),
    )
