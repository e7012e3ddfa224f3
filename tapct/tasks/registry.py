"""Finding tasks by name: ours and a third party's the same way, through the entry points `tapct.tasks`.

A task is imported when it is asked for by its name, and not to be listed.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from tapct._utils.installed import OURS, SortedEntryPoints, distribution, is_ours, sorted_out
from tapct.errors import TaskError, nearest
from tapct.tasks.dataset import CTDataset
from tapct.tasks.release_scans import ReleaseScans
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import SPLITS

GROUP = "tapct.tasks"

CORE = (
    *("amos22", "lits17", "kits23", "totalsegmentator", "msd_pancreas"),
    *("luna16", "luna25", "rsna2022", "rsna2023", "fdg_pet_ct"),
)
"""The tasks of the benchmark, in the paper's order."""

FIRST = (
    *("quickstart", "quickstart_organs", *CORE, "btcv", "flare22", "word", "cc_ccii"),
    *("totalsegmentator_age", "totalsegmentator_sex", "totalsegmentator_organ_volume", "osic_fvc", "ictcf_lab"),
    *("lung1_survival", "luna16_detection", "vertebra_landmarks", "ct_rate", "rad_chest_ct"),
    "merlin_findings",
    *("ct_rate_retrieval", "totalsegmentator_retrieval", "totalsegmentator_study_retrieval"),
    *("c4kc_kits_retrieval", "nsclc_radiogenomics_retrieval"),
    "ct_rate_report",
    *("rider_lung_retest", "ct_rate_reconstructions"),
)
"""Names that head the list; package metadata keeps entry points in alphabetical order."""


def list_tasks() -> list[str]:
    """Returns the names of all tasks: the quickstart, those of the benchmark, further ones, then third parties'."""
    return list(_entry_points()[0])


def core_tasks() -> list[str]:
    """Returns the names of the tasks of the benchmark, which "all" means."""
    return list(CORE)


def further_tasks() -> list[str]:
    """Returns the names of our other tasks: they are run by name, and enter no default mean rank."""
    return [name for name, point in _entry_points()[0].items() if is_ours(point) and name not in CORE]


def third_party_tasks() -> list[str]:
    """Returns the names of the tasks that other packages install: they are run by name, and rank by themselves."""
    return [name for name, point in _entry_points()[0].items() if not is_ours(point)]


def refused_tasks() -> list[str]:
    """Returns, a sentence each, the tasks that are installed and not listed, with the distribution and why."""
    return list(_entry_points()[1].values())


def task_class(name: str) -> type[CTDataset]:
    """Returns the dataset class of the task `name`.

    Raises:
        TaskError: If there is none of that name, or its entry point cannot be imported or is none of that name.
    """
    found, refused = _entry_points()
    if name not in found:
        raise TaskError(refused.get(name, f"there is no task '{name}'. {nearest(name, found)}"))
    return _loaded(found[name])


def spec_of(name: str) -> TaskSpec | None:
    """Returns what a task is; None where none of that name can be used here (`why_unusable`)."""
    return None if name not in list_tasks() or why_unusable(name) else task_class(name).spec


def shared_scans(name: str) -> str | None:
    """Returns the release whose scans, and so their stored features, a task shares with others; None if it has its own.

    A task that cannot be used here shares nothing.
    """
    spec = spec_of(name)
    return None if spec is None or not issubclass(task_class(name), ReleaseScans) else spec.folder


def why_unusable(name: str) -> str | None:
    """Returns why an installed task cannot be used; None where it can, or there is none of that name."""
    try:
        _ = task_class(name) if name in list_tasks() else None
    except TaskError as error:
        return str(error)
    return None


@functools.lru_cache(maxsize=256)
def _loaded(point: EntryPoint) -> type[CTDataset]:
    what = f"the task '{point.name}' of {distribution(point)}"
    try:
        task = point.load()
    except (Exception, SystemExit) as error:
        raise TaskError(
            f"{what} cannot be imported ({point.value}): {type(error).__name__}: {error}. Fix or uninstall it"
        ) from error
    if not (isinstance(task, type) and issubclass(task, CTDataset) and hasattr(task, "spec")):
        raise TaskError(f"{what} ({point.value}) is not a subclass of `tapct.tasks.CTDataset` with a spec")
    if task.spec.name != point.name:
        raise TaskError(
            f"{what} ({point.value}) has a spec of another name, '{task.spec.name}', under which its records would "
            "stand. Give both one name"
        )
    return task


def _entry_points() -> SortedEntryPoints:
    """Returns the entry points by name, and by name what is refused and why."""
    return _read(entry_points, tuple(sys.path))


@functools.lru_cache(maxsize=4)
def _read(listed: Callable[..., Iterable[EntryPoint]], path: tuple[str, ...]) -> SortedEntryPoints:
    """Returns the same of a search path, looked through once.

    Raises:
        TaskError: If tasks of ours are not there: the code is newer than what was installed of it.
    """
    found, refused = sorted_out(listed(group=GROUP), "task")
    lacking = [name for name in FIRST if name not in found or not is_ours(found[name])]
    if lacking:
        raise TaskError(
            f"{len(lacking)} tasks of {OURS}, such as {lacking[0]}, are in its code and not in its installation, which "
            "is older. Install the checkout again: pip install --no-deps -e ."
        )
    first = {name: found.pop(name) for name in FIRST if name in found}
    ours = {name: point for name, point in found.items() if is_ours(point)}
    return first | ours | found, refused


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
