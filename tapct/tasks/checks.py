"""Reading every case once before any GPU time is spent, and remembering what was found."""

import difflib
import functools
import hashlib
import json
from collections.abc import Collection, Container, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from loguru import logger
from torch.utils.data import DataLoader, Dataset

from tapct._utils import terminal
from tapct._utils.files import cache_folder, stamp_of, write_atomically
from tapct.errors import TapctError, TaskError
from tapct.source_code import code_of
from tapct.tasks import alignment, anatomy
from tapct.tasks.anatomy import AnatomicalOrientation
from tapct.tasks.dataset import CTDataset
from tapct.tasks.look import Look, look_at
from tapct.volumes import files_of

SHOWN = 10
"""Cases that a message names."""

ACCEPT_ALL = "all"
"""Instead of names: every case is accepted as it lies."""


WRONG_FIX = (
    "Compare them with the release, and fix or fetch them again, or leave them out with a split_file of your own. A "
    "patient who is like that (situs inversus) is accepted by name: data.init_args.accept_orientation: [CASE, ...], or "
    "[all], which the record names"
)


class CaseOf(NamedTuple):
    """A case of a dataset."""

    dataset: CTDataset
    case: str


class Accepted:
    """Cases that may lie otherwise than their headers say: these names, or all."""

    def __init__(self, dataset: CTDataset, names: Collection[str]) -> None:
        """Initializes it.

        Args:
            dataset: Of the task.
            names: Cases of the task's split, on whatever side, or `ACCEPT_ALL` alone.

        Raises:
            TaskError: If a name is no case.
        """
        self._all = list(names) == [ACCEPT_ALL]
        self._names = set(names)
        cases = {case for part in dataset.table.cases.values() for case in part}
        for name in sorted(self._names - cases) if not self._all else ():
            close = " or ".join(difflib.get_close_matches(name, cases, 3)) or "one of its split file"
            raise TaskError(f"accept_orientation: {dataset.spec.name} has no case '{name}'. Did you mean {close}?")

    def __contains__(self, case: object) -> bool:
        return self._all or case in self._names


@dataclass(frozen=True, eq=False)
class CaseCheck:
    """What was found in a case.

    Attributes:
        of: The case.
        broken: Why it cannot be used; empty where it can.
        orientation: What its organs say of its orientation; nothing where it is broken or has no labels.
        notes: What a user should know of how its scan was read.
        look: What it looks like, where that was asked for.
    """

    of: CaseOf
    broken: str = ""
    orientation: AnatomicalOrientation = field(default_factory=AnatomicalOrientation)
    notes: tuple[str, ...] = ()
    look: Look | None = None


class _Found(NamedTuple):
    """What reading a case gave; see `CaseCheck`."""

    broken: str = ""
    orientation: AnatomicalOrientation = AnatomicalOrientation()
    notes: tuple[str, ...] = ()
    look: Look | None = None


class _Reader(Dataset):
    """Reads cases; whatever goes wrong with one is said of that one."""

    def __init__(self, todo: Sequence[CaseOf], looks: Collection[CaseOf]) -> None:
        self._todo, self._looks = todo, looks
        self._plain = {dataset: dataset.perturbed(None) for dataset in {of.dataset for of in todo}}

    def __len__(self) -> int:
        return len(self._todo)

    def __getitem__(self, index: int) -> _Found:
        dataset, case = self._todo[index]
        try:
            return self._read(self._plain[dataset], case, self._todo[index] in self._looks)
        except TapctError as error:
            return _Found(str(error))
        except MemoryError as error:
            why = f"there is not enough memory to read it ({error})"
        except Exception as error:  # noqa: BLE001 - whatever a damaged file makes a library raise: there are other cases
            why = f"{type(error).__name__}: {error}"
        return _Found(f"{dataset.spec.name}, case {case}: {why}")

    def _read(self, dataset: CTDataset, case: str, chosen: bool) -> _Found:
        ct, target = dataset.read(case)
        labels = target.numpy() if dataset.spec.of_kind.dense else None
        orientation = AnatomicalOrientation() if labels is None else anatomy.judge(ct, labels, dataset.classes)
        wanted = chosen or (self._looks and orientation.wrong)
        look = look_at(ct, labels, dataset.point_mm(case)) if wanted else None
        return _Found("", orientation, ct.notes, look)


def cases_of(datasets: Sequence[CTDataset]) -> list[CaseOf]:
    """Returns the cases of the parts of a task, each once: of a cross-validated one they train and are reported."""
    found = {case: CaseOf(dataset, case) for dataset in reversed(datasets) for case in reversed(dataset.cases)}
    return list(found.values())[::-1]


def examine(cases: Sequence[CaseOf], num_workers: int = 0, looks: Collection[CaseOf] = ()) -> Iterator[CaseCheck]:
    """Reads the cases that were not found valid before, and says of every case what was found.

    A case is remembered in `checked/` of the cache folder by the stamps of its files (name, size, times, inode) and
    the code that read them, so that a large dataset is read through once, and a file that changed is read again. One
    that is broken is not remembered.

    Args:
        cases: Of one task; they are read as they are on disk, without perturbation.
        num_workers: Processes that read.
        looks: Those of them that are looked at as well, remembered or not. If there are any, so are all that lie
            wrongly.

    Raises:
        TaskError: If a process that reads was killed.
    """
    if not cases:
        return
    name = cases[0].dataset.spec.name
    memory = cache_folder() / "checked" / f"{name}.json"
    valid = _recall(memory)
    keys = {of: _key(*of) for of in cases}
    known = {of: valid[key] for of, key in keys.items() if key in valid}
    todo = [of for of in keys if of not in known or of in looks or (looks and known[of].orientation.wrong)]
    if not todo:
        yield from (CaseCheck(of, *known[of]) for of in keys)
        return
    found = _read_all(name, todo, looks, num_workers)
    unread = set(keys) - set(todo)
    try:
        for of, key in keys.items():
            check = CaseCheck(of, *known[of]) if of in unread else CaseCheck(of, *next(found))
            if key is not None and not check.broken:
                valid[key] = _Found("", check.orientation, check.notes)
            yield check
    finally:
        _remember(memory, valid)


def _read_all(name: str, todo: Sequence[CaseOf], looks: Collection[CaseOf], num_workers: int) -> Iterator[_Found]:
    loader = DataLoader(_Reader(todo, looks), batch_size=None, num_workers=num_workers)
    try:
        yield from terminal.track(loader, f"checking {name}", total=len(todo))
    except RuntimeError as error:  # of the loader: what a case raises is caught where it is read
        raise TaskError(
            f"{name}: a process that read cases was killed, most likely for want of memory ({error}). Read with fewer "
            "processes: data.init_args.num_workers, or the variable NUM_WORKERS"
        ) from error


def require_valid(datasets: Sequence[CTDataset], num_workers: int = 0, accepted: Container[str] = ()) -> dict[str, str]:
    """Reads every case that was not found valid before.

    Args:
        datasets: Parts of a task.
        num_workers: Processes that read.
        accepted: Cases that may lie otherwise than their headers say.

    Returns:
        What is wrong with the orientation of those that were accepted, by case.

    Raises:
        TaskError: If any cannot be used or lies wrongly, naming the first of them.
    """
    checks = list(examine(cases_of(datasets), num_workers))
    wrong = {check.of.case: check.orientation.wrong for check in checks if check.orientation.wrong}
    refused = [f"{datasets[0].spec.name}, case {case}: {why}" for case, why in wrong.items() if case not in accepted]
    _refuse(datasets[0].spec.name, [check.broken for check in checks if check.broken], refused)
    for case, why in wrong.items():
        logger.warning(f"{datasets[0].spec.name}, case {case} is accepted as it lies: {why}")
    return wrong


def _refuse(task: str, broken: Sequence[str], wrong: Sequence[str]) -> None:
    """Raises a TaskError that names the first of each, if there are any."""
    again = f"`tapct doctor --task {task}` (with the --root, --options and --split-file of this run) lists all"
    said = []
    if broken:
        said.append(
            f"{task}: {len(broken)} cases cannot be used:{_listed(broken)}\n"
            f"Fix them, or leave them out with a split_file of your own, which the record names. {again}"
        )
    if wrong:
        said.append(
            f"{task}: {len(wrong)} cases do not lie as their headers say:{_listed(wrong)}\n{WRONG_FIX}"
            f". {again}, and with --look OUT.png draws them"
        )
    if said:
        raise TaskError("\n".join(said))


def _listed(messages: Sequence[str]) -> str:
    rest = f"\n  ... and {len(messages) - SHOWN} more" if len(messages) > SHOWN else ""
    return "".join(f"\n  {message}" for message in messages[:SHOWN]) + rest


def _key(dataset: CTDataset, case: str) -> str | None:
    """Returns what decides what is found in a case: its files, how and by what code it is read, how organs are judged.

    None where the code cannot be told: such a case is read each time.
    """
    try:
        reading = dataset.reading
    except TaskError:
        return None
    paths = dict.fromkeys([*dataset.scan_paths(case), *dataset.target_paths(case)])
    stamps = [(str(file.absolute()), stamp_of(file)) for path in paths for file in files_of(path)]
    judged = _judge_sha256() if dataset.spec.of_kind.dense else None
    return hashlib.sha256(json.dumps([reading, case, stamps, judged], sort_keys=True).encode()).hexdigest()


@functools.cache
def _judge_sha256() -> str:
    return code_of(anatomy.__name__, alignment.__name__).sha256


def _recall(memory: Path) -> dict[str, _Found]:
    """Returns what is remembered of the valid cases, by key."""

    def valid(found: dict[str, Any]) -> _Found:
        orientation = AnatomicalOrientation(tuple(found["judged"]), found["wrong"], found["odd"])
        return _Found("", orientation, tuple(map(str, found["notes"])))

    try:
        content = json.loads(memory.read_text(encoding="utf-8"))
        return {key: valid(found) for key, found in content.items()}
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return {}  # nothing, or nothing that can be read: every case is read, as the first time


def _remember(memory: Path, valid: dict[str, _Found]) -> None:
    content = {key: {**asdict(found.orientation), "notes": found.notes} for key, found in sorted(valid.items())}
    try:
        write_atomically(memory, json.dumps(content))
    except OSError as error:
        logger.warning(f"cannot remember which cases are valid, so they are read again next time: {error}")
