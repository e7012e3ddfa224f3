"""`kill -9` at random moments, again and again: what `prepare` and `train` lose by it, which must be nothing.

    python benchmarks/kill_9.py --kills 10          # of each: prepare and train, with and without shards

Each command is killed so often at random moments, always started again, and then let end; where it ended before, a
new one begins. After each kill every volume that the index names must be whole and none may have gone, and the newest
checkpoint must be readable and no older than before. At the end the store holds what that of an undisturbed `prepare`
holds, voxel by voxel, under the same digest; and the last checkpoint of the run is that of an undisturbed run to the
bit, with the same metrics at every step. The run's crops grow half-way (`early`), and its student leaves patches out,
so kills fall on either side of that. Index and shards are written after every volume instead of every 30 s, so that
kills fall into writing them. Processes are forked from one that has imported everything, for an import takes longer
than what is killed here.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from pretrain import prepare, train
from pretrain.data import prepare as data_prepare
from pretrain.data.identity import StoreIdentity
from pretrain.data.store import Box, Store
from pretrain.observe.monitor import METRICS_FILE, read_events
from pretrain.state_files import load_checkpoint
from pretrain.training.checkpoint import newest_checkpoint
from tapct.records import git_state

CONFIG = Path(__file__).parents[1] / "pretrain" / "configs" / "tap_debug.yaml"
VOLUMES, SHAPE = 60, (40, 96, 96)
SHARD_GB = "0.0008"
STEPS = 24
SMALL = (
    *("crops.global_size=[4, 32, 32]", "crops.local_size=[4, 16, 16]", "crops.num_local=2", "data.slab_slices=4"),
    *("early.global_size=[4, 16, 16]", "early.local_size=[4, 8, 8]", "early.full_size_last=0.5"),
    *("masking.drop=0.25", "heads.prototypes=64", "heads.hidden_dim=32", "heads.bottleneck_dim=16"),
    *("run.micro_batch_size=2", "run.micro_batches=2", f"run.steps={STEPS}", "run.checkpoint_every=1", "run.keep=2"),
)
PATIENCE_S = 300
MOST_WAIT_S = 1.0
"""Between a sign of progress and the kill."""


def write_scans(folder: Path, count: int) -> None:
    """Cylinders of tissue in air, with noise."""
    _, y, x = np.mgrid[tuple(slice(n) for n in SHAPE)]
    inside = (y - SHAPE[1] / 2) ** 2 + (x - SHAPE[2] / 2) ** 2 < (0.4 * SHAPE[1]) ** 2
    folder.mkdir()
    for number in range(count):
        noise = np.random.default_rng(number).normal(0, 20, SHAPE)
        hu = (np.where(inside, 40, -1000) + noise).astype(np.int16)
        nib.save(nib.Nifti1Image(hu.transpose(2, 1, 0), np.diag([-1.5, -1.5, 2.0, 1.0])), folder / f"{number:03}.nii")


SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["kill_9", "torch._dynamo", "pretrain.data.batches", "torch.utils.tensorboard"])


def work(command: str, arguments: Sequence[str]) -> None:
    """What is killed: one of the two commands, in a process of its own."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    torch.set_num_threads(1)
    if command == "train":
        sys.exit(train.main(arguments))
    data_prepare.SAVE_EVERY_S = 0.0
    data_prepare._SAVING = 0
    sys.exit(prepare.main(arguments))


def finish(command: str, arguments: Sequence[str]) -> None:
    process = SERVER.Process(target=work, args=(command, list(arguments)))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"{command} {' '.join(arguments)}: exit status {process.exitcode}")


def kill_when(command: str, arguments: Sequence[str], moved: Callable[[], bool], wait_s: float) -> bool:
    """Starts a command and kills it some time after it moved on; False where it had ended by then."""
    process = SERVER.Process(target=work, args=(command, list(arguments)))
    process.start()
    end = time.monotonic() + PATIENCE_S
    while not moved() and process.is_alive() and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(wait_s)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def prepare_options(sources: Path, store: Path, shards: bool) -> list[str]:
    return [str(sources), "-o", str(store), "--workers", "1", *(["--shard-gb", SHARD_GB] * shards)]


def voxels(store: Store) -> dict[str, bytes]:
    whole = {store[n].id: store.read(store[n], Box(0, 0, 0, *store[n].shape)) for n in range(len(store))}
    return {id_: array.tobytes() for id_, array in whole.items()}


def of_prepare(folder: Path, sources: Path, shards: bool, kills: int, rng: random.Random) -> dict[str, Any]:
    undisturbed, found = folder / "undisturbed", {"kills": 0, "rounds": 0, "volumes after each": [], "lost": []}
    finish("prepare", prepare_options(sources, undisturbed, shards))
    whole = Store(undisturbed)
    while found["kills"] < kills:
        store, held = folder / f"store_{found['rounds']}", dict[str, str]()
        found["rounds"] += 1
        options = prepare_options(sources, store, shards)
        while found["kills"] < kills:
            files = _listing(store)
            changed = lambda files=files, store=store: _listing(store) != files  # noqa: E731
            if not kill_when("prepare", options, changed, rng.uniform(0, MOST_WAIT_S)):
                break
            found["kills"] += 1
            before, held = held, _verified(store)
            found["lost"] += [id_ for id_, digest in before.items() if held.get(id_) != digest]
            found["volumes after each"].append(len(held))
        finish("prepare", options)
        one = Store(store)
        found["lost"] += [] if voxels(one) == voxels(whole) else [f"voxels of {store.name}"]
        found["lost"] += [] if StoreIdentity.of(one).digest == StoreIdentity.of(whole).digest else ["the digest"]
        found["lost"] += [f"{name} is left over" for name in _names(store) ^ _names(undisturbed)]
    return found


def _verified(store: Path) -> dict[str, str]:
    """Checksums of the volumes that the index names, each compared with what lies there."""
    if not (store / "index.jsonl").exists():
        return {}
    opened = Store(store)
    volumes = [opened[number] for number in range(len(opened))]
    for volume in volumes:
        opened.verify(volume)
    return {volume.id: volume.sha256 for volume in volumes}


def _listing(folder: Path) -> list[tuple[str, int]]:
    found = []
    for path in sorted(folder.glob("[vs]*/**/*")) + sorted(folder.glob("index*")):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
            found.append((str(path.relative_to(folder)), path.stat().st_size))
    return found


def _names(folder: Path) -> set[str]:
    """Files of a finished store; shards have names of their content."""
    return {name for name, _ in _listing(folder) if not name.endswith(".shard")}


def train_options(store: Path, output: Path) -> list[str]:
    options = (*SMALL, f"data.store={store}", f"run.output={output}", "run.keep_freed_memory=false")
    return ["--config", str(CONFIG), *(f"--{option}" for option in options)]


def of_train(folder: Path, sources: Path, shards: bool, kills: int, rng: random.Random) -> dict[str, Any]:
    store, undisturbed = folder / "store", folder / "undisturbed_run"
    finish("prepare", prepare_options(sources, store, shards))
    finish("train", train_options(store, undisturbed))
    found: dict[str, Any] = {"kills": 0, "rounds": 0, "newest checkpoint after each": [], "lost": []}
    while found["kills"] < kills:
        output, newest = folder / f"run_{found['rounds']}", 0
        found["rounds"] += 1
        options = train_options(store, output)
        while found["kills"] < kills:
            lines = _lines(output)
            moved = lambda lines=lines, output=output: _lines(output) > lines + 1  # noqa: E731 - the first is its start
            if not kill_when("train", options, moved, rng.uniform(0, MOST_WAIT_S)):
                break
            found["kills"] += 1
            path = newest_checkpoint(output / "checkpoints")
            before, newest = newest, 0 if path is None else load_checkpoint(path)["step"]
            found["lost"] += [f"checkpoint {before}"] if newest < before else []
            found["newest checkpoint after each"].append(newest)
        finish("train", options)
        one, other = (
            _tensors(load_checkpoint(newest_checkpoint(run / "checkpoints"))) for run in (output, undisturbed)
        )
        found["lost"] += [name for name in one.keys() | other.keys() if not _equal(name, one, other)]
        found["lost"] += [] if _metrics(output) == _metrics(undisturbed) else ["metrics"]
    return found


def _lines(output: Path) -> int:
    path = output / METRICS_FILE
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _tensors(state: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return {prefix: state}
    items = state.items() if isinstance(state, dict) else ()
    return {name: t for key, value in items for name, t in _tensors(value, f"{prefix}.{key}").items()}


def _equal(name: str, one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return name in one and name in other and torch.equal(one[name], other[name])


def _metrics(run: Path) -> dict[int, dict[str, Any]]:
    """The scalars of each step that no clock decides."""
    clock = {"time_s", "elapsed_s", "step_s", "samples_per_s", "data_wait", "eta_s", "mfu"}
    told = (event for event in read_events(run) if event["event"] == "metrics")
    return {event["step"]: {k: v for k, v in event.items() if k not in clock} for event in told}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="of each of the four")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    figures: dict[str, Any] = {"git": git_state()}
    with tempfile.TemporaryDirectory() as made, ThreadPoolExecutor() as pool:
        sources, few = Path(made) / "scans", Path(made) / "few"
        write_scans(sources, VOLUMES)
        write_scans(few, 5)
        asked = {}
        for number, (which, shards) in enumerate({"a file a volume": False, "shards": True}.items()):
            for kind, (work_of, scans) in {"prepare": (of_prepare, sources), "train": (of_train, few)}.items():
                folder = Path(made) / f"{kind}_{number}"
                folder.mkdir()
                rng = random.Random(f"{given.seed} {kind} {which}")
                asked[pool.submit(work_of, folder, scans, shards, given.kills, rng)] = f"{kind}, {which}"
        for done in as_completed(asked):
            figures[asked[done]] = done.result()
            print(json.dumps({asked[done]: done.result()}), flush=True)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
