"""What a folder of records amounts to: models, tasks, their statistics, and what was left out and why."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

from tapct import terminal
from tapct.errors import RecordError
from tapct.leaderboard import marks
from tapct.leaderboard.adaptors import AdaptorGrid
from tapct.leaderboard.compared import (
    PROTOCOLS,
    Contest,
    Entry,
    LeftOut,
    Named,
    contest,
    ranked_metrics,
    usual_adaptor,
    why_no_number,
)
from tapct.leaderboard.inputs import Metric, adaptor_of, from_records
from tapct.leaderboard.marks import Mark, Marked
from tapct.leaderboard.models import names_of
from tapct.leaderboard.official import ranked_adaptor, why_own
from tapct.leaderboard.overall import OverallModel, summarise_tasks
from tapct.leaderboard.overlap import known_overlap
from tapct.leaderboard.paper import PaperRow, read_paper
from tapct.leaderboard.suite import Suite, core, declared
from tapct.leaderboard.summary import RESAMPLES, ModelSummary, TaskSummary, summarise_task
from tapct.leaderboard.text import LONGEST_NAME, plain
from tapct.records import Protocol, Recorded, RecordsFound
from tapct.records.models import is_random
from tapct.records.sections import CardRecord
from tapct.tasks import list_tasks, task_class

Family = Literal["all", "segmentation", "classification"]
FAMILIES: tuple[Family, ...] = get_args(Family)

LONGEST_REASON = 600
"""Characters of a reason that the page shows."""

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
    def is_control(self) -> bool:
        """Whether it is no pretrained encoder: random weights, or no parameters at all."""
        return self.random or not self.card.num_params

    @property
    def parameters(self) -> int:
        """Parameters of the frozen encoder, counted."""
        encoder = next(iter(self.entries.values())).record.encoder
        return encoder.parameters or self.card.num_params

    def overlap(self, task: str) -> tuple[str, ...]:
        """Returns its pretraining data that hold scans of a task; none of random weights."""
        return () if self.random else known_overlap(task, self.card.pretraining_data)


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

    def tie_groups(self, model: str, protocol: Protocol) -> tuple[str, ...]:
        """Returns the letters of the tie groups that a model is in: models that share one cannot be told apart."""
        return tuple(map(letter, self._groups(model, protocol)))

    def letters(self, model: str, protocol: Protocol) -> str:
        """Returns the letters of a model's tie groups in short: ab, a–d, a–d f, y–ac."""
        return in_letters(self._groups(model, protocol))

    def _groups(self, model: str, protocol: Protocol) -> list[int]:
        groups = self.summaries[protocol].comparison.groups if self.summaries else ()
        return [index for index, group in enumerate(groups) if model in group]

    def rank_interval(self, model: str, protocol: Protocol) -> tuple[int, int] | None:
        """Returns the best and the worst rank that a model may have, None where that is not known."""
        return self.summaries[protocol].comparison.rank_intervals.get(model) if self.summaries else None


@dataclass(frozen=True, kw_only=True)
class Board:
    """Everything the page and the tables show.

    Attributes:
        models: The models, by name.
        tasks: The tasks, families together.
        suite: The tasks that mean ranks are over.
        overall: By family and protocol, the mean rank and mean score of each model that has a number on any task of
            the family, over the tasks of the family that are in the suite.
        left_out: What is not shown, and why.
        set_aside: Number of records with a part of the training patients or perturbed scans.
        references: The paper's rows of the tasks.
        own: Records of other tasks, splits or protocols than those that ship: boards of their own.
    """

    models: tuple[Model, ...]
    tasks: tuple[Task, ...]
    suite: Suite
    overall: Mapping[tuple[Family, Protocol], Mapping[str, OverallModel]]
    left_out: tuple[LeftOut, ...]
    set_aside: int
    references: tuple[PaperRow, ...]
    own: tuple["Own", ...] = ()

    def family(self, family: Family) -> list[Task]:
        """Returns the tasks of a family that have records."""
        return [task for task in self.tasks if task.summaries and family in ("all", task.family)]

    def in_suite(self, family: Family) -> list[Task]:
        """Returns the tasks of a family that its mean ranks are over."""
        return [task for task in self.family(family) if task.name in self.suite.tasks]

    @cached_property
    def notices(self) -> dict[str, str]:
        """What must stand on top of the numbers, by task."""
        found = {task.name: task.summaries["native"].notice for task in self.tasks if task.summaries}
        return {name: plain(notice, LONGEST_REASON) for name, notice in found.items() if notice}

    def marks(self, model: Model, task: Task) -> tuple[Marked, ...]:
        """Returns what must stand beside a model's number on a task; nothing where it has none."""
        entry, number = model.entries.get(task.name), task.summary(model.name, "native")
        if entry is None or number is None:
            return ()
        seen = model.overlap(task.name)
        return marks.of_cell(task.summaries["native"], number, entry.record, seen, entry.older_protocol)

    def rank_marks(self, model: Model, family: Family) -> tuple[Marked, ...]:
        """Returns what must stand beside a model's mean rank: what its numbers are, and not how sure each is."""
        of_tasks = (self.marks(model, task) for task in self.in_suite(family))
        return marks.ordered([one for found in of_tasks for one in found if one.mark is marks.OLDER])

    @cached_property
    def legend(self) -> tuple[Mark, ...]:
        """Returns the marks that stand anywhere on it."""
        boards = [self, *(own.board for own in self.own)]
        found = {
            one.mark
            for board in boards
            for model in board.models
            for task in board.tasks
            for one in board.marks(model, task)
        }
        return tuple(mark for mark in marks.MARKS if mark in found)

    def why_missing(self, model: Model, task: Task) -> str:
        """Returns why a model has no number on a task."""
        reasons = [out.reason for out in self.left_out if out.concerns(model, task.name)]
        return "; ".join(reasons) or "no record: the model was not run on this task"


@dataclass(frozen=True, kw_only=True)
class Own:
    """Records that compare with each other, and not with those of the shipped protocol.

    Attributes:
        why: What keeps them apart.
        anchor: Its name in addresses.
        board: The board of them alone, of one task.
    """

    why: str
    anchor: str
    board: Board

    @property
    def task(self) -> Task:
        """The task."""
        return self.board.tasks[0]


def letter(index: int) -> str:
    """Returns a, b, ... z, aa, ab, ... for 0, 1, ..."""
    return (letter(index // 26 - 1) if index >= 26 else "") + chr(ord("a") + index % 26)


def in_letters(numbers: Sequence[int]) -> str:
    """Returns rising numbers as letters, three and more in a row by their ends: ab, a–d, a–df, y–ac."""
    starts = [place for place, number in enumerate(numbers) if not place or numbers[place - 1] != number - 1]
    runs = [numbers[start:end] for start, end in pairwise([*starts, len(numbers)])]
    words: list[str] = []
    for run in runs:
        words += [f"{letter(run[0])}–{letter(run[-1])}"] if len(run) > 2 else map(letter, run)
    return (" " if numbers and numbers[-1] > 25 else "").join(words)


def assemble(found: Mapping[Path, RecordsFound], *, suite: Sequence[str] = (), resamples: int = RESAMPLES) -> Board:
    """Computes a board.

    Args:
        found: The records of each results folder. Files are named relative to theirs; with several, its name in front.
        suite: The tasks that mean ranks are over; by default the core (see `suite`).
        resamples: Resamples of the patients.

    Raises:
        RecordError: If there is no record to show, two are of the same model on the same task, or a task of the suite
            has no record.
    """
    entries, left_out = _entries(found)
    main = [entry for entry in entries if not _is_side_cell(entry.record)]
    if not main:
        raise RecordError(
            f"there is no finished record to show in {', '.join(map(str, found))}, where TASK/CELL/record.json was "
            f"expected ({len(left_out)} cannot be used, {len(entries)} are of label efficiency or robustness alone)"
        )
    by_task: dict[str, list[Named]] = defaultdict(list)
    named = zip(_names([entry.record for entry in main]), main, strict=True)
    for name, entry in terminal.track(named, "cases of records", len(main)):
        if (reason := why_no_number(name, entry.record)) is not None:
            left_out.append(LeftOut(entry.path, reason, name, entry.cell))
            continue
        by_task[entry.record.task.name].append((name, entry))
    contests: dict[str, Contest] = {}
    own: list[tuple[str, str, Contest]] = []
    for task, of_task in sorted(by_task.items()):
        official, others = _by_standing(task, of_task)
        if official:
            contests[task] = contest(task, official, ranked_adaptor(task), resamples)
            others = _merged(others, contests[task].rest)
        while others:
            why = next(iter(others))
            strangers = others.pop(why)
            own.append((task, why, contest(task, strangers, usual_adaptor(strangers), resamples)))
            others = _merged(others, own[-1][2].rest)
    left_out += [out for each in [*contests.values(), *(each for *_, each in own)] for out in each.left_out]
    anchors: set[str] = set()
    tasks = _tasks(contests, resamples, with_paper=True)
    of_ranks = declared(suite, tasks) if suite else core(tasks, list_tasks())
    return Board(
        models=_models(contests, anchors),
        tasks=tasks,
        suite=of_ranks,
        overall=_overall(tasks, of_ranks),
        left_out=tuple(sorted(left_out, key=lambda out: out.path)),
        set_aside=len(entries) - len(main),
        references=tuple(row for row in read_paper() if row.task in {task.name for task in tasks}),
        own=tuple(_own(task, why, each, anchors, resamples) for task, why, each in own),
    )


def _entries(found: Mapping[Path, RecordsFound]) -> tuple[list[Entry], list[LeftOut]]:
    """Returns the records of all folders in the order of their names, and what cannot be used."""
    entries, left_out = [], []
    for name, (folder, of_folder) in zip(_folder_names([*found]), found.items(), strict=True):

        def shown(path: Path, name: Path = name, folder: Path = folder) -> tuple[str, str]:
            inside = path.relative_to(folder)
            return plain((name / inside).as_posix()), inside.parent.as_posix()

        for path, record in of_folder.sound.items():
            own, cell = shown(path)
            entries.append(Entry(own, record, cell))
        for path, reason in of_folder.unsound.items():
            own, cell = shown(path)
            left_out.append(LeftOut(own, plain(reason.replace(f"{folder}/", ""), LONGEST_REASON), cell=cell))
    return sorted(entries, key=lambda entry: entry.path), left_out


def _folder_names(folders: Sequence[Path]) -> list[Path]:
    """Returns what results folders are called on the page: as few of their last parts as tell them apart."""
    if len(folders) == 1:
        return [Path()]
    parts = [folder.resolve().parts for folder in folders]
    most = max(map(len, parts))
    needed = next((n for n in range(1, most) if len({own[-n:] for own in parts}) == len(parts)), most)
    return [Path(*own[-needed:]) for own in parts]


def _by_standing(task: str, found: Sequence[Named]) -> tuple[list[Named], dict[str, list[Named]]]:
    """Returns the comparable records of a task, and the others by why they are not."""
    official: list[Named] = []
    others: dict[str, list[Named]] = defaultdict(list)
    for name, entry in found:
        why = why_own(entry.record)
        (official if why is None else others[why]).append((name, entry))
    ranked = ranked_adaptor(task)
    if official and all(adaptor_of(entry.record) != ranked for _, entry in official):
        others[f"the task is ranked on {ranked}, which no record has"] = official
        official = []
    return official, dict(others)


def _merged(one: Mapping[str, list[Named]], other: Mapping[str, list[Named]]) -> dict[str, list[Named]]:
    return {why: [*one.get(why, []), *other.get(why, [])] for why in [*one, *(w for w in other if w not in one)]}


def _own(task: str, why: str, found: Contest, anchors: set[str], resamples: int) -> Own:
    """Returns a board of records that are compared with each other alone."""
    tasks, alone = _tasks({task: found}, resamples), Suite((task,), declared=True)
    board = Board(
        models=_models({task: found}, anchors),
        tasks=tasks,
        suite=alone,
        overall=_overall(tasks, alone),
        left_out=(),
        set_aside=0,
        references=(),
    )
    return Own(why=plain(why, LONGEST_REASON), anchor=_anchor("own", task, anchors), board=board)


def _is_side_cell(record: Recorded) -> bool:
    """Returns whether a record is of label efficiency or robustness, which the main table does not mix in."""
    return record.task.train_fraction != 1 or bool(record.task.perturbation)


# -- Models --------------------------------------------------------------------------------------------


def _names(records: Sequence[Recorded]) -> list[str]:
    """Returns the name of each record's model: that of its card, and what tells it from others of the same name."""
    called = [
        (plain(record.encoder.card.display_name, LONGEST_NAME) or "without a name")
        + (" (random weights)" if is_random(record) else "")
        for record in records
    ]
    return names_of(records, called)


def _models(contests: Mapping[str, Contest], taken: set[str]) -> tuple[Model, ...]:
    cells = {task: found.cells for task, found in contests.items()}
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


def _tasks(contests: Mapping[str, Contest], resamples: int, *, with_paper: bool = False) -> tuple[Task, ...]:
    """Returns the tasks that have records, or are in the paper: segmentation first, and with records first."""
    installed = list_tasks()
    in_paper = {row.task for row in read_paper() if row.task != "average"} if with_paper else set()
    found = []
    names = {*contests, *in_paper}
    for name in terminal.track(names, "statistics of tasks", len(names)):
        of_task = contests.get(name)
        records = {model: entry.record for model, entry in of_task.cells.items()} if of_task else {}
        spec = task_class(name).spec if name in installed else None
        one = next(iter(records.values())).task if records else spec
        assert one is not None  # it has records, or is in the paper
        assert one.kind is not None  # a record that does not say it has no number
        assert one.metric is not None
        task = Task(
            name=name,
            title=spec.display_name if spec else plain(name, LONGEST_NAME),
            family=one.kind,
            metric=one.metric,
            licence=spec.licence if spec else None,
            summaries=_summaries(records, resamples),
            adaptor=adaptor_of(next(iter(records.values()))) if records else None,
            grid=of_task.grid if of_task else None,
        )
        place = installed.index(name) if spec else len(installed)
        found.append(((FAMILIES.index(task.family), not records, place, name), task))
    return tuple(task for _, task in sorted(found, key=lambda pair: pair[0]))


def _summaries(records: Mapping[str, Recorded], resamples: int) -> dict[Protocol, TaskSummary]:
    if not records:
        return {}
    done: dict[Metric, TaskSummary] = {}
    for metric in ranked_metrics(next(iter(records.values()))).values():
        if metric not in done:
            inputs = from_records(list(records.values()), metric, names=list(records))
            done[metric] = summarise_task(inputs, resamples)
    return {protocol: done[metric] for protocol, metric in ranked_metrics(next(iter(records.values()))).items()}


def _overall(tasks: Sequence[Task], suite: Suite) -> dict[tuple[Family, Protocol], Mapping[str, OverallModel]]:
    found: dict[tuple[Family, Protocol], Mapping[str, OverallModel]] = {}
    for family in FAMILIES:
        members = [task for task in tasks if task.summaries and family in ("all", task.family)]
        for protocol in PROTOCOLS:
            summaries = [task.summaries[protocol] for task in members if task.name in suite.tasks]
            names = dict.fromkeys(model.name for task in members for model in task.summaries[protocol].models)
            found[family, protocol] = {model.name: model for model in summarise_tasks(summaries, list(names))}
    return found
