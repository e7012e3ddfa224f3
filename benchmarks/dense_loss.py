"""The dense loss and its gradient against the naive computation: seconds and peak memory over sizes and classes.

    python benchmarks/dense_loss.py [--sizes 112x224x224,300x512x512] [--classes 3,16,49] [--json out.json]

Logits lie on the feature grid of patches (4, 8, 8). The naive way upsamples them to voxels and takes MONAI's Dice +
cross-entropy by autograd; on CUDA there is a third way, "fused": slabs by Triton kernels. Each row is measured in a
process of its own; memory is what the loss added to the peak, the ratio is seconds over those of "slabs". The naive way
is skipped where its voxels alone, four times in fp32, would take more memory than the machine has free.
"""

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss
from rich.console import Console
from rich.table import Table

from tapct.probes.dense import dice_ce_loss
from tapct.records import environment, git_state
from tapct.records.provenance import peak_memory_bytes
from tapct.volumes import Grid, LinearMap

STRIDE = (4, 8, 8)


def measure(way: str, size: tuple[int, int, int], classes: int) -> dict:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    grid = Grid.of(size, torch.eye(4).double().numpy())
    patches = grid.patches(STRIDE)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(classes, *patches.shape, generator=generator).to(device).requires_grad_()
    target = torch.randint(classes, size, generator=generator, dtype=torch.uint8).to(device)
    to_voxels = LinearMap.between(patches, grid)
    naive = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False)

    def step() -> torch.Tensor:
        if way in ("slabs", "fused"):
            loss = dice_ce_loss(logits, target, to_voxels, fused=way == "fused")
        else:
            loss = naive(F.interpolate(logits[None], size=size, mode="trilinear"), target[None, None])
        loss.backward()
        return loss

    if device.type == "cuda":
        step(), torch.cuda.synchronize()  # kernels are chosen and compiled in the first call
        torch.cuda.reset_peak_memory_stats(device)
    before = peak_memory_bytes(device)
    start = time.perf_counter()
    loss = float(step().detach())
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds, after = time.perf_counter() - start, peak_memory_bytes(device)
    where = "device" if device.type == "cuda" else "host"
    return {"way": way, "size": size, "classes": classes, "seconds": seconds, "loss": loss,
            "added_gib": (after[where] - before[where]) / 2**30}  # fmt: skip


def fits(size: tuple[int, int, int], classes: int) -> bool:
    needed = 4 * 4 * classes * size[0] * size[1] * size[2]
    if torch.cuda.is_available():
        return needed < torch.cuda.mem_get_info()[0]
    return needed < os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="112x224x224,300x224x224,300x512x512")
    parser.add_argument("--classes", default="3,16,49")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for text in options.sizes.split(","):
        depth, height, width = (int(n) for n in text.split("x"))
        size = (depth, height, width)
        for classes in map(int, options.classes.split(",")):
            for way in ("slabs", "fused", "naive") if torch.cuda.is_available() else ("slabs", "naive"):
                if way == "naive" and not fits(size, classes):
                    rows.append({"way": way, "size": size, "classes": classes, "seconds": None, "added_gib": None})
                    continue
                with multiprocessing.get_context("spawn").Pool(1) as process:
                    rows.append(process.apply(measure, (way, size, classes)))
                print(rows[-1], flush=True)
    slabs = {(row["size"], row["classes"]): row["seconds"] for row in rows if row["way"] == "slabs"}
    table = Table("size", "classes", "way", "seconds", "x slabs", "GiB added", "loss")
    for row in rows:
        shown = ["does not fit", "-", "-", "-"]
        if (seconds := row["seconds"]) is not None:
            ratio = seconds / slabs[row["size"], row["classes"]]
            shown = [f"{seconds:.4g}", f"{ratio:.3f}", f"{row['added_gib']:.2f}", f"{row['loss']:.6f}"]
        table.add_row("x".join(map(str, row["size"])), str(row["classes"]), row["way"], *shown)
    Console().print(table)
    if options.json:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        options.json.write_text(
            json.dumps({"made": {"git": git_state(), **environment(device)}, "rows": rows}, indent=1)
        )


if __name__ == "__main__":
    main()
