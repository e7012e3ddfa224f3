"""The levers that make a pretraining run shorter: FLOPs of each, and what each does to a small run's online probe.

    python benchmarks/pretrain_short.py                                             # FLOPs of TAP-S-3D, seconds
    python benchmarks/pretrain_short.py --store data/pretrain --probe tapct/tasks/quickstart_data     # also the runs

The runs are `tap_debug` (96 wide, 4 blocks) with one micro-batch of 8 samples a step, four local crops and a teacher
that moves faster, minutes on a CPU, each lever alone, several seeds. The probe classifies
patches of scans that are not trained on, at the window of the whole run in every phase; its value at step 0 is that of
the weights a run begins with. The warm start begins with a 2D run of as many steps and of the same seed, which is
exported, inflated, and comes on top of the FLOPs that are printed for the run itself.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pretrain import export, train
from pretrain.observe.monitor import read_events
from pretrain.settings import load_config
from pretrain.training.flops import run_flops, sample_flops
from tapct.records import git_state

CONFIGS = Path(__file__).parents[1] / "pretrain" / "configs"
LEVERS: dict[str, tuple[str, ...]] = {
    "none": (),
    "small crops first": ("early.global_size=[8, 32, 32]", "early.local_size=[8, 16, 16]"),
    "patches left out": ("masking.drop=0.25",),
    "warm start from 2D": (),
}
CHANGED = ("run.micro_batches=1", "crops.num_local=4", "optim.teacher_momentum=[0.9, 1.0]")
"""Of tap_debug: less to compute, and a teacher that follows within dozens of steps, for the probe looks at it."""
FLAT = ("model.patch_size=[8, 8]", "crops.global_size=[64, 64]", "crops.local_size=[32, 32]")


def flops() -> dict[str, dict[str, float]]:
    """TFLOP a sample, the mean over the run, of the shipped config with its levers in and out."""
    off = ("early.global_size=null", "early.local_size=null", "masking.drop=0")
    ways = {"none": off, "small crops first": off[2:], "patches left out": off[:2], "both": ()}
    found = {}
    for name, options in ways.items():
        config = load_config(CONFIGS / "tap_s_3d_short.yaml", options)
        samples = config.run.steps * config.batch_size
        found[name] = {"mean": run_flops(config) / samples / 1e12}
        found[name] |= {f"from step {first}": sample_flops(phase).total / 1e12 for first, phase in config.phases}
    whole = found["none"]["mean"]
    return {name: {**row, "of none": row["mean"] / whole} for name, row in found.items()}


def trained(folder: Path, store: Path, steps: int, seed: int, options: Sequence[str]) -> Path:
    """Trains tap_debug into a folder."""
    fixed = (f"data.store={store}", f"run.output={folder}", f"run.steps={steps}", f"run.seed={seed}")
    fixed += (f"run.checkpoint_every={steps}", f"run.probe.every_steps={steps}")
    if train.main(["--config", str(CONFIGS / "tap_debug.yaml"), *(f"--{o}" for o in (*CHANGED, *fixed, *options))]):
        raise SystemExit(f"the run in {folder} failed")
    return folder


def measured(given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Trains with each lever and each seed."""
    rows: list[dict[str, Any]] = []
    store, steps = given.store, given.steps
    for seed in given.seeds:
        for lever in given.levers:
            options = (f"run.probe.folder={given.probe}", *LEVERS[lever])
            if lever == "warm start from 2D":
                flat = trained(folder / f"flat_{seed}", store, steps, seed, FLAT)
                if export.main([str(flat), "-o", str(folder / f"begins_{seed}")]):
                    raise SystemExit("the 2D run cannot be exported")
                options = (*options, f"init.from={folder / f'begins_{seed}'}")
            run = trained(folder / f"{lever.replace(' ', '_')}_{seed}", store, steps, seed, options)
            events = read_events(run)
            first, last = (e["accuracy"] for e in events if e["event"] == "probe")
            losses = [e["loss"] for e in events if e["event"] == "metrics"][-10:]
            config = load_config(run / "config.yaml")
            tflop = run_flops(config) / 1e12
            rows.append({"lever": lever, "seed": seed, "before": first, "after": last, "tflop": tflop})
            rows[-1]["loss"] = float(np.mean(losses))
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="also train, on this store")
    parser.add_argument("--probe", type=Path, help="held-out scans with labels (run.probe.folder)")
    parser.add_argument("--levers", nargs="+", choices=tuple(LEVERS), default=tuple(LEVERS), help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    if (given.store is None) != (given.probe is None):
        parser.error("--store and --probe go together")
    figures: dict[str, Any] = {"git": git_state(), "TFLOP a sample of TAP-S-3D": flops()}
    if given.store is not None:
        with tempfile.TemporaryDirectory() as folder:
            figures["runs"] = measured(given, Path(folder))
    print(json.dumps(figures, indent=1))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
