"""Reading every case once before any GPU time is spent, and remembering which were sound."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from loguru import logger
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from tapct.errors import TapctError, TaskError
from tapct.files import cache_folder, write_atomically
from tapct.tasks.dataset import CTDataset

SHOWN = 10
"""Broken cases that a message names."""


class _Case(Dataset):
    """Reads cases for what is wrong with them: "" or the message."""

    def __init__(self, todo: Sequence[tuple[CTDataset, int]]) -> None:
        self._todo = todo

    def __len__(self) -> int:
        return len(self._todo)

    def __getitem__(self, index: int) -> str:
        dataset, case = self._todo[index]
        try:
            dataset.read(dataset.cases[case])
        except TapctError as error:
            return str(error)
        return ""


def broken_cases(datasets: Sequence[CTDataset], num_workers: int = 0) -> Iterator[str]:
    """Reads the cases that were not found sound before, and yields what is wrong with each broken one.

    A case is remembered by the name, size and time of its files in `checked/` of the cache folder, so that a
    large dataset is read through once, and a file that changed is read again.

    Args:
        datasets: Their cases are read.
        num_workers: Processes that read.
    """
    memory = cache_folder() / "checked" / f"{datasets[0].spec.name}.json"
    sound = _recall(memory)
    keys = {(dataset, i): _key(dataset, case) for dataset in datasets for i, case in enumerate(dataset.cases)}
    todo = [entry for entry, key in keys.items() if key not in sound]
    if not todo:
        return
    loader = DataLoader(_Case(todo), batch_size=None, num_workers=num_workers)
    try:
        messages = track(loader, f"checking {datasets[0].spec.name}", total=len(todo), transient=True)
        for entry, message in zip(todo, messages, strict=True):
            if message:
                yield message
            else:
                sound.add(keys[entry])
    finally:
        try:
            write_atomically(memory, json.dumps(sorted(sound)))
        except OSError as error:
            logger.warning(f"cannot remember which cases are sound, so they are read again next time: {error}")


def require_sound(datasets: Sequence[CTDataset], num_workers: int = 0) -> None:
    """Reads every case that was not found sound before.

    Raises:
        TaskError: If any cannot be used, naming the first of them.
    """
    broken = list(broken_cases(datasets, num_workers))
    if broken:
        spec = datasets[0].spec
        rest = f"\n  ... and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
        listed = "".join(f"\n  {message}" for message in broken[:SHOWN])
        raise TaskError(
            f"{spec.name}: {len(broken)} cases cannot be used:{listed}{rest}\n"
            f"Mend them, or leave them out with a split_file of your own, which the record names. "
            f"`tapct doctor --task {spec.name}` (with the --root, --options and --split_file of this run) lists all"
        )


def _key(dataset: CTDataset, case: str) -> str:
    """Returns what decides whether a case is sound: its files, and how the task reads them."""
    stats = [(str(p.absolute()), *_stamp(p)) for p in dataset.paths(case)]
    content = [case, dataset.spec.name, dataset.spec.version, dataset.describe(), stats]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _stamp(path: Path) -> tuple[int, int, int]:
    """Returns the number of files, their bytes, and the time of the newest, in ns; zeros for a missing path."""
    if path.is_dir():
        entries = [entry.stat() for entry in os.scandir(path)]
    elif path.exists():
        entries = [path.stat()]
    else:
        entries = []
    return len(entries), sum(e.st_size for e in entries), max((e.st_mtime_ns for e in entries), default=0)


def _recall(memory: Path) -> set[str]:
    try:
        return set(json.loads(memory.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return set()  # nothing was remembered: every case is read, as the first time
