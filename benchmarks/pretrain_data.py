"""How fast pretraining reads: slabs and samples per second and core from a store, against reading `.nii.gz`.

    python benchmarks/pretrain_data.py [--config pretrain/configs/tap_b_3d.yaml] [--samples 300] [--json out.json]

The volumes are 300x512x512, made of the quickstart's chest (real CT at its native 512x512, with its noise and its air
around): its 20 slices forwards and backwards, shifted in the plane from volume to volume. The files lie in the page
cache, so this is the processor's part; a disk has to deliver the bytes that are printed. A sample is what a worker
makes of a volume: the places of ten crops, and the block that holds them, in shared memory. "Per core" is per second of
the processor's time (user and system) of one process with one thread; the whole stream is by the clock on the wall.

`--store-gb-per-s 4 8 16` also simulates a run (`simulated_store.py`): so many `--ranks` and `--workers-per-rank`, whose
workers read what was measured here from one store that delivers no more than that.
"""

import argparse
import json
import math
import os
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from simulated_store import Cluster, simulate

from pretrain.config import Config
from pretrain.data.batches import Batches
from pretrain.data.encoding import CHUNK_SLICES
from pretrain.data.identity import StoreIdentity
from pretrain.data.index import StoredVolume, write_index
from pretrain.data.prepare import CLIP_HU, Settings, convert
from pretrain.data.reader import ReadJob, SampleReader
from pretrain.data.sampling import SampleOrder
from pretrain.data.sources import find_scans
from pretrain.data.store import Box, Store, write_settings
from pretrain.errors import PretrainError
from pretrain.settings import load_config
from tapct.records import environment
from tapct.volumes import read_ct

ROOT = Path(__file__).parents[1]
CHEST = ROOT / "tapct" / "tasks" / "quickstart_data" / "chest" / "ct_dicom"
SLICES = 300
STEP_S = 3648 * 3600 / 125_000 / 64
"""Of 64 GPUs, if 125,000 steps take the 3,648 GPU hours that Table 6 of the paper has for TAP-B-3D."""


def make_volumes(folder: Path, number: int) -> list[Path]:
    """Writes realistic volumes as .nii.gz, compressed as dcm2niix does."""
    chest = read_ct(CHEST)
    there_and_back = np.concatenate([chest.hu, chest.hu[::-1]]).astype(np.int16)
    paths = []
    for volume in range(number):
        shifted = np.roll(there_and_back, (7 * volume, 11 * volume), axis=(1, 2))
        hu = np.tile(shifted, (-(-SLICES // len(shifted)), 1, 1))[:SLICES]
        image = nib.Nifti1Image(hu.transpose(2, 1, 0), chest.affine @ np.eye(4)[[2, 1, 0, 3]])
        paths.append(folder / f"{volume}.nii.gz")
        nib.save(image, paths[-1])
    return paths


def make_store(folder: Path, sources: Path) -> tuple[Store, float]:
    """Prepares them; returns the store and the seconds a volume took on one core."""
    settings = Settings(folder, CLIP_HU, min_slices=12, patient_given=False)
    write_settings(folder, CLIP_HU)
    started = time.process_time()
    rows = [convert(source, settings, source.id_of()) for source in find_scans([sources], ["*"], [])]
    seconds = (time.process_time() - started) / len(rows)
    write_index(folder, {row.id: row for row in rows})
    return Store(folder), seconds


def per_second(work: Callable[[int], object], number: int) -> float:
    """Calls `work(n)` that often, after a few for warming up; returns calls per second of the processor's time."""
    for n in range(min(3, number)):
        work(n)
    started = time.process_time()
    for n in range(number):
        work(n)
    return number / (time.process_time() - started)


def slab_rates(store: Store, paths: list[Path], depth: int, number: int) -> dict[str, float]:
    """Slabs of whole slices per second: from the store, and from .nii.gz in the two ways there are."""
    rng = np.random.default_rng(0)
    starts = rng.integers(SLICES - depth + 1, size=number + 3).tolist()

    def from_store(n: int) -> object:
        volume = store[n % len(store)]
        return store.read(volume, Box(starts[n], 0, 0, depth, *volume.shape[1:]))

    def whole(n: int) -> object:
        return np.asanyarray(nib.load(paths[n % len(paths)]).dataobj)[..., starts[n] : starts[n] + depth]

    def sliced(n: int) -> object:  # decompresses up to the slab, and drops what is before it
        return np.asarray(nib.load(paths[n % len(paths)]).dataobj[..., starts[n] : starts[n] + depth])

    few = max(4, number // 50)
    return {
        "store": per_second(from_store, number),
        "nii_gz_whole": per_second(whole, few),
        "nii_gz_sliced": per_second(sliced, few),
    }


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE")


class Checked(Store):
    """A store that compares the checksums of the chunks that it reads; without what they should be, for the cost."""

    def read(self, volume: StoredVolume, box: Box) -> np.ndarray:
        array = self._open(volume)  # held: its chunks die with it
        for chunk in range(box.z // CHUNK_SLICES, (box.z + box.depth - 1) // CHUNK_SLICES + 1):
            zlib.crc32(array.schunk.get_chunk(chunk))
        return super().read(volume, box)


def checksum_cost(config: Config, store: Store, number: int) -> dict[str, dict[str, float]]:
    """What a checksum of every chunk would cost where it is read: time of the processor, and bytes from the files."""
    found = {}
    for name, kind in (("plain", Store), ("checked", Checked)):
        reader = SampleReader(config, StoreIdentity.of(store))
        reader._opened = kind(store.folder), SampleOrder(len(store), config.run.seed)
        before = read_so_far()
        rate = per_second(lambda n: reader[ReadJob(0, 0, n)], number)  # noqa: B023
        size, reads = ((read_so_far() - before) / (number + min(3, number))).tolist()
        found[name] = {"samples_per_s": rate, "megabytes_per_sample": size / 1e6, "reads_per_sample": reads}
    return found


def flipped_bits(store: Store, number: int) -> dict[str, float]:
    """What single flipped bits of a volume's file do where nothing compares checksums; the file is left as it was."""
    volume, rng = store[0], np.random.default_rng(0)
    path = store.folder / volume.file
    content, whole = bytearray(path.read_bytes()), Box(0, 0, 0, *volume.shape)
    right = store.read(volume, whole)
    voxels, errors_hu = [], []
    for _ in range(number):
        place, bit = int(rng.integers(len(content))), 1 << int(rng.integers(8))
        content[place] ^= bit
        path.write_bytes(content)
        content[place] ^= bit
        with suppress(PretrainError):
            read = store.read(volume, whole)
            wrong = np.flatnonzero(read != right)
            error_hu = np.abs(read.flat[wrong].astype(np.int32) - right.flat[wrong])
            voxels.append(len(wrong))
            errors_hu.append(int(error_hu.max(initial=0)))
    path.write_bytes(content)
    return {
        "flips": number,
        "found": number - len(voxels),
        "without_effect": voxels.count(0),
        "median_voxels": float(np.median(voxels)),
        "most_voxels": max(voxels),
        "median_largest_error_hu": float(np.median(errors_hu)),
        "largest_error_hu": max(errors_hu),
    }


def read_so_far() -> np.ndarray:
    """Bytes and single reads of this process so far, from disks and from the page cache."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    found = {name: int(number) for name, number in (line.split(": ") for line in lines)}
    return np.array([found["rchar"], found["syscr"]])


def simulations(config: Config, figures: dict[str, Any], given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """What a run of many ranks would reach with stores of some rates, by the rates that were measured here."""
    read = figures["reading"]["plain"]
    samples = config.run.micro_batch_size * config.run.micro_batches // given.ranks
    in_flight = config.data.prefetch * (1 + config.run.micro_batch_size)
    found = {}
    for rate in given.store_gb_per_s:
        cluster = Cluster(
            ranks=given.ranks,
            workers=given.workers_per_rank,
            samples=samples,
            prefetch_factor=max(2, math.ceil(in_flight / given.workers_per_rank)),
            step_s=given.step_s,
            decode_s=1 / figures["worker"]["samples_per_s_with_masks"],
            bytes=read["megabytes_per_sample"] * 1e6,
            reads=read["reads_per_sample"],
            bytes_per_s=rate * 1e9,
            reads_per_s=given.store_reads_per_s,
            latency_s=given.latency_ms / 1e3,
        )
        found[f"{rate:g} GB/s"] = simulate(cluster)
    return found


def sample_rate(config: Config, store: Store, number: int) -> dict[str, float]:
    """Samples per second of one worker, the bytes that it sends, and how its memory grows."""
    reader = SampleReader(config, StoreIdentity.of(store))
    sizes, used = [], []

    def one(n: int) -> None:
        batch, sample = divmod(n, config.run.micro_batch_size)
        part = reader[ReadJob(0, batch, sample)]
        part.slab.share_memory_()  # as the loader does to send it
        sizes.append(part.slab.numel() * 2)
        used.append(resident_bytes())

    rate = per_second(one, number)
    later = np.array(used[len(used) // 3 :])
    masks = per_second(lambda n: reader[ReadJob(0, n, None)], 20)
    return {
        "samples_per_s": rate,
        "samples_per_s_with_masks": 1 / (1 / rate + 1 / (masks * config.run.micro_batch_size)),
        "megabytes_per_sample": float(np.mean(sizes)) / 1e6,
        "resident_megabytes": float(later.mean()) / 1e6,
        "resident_growth_bytes_per_sample": float(np.polyfit(np.arange(len(later)), later, 1)[0]),
    }


def stream_rate(config: Config, device: str, micro_batches: int) -> dict[str, float | None]:
    """Samples per second of everything together: workers, transfer, crops and augmentation on the device."""
    batches = Batches(config, device)
    stream = batches.stream(0, range(config.run.micro_batches))
    next(stream)
    used = []
    started = time.perf_counter()
    for _ in range(micro_batches):
        next(stream)
        used.append(resident_bytes())
    if device == "cuda":
        torch.cuda.synchronize()
    rate = micro_batches * config.run.micro_batch_size / (time.perf_counter() - started)
    batches.close()
    later = used[len(used) // 3 :]
    growth = float(np.polyfit(np.arange(len(later)), later, 1)[0]) / config.run.micro_batch_size
    return {"samples_per_s": rate, "resident_growth_bytes_per_sample": growth if micro_batches >= 60 else None}


def parser_of_arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "pretrain" / "configs" / "tap_b_3d.yaml")
    parser.add_argument("--volumes", type=int, default=4)
    parser.add_argument("--slabs", type=int, default=200)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--workers", type=int, default=1, help="of the whole stream")
    parser.add_argument("--micro-batch-size", type=int, default=8, help="of the whole stream")
    parser.add_argument("--micro-batches", type=int, default=8, help="of the whole stream; 0 leaves it out")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="of the whole stream")
    parser.add_argument("--flips", type=int, default=60, help="single bits that are flipped in a stored file")
    parser.add_argument("--store-gb-per-s", type=float, nargs="+", help="simulate a run on stores that deliver this")
    parser.add_argument("--store-reads-per-s", type=float, default=math.inf, help="of the simulated stores")
    parser.add_argument("--ranks", type=int, default=64, help="of the simulated run")
    parser.add_argument("--workers-per-rank", type=int, default=16, help="of the simulated run")
    parser.add_argument("--step-s", type=float, default=STEP_S, help="of the simulated run (default: %(default).3g)")
    parser.add_argument("--latency-ms", type=float, default=5.0, help="mean of what a simulated sample waits besides")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser


def main() -> None:
    given = parser_of_arguments().parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder) / "in"
        sources.mkdir()
        paths = make_volumes(sources, given.volumes)
        store, prepare_s = make_store(Path(folder) / "store", sources)
        config = load_config(
            given.config,
            [
                f"data.store={store.folder}",
                f"data.workers={given.workers}",
                f"run.micro_batch_size={given.micro_batch_size}",
            ],
        )
        raw = 2 * SLICES * 512 * 512
        stored = [store[number].size_bytes for number in range(len(store))]
        figures = {
            "volume_megabytes": {
                "int16": raw / 1e6,
                "nii_gz": float(np.mean([path.stat().st_size for path in paths])) / 1e6,
                "store": float(np.mean(stored)) / 1e6,
            },
            "prepare_s_per_volume_and_core": prepare_s,
            "slabs_per_s_and_core": {
                str(depth): slab_rates(store, paths, depth, given.slabs) for depth in (12, 24, 48)
            },
            "worker": sample_rate(config, store, given.samples),
            "flipped_bits": flipped_bits(store, given.flips),
            "reading": checksum_cost(config, store, given.samples),
        }
        if given.store_gb_per_s:
            figures["simulated"] = simulations(load_config(given.config, []), figures, given)
        if given.micro_batches:
            figures["stream"] = {"device": given.device, **stream_rate(config, given.device, given.micro_batches)}
    record = {"figures": figures, "settings": {k: str(v) for k, v in vars(given).items()}}
    print(json.dumps(record, indent=1))
    for depth, rates in figures["slabs_per_s_and_core"].items():
        best = max(rates["nii_gz_whole"], rates["nii_gz_sliced"])
        print(
            f"{depth} slices: {rates['store'] / best:.0f} times .nii.gz, {rates['store'] / rates['nii_gz_whole']:.0f} "
            "times reading it whole"
        )
    print(f"cores for 600 samples/s: {600 / figures['worker']['samples_per_s_with_masks']:.1f}")
    if given.json:
        record |= {"environment": environment(torch.device(given.device))}
        given.json.write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
