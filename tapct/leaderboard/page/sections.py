"""What the page and a report draw of a task next to its numbers: asked of the module that its kind names.

Such a module has one function, `pictures(shown: DrawnTask) -> Iterator[Figure | PageTable]`.
"""

import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tapct.kinds import Cases, Kind, Metric
from tapct.leaderboard.board import Model, Task
from tapct.records import Recorded
from tapct.statistics.reported import reported

SPLIT = "test"

MANY = 20
"""Models that the figures and tables of a task show at most: the best."""


OF_ALL = ("tapct.leaderboard.page.tables", "tapct.leaderboard.page.shortcuts")
"""The modules of what records of every kind may hold: they stand on this one."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure.

    Attributes:
        title: What it shows.
        svg: Drawn with `page.svg`, whose `render` has escaped every text in it.
        note: How it is read.
    """

    title: str
    svg: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class PageTable:
    """A table of texts.

    Attributes:
        title: What it shows.
        heads: Its columns, but for the first, which says what a line is called.
        rows: Lines, what they are called first.
        note: How it is read.
        open: Whether it is open from the start.
        corner: What stands over the first column.

    Raises:
        ValueError: If a line has not one text more than there are heads: numbers would stand under others' heads.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    open: bool = False
    corner: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != 1 + len(self.heads):
                raise ValueError(f"{self.title}: {row[0]} has {len(row) - 1} texts under {len(self.heads)} heads")


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnTask:
    """A task and the models that are drawn.

    Attributes:
        of: The task, with its statistics.
        drawn: The models, best first.
        left_out: How many are not drawn.
        split: The split that is reported.
    """

    of: Task
    drawn: Sequence[Model]
    left_out: int = 0
    split: str = SPLIT

    @property
    def task(self) -> str:
        """The task's name."""
        return self.of.name

    @property
    def title(self) -> str:
        """The task as a reader calls it."""
        return self.of.title

    @property
    def kind(self) -> Kind:
        """The task's kind."""
        return self.of.kind

    @property
    def metric(self) -> Metric:
        """The metric that is ranked."""
        return self.of.of_metric

    @property
    def unit(self) -> str | None:
        """The unit of the targets."""
        return next(iter(self.models.values())).task.unit

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, labels or targets that records hold numbers of."""
        return self.kind.recorded_classes(next(iter(self.models.values())).task.classes)

    @functools.cached_property
    def models(self) -> Mapping[str, Recorded]:
        """The record of each model, best first."""
        return MappingProxyType({model.name: model.entries[self.task].record for model in self.drawn})

    @property
    def crossed(self) -> Mapping[tuple[str, str], Recorded]:
        """The records under every adaptor, by model and adaptor."""
        return self.of.crossed

    def cases(self, name: str | tuple[str, str]) -> tuple[Cases, ...]:
        """Returns the reported cases of each run of a model, or of a model under an adaptor."""
        record = self.models[name] if isinstance(name, str) else self.crossed[name]
        return reported(record, self.split).runs

    @property
    def of_many(self) -> str:
        """What is to be said where not all models are drawn."""
        number = len(self.drawn)
        return f" Of {number + self.left_out} models, the {number} best." if self.left_out else ""


def pictures(shown: DrawnTask) -> list[Figure | PageTable]:
    """Returns what the module of a task's kind draws, and of whatever kind tables and the shortcut audit."""
    modules = filter(None, (shown.kind.page, *OF_ALL))
    draw: list[Callable[[DrawnTask], Iterator[Figure | PageTable]]] = [
        importlib.import_module(of).pictures for of in modules
    ]
    return [one for each in draw for one in each(shown)]
