"""One training step of attention on whole scans' patch features: CPU seconds and peak memory, padded and by slabs.

    python -m benchmarks.bags [--instances 1000 58800 300000] [--heads 9] [--bags 4] [--ways padded slabs]
        [--windows 1024] [--json out.json]

--windows is of the encoder's side: a scan of so many windows, encoded by a small network, and what that adds to the
memory of the scan. 1,000 instances are the class tokens of as many windows.

58,800 instances are what TAP-B-3D gives of 300 slices at 224 x 224 (75 x 28 x 28), 300,000 about the same at 512. Heads
are those of the FDG-PET-CT config (three seeds, three rates), bags its batch, of 768 channels in bfloat16, mapped from
a file as the store maps them; the shorter bags have half the length. "padded" is eva's own forward of every head on the
batch in float32, padded to its longest bag; "slabs" is `tapct.probes.attention`. Each runs in a process of its own, on
one thread. Anonymous memory cannot be given back; pages of the mapped file, which peak memory counts too, can.
"""

import argparse
import json
import math
import multiprocessing
import resource
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from eva.vision.models.networks import ABMIL
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils.rnn import pad_sequence

from tapct.features import extract
from tapct.features.channels import Channels
from tapct.probes import attention
from tapct.probes.attention import Bag
from tapct.probes.scaling import ChannelScale
from tapct.records import environment, git_state
from tapct.volumes import Grid
from tests.small import Drifting

CHANNELS = 768


def write(path: Path, instances: int, bags: int) -> None:
    """Writes bags of (C, n, 1, 1), every second one of half the instances."""
    maps = {}
    for number in range(bags):
        length = instances // (1 + number % 2)
        maps[str(number)] = torch.empty(CHANNELS, length, 1, 1, dtype=torch.bfloat16).normal_()
    save_file(maps, path)


def padded(heads: list[ABMIL], bags: list[Bag]) -> torch.Tensor:
    """The step as it was: everything in float32, scaled and padded, and eva's forward of each head."""
    scaled = [torch.cat([*bag.slabs(torch.zeros(0))]) for bag in bags]
    whole = pad_sequence(scaled, batch_first=True, padding_value=-math.inf)
    return torch.stack([head(whole) for head in heads])


def anonymous_bytes() -> int:
    """Returns the memory of this process that is of no file."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


class Peak(threading.Thread):
    """The most anonymous memory over what there was at the start, looked at every 5 ms."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._before, self.bytes, self._done = anonymous_bytes(), 0, threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.005):
            self.bytes = max(self.bytes, anonymous_bytes() - self._before)

    def end(self) -> int:
        self._done.set()
        self.join()
        return self.bytes


def step(way: str, path: Path, heads: int) -> dict:
    """Takes one step and returns what it took, and the gradient's norm."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    trained = [ABMIL(CHANNELS, 1, None, hidden_sizes_mlp=()) for _ in range(heads)]
    scale = ChannelScale(torch.full((CHANNELS,), 1.5, dtype=torch.float64), 0)
    with safe_open(path, framework="pt") as file:
        bags = [Bag(Channels(file.get_tensor(name)), scale) for name in sorted(file.keys())]
    targets = torch.arange(len(bags)).remainder(2)[:, None].float()
    peak, used, start = Peak(), resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    peak.start()
    logits = (padded if way == "padded" else attention.logits)(trained, bags)
    torch.stack([binary_cross_entropy_with_logits(one, targets) for one in logits]).sum().backward()
    wall_s, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    squares = sum(float(p.grad.double().square().sum()) for head in trained for p in head.parameters() if p.numel() > 1)
    return {
        "way": way,
        "anonymous_bytes": peak.end(),
        "peak_bytes": after.ru_maxrss * 1024,
        "cpu_s": after.ru_utime - used.ru_utime + after.ru_stime - used.ru_stime,
        "wall_s": wall_s,
        "gradient_norm": math.sqrt(squares),
    }


def encode(windows: int) -> dict:
    """Encodes a scan of so many windows of 8 x 64 x 64 voxels, 64 a slab, and returns what it took."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    hu = torch.empty(8 * math.ceil(windows / 64), 512, 512).uniform_(-1000, 1000)
    encoder = Drifting("random")
    encoder.card = replace(encoder.card, in_plane_size=512)
    peak, start = Peak(), time.process_time()
    peak.start()
    features = extract(encoder, hu, Grid.of(hu.shape, np.eye(4)))
    return {
        "windows": len(features.embeddings),
        "anonymous_bytes": peak.end(),
        "scan_bytes": hu.nbytes,
        "map_bytes": features.map.nbytes,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "cpu_s": time.process_time() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, nargs="*", default=[1_000, 58_800, 300_000])
    parser.add_argument("--windows", type=int, nargs="*", default=[64, 1_024])
    parser.add_argument("--heads", type=int, default=9)
    parser.add_argument("--bags", type=int, default=4)
    parser.add_argument("--ways", nargs="+", choices=["padded", "slabs"], default=["padded", "slabs"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    print(f"commit: {git_state()}", flush=True)
    for windows in options.windows:
        with multiprocessing.get_context("spawn").Pool(1) as process:
            row = process.apply(encode, (windows,))
        rows.append(row)
        sizes = {name: row[name] / 2**20 for name in ("scan_bytes", "map_bytes", "anonymous_bytes", "peak_bytes")}
        scan, of_map, more, most = sizes.values()
        print(
            f"{row['windows']:8} windows   a scan of {scan:.0f} MiB, a map of {of_map:.0f}  {row['cpu_s']:7.1f} CPU s  "
            f"{more:9.0f} MiB on top  {most:7.0f} MiB peak",
            flush=True,
        )
    for instances in options.instances:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bags.safetensors"
            write(path, instances, options.bags)
            for way in options.ways:
                with multiprocessing.get_context("spawn").Pool(1) as process:
                    row = process.apply(step, (way, path, options.heads))
                rows.append({"instances": instances, "heads": options.heads, "bags": options.bags, **row})
                print(
                    f"{instances:8} instances  {options.heads} heads  {way:7} {row['cpu_s']:7.1f} CPU s "
                    f"({row['wall_s']:.1f} s wall)  {row['anonymous_bytes'] / 2**20:9.0f} MiB on top  "
                    f"{row['peak_bytes'] / 2**20:7.0f} MiB peak with files  gradient {row['gradient_norm']:.9g}",
                    flush=True,
                )
    if options.json:
        made = {"git": git_state(), **environment(torch.device("cpu"))}
        options.json.write_text(json.dumps({"made": made, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
