"""Which records of a task compare with each other, under one adaptor and over several; and why others do not."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, get_args

from tapct.errors import RecordError
from tapct.leaderboard.adaptors import AdaptorGrid, adaptor_grid
from tapct.leaderboard.official import is_whole
from tapct.records import Protocol, Recorded
from tapct.records.models import is_random
from tapct.statistics.inputs import adaptor_of, from_records, ranked_metrics

if TYPE_CHECKING:
    from tapct.leaderboard.board import Model

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


@dataclass(frozen=True)
class ListedRecord:
    """A record.

    Attributes:
        path: The file that it is from, as the page names it.
        record: The record.
        experiment: The file's folder within the results folder, TASK/EXPERIMENT.
    """

    path: str
    record: Recorded
    experiment: str = ""

    @cached_property
    def older_protocol(self) -> str | None:
        """Of what older protocol its numbers are, None of today's (see `Record.older_protocol`)."""
        return self.record.older_protocol


@dataclass(frozen=True)
class LeftOut:
    """A file that is not on the page.

    Attributes:
        path: The file, as the page names it.
        reason: Why.
        model: Its model, where the file could be read.
        experiment: Its folder within the results folder, TASK/EXPERIMENT.
    """

    path: str
    reason: str
    model: str | None = None
    experiment: str = ""

    def concerns(self, model: "Model", task: str) -> bool:
        """Returns whether this is why a model has no number on a task.

        What could not be read is known by its folder alone: TASK/ENCODER, with random weights and options behind it.
        """
        folder = f"{task}/{model.label}"
        return self.experiment.startswith(f"{task}/") and (self.experiment == folder or self.model == model.name)


NamedRecord = tuple[str, ListedRecord]
"""A model's name and its record."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What compares of a task's records.

    Attributes:
        experiments: By model, the records that are ranked.
        grid: Its encoders under several adaptors, if there are several.
        crossed: The records of that, by model and adaptor.
        rest: What does not compare with them, and why.
        left_out: What is shown nowhere.
    """

    experiments: Mapping[str, ListedRecord]
    grid: AdaptorGrid | None
    crossed: Mapping[tuple[str, str], Recorded]
    rest: Mapping[str, list[NamedRecord]]
    left_out: list[LeftOut]


def contest(task: str, found: Sequence[NamedRecord], ranked: str | None, resamples: int) -> Contest:
    """Returns what compares of a task's records.

    Args:
        task: The task.
        found: Its records, at least one of them under the ranked adaptor.
        ranked: The adaptor that they are ranked on.
        resamples: Resamples of the patients.

    Raises:
        RecordError: If two records are of one experiment.
    """
    by_adaptor: dict[str | None, list[NamedRecord]] = defaultdict(list)
    for name, entry in found:
        by_adaptor[adaptor_of(entry.record)].append((name, entry))
    compared: dict[str | None, dict[str, ListedRecord]] = {}
    rest: dict[str, list[NamedRecord]] = defaultdict(list)
    left_out: list[LeftOut] = []
    for adaptor, of_adaptor in by_adaptor.items():
        first, others, copies = _sets(task, of_adaptor)
        compared[adaptor] = first
        left_out += copies
        for why, named in others.items():
            rest[why] += named
    grid, crossed = None, dict[tuple[str, str], Recorded]()
    if ranked is not None and len(compared) > 1:
        grid, crossed, incomparable = grid_of(ranked, {a or "": of for a, of in compared.items()}, resamples)
        left_out += incomparable
    return Contest(experiments=compared[ranked], grid=grid, crossed=crossed, rest=rest, left_out=left_out)


def usual_adaptor(found: Sequence[NamedRecord]) -> str | None:
    """Returns the adaptor of the most records; one that is told where to look (`:mask`) only if there is no other."""
    counts = Counter(adaptor_of(entry.record) for _, entry in found)
    return min(counts, key=lambda one: ((one or "").endswith(":mask"), -counts[one], one or ""))


def grid_of(
    ranked: str, found: Mapping[str, Mapping[str, ListedRecord]], resamples: int
) -> tuple[AdaptorGrid | None, dict[tuple[str, str], Recorded], list[LeftOut]]:
    """Returns a task's encoders under its adaptors, their records, and what does not compare with the ranked."""
    first_name, first = next(iter(found[ranked].items()))
    metric, left_out = ranked_metrics(first.record)["native"], []
    experiments: dict[tuple[str, str], Recorded] = {}
    for adaptor, of_adaptor in found.items():
        for name, entry in of_adaptor.items():
            try:
                names = [f"{first_name} with {ranked}", f"{name} with {adaptor}"]
                if entry is not first:
                    from_records([first.record, entry.record], metric, names=names, vary={"adaptor"})
            except RecordError as error:
                left_out.append(LeftOut(entry.path, str(error), name, entry.experiment))
            else:
                experiments[name, adaptor] = entry.record
    if len({adaptor for _, adaptor in experiments}) < 2:
        return None, {}, left_out
    controls = {name for (name, _), one in experiments.items() if is_random(one) or not one.encoder.card.num_params}
    return adaptor_grid(experiments, metric, ranked, controls=controls, resamples=resamples), experiments, left_out


def _sets(
    task: str, found: Sequence[NamedRecord]
) -> tuple[dict[str, ListedRecord], dict[str, list[NamedRecord]], list[LeftOut]]:
    """Returns the records that compare with each other, by model; the others by the reason; and copies.

    Where there are several such sets, it is one with as many cases as the shipped split; of these the largest, and of
    equally large ones the first in order of the paths.
    """
    sets: list[dict[str, ListedRecord]] = []
    copies = []
    for name, entry in found:
        for own in sets:
            first, one = next(iter(own.items()))
            if _why_not(first, one.record, name, entry.record) is None:
                if name in own:
                    copies.append(_copy(task, name, own[name], entry))
                own.setdefault(name, entry)
                break
        else:
            sets.append({name: entry})
    best = max(sets, key=lambda own: (is_whole(next(iter(own.values())).record), len(own)))
    first, one = next(iter(best.items()))
    rest: dict[str, list[NamedRecord]] = defaultdict(list)
    for own in sets:
        if own is not best:
            other, another = next(iter(own.items()))
            rest[_why_not(first, one.record, other, another.record) or ""] += own.items()
    return best, rest, copies


def _copy(task: str, name: str, one: ListedRecord, other: ListedRecord) -> LeftOut:
    """Returns that a record is left out as a copy of another.

    Raises:
        RecordError: If it is none: which of two results of a model counts is not ours to say.
    """
    if one.record.fingerprint == other.record.fingerprint:
        return LeftOut(other.path, f"a copy of {one.path}", name, other.experiment)
    adaptor = adaptor_of(other.record)
    raise RecordError(
        f"{one.path} and {other.path} are both of {name} on {task}{f' with {adaptor}' if adaptor else ''}: a table can "
        "show one. Move the folder of the other out of the results"
    )


def why_no_number(name: str, record: Recorded) -> str | None:
    """Returns why a record shows no number by itself, None if it does."""
    try:
        for metric in ranked_metrics(record).values():
            from_records([record], metric, names=[name])
    except RecordError as error:
        return str(error)
    return None


def _why_not(first: str, one: Recorded, second: str, other: Recorded) -> str | None:
    """Returns why two records do not compare under the metric of their task, None if they do."""
    names = [first, second if second != first else f"another record of {second}"]
    try:
        for metric in ranked_metrics(one).values():
            from_records([one, other], metric, names=names)
    except RecordError as error:
        return str(error)
    return None
