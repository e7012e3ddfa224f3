"""Finding tasks by name."""

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tapct.errors import TaskError, nearest
from tapct.tasks.dataset import CTDataset
from tapct.tasks.splits import SPLITS

TASKS: dict[str, str] = {
    "amos22": "AMOS22",
    "lits17": "LiTS17",
    "kits23": "KiTS23",
    "totalsegmentator": "TotalSegmentator",
    "msd_pancreas": "MSDPancreas",
    "luna16": "LUNA16",
    "luna25": "LUNA25",
    "rsna2022": "RSNA2022",
    "rsna2023": "RSNA2023",
    "fdg_pet_ct": "FDGPETCT",
}
"""The tasks of the benchmark, in the paper's order, to their classes, each in the module of its name here."""

EVA_TASKS: dict[str, str] = {"btcv": "BTCV", "flare22": "FLARE22", "word": "WORD", "cc_ccii": "CCCCII"}
"""Further tasks, of data sets that eva has classes for: they are run by name, and enter no default mean rank."""

_CLASSES = {"quickstart": "Quickstart", **TASKS, **EVA_TASKS}


def list_tasks() -> list[str]:
    """Returns the names of all tasks: the quickstart, those of the benchmark, and eva's."""
    return list(_CLASSES)


def core_tasks() -> list[str]:
    """Returns the names of the tasks of the benchmark, which "all" means."""
    return list(TASKS)


def task_class(name: str) -> type[CTDataset]:
    """Returns the dataset class of the task `name`.

    Raises:
        TaskError: If there is none of that name.
    """
    if name not in _CLASSES:
        raise TaskError(f"there is no task '{name}'. {nearest(name, _CLASSES)}")
    return getattr(importlib.import_module(f"tapct.tasks.{name}"), _CLASSES[name])


def task_root(name: str, data_root: str | Path | None) -> Path:
    """Returns the folder of a task: the one of its release under the data root, or what ships with us.

    Raises:
        TaskError: If no data root is given for a task that does not ship, or the folder is not there.
    """
    task = task_class(name)
    if data_root is None:
        if task.shipped_root is None:
            raise TaskError(
                f"{name} needs data: set DATA_ROOT to the folder that holds '{task.spec.folder}/'. {task.spec.source}"
            )
        return task.shipped_root
    root = Path(data_root).expanduser() / task.spec.folder
    if not root.is_dir():
        raise TaskError(f"there is no folder {root}. To obtain the data of {name}: {task.spec.source}")
    return root


def task_datasets(
    task: str, root: Path, split_file: str | None = None, options: Mapping[str, Any] | None = None
) -> dict[str, CTDataset | None]:
    """Returns the datasets of a task by split, None for a split without cases.

    Args:
        task: Name of a task.
        root: Folder of the task.
        split_file: Another split than the task's own, as `CTDataset` takes it.
        options: Settings of the task's dataset.

    Raises:
        TaskError: If the task or an option is unknown, or the split cannot be read.
    """
    dataset = task_class(task)
    known = set(inspect.signature(dataset.__init__).parameters) - {"self", "root", "split", "split_file"}
    for option in options or {}:
        if option not in known:
            raise TaskError(f"the task {task} has no option '{option}'. {nearest(option, known)}")
    parts = {split: dataset(root, split, split_file, **(options or {})) for split in SPLITS}
    return {split: part if len(part) else None for split, part in parts.items()}
