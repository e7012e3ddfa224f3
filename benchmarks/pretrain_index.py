"""What the index of a store costs: seconds and memory to open it, and seconds for a volume's row.

    python benchmarks/pretrain_index.py [--volumes 1000000] [--samples 2000] [--json out.json]

Writes an index of made-up rows (paths of 100 characters, ids and checksums as they are), no volumes, and opens it in
processes of their own, as the workers of a run do: with `index.offsets`, without it (an older store: it is made, once),
and without it in a folder that cannot be written. "Memory" is what the resident set grew by, of files that the page
cache shares and of the process's own; "whole epoch" is after the order of the samples was drawn and rows were looked
up all over the index.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from hashlib import blake2b, sha256
from multiprocessing import get_context
from pathlib import Path

import torch

from pretrain import files
from pretrain.data.index import OFFSETS, StoredVolume, write_index
from pretrain.data.sampling import SampleOrder
from pretrain.data.store import Store, write_settings
from tapct.records import environment


def make_index(folder: Path, volumes: int) -> float:
    """Writes it; returns the seconds."""
    rows = {}
    for number in range(volumes):
        source = f"/data/ct/{number:0>83}/ct.nii.gz"
        key = blake2b(source.encode(), digest_size=8).hexdigest()
        rows[key] = StoredVolume(
            id=key,
            source=source,
            source_bytes=80_000_000 + number,
            source_mtime_ns=1_700_000_000_000_000_000 + number,
            patient=f"patient {number // 2}",
            shape=(300 + number % 200, 512, 512),
            spacing_mm=(1.25, 0.7421875, 0.7421875),
            foreground_slices=(3, 290),
            size_bytes=70_000_000 + number,
            sha256=sha256(key.encode()).hexdigest(),
            source_sha256=sha256(source.encode()).hexdigest(),
            code_sha256="0" * 64,
        )
    write_settings(folder, (-1008.0, 822.0))
    started = time.perf_counter()
    write_index(folder, rows)
    return time.perf_counter() - started


def resident() -> dict[str, float]:
    """Megabytes of this process: its own, of files, and the highest that both were together."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    own, shared = int(found["RssAnon"]), int(found["RssFile"])
    return {"own": own / 1e3, "files": shared / 1e3, "peak": peak / 1e3}


def measure(folder: Path, samples: int, writable: bool) -> dict[str, object]:
    """Opens the index here."""

    def read_only(path: Path, content: bytes) -> None:
        raise OSError(30, "Read-only file system")

    if not writable:
        files.write_atomically = read_only
    SampleOrder(10, seed=0)[0]  # what torch itself takes for its first numbers
    before = resident()
    started = time.perf_counter()
    store = Store(folder)
    found: dict[str, object] = {"open_s": time.perf_counter() - started}
    found["open_megabytes"] = {name: size - before[name] for name, size in resident().items()}
    started = time.perf_counter()
    store.thinner_than(12)
    found["thinnest_s"] = time.perf_counter() - started
    order = SampleOrder(len(store), seed=0)
    order[0]
    started = time.perf_counter()
    for sample in range(samples):
        store[order[sample]]
    found["row_microseconds"] = (time.perf_counter() - started) / samples * 1e6
    found["epoch_megabytes"] = {name: size - before[name] for name, size in resident().items()}
    return found


def elsewhere(folder: Path, samples: int, writable: bool = True) -> dict[str, object]:
    """Opens the index in a process of its own, which other measurements have not left memory to."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(measure, folder, samples, writable).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=1_000_000)
    parser.add_argument("--samples", type=int, default=2000, help="rows that are looked up")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            figures: dict[str, object] = {"write_s": process.submit(make_index, folder, given.volumes).result()}
        figures["megabytes"] = {path.name: path.stat().st_size / 1e6 for path in folder.glob("index.*")}
        figures["with offsets"] = elsewhere(folder, given.samples)
        os.utime(folder / OFFSETS, ns=(0, 0))
        figures["copied without its times, the first time"] = elsewhere(folder, given.samples)
        (folder / OFFSETS).unlink()
        figures["older store that cannot be written"] = elsewhere(folder, given.samples, writable=False)
        figures["older store, the first time"] = elsewhere(folder, given.samples)
        figures["older store, from then on"] = elsewhere(folder, given.samples)
    record = {"figures": figures, "settings": {k: str(v) for k, v in vars(given).items()}}
    print(json.dumps(record, indent=1))
    if given.json:
        record |= {"environment": environment(torch.device("cpu"))}
        given.json.write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
