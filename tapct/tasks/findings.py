"""What a task's folder holds against what its release has, for the doctor."""

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tapct.errors import TapctError, TaskError
from tapct.names import LISTED, listed
from tapct.tasks.anatomy import AXES
from tapct.tasks.checks import WRONG_FIX, Accepted, CaseCheck, CaseOf, cases_of, examine
from tapct.tasks.dataset import ARCHIVES, CTDataset, DoctorFinding
from tapct.tasks.registry import task_class, task_datasets, task_root
from tapct.tasks.table_findings import table_findings

LOOKS = 4
"""Cases that are looked at, next to those that lie wrongly."""


def findings(
    task: str,
    data_root: str | None,
    num_workers: int = 0,
    options: Mapping[str, Any] | None = None,
    split_file: str | None = None,
    accept_orientation: Collection[str] = (),
    show: Callable[[CaseCheck], None] | None = None,
) -> Iterator[DoctorFinding]:
    """Compares a task's folder with its release, and reads every case.

    Args:
        task: Name of the task.
        data_root: Folder that holds one folder per task.
        num_workers: Processes that read.
        options: Settings of the task's dataset.
        split_file: Another split than the task's own.
        accept_orientation: Cases that may lie otherwise than their headers say; see `TaskData`.
        show: Is given some cases of every split that can be read, and those that lie wrongly, to be looked at.

    Yields:
        The findings.
    """
    spec = task_class(task).spec
    obtain = f"to obtain the data: {spec.source} (licence: {spec.licence})"
    try:
        root = task_root(task, data_root)
        parts = [part for part in task_datasets(task, root, split_file, options).values() if part is not None]
        accepted = Accepted(parts[0], accept_orientation)
        missing, doubled = _absent(parts)
    except TapctError as error:
        yield "fail", str(error), obtain
        return
    yield "ok", f"{root}, licence of the data: {spec.licence}", ""
    if spec.notice is not None:
        yield "ok", f"next to every number will stand: {spec.notice}", ""
    yield from parts[0].release_findings()
    yield from _files(root, parts, missing, doubled, obtain)
    absent = missing | doubled
    there = [of for of in cases_of(parts) if of.case not in absent]
    looks = [] if show is None else _spread(there)
    checks, shown = [], 0
    for check in examine(looks if absent else there, num_workers, looks):
        if show is not None and check.look is not None and (check.of in looks or shown < LOOKS):
            show(check)
            shown += check.of not in looks
        checks.append(replace(check, look=None))
    yield from _reading(checks, is_whole=not absent)
    yield from table_findings(there)
    if spec.of_kind.dense:
        yield from _orientation([check for check in checks if not check.broken], accepted)


def _files(
    root: Path, parts: list[CTDataset], missing: Mapping[str, str], doubled: Mapping[str, str], obtain: str
) -> Iterator[DoctorFinding]:
    total = sum(len(part) for part in parts)
    whole = total - len(missing) - len(doubled)
    if missing:
        packed = sorted({p.name for pattern in ARCHIVES for p in root.glob(pattern)})
        unpack = f"unpack {listed(packed)} in {root}; else " if packed else ""
        named = listed([f"{case} ({name})" for case, name in missing.items()])
        yield "fail", f"{whole} of {total} cases are there; missing: {named}", unpack + obtain
        yield from _hints(parts)
    elif not doubled:
        counts = ", ".join(f"{len(part)} {part.split}" for part in parts)
        yield "ok", f"all {total} cases are there ({counts})", ""
        yield from _hints(parts)
    for reason, cases in _by_reason(parts[0].excluded).items():
        are = "is" if len(cases) == 1 else f"({len(cases)} cases) are"
        yield "warn", f"{listed(cases)} {are} left out: {reason}", ""
    if doubled:
        first, *others = doubled.values()
        rest = f"; and so for {len(others)} more cases" if others else ""
        yield "fail", f"{first}{rest}", "see the message: none is taken by chance"
        return
    yield from _unexpected(root, parts)


def _by_reason(excluded: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for case, reason in excluded.items():
        found.setdefault(reason, []).append(case)
    return found


def _spread(cases: Sequence[CaseOf]) -> list[CaseOf]:
    """Returns a few cases that are far apart in the list, always the same."""
    count = min(LOOKS, len(cases))
    return [cases[i * (len(cases) - 1) // max(1, count - 1)] for i in range(count)]


def _reading(checks: Sequence[CaseCheck], is_whole: bool) -> Iterator[DoctorFinding]:
    broken = [check.broken for check in checks if check.broken]
    for message in broken:
        yield "fail", message, "fetch the file again, or leave the case out with a split_file of your own"
    if is_whole and not broken:
        yield "ok", f"all {len(checks)} cases can be read, scan and target", ""
    if noted := [f"{check.of.case}: {' '.join(check.notes)}" for check in checks if check.notes]:
        rest = f" And {len(noted) - LISTED} more." if len(noted) > LISTED else ""
        yield (
            "warn",
            f"how {len(noted)} of {len(checks)} cases are read: {' '.join(noted[:LISTED])}{rest}",
            "a run continues, and its record says so of each; compare them with the release where that is unexpected",
        )


def _orientation(checks: Sequence[CaseCheck], accepted: Container[str]) -> Iterator[DoctorFinding]:
    """What the labelled organs say of right and left, front and back, head and feet."""
    for check in checks:
        if wrong := check.orientation.wrong:
            message = f"{check.of.dataset.spec.name}, case {check.of.case}: {wrong}"
            if check.of.case in accepted:
                yield "warn", f"{message}; it is accepted", ""
            else:
                yield "fail", message, f"draw it with --look OUT.png. {WRONG_FIX}"
    if odd := [f"{check.of.case}: {check.orientation.odd}" for check in checks if check.orientation.odd]:
        message = f"organs of {len(odd)} cases lie where few people have them: {listed(odd, '; ')}"
        yield "warn", message, "draw them with --look OUT.png: are the labels right, and on the right sides?"
    judged = Counter(axis for check in checks for axis in check.orientation.judged)
    agree = [check for check in checks if check.orientation.judged and not check.orientation.wrong]
    if agree:
        rest = "in all others " if any(check.orientation.wrong for check in checks) else ""
        seen = ", ".join(f"{axis} in {judged[axis]}" for axis in AXES)
        yield "ok", f"organs and headers agree {rest}(judged: {seen} of {len(checks)} cases)", ""
    elif judged and len(checks) > 1 and any(check.of.case not in accepted for check in checks):
        message = "not one case lies as its header says: this copy of the release was written the wrong way round"
        yield "fail", message, "fetch it from its origin"
    elif checks and not judged:
        yield (
            "ok",
            "orientation not judged: the labels name no organs that tell it; --look OUT.png draws some cases",
            "",
        )


def _absent(parts: list[CTDataset]) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the cases that lack files, each with the first, and those of which there are two, with what is said."""
    missing: dict[str, str] = {}
    doubled: dict[str, str] = {}
    for part in parts:
        for case in part.cases:
            try:
                absent = [p for p in part.paths(case) if not p.exists()]
            except TaskError as error:
                doubled[case] = str(error)
            else:
                missing |= {case: absent[0].name} if absent else {}
    return missing, doubled


def _hints(parts: list[CTDataset]) -> Iterator[DoctorFinding]:
    """What a task itself says of its files: more than that some are missing, or that nothing can be learnt of them."""
    for part in parts:
        if type(part).validate is not CTDataset.validate:
            try:
                part.validate()
            except TaskError as error:
                yield "fail", str(error), "see the message"
                return


def _unexpected(root: Path, parts: list[CTDataset]) -> Iterator[DoctorFinding]:
    """Scans that no split names, or folders of patients with none: another release, or what does not belong here."""
    named = [part.ct_path(case) for part in parts for case in part.cases]
    named += [parts[0].ct_path(case) for case in parts[0].excluded]
    known = {folder for path in named for folder in (path.resolve(), *path.resolve().parents)}
    there = {p.resolve(): p for pattern in parts[0].scan_patterns for p in root.glob(pattern) if p.name[:2] != "._"}
    if extra := sorted(str(there[p].relative_to(root)) for p in there.keys() - known):
        message = f"{len(extra)} scans are in no split of the task: {listed(extra)}"
        yield "warn", message, "they are not used; check that this is the release that the task is made for"
