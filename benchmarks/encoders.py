"""Speed and memory of every encoder on this machine, as a table and as JSON.

    python benchmarks/encoders.py [--encoders tap-s-3d,spectre+embedding=cls_and_mean] [--batch 8] [--json out.json]

Weights are random: speed does not depend on them. A volume is 300x512x512 voxels of 1.5x0.79x0.79 mm (the median
spacing of the paper's pretraining data, section 3.2), windows without overlap; volumes/s counts the encoder alone.
Each encoder runs in a process of its own, whose peak memory is the one shown.
"""

import argparse
import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tapct
from tapct.encoders.options import load_spec
from tapct.features import encoder_grid
from tapct.records import environment, git_state
from tapct.records.provenance import peak_memory_bytes
from tapct.volumes import Grid, WindowPlan

VOLUME = Grid.of((300, 512, 512), np.diag([1.5, 0.79, 0.79, 1.0]))


def seconds(function, device: torch.device, at_least_s: float) -> tuple[float, float]:
    """Mean time of a call, and of it the CPU's, after a warm-up, over at least so many seconds; one wait for four."""

    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(2):
        function()
    wait()
    calls, start, cpu_start = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < at_least_s:
        function()
        calls += 1
        wait() if calls % 4 == 0 else None
    wait()
    return (time.perf_counter() - start) / calls, (time.process_time() - cpu_start) / calls


def matmul_rate(device: torch.device, at_least_s: float) -> float:
    """Measured FLOP/s of a large matrix product, in the precision that encoders use on this device."""
    size, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / seconds(lambda: a @ b, device, at_least_s)[0]


def measure(name: str, batch: int, compiled: bool, at_least_s: float, peak_rate: float) -> dict:
    """Measures one encoder; called in a process of its own, whose peak memory is then that encoder's."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = load_spec(name, "random").to(device)
    if compiled:
        encoder.network = torch.compile(encoder.network)
    card = encoder.card
    windows = torch.empty(batch, 1, *card.window_size, device=device).uniform_(-1000, 1000)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    per_window, cpu_per_window = (s / batch for s in seconds(lambda: encoder(windows), device, at_least_s))
    peak = peak_memory_bytes(device)
    # The counter does not know the CPU's fused attention; as plain matrix products, every FLOP is counted. They would
    # take GiB where a window has thousands of tokens: without content they take nothing.
    without_content = FakeTensorMode(allow_non_fake_inputs=True)
    with without_content, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encoder(torch.empty(1, 1, *card.window_size, device=device), judged=True)
    flop = counter.get_total_flops()
    plan = WindowPlan.of(encoder_grid(VOLUME, card).shape, card.window_size, card.feature_stride)
    return {
        "encoder": name,
        "parameters": card.num_params,
        "tflop_per_window": flop / 1e12,
        "windows_per_volume": len(plan.origins),
        "windows_per_s": 1 / per_window,
        "cpu_s_per_window": cpu_per_window,
        "volumes_per_s": 1 / per_window / len(plan.origins),
        "peak_memory_gb": peak.get("device", peak["host"]) / 1e9,
        "share_of_matmul_rate": flop / per_window / peak_rate,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", default=",".join(tapct.list_encoders()), help="names, by comma, with options")
    parser.add_argument("--batch", type=int, default=8 if torch.cuda.is_available() else 1, help="windows at once")
    parser.add_argument("--seconds", type=float, default=3.0, help="least time to measure over")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peak_rate = matmul_rate(device, options.seconds)
    rows = []
    for name in options.encoders.split(","):
        # Spawned anew for each encoder: the host's peak memory never goes down again within a process.
        with multiprocessing.get_context("spawn").Pool(1) as process:
            rows.append(process.apply(measure, (name, options.batch, options.compile, options.seconds, peak_rate)))
        print(f"{name}: {rows[-1]['windows_per_s']:.2f} windows/s", flush=True)
    table = Table(*(key.replace("_", " ") for key in rows[0]), title=f"matmul: {peak_rate / 1e12:.2f} TFLOP/s")
    for row in rows:
        table.add_row(
            *(f"{v:.3g}" if isinstance(v, float) else f"{v:,}" if isinstance(v, int) else v for v in row.values())
        )
    Console(width=160).print(table)
    if options.json:
        made = {"git": git_state(), **environment(device), "batch": options.batch, "compile": options.compile}
        options.json.write_text(json.dumps({"made": made, "matmul_flop_per_s": peak_rate, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
