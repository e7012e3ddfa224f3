"""What a task's folder holds against what its release has, for the doctor."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from tapct.errors import TapctError, TaskError
from tapct.tasks.checks import broken_cases
from tapct.tasks.dataset import ARCHIVES, CTDataset
from tapct.tasks.registry import task_class, task_datasets, task_root

SHOWN = 5
"""Names that a finding lists."""


Finding = tuple[Literal["ok", "warn", "fail"], str, str]
"""Status ("warn": a run goes on), message, how to mend it."""


def findings(
    task: str,
    data_root: str | None,
    num_workers: int = 0,
    options: Mapping[str, Any] | None = None,
    split_file: str | None = None,
) -> Iterator[Finding]:
    """Compares a task's folder with its release, and reads every case.

    Args:
        task: Name of the task.
        data_root: Folder that holds one folder per task.
        num_workers: Processes that read.
        options: Settings of the task's dataset.
        split_file: Another split than the task's own.

    Yields:
        The findings.
    """
    spec = task_class(task).spec
    obtain = f"to obtain the data: {spec.source} (licence: {spec.licence})"
    try:
        root = task_root(task, data_root)
        parts = [part for part in task_datasets(task, root, split_file, options).values() if part is not None]
        missing = list(_missing(parts))
    except TapctError as error:
        yield "fail", str(error), obtain
        return
    yield "ok", f"{root}, licence of the data: {spec.licence}", ""
    counts = ", ".join(f"{len(part)} {part.split}" for part in parts)
    total = sum(len(part) for part in parts)
    whole = total - len(missing)
    if missing:
        packed = sorted({p.name for pattern in ARCHIVES for p in root.glob(pattern)})
        unpack = f"unpack {_some(packed)} in {root}; else " if packed else ""
        yield "fail", f"{whole} of {total} cases are there; missing: {_some(missing)}", unpack + obtain
        yield from _hints(parts)
    else:
        yield "ok", f"all {total} cases are there ({counts})", ""
    for case, reason in parts[0].excluded.items():
        yield "warn", f"{case} is left out: {reason}", ""
    yield from _unexpected(root, parts)
    if not missing:
        broken = list(broken_cases(parts, num_workers))
        for message in broken:
            yield "fail", message, "fetch the file again, or leave the case out with a split_file of your own"
        if not broken:
            yield "ok", f"all {total} cases can be read, scan and target", ""


def _missing(parts: list[CTDataset]) -> Iterator[str]:
    for part in parts:
        for case in part.cases:
            if absent := [p for p in part.paths(case) if not p.exists()]:
                yield f"{case} ({absent[0].name})"


def _hints(parts: list[CTDataset]) -> Iterator[Finding]:
    """What a task itself says of missing files, where it knows more than that they are."""
    for part in parts:
        if type(part).validate is not CTDataset.validate:
            try:
                part.validate()
            except TaskError as error:
                yield "fail", str(error), "see the message"
                return


def _unexpected(root: Path, parts: list[CTDataset]) -> Iterator[Finding]:
    """Scans that no split names: another release, or files that do not belong here."""
    wanted = {part.ct_path(case).resolve() for part in parts for case in part.cases}
    excluded = {parts[0].ct_path(case).resolve() for case in parts[0].excluded}
    there = {p.resolve(): p for pattern in parts[0].scan_patterns for p in root.glob(pattern) if p.name[:2] != "._"}
    if extra := sorted(str(there[p].relative_to(root)) for p in there.keys() - wanted - excluded):
        message = f"{len(extra)} scans are in no split of the task: {_some(extra)}"
        yield "warn", message, "they are not used; check that this is the release that the task is made for"


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest
