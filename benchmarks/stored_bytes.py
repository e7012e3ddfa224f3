"""What features and labels take on disk and to read, and what int8 costs in accuracy.

    python -m benchmarks.stored_bytes [-e tap-t-3d] [-w random]

On the two scans that ship. Compression is by zstd after blosc2's byte shuffle, the best of those tried for bf16; labels
by plain zstd, as the store has them. AUROC is of logistic regression on blocks of 1 x 2 x 2 patches: trained on
those of the abdomen, reported on those of the chest, over the organs that lie in both. For Dice, run the quickstart:

    FEATURE_DTYPE=int8 eva fit --config eva_configs/quickstart.yaml
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import blosc2
import numpy as np
import torch

from tapct import load_encoder
from tapct.features import FeatureBank, TensorStore
from tapct.metrics.ranks import auroc
from tapct.probes import solvers
from tapct.probes.patches import class_shares
from tapct.tasks.quickstart import Quickstart

HELD = 0.02
"""A block holds an organ that fills this share of it."""

CPU = torch.device("cpu")


def best_s(work: Callable[[], object], times: int = 5) -> float:
    """Returns the seconds of the fastest of a few calls."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def blocks(values: torch.Tensor) -> np.ndarray:
    """Returns (N, C) means over blocks of 1 x 2 x 2 patches of (C, d, h, w)."""
    return torch.nn.functional.avg_pool3d(values[None], (1, 2, 2))[0].flatten(1).T.double().numpy()


def report_bytes(bank: FeatureBank, part: Quickstart) -> None:
    """Prints bytes and read times of the first case of a part, warm: from the cache of the system."""
    key, labels_key = bank.keys(part, 0)
    entry, case = bank.store.load(key), bank.case(part, 0)
    assert entry is not None
    assert labels_key is not None
    stored = entry.tensors["map"]
    raw = stored.view(torch.int16) if stored.element_size() == 2 else stored
    values = raw.numpy()
    packed = blosc2.compress2(values, codec=blosc2.Codec.ZSTD, clevel=1, typesize=values.itemsize, nthreads=1)
    plain_s, packed_s = best_s(lambda: case.to(CPU)), best_s(lambda: blosc2.decompress2(packed, nthreads=1))
    print(
        f"{bank.dtype} map {tuple(stored.shape)}: {values.nbytes / 2**20:.2f} MiB, float32 in {1e3 * plain_s:.1f} ms; "
        f"zstd: {values.nbytes / len(packed):.2f} times less, and {1e3 * packed_s:.1f} ms more"
    )
    labels = bank.store.load(labels_key)
    assert labels is not None
    whole, file = sum(t.numel() for t in labels.tensors.values()), bank.store.nbytes(labels_key)
    read_s = best_s(lambda: bank.store.load(labels_key))
    less = f"{whole / file:.0f} times less"
    print(f"labels: {whole / 2**20:.2f} MiB in {file / 2**10:.1f} KiB ({less}), read in {1e3 * read_s:.1f} ms")


def main() -> None:
    """Prints bytes, errors and AUROC for each dtype."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--encoder", default="tap-t-3d")
    parser.add_argument("-w", "--weights")
    arguments = parser.parse_args()
    parts = [Quickstart(Quickstart.shipped_root, split) for split in ("train", "test")]
    exact: list[torch.Tensor] = []
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("fp32", "bf16", "int8"):
            bank = FeatureBank(
                load_encoder(arguments.encoder, arguments.weights), TensorStore(Path(folder)), dtype=dtype
            )
            bank.fill(parts)
            maps = [bank.case(part, 0).to(CPU).features.map for part in parts]
            exact = exact or maps
            errors = [
                ((m - e) ** 2).mean((1, 2, 3)) / e.var((1, 2, 3), correction=0)
                for m, e in zip(maps, exact, strict=True)
            ]
            held = []
            for part in parts:
                case = bank.case(part, 0)
                grids = (case.features.native_grid, case.features.feature_grid)
                held.append(blocks(class_shares(case.target, *grids, len(part.classes)))[:, 1:] >= HELD)
            both = [k for k in range(held[0].shape[1]) if all(0 < of[:, k].sum() < len(of) for of in held)]
            train, test = (blocks(each) for each in maps)
            scale = train.std(axis=0)
            targets = held[0][:, both].astype(float)
            (head,) = solvers.logistic(solvers.Design(train / scale), targets, [1e-3])
            logits = head(test / scale)
            scores = [auroc(logits[:, i], held[1][:, k].astype(float)) for i, k in enumerate(both)]
            rms = torch.stack(errors).mean().sqrt()
            print(
                f"{dtype}: error {100 * rms:.2f} % of a channel's deviation, AUROC {np.mean(scores):.4f} over organs:"
            )
            print("  " + ", ".join(f"{parts[0].classes[k + 1]} {s:.4f}" for k, s in zip(both, scores, strict=True)))
            if dtype != "fp32":
                report_bytes(bank, parts[0])


if __name__ == "__main__":
    main()
