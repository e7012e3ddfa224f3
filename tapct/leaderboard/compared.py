"""Which records of a task compare: on one adaptor, with heads of one origin, and what is left out, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, get_args

from tapct.errors import RecordError
from tapct.leaderboard.adaptors import AdaptorGrid, adaptor_grid
from tapct.leaderboard.inputs import Metric, adaptor_of, external, from_records
from tapct.records import Protocol, Record
from tapct.records.models import is_random

if TYPE_CHECKING:
    from tapct.leaderboard.board import Model

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


@dataclass(frozen=True)
class Entry:
    """A record, and the file that it is from, relative to the results folder."""

    path: str
    record: Record

    @cached_property
    def older_protocol(self) -> str | None:
        """Of what older protocol its numbers are, None of today's (see `Record.older_protocol`)."""
        return self.record.older_protocol


@dataclass(frozen=True)
class LeftOut:
    """A file that is not on the page.

    Attributes:
        path: The file, relative to the results folder.
        reason: Why.
        model: Its model, where the file could be read.
    """

    path: str
    reason: str
    model: str | None = None

    def concerns(self, model: "Model", task: str) -> bool:
        """Returns whether this is why a model has no number on a task.

        What could not be read is known by its folder alone, TASK/ENCODER or TASK/ENCODER@random.
        """
        folder = f"{task}/{model.card.name}{'@random' * model.random}/"
        return self.path.startswith(f"{task}/") and (self.path.startswith(folder) or self.model == model.name)


def trained_here(found: Sequence[tuple[str, Entry]]) -> tuple[list[tuple[str, Entry]], list[LeftOut]]:
    """Returns the records of a task whose heads were trained in their runs, and the others with the reason.

    Where there are none, the others are returned: their notice stands beside every number.
    """
    here = [(name, entry) for name, entry in found if external(entry.record) is None]
    if not here:
        return list(found), []
    reasons = [(name, entry, external(entry.record)) for name, entry in found]
    return here, [
        LeftOut(
            entry.path, f"{why} They are not ranked with heads that were trained on the task's training cases", name
        )
        for name, entry, why in reasons
        if why
    ]


def ranked_adaptor(task: str, found: Mapping[str | None, Sequence[object]]) -> str | None:
    """Returns what a task is ranked on: its own adaptor where any record has it, else that of the most records.

    One that is told where to look (`:mask`) is ranked only where there is no other.
    """
    from tapct.tasks import list_tasks, task_class

    own = task_class(task).spec.adaptor if task in list_tasks() else None
    return (
        own
        if own in found
        else min(found, key=lambda one: ((one or "").endswith(":mask"), -len(found[one]), one or ""))
    )


def grid_of(
    ranked: str, found: Mapping[str, Mapping[str, Entry]], resamples: int
) -> tuple[AdaptorGrid | None, list[LeftOut]]:
    """Returns a task's encoders under its adaptors, and the records that do not compare with the ranked ones."""
    first_name, first = next(iter(found[ranked].items()))
    metric, left_out = ranked_metrics(first.record)["native"], []
    cells: dict[tuple[str, str], Record] = {}
    for adaptor, of_adaptor in found.items():
        for name, entry in of_adaptor.items():
            try:
                names = [f"{first_name} with {ranked}", f"{name} with {adaptor}"]
                if entry is not first:
                    from_records([first.record, entry.record], metric, names=names, vary={"adaptor"})
            except RecordError as error:
                left_out.append(LeftOut(entry.path, str(error), name))
            else:
                cells[name, adaptor] = entry.record
    if len({adaptor for _, adaptor in cells}) < 2:
        return None, left_out
    controls = {name for (name, _), one in cells.items() if is_random(one) or not one.encoder.card.num_params}
    return adaptor_grid(cells, metric, ranked, controls=controls, resamples=resamples), left_out


def comparable(task: str, found: Sequence[tuple[str, Entry]]) -> tuple[dict[str, Entry], list[LeftOut]]:
    """Returns the records of a task that compare with each other, by model, and the others with the reason.

    Where there are several such sets, the largest is shown, the first in order of the paths if two are as large.
    """
    by_name: dict[str, Entry] = {}
    left_out = []
    for name, entry in found:
        if (reason := _why_not(name, entry.record)) is not None:
            left_out.append(LeftOut(entry.path, reason, name))
            continue
        if name in by_name:
            adaptor = adaptor_of(entry.record)
            cell = f"{name} on {task}{f' with {adaptor}' if adaptor else ''}"
            raise RecordError(
                f"{by_name[name].path} and {entry.path} are both of {cell}: a table can show one. "
                "Move the other out of the folder"
            )
        by_name[name] = entry
    groups: list[list[str]] = []
    why: dict[tuple[str, str], str] = {}
    for name in by_name:
        for group in groups:
            reason = _why_not(group[0], by_name[group[0]].record, (name, by_name[name].record))
            if reason is None:
                group.append(name)
                break
            why[name, group[0]] = why[group[0], name] = reason
        else:
            groups.append([name])
    if not groups:
        return {}, left_out
    largest = max(groups, key=len)
    left_out += [
        LeftOut(by_name[name].path, why.get((name, largest[0])) or why[group[0], largest[0]], name)
        for group in groups
        if group is not largest
        for name in group
    ]
    return {name: by_name[name] for name in largest}, left_out


def _why_not(first: str, one: Record, *others: tuple[str, Record]) -> str | None:
    """Returns why a record shows no number, or does not compare with others, under its task's metric; else None."""
    names, records = [first, *(name for name, _ in others)], [one, *(record for _, record in others)]
    try:
        for metric in ranked_metrics(one).values():
            from_records(records, metric, names=names)
    except RecordError as error:
        return str(error)
    return None


def ranked_metrics(record: Record) -> dict[Protocol, Metric]:
    """Returns the ranked metric under each protocol."""
    if record.task.kind == "segmentation":
        return {"native": "dice_native", "paper": "dice_paper"}
    if record.task.metric is None:
        raise RecordError("a record's task has no metric that it is ranked by")
    return dict.fromkeys(PROTOCOLS, record.task.metric)
