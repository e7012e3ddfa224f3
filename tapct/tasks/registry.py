"""Finding tasks by name."""

from pathlib import Path

from tapct.errors import TaskError, nearest
from tapct.tasks.quickstart import Quickstart
from tapct.tasks.segmentation import SegmentationDataset

TASKS: dict[str, type[SegmentationDataset]] = {"quickstart": Quickstart}


def list_tasks() -> list[str]:
    """Returns the names of the tasks."""
    return list(TASKS)


def task_class(name: str) -> type[SegmentationDataset]:
    """Returns the dataset class of the task `name`.

    Raises:
        TaskError: If there is none of that name.
    """
    if name not in TASKS:
        raise TaskError(f"there is no task '{name}'. {nearest(name, TASKS)}")
    return TASKS[name]


def task_root(name: str, data_root: str | Path | None) -> Path:
    """Returns the folder of a task: the one of its name under the data root, or what ships with us.

    Raises:
        TaskError: If no data root is given for a task that does not ship, or the folder is not there.
    """
    task = task_class(name)
    if data_root is None:
        shipped = getattr(task, "shipped_root", None)
        if shipped is None:
            raise TaskError(f"{name} needs data: set DATA_ROOT to the folder that holds '{name}/'. {task.spec.source}")
        return Path(shipped)
    root = Path(data_root).expanduser() / name
    if not root.is_dir():
        raise TaskError(f"there is no folder {root}. To obtain the data of {name}: {task.spec.source}")
    return root
