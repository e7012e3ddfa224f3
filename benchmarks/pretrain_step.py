"""A pretraining step, part by part: seconds, TFLOP/s, peak memory, samples/s, and the GPU hours of the whole recipe.

    python benchmarks/pretrain_step.py                         # TAP-S-3D and TAP-B-3D, at their true sizes on a GPU
    python benchmarks/pretrain_step.py --reference             # next to a straightforward step, on the same data
    python benchmarks/pretrain_step.py --reference --each      # and with each gain switched off by itself

Measured is what a process repeats: some micro-batches of real CT (the quickstart's chest, made 300x512x512), and one
update (clipping, AdamW, centres, teacher). A step of the recipe is 2048 samples; what all its micro-batches and one
update take, times 125,000, is shown as GPU hours: extrapolated, of one GPU that never waits for data or others.

The reference is the same step as one would first write it: eager, all prototype logits held, all losses in one backward
pass, the last block on all tokens, stochastic depth that computes what it drops, an unfused optimizer, and, on a CPU,
memory that goes back to the system when it is freed, as it does by itself. The parts are timed in a pass of their own,
in which the device is waited for after each; the totals are of a pass that waits at its end only. TFLOP/s are those of
`pretrain.training.flops`, and MFU is their share of the rate of a large matrix product measured here, just before.

On a CPU the sizes are reduced (half the crops' sides, 4 samples, fp32), and the output says so.
"""

import argparse
import ctypes
import gc
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from encoders import matmul_rate
from pretrain_data import make_store, make_volumes
from pretrain_memory import predictions
from pretrain_memory import table as memory_table
from rich.console import Console
from rich.table import Table

from pretrain.config import Config
from pretrain.data.batches import Batches, MicroBatch
from pretrain.data.counters import Stream, generator
from pretrain.data.masking import masked_patches
from pretrain.settings import load_config
from pretrain.ssl.model import Losses, Pretrainer
from pretrain.training.exchange import Flat
from pretrain.training.flops import sample_flops
from pretrain.training.memory import keep_freed_memory
from pretrain.training.optim import apply_schedules, build_optimizer, clip_per_module, parameter_groups
from pretrain.training.schedules import Schedules
from tapct.records import environment, git_state

CONFIGS = Path(__file__).parents[1] / "pretrain" / "configs"
RECIPE_STEPS, RECIPE_BATCH = 125_000, 2048  # Table 7
REDUCED = (
    "crops.global_size=[12, 112, 112]",
    "crops.local_size=[12, 48, 48]",
    "run.micro_batch_size=4",
    "run.precision=fp32",
    "losses.chunk_rows=256",
)
PLAIN = (
    "run.compile=false",
    "run.recompute=false",
    "run.keep_freed_memory=false",
    "run.prune_last_block=false",
    "losses.chunk_rows=null",
    "losses.centre_from_bottleneck=false",
)
STEP = 50_000
"""Where in the schedules the update is taken: after every warm-up."""


class Reference(Pretrainer):
    """The step as one would first write it: one graph, one backward pass, and what is dropped is computed too."""

    def forward_backward(self, batch: MicroBatch, *, teacher_temperature: float, scale: float) -> Losses:
        weights = self.config.losses
        drop_path = generator(self.config.run.seed, batch.step, batch.index, Stream.DROP_PATH)
        patches = masked_patches(batch.masks, batch.num_masked)
        targets = self._run_teacher(batch, patches)
        with mock.patch("tapct.vit.blocks._add_residual", add_all_residuals):
            local = self._local_pass(batch.local_crops, targets, drop_path, teacher_temperature)
            dino, ibot, koleo = self._global_pass(batch, patches, targets, drop_path, teacher_temperature)
        total = (
            weights.dino_weight * (local.loss + dino.loss)
            + weights.ibot_weight * ibot.loss
            + weights.koleo_weight * koleo
        )
        (scale * total).backward()
        values = (total, local.loss, dino.loss, ibot.loss, koleo, dino.teacher_entropy, ibot.teacher_entropy)
        return Losses(*(value.detach() for value in values), teacher_cls=targets.cls)


def add_all_residuals(x: torch.Tensor, branch: Callable[[torch.Tensor], torch.Tensor], kept: torch.Tensor | None):
    """Stochastic depth as it is mostly written: the branch on all samples, times 0 for those that are dropped."""
    if kept is None:
        return x + branch(x)
    scale = x.new_zeros(len(x)).index_fill(0, kept, len(x) / len(kept))
    return x + branch(x) * scale[:, None, None]


class Parts:
    """Seconds by part of the step; what is timed inside another part does not count for that one."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._device, self._open, self._since = device, ["rest"], 0.0

    def _lap(self) -> None:
        wait(self._device)
        now = time.perf_counter()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        if self._open == ["rest"]:
            wait(self._device)
            self._since = time.perf_counter()
        self._lap()
        self._open.append(name)
        try:
            yield
        finally:
            self._lap()
            self._open.pop()

    @contextmanager
    def watch(self, places: Sequence[tuple[Any, str, str]]) -> Iterator[None]:
        """Times the calls of functions: (object, its function, name of the part)."""
        originals = [(owner, name, owner.__dict__.get(name)) for owner, name, _ in places]
        for owner, name, part in places:
            setattr(owner, name, self._timed(getattr(owner, name), part))
        try:
            yield
        finally:
            for owner, name, original in originals:
                if original is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, original)

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(part):
                return function(*args, **kwargs)

        return timed


class Step:
    """What a process repeats: micro-batches, and an update."""

    def __init__(self, config: Config, device: torch.device, reference: bool, fused: bool) -> None:
        self.model = (Reference if reference else Pretrainer)(config).to(device)
        self.optimizer = build_optimizer(self.model.student, config)
        if not fused:
            groups = parameter_groups(self.model.student, config)
            self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=config.optim.betas, foreach=False)
        self.schedules, self.config, self.device = Schedules(config), config, device
        statistics = self.model.centre_statistics().numel()
        self.flat = Flat(list(self.model.student.parameters()), statistics, 1)

    def accumulate(self, batches: Sequence[MicroBatch]) -> list[torch.Tensor]:
        temperature = self.schedules.teacher_temperature(STEP)
        return [
            self.model.forward_backward(b, teacher_temperature=temperature, scale=1 / len(batches)).total
            for b in batches
        ]

    def update(self) -> None:
        clip_per_module(self.model.student, self.config.optim.clip_norm)
        apply_schedules(self.optimizer, self.schedules, STEP)
        self.optimizer.step()
        self.model.update_centres(self.model.centre_statistics().clone())
        self.model.update_teacher(self.schedules.momentum(STEP))
        self.flat.clear()

    def parts(self, batches: Sequence[MicroBatch]) -> dict[str, float]:
        """Returns the seconds of each part of a micro-batch, and of the update."""
        model, parts = self.model, Parts(self.device)
        places: list[tuple[Any, str, str]] = [
            (model.teacher.backbone, "forward_at", "teacher"),
            (model.student.backbone, "forward_at", "student forward"),
            (torch.Tensor, "backward", "backward"),
            (model, "forward_backward", "heads and losses"),
        ]
        with parts.watch(places):
            self.accumulate(batches)
        seconds = {name: s / len(batches) for name, s in parts.seconds.items() if name != "rest"}
        with parts.part("update"):
            self.update()
        return {**seconds, "update": parts.seconds["update"]}


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock(work: Callable[[], Any], device: torch.device) -> float:
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def resident_bytes(key: str) -> int:
    """Reads VmRSS (now) or VmHWM (the most since `reset_peak`) of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{key}:"))


def reset_peak(device: torch.device) -> int:
    """Forgets the peak so far; returns the memory in use."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    ctypes.CDLL(None).malloc_trim(0)  # or what the way before has freed would count for the next one
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resident_bytes("VmRSS")


def peak_bytes(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident_bytes("VmHWM")


def measure(
    way: str, config: Config, device: torch.device, batches: Sequence[MicroBatch], rounds: int, fused: bool = True
) -> dict[str, Any]:
    """Measures a step of these micro-batches: the fastest of the rounds, after one that warms up and compiles."""
    torch.compiler.reset()  # code of another way's settings would be taken for this one's
    before = reset_peak(device)
    if device.type == "cpu":
        keep_freed_memory(config.run.keep_freed_memory)
    step = Step(config, device, way == "reference", fused and way != "reference")
    step.accumulate(batches), step.update()
    losses: list[torch.Tensor] = []
    seconds = [clock(lambda: losses.extend(step.accumulate(batches)), device) for _ in range(rounds)]
    micro = min(seconds) / len(batches)  # other work on the machine can only add to it
    peak = peak_bytes(device)
    parts = step.parts(batches)
    size = config.run.micro_batch_size
    flops = sample_flops(config).total * size
    hours = (RECIPE_BATCH / size * micro + parts["update"]) * RECIPE_STEPS / 3600
    return {
        "way": way,
        "micro_batch_s": micro,
        "rounds_s": seconds,
        "samples_per_s": size / micro,
        "tflop_per_s": flops / micro / 1e12,
        "peak_gib": peak / 2**30,
        "added_gib": (peak - before) / 2**30,
        "gpu_hours_extrapolated": hours if device.type == "cuda" else None,
        "loss": float(torch.stack(losses).mean()),
        "parts_s": parts,
    }


def make_batches(config: Config, device: torch.device, number: int) -> tuple[list[MicroBatch], dict[str, float]]:
    """Returns micro-batches, and the seconds that one takes to read and to cut, without any overlap."""
    batches, parts = Batches(config, device), Parts(device)
    batches.get(0, 0)
    with parts.watch([(batches, "_on_device", "crops"), (batches, "get", "data")]):
        made = [batches.get(0, index) for index in range(number)]
    batches.close()
    return made, {name: parts.seconds[name] / number for name in ("data", "crops")}


def ways(options: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """Yields what is measured: its name, its settings, and whether the optimizer is fused."""
    yield "ours", (), True
    if options.each:
        for switch in PLAIN:
            yield f"ours, {switch}", (switch,), True
        yield "ours, optimizer not fused", (), False
    if options.reference:
        yield "reference", PLAIN, False


def run(name: str, options: argparse.Namespace, device: torch.device, store: Path) -> list[dict[str, Any]]:
    base = [f"data.store={store}", "data.workers=0", *(REDUCED if device.type == "cpu" else ()), *options.set]
    config = load_config(CONFIGS / f"{name}.yaml", base)
    batches, reading = make_batches(config, device, options.micro_batches)
    rows = []
    for way, switches, fused in ways(options, device):
        varied = load_config(CONFIGS / f"{name}.yaml", [*base, *switches])
        row = measure(way, varied, device, batches, options.rounds, fused)
        rows.append({"config": name, **row, "parts_s": {**reading, **row["parts_s"]}})
        print(f"{name}, {way}: {row['micro_batch_s']:.3f} s a micro-batch of {config.run.micro_batch_size}", flush=True)
    return rows


def predict_memory(options: argparse.Namespace) -> None:
    overrides = ["data.store=none", *options.set]
    rows = predictions({name: load_config(CONFIGS / f"{name}.yaml", overrides) for name in options.configs.split(",")})
    Console(width=120).print(memory_table(rows))
    if options.json:
        options.json.write_text(json.dumps({"git": git_state(), "predicted": rows}, indent=1), encoding="utf-8")


def table(rows: Sequence[dict[str, Any]], rate: float) -> Table:
    parts = list(rows[0]["parts_s"])
    found = Table(title=f"matmul: {rate / 1e12:.3g} TFLOP/s; parts in ms a micro-batch, the update in ms a step")
    for column in ("config", "way", "ms", "samples/s", "TFLOP/s", "MFU", "peak GiB", "added", "GPU h", *parts):
        found.add_column(column, justify="left" if column in ("config", "way") else "right")
    for row in rows:
        hours = row["gpu_hours_extrapolated"]
        found.add_row(
            *(row["config"], row["way"], f"{1e3 * row['micro_batch_s']:.0f}", f"{row['samples_per_s']:.2f}"),
            *(f"{row['tflop_per_s']:.3g}", f"{1e12 * row['tflop_per_s'] / rate:.0%}", f"{row['peak_gib']:.2f}"),
            *(f"{row['added_gib']:.2f}", "-" if hours is None else f"{hours:,.0f}"),
            *(f"{1e3 * row['parts_s'][part]:.0f}" for part in parts),
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", default="tap_s_3d,tap_b_3d", help="of pretrain/configs, by comma")
    parser.add_argument("--reference", action="store_true", help="also the straightforward step")
    parser.add_argument("--each", action="store_true", help="also ours with each gain switched off")
    parser.add_argument("--micro-batches", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the config")
    parser.add_argument(
        "--predict-memory", action="store_true", help="what the configs take on a GPU; computes nothing"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.predict_memory:
        return predict_memory(options)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        print(f"no GPU: reduced sizes ({', '.join(REDUCED)}); the figures say nothing of the recipe's")
    rate = matmul_rate(device, 3.0)
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder) / "in"
        sources.mkdir()
        make_volumes(sources, 2)
        store, _ = make_store(Path(folder) / "store", sources)
        rows = [row for name in options.configs.split(",") for row in run(name, options, device, store.folder)]
    Console(width=200).print(table(rows, rate))
    for name in options.configs.split(",") if options.reference else ():
        ours, other = (next(r for r in rows if (r["config"], r["way"]) == (name, w)) for w in ("ours", "reference"))
        print(
            f"{name}: reference / ours {other['micro_batch_s'] / ours['micro_batch_s']:.2f} times the seconds; "
            f"ours / reference {ours['peak_gib'] / other['peak_gib']:.2f} of the peak memory, "
            f"{ours['added_gib'] / other['added_gib']:.2f} of what the step adds to the process"
        )
    if options.json:
        made = {"git": git_state(), **environment(device), "matmul_flop_per_s": rate}
        options.json.write_text(json.dumps({"made": made, "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
