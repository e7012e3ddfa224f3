"""What a folder of records amounts to: models, tasks, their statistics, and what was left out and why."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from tapct.errors import RecordError
from tapct.leaderboard.adaptors import AdaptorGrid
from tapct.leaderboard.compared import (
    PROTOCOLS,
    Entry,
    LeftOut,
    comparable,
    grid_of,
    ranked_adaptor,
    ranked_metrics,
    trained_here,
)
from tapct.leaderboard.inputs import Metric, adaptor_of, from_records
from tapct.leaderboard.models import names_of
from tapct.leaderboard.overall import OverallModel, summarise_tasks
from tapct.leaderboard.overlap import known_overlap
from tapct.leaderboard.paper import PaperRow, read_paper
from tapct.leaderboard.summary import RESAMPLES, ModelSummary, TaskSummary, summarise_task
from tapct.records import Protocol, Record, RecordsFound
from tapct.records.models import is_random
from tapct.records.sections import CardRecord

Family = Literal["all", "segmentation", "classification"]
FAMILIES: tuple[Family, ...] = get_args(Family)

METRICS: dict[str, str] = {
    "dice_native": "Dice",
    "dice_paper": "Dice",
    "MicroAUROC": "AUROC",
    "MicroAP": "AP",
    "DSC": "Dice",
    "AUC": "AUROC",
    "AP": "AP",
}
"""Metrics as a reader calls them, by their names in records and in the paper."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One row: an encoder with its weights and preprocessing.

    Attributes:
        name: What it is called here; no two models share one.
        anchor: Its name in addresses.
        card: The encoder's card.
        entries: Its records by task.
    """

    name: str
    anchor: str
    card: CardRecord
    entries: Mapping[str, Entry]

    @property
    def random(self) -> bool:
        """Whether its weights are random."""
        return is_random(next(iter(self.entries.values())).record)

    @property
    def parameters(self) -> int:
        """Parameters of the frozen encoder, counted."""
        encoder = next(iter(self.entries.values())).record.encoder
        return encoder.parameters or self.card.num_params

    def overlap(self, task: str) -> tuple[str, ...]:
        """Returns its pretraining data that hold scans of a task; none of random weights."""
        return () if self.random else known_overlap(task, self.card.pretraining_data)

    def older_protocol(self, *tasks: str) -> str:
        """Returns of what older protocol its numbers on any of these tasks are; empty if none is."""
        found = (self.entries[task].older_protocol for task in tasks if task in self.entries)
        return "; ".join(dict.fromkeys(filter(None, found)))


@dataclass(frozen=True, kw_only=True)
class Task:
    """One column.

    Attributes:
        name: The task.
        title: The name in tables.
        family: Its family.
        metric: The metric that is ranked; with several protocols, that of the native one.
        licence: Of the data; None for a task that is not installed here.
        summaries: The statistics under each protocol, which are the same object where it makes no difference; empty
            where no model has a record.
        adaptor: What all its ranked numbers stand on; None where features are not pooled, or nothing was run.
        grid: Its encoders under several adaptors, if there are several.
    """

    name: str
    title: str
    family: Family
    metric: str
    licence: str | None
    summaries: Mapping[Protocol, TaskSummary] = field(default_factory=dict)
    adaptor: str | None = None
    grid: AdaptorGrid | None = None

    @property
    def by_protocol(self) -> bool:
        """Whether the protocols differ."""
        return self.family == "segmentation"

    def summary(self, model: str, protocol: Protocol) -> ModelSummary | None:
        """Returns what a model has on the task, None without a record."""
        models = self.summaries[protocol].models if self.summaries else ()
        return next((each for each in models if each.name == model), None)

    def letters(self, model: str, protocol: Protocol) -> str:
        """Returns the letters of the tie groups that a model is in: models that share one cannot be told apart."""
        groups = self.summaries[protocol].comparison.groups if self.summaries else ()
        return "".join(letter(index) for index, group in enumerate(groups) if model in group)

    def rank_interval(self, model: str, protocol: Protocol) -> tuple[int, int] | None:
        """Returns the best and the worst rank that a model may have, None where that is not known."""
        return self.summaries[protocol].comparison.rank_intervals.get(model) if self.summaries else None


@dataclass(frozen=True, kw_only=True)
class Board:
    """Everything the page and the tables show.

    Attributes:
        models: The models, by name.
        tasks: The tasks, families together.
        overall: By family and protocol, the mean rank and mean score of each model over the family's tasks.
        left_out: What is not shown, and why.
        set_aside: Number of records with a part of the training patients or perturbed scans.
        references: The paper's rows of the tasks.
    """

    models: tuple[Model, ...]
    tasks: tuple[Task, ...]
    overall: Mapping[tuple[Family, Protocol], Mapping[str, OverallModel]]
    left_out: tuple[LeftOut, ...]
    set_aside: int
    references: tuple[PaperRow, ...]

    def family(self, family: Family) -> list[Task]:
        """Returns the tasks of a family that have records."""
        return [task for task in self.tasks if task.summaries and family in ("all", task.family)]

    @cached_property
    def notices(self) -> dict[str, str]:
        """What must stand beside the numbers, by task."""
        found = {task.name: task.summaries["native"].notice for task in self.tasks if task.summaries}
        return {name: notice for name, notice in found.items() if notice}

    def notice(self, family: Family) -> str:
        """Returns what must stand beside a number over all tasks of a family; empty if nothing."""
        names = [task.name for task in self.family(family)]
        return " ".join(dict.fromkeys(notice for name, notice in self.notices.items() if name in names))

    def older_protocol(self, model: Model, family: Family) -> str:
        """Returns of what older protocol a part of a model's number over a family is; empty if none is."""
        return model.older_protocol(*(task.name for task in self.family(family)))

    @property
    def older_protocols(self) -> str:
        """All older protocols that numbers are of; empty if none is."""
        found = (self.older_protocol(model, "all") for model in self.models)
        return "; ".join(dict.fromkeys(filter(None, found)))

    def why_missing(self, model: Model, task: Task) -> str:
        """Returns why a model has no number on a task."""
        reasons = [out.reason for out in self.left_out if out.concerns(model, task.name)]
        return "; ".join(reasons) or "no record: the model was not run on this task"


def letter(index: int) -> str:
    """Returns a, b, ... z, aa, ab, ... for 0, 1, ..."""
    return (letter(index // 26 - 1) if index >= 26 else "") + chr(ord("a") + index % 26)


def assemble(found: RecordsFound, results: Path, *, resamples: int = RESAMPLES) -> Board:
    """Computes a board.

    Args:
        found: The records of a results folder.
        results: The folder: files are named relative to it.
        resamples: Resamples of the patients.

    Raises:
        RecordError: If there is no record to show, or two are of the same model on the same task.
    """
    entries = [Entry(path.relative_to(results).as_posix(), record) for path, record in sorted(found.sound.items())]
    left_out = [
        LeftOut(path.relative_to(results).as_posix(), reason.replace(f"{results}/", ""))
        for path, reason in found.unsound.items()
    ]
    main = [entry for entry in entries if not _is_side_cell(entry.record)]
    if not main:
        raise RecordError(
            f"there is no finished record to show in {results}, where TASK/CELL/record.json was expected "
            f"({len(left_out)} cannot be used, {len(entries)} are of label efficiency or robustness alone)"
        )
    by_task: dict[str, list[tuple[str, Entry]]] = defaultdict(list)
    for name, entry in zip(_names([entry.record for entry in main]), main, strict=True):
        by_task[entry.record.task.name].append((name, entry))
    cells: dict[str, dict[str, Entry]] = {}
    grids: dict[str, AdaptorGrid] = {}
    for task, of_task in by_task.items():
        chosen, elsewhere = trained_here(of_task)
        by_adaptor: dict[str | None, list[tuple[str, Entry]]] = defaultdict(list)
        for name, entry in chosen:
            by_adaptor[adaptor_of(entry.record)].append((name, entry))
        ranked = ranked_adaptor(task, by_adaptor)
        compared = {adaptor: comparable(task, found) for adaptor, found in by_adaptor.items()}
        cells |= {task: compared[ranked][0]} if compared[ranked][0] else {}
        left_out += [*elsewhere, *(out for _, incomparable in compared.values() for out in incomparable)]
        if ranked is not None and task in cells and len(compared) > 1:
            found_grid, incomparable = grid_of(ranked, {a or "": of for a, (of, _) in compared.items()}, resamples)
            left_out += incomparable
            grids |= {task: found_grid} if found_grid else {}
    tasks = _tasks(cells, grids, resamples)
    return Board(
        models=_models(cells),
        tasks=tasks,
        overall=_overall(tasks),
        left_out=tuple(sorted(left_out, key=lambda out: out.path)),
        set_aside=len(entries) - len(main),
        references=tuple(row for row in read_paper() if row.task in {task.name for task in tasks}),
    )


def _is_side_cell(record: Record) -> bool:
    """Returns whether a record is of label efficiency or robustness, which the main table does not mix in."""
    return record.task.train_fraction != 1 or bool(record.task.perturbation)


# -- Models --------------------------------------------------------------------------------------------


def _names(records: Sequence[Record]) -> list[str]:
    """Returns the name of each record's model: that of its card, and what tells it from others of the same name."""
    plain = [
        record.encoder.card.display_name + (" (random weights)" if is_random(record) else "") for record in records
    ]
    return names_of(records, plain)


def _models(cells: Mapping[str, Mapping[str, Entry]]) -> tuple[Model, ...]:
    taken: set[str] = set()
    names = {name for found in cells.values() for name in found}
    models = []
    for name in sorted(names, key=lambda name: (name.casefold(), name)):
        entries = {task: found[name] for task, found in cells.items() if name in found}
        card = next(iter(entries.values())).record.encoder.card
        models.append(Model(name=name, anchor=_anchor("model", name, taken), card=card, entries=entries))
    return tuple(models)


def _anchor(kind: str, name: str, taken: set[str]) -> str:
    """Returns an address that no other has, of letters, digits and hyphens."""
    base = f"{kind}-{re.sub(r'[^a-z0-9]+', '-', name.casefold()).strip('-') or 'x'}"
    anchor, number = base, 2
    while anchor in taken:
        anchor, number = f"{base}-{number}", number + 1
    taken.add(anchor)
    return anchor


# -- Tasks ---------------------------------------------------------------------------------------------


def _tasks(
    cells: Mapping[str, Mapping[str, Entry]], grids: Mapping[str, AdaptorGrid], resamples: int
) -> tuple[Task, ...]:
    """Returns the tasks that have records or are in the paper: segmentation first, and with records first."""
    from tapct.tasks import list_tasks, task_class

    shipped = list_tasks()
    in_paper = {row.task for row in read_paper() if row.task != "average"}
    found = []
    for name in {*cells, *in_paper}:
        records = {model: entry.record for model, entry in cells.get(name, {}).items()}
        spec = task_class(name).spec if name in shipped else None
        one = next(iter(records.values())).task if records else spec
        assert one is not None  # it has records, or is in the paper
        assert one.kind is not None  # `comparable` leaves out what does not say
        assert one.metric is not None
        task = Task(
            name=name,
            title=spec.display_name if spec else name,
            family=one.kind,
            metric=one.metric,
            licence=spec.licence if spec else None,
            summaries=_summaries(records, resamples),
            adaptor=adaptor_of(next(iter(records.values()))) if records else None,
            grid=grids.get(name),
        )
        place = shipped.index(name) if spec else len(shipped)
        found.append(((FAMILIES.index(task.family), not records, place, name), task))
    return tuple(task for _, task in sorted(found, key=lambda pair: pair[0]))


def _summaries(records: Mapping[str, Record], resamples: int) -> dict[Protocol, TaskSummary]:
    if not records:
        return {}
    done: dict[Metric, TaskSummary] = {}
    for metric in ranked_metrics(next(iter(records.values()))).values():
        if metric not in done:
            inputs = from_records(list(records.values()), metric, names=list(records))
            done[metric] = summarise_task(inputs, resamples)
    return {protocol: done[metric] for protocol, metric in ranked_metrics(next(iter(records.values()))).items()}


def _overall(tasks: Sequence[Task]) -> dict[tuple[Family, Protocol], Mapping[str, OverallModel]]:
    found: dict[tuple[Family, Protocol], Mapping[str, OverallModel]] = {}
    for family in FAMILIES:
        members = [task for task in tasks if task.summaries and family in ("all", task.family)]
        for protocol in PROTOCOLS:
            summaries = [task.summaries[protocol] for task in members]
            found[family, protocol] = {m.name: m for m in summarise_tasks(summaries)} if summaries else {}
    return found
