"""The same experiment with stock eva's way and with ours, each in a process of its own: wall time and peak memory.

    python benchmarks/probe.py [--steps 100] [--seeds 3] [--stock-steps 100] [--encoder tap-s-3d] [--json out.json]
    python benchmarks/probe.py --before CHECKOUT [--rounds 3] [--json out.json]

The experiment is the quickstart (real CT, segmentation, random weights). Stock encodes the scan in every step of every
seed, upsamples all logits to voxels and takes MONAI's Dice + cross-entropy by autograd; ours extracts once to an empty
store, trains the seeds side by side and takes the loss by slabs. With fewer --stock-steps than --steps, stock's time
for the rest is extrapolated from its own time a step, and said to be. Ours is run with one seed more as well, for its
cost.

With --before, two checkouts side by side, on stored features (benchmarks/stored_experiments.py says of what):
segmentation, and the adaptors of a classification experiment next to attention. CPU seconds of a session without
imports, in turns; medians.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss
from torch import nn, optim

from tapct.features import EncodedCase
from tapct.probes import SegmentationProbe, Trainer
from tapct.records import environment, git_state
from tapct.records.provenance import peak_memory_bytes
from tapct.tasks import TaskData


class StockProbe(SegmentationProbe):
    """The loss as eva's modules take it."""

    def loss(self, head: nn.Module, cases: Sequence[EncodedCase]) -> torch.Tensor:
        (case,) = cases
        shape = case.features.encoder_grid.shape
        padded = [n * s for n, s in zip(case.features.map.shape[1:], self.encoder.card.feature_stride, strict=True)]
        voxels = F.interpolate(head(case.features.map)[None], size=padded, mode="trilinear")
        voxels = voxels[..., : shape.z, : shape.y, : shape.x]
        loss = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False)
        return loss(voxels, case.labels[None, None])


def run(way: str, encoder: str, seeds: int, steps: int) -> dict:
    """Fits and evaluates the experiment; called in a process of its own, whose peak memory is then that way's."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    from eva.core.trainers.functional import run_evaluation_session

    with tempfile.TemporaryDirectory() as folder:
        stock = way == "stock"
        settings = {"features": "off", "feature_memory_gb": 0, "runs_together": False} if stock else {}
        probe = (StockProbe if stock else SegmentationProbe)(
            encoder,
            "random",
            optimizer=lambda groups: optim.AdamW(groups, lr=0.005),
            feature_folder=f"{folder}/features",
            **settings,
        )
        trainer = Trainer(
            default_root_dir=folder, max_steps=steps, n_runs=seeds, accumulate_grad_batches=1, accelerator="auto"
        )
        data = TaskData("quickstart")
        start = time.perf_counter()
        run_evaluation_session(trainer, probe, data, n_runs=seeds, verbose=False)
        seconds = time.perf_counter() - start
        (record,) = Path(folder).glob("*/record.json")
        runs = json.loads(record.read_text(encoding="utf-8"))["runs"]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dice = [one["metrics"]["test"]["dice_native"] for one in runs]
    return {"way": way, "seeds": seeds, "steps": steps, "seconds": seconds, "dice": dice, **peak_memory_bytes(device)}


def apart(*arguments) -> dict:
    with multiprocessing.get_context("spawn").Pool(1) as process:
        return process.apply(run, arguments)


GRID = ("linear:cls", "linear:mean", "linear:max", "linear:mean+max", "knn", "prototype")
"""The adaptors that are solved; abmil is named by itself."""


def stored_experiment(checkout: Path, folder: Path, experiment: str, runs: int, steps: int) -> float:
    """Runs a session of a checkout on stored features, and returns its CPU seconds."""
    paths = os.pathsep.join([str(checkout.resolve()), str(Path(__file__).parent.resolve())])
    command = [sys.executable, "-m", "stored_experiments", str(folder), experiment, str(runs), str(steps)]
    settings = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TAPCT_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=checkout, env=settings, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    print(f"{folder.name:7} {experiment:20} {runs} runs x {steps:4} steps {result['cpu_s']:7.1f} s", flush=True)
    return result["cpu_s"]


def side_by_side(before: Path, rounds: int) -> dict[str, float]:
    """Returns median CPU seconds of both checkouts by experiment."""
    after, taken = Path(__file__).parents[1], dict[str, list[float]]()
    with tempfile.TemporaryDirectory() as temporary:
        of = {"before": (before, Path(temporary) / "before"), "after": (after, Path(temporary) / "after")}
        for checkout, folder in of.values():
            for kind in ("segmentation", "classification"):
                stored_experiment(checkout, folder, f"store {kind}", 1, 10)
        for _ in range(rounds):
            experiments = [(name, "segmentation", 20) for name in of] + [(name, "abmil", 500) for name in of]
            for name, experiment, steps in [*experiments, *(("after", adaptor, 500) for adaptor in GRID)]:
                taken.setdefault(f"{experiment}, {name}", []).append(stored_experiment(*of[name], experiment, 3, steps))
    found = {experiment: statistics.median(seconds) for experiment, seconds in taken.items()}
    grid, attention = sum(found[f"{experiment}, after"] for experiment in GRID), found["abmil, before"]
    print(f"segmentation, after / before: {found['segmentation, after'] / found['segmentation, before']:.2f}")
    print(f"attention, after / before: {found['abmil, after'] / attention:.2f}")
    print(f"the grid of {len(GRID)} solved adaptors, {grid:.1f} s, / attention before: {grid / attention:.2f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="tap-s-3d")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--stock-steps", type=int, help="default: as many as --steps")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--before", type=Path, help="another checkout of the project")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.before:
        found = side_by_side(options.before, options.rounds)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1))
        return
    short = options.stock_steps or options.steps
    ours = apart("ours", options.encoder, options.seeds, options.steps)
    more = apart("ours", options.encoder, options.seeds + 1, options.steps)
    stock = apart("stock", options.encoder, options.seeds, short)
    result = {"ours": ours, "ours, one seed more": more, "stock": stock}
    full_s = stock["seconds"]
    if short < options.steps:
        half = apart("stock", options.encoder, options.seeds, max(1, short // 2))
        per_step_s = (stock["seconds"] - half["seconds"]) / (short - max(1, short // 2))
        full_s = stock["seconds"] + per_step_s * (options.steps - short)
        result["stock, shorter"] = half
    for name, row in result.items():
        memory = row.get("device", row["host"]) / 2**30
        print(
            f"{name:22} {row['seeds']} seeds x {row['steps']:4} steps  {row['seconds']:8.1f} s  {memory:6.2f} GiB peak"
        )
    said = "" if short == options.steps else f" (stock's {options.steps} steps extrapolated: {full_s:.0f} s)"
    one_s = ours["seconds"] / options.seeds
    print(f"stock / ours: {full_s / ours['seconds']:.1f} times{said}")
    print(f"peak memory, ours / stock: {ours['host'] / stock['host']:.2f}")
    extra_s = more["seconds"] - ours["seconds"]
    print(f"one seed more: {extra_s:.1f} s, {extra_s / full_s * options.seeds:.1%} of a seed of stock's, ")
    print(f"               {extra_s / one_s:.0%} of the mean of ours")
    if options.json:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        made = {"git": git_state(), **environment(device)}
        options.json.write_text(json.dumps({"made": made, "rows": result, "stock_full_s": full_s}, indent=1))


if __name__ == "__main__":
    main()
