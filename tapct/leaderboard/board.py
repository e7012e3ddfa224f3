"""What folders of records amount to: models, tasks, their statistics, and what was left out and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from tapct import kinds
from tapct.encoders.licence import is_non_commercial
from tapct.errors import TaskError
from tapct.kinds import Kind, Metric
from tapct.leaderboard import marks
from tapct.leaderboard.adaptors import AdaptorGrid
from tapct.leaderboard.compared import (
    LeftOut,
    ListedRecord,
)
from tapct.leaderboard.eva_results import EvaNumber
from tapct.leaderboard.imported import Reference
from tapct.leaderboard.marks import Mark, Marked
from tapct.leaderboard.mistakes import MistakeTable
from tapct.leaderboard.overlap import known_overlap
from tapct.leaderboard.paper import AVERAGE, PaperRow
from tapct.leaderboard.reproduction import METRICS, Reproduction
from tapct.leaderboard.suite import RankedSuite
from tapct.leaderboard.text import plain
from tapct.records import Protocol, Recorded
from tapct.records.encoder import CardRecord
from tapct.records.models import is_random
from tapct.similarity.found import Similarity
from tapct.statistics.overall import OverallModel
from tapct.statistics.summary import ModelSummary, TaskSummary

if TYPE_CHECKING:
    from tapct.leaderboard.robust_columns import RobustnessBoard

ALL = "all"
"""Stands for the kinds of task together."""


def families() -> tuple[str, ...]:
    """Returns `ALL` and the kinds of task, in the order of the page."""
    return ALL, *kinds.list_kinds()


LONGEST_REASON = 600
"""Characters of a reason that the page shows."""


def metric_title(name: str) -> str:
    """Returns a metric as a reader calls it, by its name in records or in the paper; eva's own names stay."""
    try:
        return kinds.metric(METRICS.get(name, name)).title
    except TaskError:
        return name


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
    entries: Mapping[str, ListedRecord]

    @property
    def random(self) -> bool:
        """Whether its weights are random."""
        return is_random(next(iter(self.entries.values())).record)

    @property
    def label(self) -> str:
        """What a sweep calls it: `tap-b-3d+in_plane_size=512`."""
        return next(iter(self.entries.values())).record.encoder.label

    @property
    def is_control(self) -> bool:
        """Whether it is not a pretrained encoder: random weights, or no parameters at all."""
        return self.random or not self.card.num_params

    @property
    def parameters(self) -> int:
        """Parameters of the frozen encoder, counted."""
        encoder = next(iter(self.entries.values())).record.encoder
        return encoder.parameters or self.card.num_params

    @property
    def non_commercial(self) -> bool:
        """Whether the weights are not for commercial use; random ones are nobody's."""
        return not self.random and is_non_commercial(self.card.weights.licence)

    def overlap(self, task: str) -> tuple[str, ...]:
        """Returns its pretraining data that hold scans of a task; none of random weights."""
        return () if self.random else known_overlap(task, self.card.pretraining_data)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One column.

    Attributes:
        name: The task.
        title: The name in tables.
        family: Its kind.
        metric: The metric that is ranked; with several protocols, that of the native one.
        target_unit: The unit of the targets; None where they have none.
        licence: Of the data; None for a task that is not installed here.
        summaries: The statistics under each protocol, which are the same object where it makes no difference; empty
            where no model has a record.
        adaptor: What all its ranked numbers stand on; None where features are not pooled, or nothing was run.
        grid: Its encoders under several adaptors, if there are several.
        crossed: The records of that, by model and adaptor.
    """

    name: str
    title: str
    family: str
    metric: str
    target_unit: str | None = None
    licence: str | None
    summaries: Mapping[Protocol, TaskSummary] = field(default_factory=dict)
    adaptor: str | None = None
    grid: AdaptorGrid | None = None
    crossed: Mapping[tuple[str, str], Recorded] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """Its kind."""
        return kinds.kind(self.family)

    @property
    def of_metric(self) -> Metric:
        """The metric that is ranked."""
        return kinds.metric(self.metric)

    @property
    def heading(self) -> str:
        """The metric that is ranked as a reader calls it, with its unit."""
        return self.of_metric.heading(self.target_unit)

    @property
    def by_protocol(self) -> bool:
        """Whether the protocols differ."""
        return self.kind.on_paper_grid is not None

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
        overall: By family (a kind, or `ALL`) and protocol, the mean rank and mean score of each model that has a
            number on any task of the family, over the tasks of the family that are in the suite.
        left_out: What is not shown, and why.
        set_aside: Number of records with a part of the training patients, perturbed scans or a wrong input.
        reproduction: The paper's experiments, with ours; None of a board of records that are apart.
        own: Records of other tasks, splits or protocols than those that ship: boards of their own.
        eva: What stock runs of eva's reported: references, never ranked.
        mistakes: What usual mistakes with the input cost the models, by task; never ranked.
        similarities: What encoders have in common, by task (`tapct compare --results`).
        imported: Predictions of models that were trained elsewhere: references, never ranked.
        robustness: Repeated and perturbed scans as ranked columns; None where there are none.
    """

    models: tuple[Model, ...]
    tasks: tuple[Task, ...]
    suite: RankedSuite
    overall: Mapping[tuple[str, Protocol], Mapping[str, OverallModel]]
    left_out: tuple[LeftOut, ...]
    set_aside: int
    reproduction: Reproduction | None = None
    own: tuple["Own", ...] = ()
    eva: tuple[EvaNumber, ...] = ()
    mistakes: tuple[MistakeTable, ...] = ()
    similarities: Mapping[str, Similarity] = field(default_factory=dict)
    imported: tuple[Reference, ...] = ()
    robustness: "RobustnessBoard | None" = None

    @property
    def references(self) -> list[PaperRow]:
        """The paper's numbers of tasks; none next to records that are apart."""
        cells = self.reproduction.cells if self.reproduction else ()
        return [cell.row for cell in cells if cell.row.task != AVERAGE]

    def family(self, family: str) -> list[Task]:
        """Returns the tasks of a family that have records."""
        return [task for task in self.tasks if task.summaries and family in (ALL, task.family)]

    def in_suite(self, family: str) -> list[Task]:
        """Returns the tasks of a family that its mean ranks are over."""
        return [task for task in self.family(family) if task.name in self.suite.tasks]

    @cached_property
    def notices(self) -> dict[str, str]:
        """What must stand on top of the numbers, by task."""
        found = {task.name: task.summaries["native"].notice for task in self.tasks if task.summaries}
        return {name: plain(notice, LONGEST_REASON) for name, notice in found.items() if notice}

    def marks(self, model: Model, task: Task) -> tuple[Marked, ...]:
        """Returns what must stand next to a model's number on a task; nothing where it has none."""
        entry, number = model.entries.get(task.name), task.summary(model.name, "native")
        if entry is None or number is None:
            return ()
        seen = model.overlap(task.name)
        return marks.of_number(task.summaries["native"], number, entry.record, seen, entry.older_protocol)

    def rank_marks(self, model: Model, family: str) -> tuple[Marked, ...]:
        """Returns what must stand next to a model's mean rank: what its numbers are, and not how sure each is."""
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
        cells = self.reproduction.cells if self.reproduction else ()
        found |= {one.mark for cell in cells for ours in cell.ours for one in ours.marks}
        return tuple(mark for mark in marks.MARKS if mark in found)

    @property
    def ranked(self) -> dict[str, dict[str, Recorded]]:
        """By task, the records of its ranked models by name."""
        return {
            task.name: {m.name: m.entries[task.name].record for m in self.models if task.name in m.entries}
            for task in self.tasks
        }

    def references_on(self, task: Task) -> list[Reference]:
        """Returns the imported predictions of a task."""
        return [one for one in self.imported if one.task == task.name]

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
