"""What a kind of task is: what a record holds of each case, and the numbers that are made of it."""

import importlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from tapct import numeric
from tapct.errors import TaskError, nearest
from tapct.metrics import ranks
from tapct.metrics.left_out import PatientLoss

TARGET = "target"
"""As a metric's unit: that of the task's targets."""

ATTENTION_HEADS = ("abmil", "attention")
"""Heads of adaptors that attend to a bag, class tokens or patches."""

STEPPED_HEADS = (*ATTENTION_HEADS, "generated")
"""Heads of adaptors that are trained by steps; all others are solved."""

TABLE_HEADS = ("linear", "ridge", "cox")
"""Heads of adaptors that columns of a table may stand behind, or alone: those that weigh each column."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A number, or a list of them, that a record holds of a case and class.

    Attributes:
        name: Its key in `CaseResult.outcome`, and its column in `cases.parquet`; a unit stands in it (`time_days`).
        title: What it is, in words.
        given: Whether it is of the reference: the same in every run, and in every record that is compared.
        many: Whether it is a list of numbers, of any length.
        low: The least that a number may be.
        high: The most.
        missing: Whether it may be null.
        answer: Whether it is what a model says of a case: one that says the same of every case is flagged.
    """

    name: str
    title: str
    given: bool = False
    many: bool = False
    low: float = -math.inf
    high: float = math.inf
    missing: bool = False
    answer: bool = False

    def fault(self, value: Any) -> str | None:
        """Returns what is wrong with a value, to follow the field's name; None if nothing is."""
        if value is None:
            return None if self.missing and not self.many else "is missing"
        if isinstance(value, list | tuple) != self.many:
            return "is one number, and must be a list" if self.many else "is a list, and must be one number"
        numbers = value if self.many else (value,)
        odd = next((one for one in numbers if not (self.low <= one <= self.high and math.isfinite(one))), None)
        return None if odd is None else f"is {odd:g}, and must be {_in_words(self.low, self.high)}"


@dataclass(frozen=True, eq=False)
class Cases:
    """The cases of one run, as arrays.

    Attributes:
        names: C cases.
        patients: The patient of each.
        classes: K classes, labels or targets.
        values: By field (C, K) float64, NaN where it is null; of lists (C, K) objects, each (n,) float64.
    """

    names: tuple[str, ...]
    patients: tuple[str, ...]
    classes: tuple[str, ...]
    values: Mapping[str, np.ndarray]

    def __getitem__(self, field: str) -> np.ndarray:
        return self.values[field]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Mean:
    """A mean over cases.

    Attributes:
        of: Gives (C,) the number of each case, NaN where it is undefined: such cases are left out.
    """

    of: Callable[[Cases], np.ndarray]


@dataclass(frozen=True)
class PairRank:
    """A rank metric over all pairs of case and label, from the fields `logit` and `target`: counted exactly.

    Pairs whose target is missing are none.

    Attributes:
        rank: Which.
    """

    rank: Literal["auroc", "average_precision"]


@dataclass(frozen=True)
class Statistic:
    """Any other number that patients can be resampled for.

    Attributes:
        of: Of the cases and (C, R) how often each of them counts, whole numbers as float64: (R,), NaN where undefined.
        without: Of the cases and (C,) the number of each one's patient, from 0: (n,) it without each patient, as `of`
            gives it; None where `of` is asked.
        lost: Of the same: what it loses without each patient's cases of one sort, for every sort that it is made of;
            None where all cases are one sort.
    """

    of: Callable[[Cases, np.ndarray], np.ndarray]
    without: Callable[[Cases, np.ndarray], np.ndarray] | None = None
    lost: Callable[[Cases, np.ndarray], Sequence[PatientLoss]] | None = None


@dataclass(frozen=True)
class Number:
    """A number of a run that stands next to others, and that models are not compared by.

    Attributes:
        of: Gives it; NaN where it is undefined.
    """

    of: Callable[[Cases], float]


def no_needs(cases: Cases) -> Mapping[str, np.ndarray]:
    """Returns that a metric needs no cases of any sort."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number of a run.

    Attributes:
        name: In records; no two kinds share one.
        title: On the page.
        column: Next to the ranked one, where a title needs more words there.
        of: How it is computed.
        low: The least that it may be.
        high: The most.
        lower_is_better: Whether a lower one is better.
        unit: Its unit; `TARGET` for that of the task's targets, None where it has none.
        digits: Decimals on the page.
        shown: Whether the page has it next to the ranked one.
        undefined: Why it is undefined, where it is.
        fields: Those that it is of, where not every record of the kind has them.
        needs: Of cases, by what they have in words ("with an event"), (C,) which of them do: where few patients have
            one, nothing is compared, and intervals are marked.
    """

    name: str
    title: str
    of: Mean | PairRank | Statistic | Number
    column: str | None = None
    low: float = 0.0
    high: float = 1.0
    lower_is_better: bool = False
    unit: str | None = None
    digits: int = 3
    shown: bool = True
    undefined: str = "no case of a seed defines it"
    fields: tuple[str, ...] = ()
    needs: Callable[[Cases], Mapping[str, np.ndarray]] = no_needs

    @property
    def sign(self) -> int:
        """1 where a higher value is better, else -1."""
        return -1 if self.lower_is_better else 1

    @property
    def is_count(self) -> bool:
        """Whether it counts something: every run has it."""
        return isinstance(self.of, Number) and self.digits == 0

    @property
    def span(self) -> float:
        """The largest difference that there can be."""
        return self.high - self.low

    def unit_of(self, task_unit: str | None) -> str | None:
        """Returns its unit on a task whose targets are in `task_unit`."""
        return task_unit if self.unit == TARGET else self.unit

    def heading(self, task_unit: str | None) -> str:
        """Returns its title with its unit on a task whose targets are in `task_unit`."""
        return ", ".join(filter(None, (self.title, self.unit_of(task_unit))))

    def fault(self, value: float | None) -> str | None:
        """Returns what is wrong with a value, to follow its name; None if nothing is."""
        if value is None or self.low <= value <= self.high:
            return None
        return f"is {value:g}, and must be {_in_words(self.low, self.high)}"

    def value(self, cases: Cases) -> float:
        """Returns the metric of cases as they are; NaN where it is undefined."""
        match self.of:
            case Mean(of):
                return numeric.mean(None if math.isnan(one) else one for one in of(cases).tolist())
            case PairRank(rank):
                return float(getattr(ranks, rank)(*ranks.stated(cases["logit"], cases["target"])))
            case Statistic(of_counts):
                return float(of_counts(cases, np.ones((len(cases), 1)))[0])
            case Number(of_run):
                return of_run(cases)


def no_fault(outcome: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Returns that nothing is wrong with a case's outcome beyond what its fields say."""
    return None


ByField = Mapping[str, Mapping[str, Any]]
"""What came out for a case: by field and class, numbers or lists of them."""


def as_they_are(now: ByField, then: ByField) -> tuple[ByField, ByField]:
    """Returns what came out twice, as it is: number stands next to number."""
    return now, then


def no_doubts(case: Any, classes: Sequence[str]) -> Iterator[str]:
    """Yields nothing: that a record can hold a case says enough."""
    return iter(())


def no_head_fault(shapes: Mapping[str, tuple[int, ...]], classes: int, channels: int) -> str | None:
    """Returns that heads may have any weights."""
    return None


def linear_head_fault(shapes: Mapping[str, tuple[int, ...]], classes: int, channels: int) -> str | None:
    """Returns what keeps weights from being those of one linear layer on the channels of features."""
    if set(shapes) != {"weight", "bias"} or shapes["weight"][:2] != (classes, channels):
        return f"is not a linear head of {channels} channels and {classes} classes"
    return None


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of task: everything that tells it from others, in one place.

    Attributes:
        name: In records and configs; the folder of its configs.
        title: On the page.
        target: What the target of a case is, in words.
        metrics: Those of a run, in the order of the page.
        ranked: Names of those that a task may be ranked by, the usual one first.
        fields: What a record holds of each case and class.
        probe: Its probe, as MODULE:CLASS.
        dataset: The base class of its datasets, likewise.
        page: The module of its pictures.
        outcome: Whether records hold the fields in `CaseResult.outcome`, and the engine computes the metrics of it.
            The first two kinds are older than that, and have keys and metrics of their own.
        fault: What is wrong with the outcome of a case beyond fields and ranges, in a sentence; None if nothing is.
        loss: The loss of a case by what a record holds of it by field and class, where that is known.
        doubts: What cannot be of a case (a `CaseResult`) in a submission, given the task's classes, beyond all that.
        head_fault: What is wrong with the weights of a head in a submission (name to shape), given the numbers of
            classes and channels; None if nothing is.
        matched: Gives what came out again of a case, and what a record says of it, with their lists in an order in
            which number stands next to number.
        settings: Settings of its probe that must be the shipped ones for numbers to compare.
        heads: Heads of adaptors that its probe takes; none where the head stands on the map of features.
        usual_head: The adaptor of records that name none.
        background: Whether the first class is background, of which nothing is recorded.
        further_classes: Classes that records hold behind those of the task: of a case as a whole, where fields of its
            classes are null.
        labels: Whether the target is 0 or 1 for each class, any of which may be missing.
        dense: Whether the target is a label map on the grid of the scan.
        trains: Whether heads are made of training cases; else of the reported ones, and nothing is trained.
        deals: Whether predictions may be dealt out to other patients, to see what chance gives.
        chance: Gives the cases of a run as somebody would answer them who knows nothing, where that can be said.
        on_paper_grid: By name of a metric, the one that takes its place under the protocol `paper`.
        rows_to_beat: What a model should beat: encoders, "random weights" of any, or what its records hold of
            themselves; tables are each task's own (`TaskSpec.rows_to_beat`). Pages say which of them nobody ran.
    """

    name: str
    title: str
    target: str
    metrics: tuple[Metric, ...]
    ranked: tuple[str, ...]
    fields: tuple[Field, ...]
    probe: str
    dataset: str
    page: str | None = None
    outcome: bool = True
    fault: Callable[[Mapping[str, Mapping[str, Any]]], str | None] = no_fault
    loss: Callable[[Mapping[str, Mapping[str, Any]]], float] | None = None
    doubts: Callable[[Any, Sequence[str]], Iterator[str]] = no_doubts
    head_fault: Callable[[Mapping[str, tuple[int, ...]], int, int], str | None] = no_head_fault
    matched: Callable[[ByField, ByField], tuple[ByField, ByField]] = as_they_are
    settings: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    usual_head: str | None = None
    background: bool = False
    further_classes: tuple[str, ...] = ()
    labels: bool = False
    dense: bool = False
    trains: bool = True
    deals: bool = False
    chance: Callable[[Cases], Cases] | None = None
    on_paper_grid: Mapping[str, str] | None = None
    rows_to_beat: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]*", self.name):
            raise TaskError(f"the kind '{self.name}' must be of small letters, digits and hyphens")
        names = [metric.name for metric in self.metrics]
        if len(set(names)) < len(names) or not self.ranked or not set(self.ranked) <= set(names):
            raise TaskError(f"the kind '{self.name}' has a metric twice, or is ranked by none of its metrics")
        if any(isinstance(self.metric(name).of, Number) for name in self.ranked):
            raise TaskError(f"the kind '{self.name}' is ranked by a number that models are not compared by")

    @cached_property
    def by_name(self) -> dict[str, Metric]:
        """Its metrics by name."""
        return {metric.name: metric for metric in self.metrics}

    def metric(self, name: str) -> Metric:
        """Returns one of its metrics.

        Raises:
            TaskError: If it has none of that name.
        """
        if name not in self.by_name:
            raise TaskError(f"{self.title} has no metric '{name}'. {nearest(name, self.by_name)}")
        return self.by_name[name]

    @property
    def table_head(self) -> str | None:
        """The head that tables stand behind; None where no head of the kind takes one."""
        return next((head for head in self.heads if head in TABLE_HEADS), None)

    @cached_property
    def given(self) -> tuple[Field, ...]:
        """The fields that are of the reference."""
        return tuple(field for field in self.fields if field.given)

    def probe_class(self) -> Any:
        """Returns the class of its probe; it imports eva."""
        module, _, name = self.probe.partition(":")
        return getattr(importlib.import_module(module), name)

    def recorded_classes(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Returns the classes of a task that a record holds numbers of."""
        return (*(classes[1:] if self.background else classes), *self.further_classes)

    def numbers(self, cases: Cases) -> dict[str, float]:
        """Returns the metrics of a run that are defined, by name."""
        there = [metric for metric in self.metrics if set(metric.fields) <= cases.values.keys()]
        found = {metric.name: metric.value(cases) for metric in there}
        return {name: value for name, value in found.items() if not math.isnan(value)}

    def outcome_fault(self, outcome: Mapping[str, Mapping[str, Any]] | None, classes: Sequence[str]) -> str | None:
        """Returns what is wrong with what a record holds of a case; None if nothing is.

        Args:
            outcome: By field and class, the numbers.
            classes: The task's.
        """
        if not self.outcome:
            return None if outcome is None else f"a case of {self.name} has no outcome"
        if outcome is None:
            return "it has no outcome"
        wanted = [field.name for field in self.fields]
        if list(outcome) != wanted:
            return (
                f"its outcome has {', '.join(outcome) or 'nothing'}, and must have {', '.join(wanted)}, in this order"
            )
        for field in self.fields:
            if list(outcome[field.name]) != list(self.recorded_classes(classes)):
                return f"{field.name} is not of the classes of the task, in their order"
            for name, value in outcome[field.name].items():
                if wrong := field.fault(value):
                    return f"{field.name} of {name} {wrong}"
        return self.fault(outcome)


def _in_words(low: float, high: float) -> str:
    if math.isinf(high):
        return "finite" if math.isinf(low) else f"at least {low:g}"
    return f"at most {high:g}" if math.isinf(low) else f"from {low:g} to {high:g}"
