"""`kill -9` at random moments, again and again: what `prepare` and `train` lose by it, which must be nothing.

    python benchmarks/kill_9.py --kills 10          # of each: prepare and train, with and without shards

Each command is killed so often at random moments, always started again, and then let end. After each kill every
volume that the index names must be whole and none may have gone, and the newest checkpoint must be readable and no
older than before. At the end the store holds what that of an undisturbed `prepare` holds, voxel by voxel, under the
same digest; and the last checkpoint of the run is that of an undisturbed run to the bit, with the same metrics at every
step. The run's crops grow half-way (`early`), and its student leaves patches out, so kills fall on either side of that.
Index and shards are written after every volume instead of every 30 s, so that kills fall into writing them.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from pretrain.data.identity import StoreIdentity
from pretrain.data.store import Box, Store
from pretrain.observe.monitor import METRICS_FILE, read_events
from pretrain.state_files import load_checkpoint
from pretrain.training.checkpoint import newest_checkpoint
from tapct.records import git_state

CONFIG = Path(__file__).parents[1] / "pretrain" / "configs" / "tap_debug.yaml"
VOLUMES, SHAPE = 150, (40, 96, 96)
SHARD_GB = "0.0008"
STEPS = 120
PREPARE = (
    "import sys; from pretrain import prepare; from pretrain.data import prepare as p; "
    "p.SAVE_EVERY_S = p._SAVING = 0.0; sys.exit(prepare.main(sys.argv[1:]))"
)
SMALL = (
    *("crops.global_size=[4, 32, 32]", "crops.local_size=[4, 16, 16]", "crops.num_local=2", "data.slab_slices=4"),
    *("early.global_size=[4, 16, 16]", "early.local_size=[4, 8, 8]", "early.full_size_last=0.5"),
    *("masking.drop=0.25", "heads.prototypes=64", "heads.hidden_dim=32", "heads.bottleneck_dim=16"),
    *("run.micro_batch_size=2", "run.micro_batches=2", f"run.steps={STEPS}", "run.checkpoint_every=1", "run.keep=2"),
)
PATIENCE_S = 300


def write_scans(folder: Path) -> None:
    """Cylinders of tissue in air, with noise."""
    _, y, x = np.mgrid[tuple(slice(n) for n in SHAPE)]
    inside = (y - SHAPE[1] / 2) ** 2 + (x - SHAPE[2] / 2) ** 2 < (0.4 * SHAPE[1]) ** 2
    folder.mkdir()
    for number in range(VOLUMES):
        noise = np.random.default_rng(number).normal(0, 20, SHAPE)
        hu = (np.where(inside, 40, -1000) + noise).astype(np.int16)
        nib.save(nib.Nifti1Image(hu.transpose(2, 1, 0), np.diag([-1.5, -1.5, 2.0, 1.0])), folder / f"{number:03}.nii")


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(command: Sequence[str]) -> None:
    process = start(command)
    _, said = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"exit status {process.returncode}: {said.decode()[-2000:]}")


def kill_when(command: Sequence[str], moved: Callable[[], bool], wait_s: float) -> bool:
    """Starts a command and kills it some time after it moved on; False where it had ended by then."""
    process = start(command)
    end = time.monotonic() + PATIENCE_S
    while not moved() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(wait_s)
    killed = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return killed


def prepare_command(sources: Path, store: Path, shards: bool) -> list[str]:
    return ["-c", PREPARE, str(sources), "-o", str(store), "--workers", "1", *(["--shard-gb", SHARD_GB] * shards)]


def voxels(store: Store) -> dict[str, bytes]:
    whole = {store[n].id: store.read(store[n], Box(0, 0, 0, *store[n].shape)) for n in range(len(store))}
    return {id_: array.tobytes() for id_, array in whole.items()}


def of_prepare(folder: Path, sources: Path, shards: bool, kills: int, draw: random.Random) -> dict[str, Any]:
    store, undisturbed = folder / "store", folder / "undisturbed"
    finish(prepare_command(sources, undisturbed, shards))
    held: dict[str, str] = {}
    found: dict[str, Any] = {"kills": 0, "volumes after each": [], "lost": 0}
    while found["kills"] < kills:
        files = _listing(store)
        changed = lambda files=files: _listing(store) != files  # noqa: E731 - of this turn's files
        found["kills"] += kill_when(prepare_command(sources, store, shards), changed, draw.uniform(0, 0.4))
        if (store / "index.jsonl").exists():
            opened = Store(store)
            now = {opened[n].id: opened[n].sha256 for n in range(len(opened))}
            for number in range(len(opened)):
                opened.verify(opened[number])
            found["lost"] += len([id_ for id_, digest in held.items() if now.get(id_) != digest])
            held = now
        found["volumes after each"].append(len(held))
        if len(held) == VOLUMES:
            raise SystemExit(f"all was done after {found['kills']} kills; raise VOLUMES")
    finish(prepare_command(sources, store, shards))
    one, other = Store(store), Store(undisturbed)
    found["voxels equal"] = voxels(one) == voxels(other)
    found["digest equal"] = StoreIdentity.of(one).digest == StoreIdentity.of(other).digest
    found["left over"] = sorted(set(_listing(store, sizes=False)) ^ set(_listing(undisturbed, sizes=False)))
    return found


def _listing(folder: Path, sizes: bool = True) -> list[Any]:
    found = []
    for path in sorted(folder.glob("[vs]*/**/*")) + sorted(folder.glob("index*")):
        try:
            name = "shard" if path.suffix == ".shard" and not sizes else str(path.relative_to(folder))
            found.append((name, path.stat().st_size) if sizes else name)
        except FileNotFoundError:  # renamed meanwhile
            continue
    return found


def train_command(store: Path, output: Path) -> list[str]:
    options = (*SMALL, f"data.store={store}", f"run.output={output}")
    return ["-m", "pretrain.train", "--config", str(CONFIG), *(f"--{option}" for option in options)]


def of_train(folder: Path, store: Path, kills: int, draw: random.Random) -> dict[str, Any]:
    output, undisturbed = folder / "run", folder / "undisturbed_run"
    finish(train_command(store, undisturbed))
    found: dict[str, Any] = {"kills": 0, "newest checkpoint after each": [], "lost": 0}
    newest = 0
    while found["kills"] < kills:
        lines = _lines(output)
        moved = lambda lines=lines: _lines(output) > lines + 1  # noqa: E731 - more than the word of the start
        found["kills"] += kill_when(train_command(store, output), moved, draw.uniform(0, 0.5))
        path = newest_checkpoint(output / "checkpoints")
        step = 0 if path is None else load_checkpoint(path)["step"]
        found["lost"] += step < newest
        newest = step
        found["newest checkpoint after each"].append(step)
        if step == STEPS:
            raise SystemExit(f"all was done after {found['kills']} kills; raise STEPS")
    finish(train_command(store, output))
    states = [_tensors(load_checkpoint(path)) for run in (output, undisturbed) if (path := _last(run))]
    found["tensors that differ"] = [n for n in states[0].keys() | states[1].keys() if not _equal(n, *states)]
    found["metrics equal"] = _metrics(output) == _metrics(undisturbed)
    return found


def _last(run: Path) -> Path | None:
    return newest_checkpoint(run / "checkpoints")


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
    draw = random.Random(given.seed)
    figures: dict[str, Any] = {"git": git_state()}
    with tempfile.TemporaryDirectory() as made:
        sources = Path(made) / "scans"
        write_scans(sources)
        for shards in (False, True):
            folder = Path(made) / ("packed" if shards else "single")
            folder.mkdir()
            which = "shards" if shards else "a file a volume"
            figures[f"prepare, {which}"] = of_prepare(folder, sources, shards, given.kills, draw)
            print(json.dumps(figures), flush=True)
            figures[f"train, {which}"] = of_train(folder, folder / "store", given.kills, draw)
            print(json.dumps(figures), flush=True)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
