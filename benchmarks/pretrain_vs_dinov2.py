"""What the choices that differ from DINOv2's do, as far as it can be counted on a CPU: docs/pretraining-vs-dinov2.md.

    python benchmarks/pretrain_vs_dinov2.py             # a few seconds
    python benchmarks/pretrain_vs_dinov2.py --gain      # also two runs of tap_debug, with and without a trained gain

The second needs `data/debug`, as the README of pretraining makes it, or another --store.
"""

import argparse
import json
import math
import re
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize, to_pil_image

from pretrain import train
from pretrain.config import Config
from pretrain.data.crops import cut_crops
from pretrain.data.masking import masked_counts
from pretrain.observe.monitor import read_events
from pretrain.settings import load_config
from pretrain.state_files import load_checkpoint
from pretrain.training.checkpoint import newest_checkpoint
from tapct.records import git_state
from tapct.vit.blocks import num_kept_samples
from tapct.vit.positions import positions_on_grid

CONFIGS = Path(__file__).parents[1] / "pretrain" / "configs"
NOISE_HU = 20.0
SEEDS = (0, 1)


def crop_noise() -> dict[str, float]:
    """Standard deviation that is left of white noise on 512 x 512 pixels in a crop of the whole slice."""
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, NOISE_HU, (1, 1, 512, 512))).float()
    box, flips = torch.tensor([[0, 0, 0, 1, 512, 512]]), torch.zeros(1, 3, dtype=torch.bool)
    size = (1, 224, 224)
    pil = to_pil_image(noise[0, 0].numpy(), mode="F")
    bicubic = np.asarray(resize(pil, [224, 224], InterpolationMode.BICUBIC))
    return {
        "data.antialias=true": float(cut_crops(noise, box, flips, size, antialias=True).std()),
        "data.antialias=false": float(cut_crops(noise, box, flips, size, antialias=False).std()),
        "Pillow's bicubic, as DINOv2": float(bicubic.std()),
    }


def positions(cycles: int | None) -> float:
    """Relative difference of 2D positions for local crops: ours, and by a scale factor with DINOv2's offset of 0.1.

    Of positions without any order, as they begin (None), or of waves with at most so many cycles over the crop.
    """
    draw = torch.Generator().manual_seed(0)
    stored = 0.02 * torch.randn(1, 1 + 14 * 14, 64, generator=draw)
    if cycles is not None:
        y, x = torch.meshgrid(*[(torch.arange(14) + 0.5) / 14] * 2, indexing="ij")
        waves = [
            torch.cos(torch.pi * (a * y + b * x)).flatten() for a in range(2 * cycles + 1) for b in range(2 * cycles)
        ]
        basis = torch.stack(waves)
        stored[0, 1:] = 0.02 * basis.T @ torch.randn(len(basis), 64, generator=draw)
    ours = positions_on_grid(stored, (14, 14), (6, 6))[:, 1:]
    lattice = stored[:, 1:].transpose(1, 2).unflatten(2, (14, 14))
    theirs = functional.interpolate(lattice, scale_factor=(6 + 0.1) / 14, mode="bicubic", antialias=False)
    return float((ours - theirs.flatten(2).transpose(1, 2)).norm() / ours.norm())


def kept_samples(config: Config) -> dict[str, tuple[int, int]]:
    """Samples that a branch computes of a micro-batch: ours, rounded, and DINOv2's, cut off."""
    rate, size = config.model.drop_path_rate, config.run.micro_batch_size
    batches = {"global": config.crops.num_global * size, "local": config.crops.num_local * size}
    return {
        name: (num_kept_samples(batch, rate), max(1, math.floor(batch * (1 - rate)))) for name, batch in batches.items()
    }


def masked(config: Config) -> dict[str, float]:
    """Masked patches of a micro-batch: always as many, and where every stratum is drawn by itself."""
    crops, patches = 2 * config.run.micro_batch_size, math.prod(config.global_grid)
    ours = {sum(masked_counts(crops, patches, config.masking, np.random.default_rng(seed))) for seed in range(100)}
    number = int(crops * config.masking.probability)
    edges = np.linspace(*config.masking.ratio, number + 1)
    rng = np.random.default_rng(0)
    drawn = [np.floor(patches * rng.uniform(edges[:-1], edges[1:])).sum() for _ in range(1000)]
    (always,) = ours
    return {"ours": always, "drawn apart, mean": float(np.mean(drawn)), "drawn apart, deviation": float(np.std(drawn))}


def gain(store: Path, steps: int) -> dict[str, dict[str, float]]:
    """Runs of tap_debug with each kind of last layer: mean loss of the last ten steps, and where the gains went."""
    found = {}
    for trained in ("false", "true"):
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as folder:
                options = [f"--data.store={store}", f"--run.output={folder}", f"--heads.train_gain={trained}"]
                options += [f"--run.steps={steps}", f"--run.seed={seed}"]
                if train.main(["--config", str(CONFIGS / "tap_debug.yaml"), *options]):
                    raise SystemExit("the run failed")
                told = [e for e in read_events(Path(folder)) if e["event"] == "metrics"]
                last = [sum(e[k] for k in ("dino_local", "dino_global", "ibot")) for e in told[-10:]]
                path = newest_checkpoint(Path(folder) / "checkpoints")
                weights = load_checkpoint(path)["model"] if path else {}
                gains = [v for k, v in weights.items() if re.fullmatch(r"student\..*last_layer\.gain", k)]
                row = {"dino + ibot": float(np.mean(last)), "entropy_dino": told[-1]["entropy_dino"]}
                if gains:
                    all_ = torch.cat(gains)
                    row |= {"least gain": float(all_.min()), "mean": float(all_.mean()), "largest": float(all_.max())}
                found[f"train_gain={trained}, seed {seed}"] = row
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gain", action="store_true", help="also train tap_debug with and without a trained gain")
    parser.add_argument("--store", type=Path, default=Path("data/debug"))
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()
    configs = {name: load_config(CONFIGS / f"{name}.yaml") for name in ("tap_s_2d", "tap_s_3d", "tap_b_3d")}
    figures = {
        "git": git_state(),
        f"of {NOISE_HU:g} HU": crop_noise(),
        "positions, relative difference": {"as they begin": positions(None), "of a cycle or less": positions(1)},
        "kept samples (ours, DINOv2)": {name: kept_samples(config) for name, config in configs.items()},
        "masked patches of a micro-batch": {name: masked(config) for name, config in configs.items()},
    }
    if given.gain:
        figures["gain"] = gain(given.store, given.steps)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
