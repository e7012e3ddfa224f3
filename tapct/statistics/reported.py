"""What a record reports on a split, as arrays: taken from its table, not case by case."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from tapct import kinds, numeric
from tapct.errors import RecordError
from tapct.kinds import Cases, Kind, Mean, Number
from tapct.records import arrow
from tapct.records.record import Recorded
from tapct.records.stored import StoredRecord

_REMEMBERED = 10_000
"""Records of which what they report is kept: some 100 kB each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reported:
    """The cases of one split of a record, the same in every run, in the order of their names.

    Attributes:
        kind: The kind of its task.
        cases: C names.
        patients: The patient of each.
        classes: K classes, labels or targets, in the record's order.
        runs: What each run has of the cases, the fields of the kind that the record has.
    """

    kind: Kind
    cases: tuple[str, ...]
    patients: tuple[str, ...]
    classes: tuple[str, ...]
    runs: tuple[Cases, ...]

    @cached_property
    def compared(self) -> frozenset[str]:
        """The metrics that can be computed of its fields, and that models are compared by."""
        there = self.runs[0].values.keys()
        metrics = (metric for metric in self.kind.metrics if not isinstance(metric.of, Number))
        return frozenset(metric.name for metric in metrics if set(metric.fields) <= there)

    def mean_of_cases(self, metric: str) -> np.ndarray:
        """Returns (runs, C) the number of each case, NaN where it is undefined, of a metric that is their mean."""
        of = self.kind.metric(metric).of
        assert isinstance(of, Mean)
        return np.stack([of.of(run) for run in self.runs])

    def by_class(self, field: str) -> dict[str, list[float | None]]:
        """Returns by class the mean of a field over cases in each run, None where no case defines it."""
        if field not in self.runs[0].values:
            return {}
        means = np.stack([numeric.means(run[field].T) for run in self.runs], axis=1)
        return dict(zip(self.classes, _or_none(means), strict=True))

    @property
    def targets(self) -> np.ndarray | None:
        """(C, K) 0/1 references of classification, NaN where they are missing; None where there are none."""
        return self.runs[0].values.get("target")

    @property
    def scores(self) -> np.ndarray:
        """(runs, C, K) what cases of classification are ranked by: logits; of older records, probabilities."""
        return np.stack([run["logit"] for run in self.runs])

    @property
    def given(self) -> dict[str, np.ndarray]:
        """By field, (C, K) what is of the reference."""
        return {name: self.runs[0][name] for name in (field.name for field in self.kind.given)}

    @property
    def identities(self) -> dict[str, Any]:
        """What must be the same of each case in every record, by name."""
        rows = {name: [[_in_message(value) for value in row] for row in values] for name, values in self.given.items()}
        return {
            f"case {case}": (
                patient,
                {name: dict(zip(self.classes, of_field[place], strict=True)) for name, of_field in rows.items()},
            )
            for place, (case, patient) in enumerate(zip(self.cases, self.patients, strict=True))
        }

    def is_of_the_cases_of(self, other: "Reported") -> bool:
        """Returns whether another record's cases, patients and references are the same."""
        if (self.cases, self.patients) != (other.cases, other.patients) or self.given.keys() != other.given.keys():
            return False
        return all(same(values, other.given[name]).all() for name, values in self.given.items())

    def repeated(self, times: int) -> "Reported":
        """Returns the same with each run so many times: means over runs stay, and pair with those of more runs."""
        return replace(self, runs=self.runs * times)

    def ordered(self, classes: tuple[str, ...]) -> "Reported":
        """Returns the same with its labels in another order; itself where they are not the same ones."""
        if self.classes == classes or not self.given or sorted(self.classes) != sorted(classes):
            return self
        order = [self.classes.index(name) for name in classes]
        runs = (
            replace(run, classes=classes, values={name: of[:, order] for name, of in run.values.items()})
            for run in self.runs
        )
        return replace(self, classes=classes, runs=tuple(runs))


def same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns where numbers, or lists of them, are the same; what is null is the same as what is."""
    if one.shape != other.shape:
        return np.zeros(1, dtype=bool)
    if one.dtype == object:
        pairs = zip(one.ravel(), other.ravel(), strict=True)
        return np.array([np.array_equal(a, b) for a, b in pairs], dtype=bool).reshape(one.shape)
    return (one == other) | (np.isnan(one) & np.isnan(other))


def _in_message(value: Any) -> Any:
    """Returns a number, or a list of them, as it stands in a message."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if np.isnan(value) else int(value) if value == int(value) else float(value)


def reported(record: Recorded, split: str) -> Reported:
    """Returns what a record reports on a split.

    Raises:
        RecordError: If a run has no cases of the split, has one twice, or the runs are not of the same cases.
    """
    return _remembered(record, split) if isinstance(record, StoredRecord) else _reported(record, split)


def _reported(record: Recorded, split: str) -> Reported:
    table = record.table()
    splits, of_split = arrow.coded(table["split"])
    rows = np.flatnonzero(of_split == (splits.index(split) if split in splits else -1))
    cases, case = _coded(table["case"], rows, ascending=True)
    classes, of_class = _coded(table["class"], rows)
    run = arrow.numbers(table["run"])[rows]
    _require_all(record, split, run, cases, case * len(classes) + of_class)
    kind = _kind_of(record, table, rows)
    _require_its_classes(record, kind, split, classes)
    shape = (len(record.runs), len(cases), len(classes))
    order = rows[np.lexsort((of_class, case, run))]
    names, of_patient = _coded(table["patient"], order)
    patient = of_patient.reshape(shape)
    fields = {field.name: _column(table[field.name], order, shape) for field in kind.fields}
    given = (fields[field.name] for field in kind.given)
    differ = [~same(of, np.broadcast_to(of[:1], shape)) for of in given]
    differs = np.any([patient != patient[:1, :, :1], *differ], axis=0)
    if differs.any():
        name = cases[np.flatnonzero(differs.any(axis=(0, 2)))[0]]
        raise RecordError(f"its runs differ in the patient or the target of case {name}")
    if "probability" in fields and np.isnan(fields["logit"]).all():  # of an older protocol
        fields["logit"] = fields["probability"]
    has_targets = not arrow.is_null(table["target"])[rows].all()
    fields = {name: values for name, values in fields.items() if _has(kind, name, values, has_targets)}
    of_cases = tuple(names[code] for code in patient[0, :, 0])
    return Reported(
        kind=kind,
        cases=tuple(cases),
        patients=of_cases,
        classes=tuple(classes),
        runs=tuple(
            Cases(tuple(cases), of_cases, tuple(classes), {name: values[place] for name, values in fields.items()})
            for place in range(len(record.runs))
        ),
    )


def _kind_of(record: Recorded, table: pa.Table, rows: np.ndarray) -> Kind:
    """Returns the kind of a record's task; older ones that do not say it are of one of the first two."""
    if record.task.kind is not None:
        return kinds.kind(record.task.kind)
    return kinds.kind("segmentation" if arrow.is_null(table["target"])[rows].all() else "classification")


def _column(column: pa.ChunkedArray, order: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns rows of a column in this order and shape, float64; of lists, objects that each hold one."""
    if not pa.types.is_list(column.type):
        return arrow.numbers(column).astype(np.float64)[order].reshape(shape)
    lengths, numbers = arrow.lists(column)
    found = np.empty(len(lengths), dtype=object)
    for place, one in enumerate(np.split(numbers, np.cumsum(lengths)[:-1])):
        found[place] = one
    return found[order].reshape(shape)


def _require_all(record: Recorded, split: str, run: np.ndarray, cases: Sequence[str], pair: np.ndarray) -> None:
    """Refuses runs that do not have each case of the split in each class once.

    Args:
        record: The record.
        split: The split.
        run: (rows,) the run of each row of the table.
        cases: C names.
        pair: (rows,) number of each row's case and class: place of the case x K + place of the class.
    """
    most = pair.max(initial=-1) + 1
    for number in (one.run for one in record.runs):
        times = np.bincount(pair[run == number], minlength=most)
        if not times.any():
            raise RecordError(f"run {number} has no cases of '{split}'")
        if (odd := np.flatnonzero(times != 1)).size:
            what = "twice" if times[odd[0]] > 1 else "not in every run and class"
            raise RecordError(f"run {number}: case {cases[odd[0] * len(cases) // most]} of '{split}' is there {what}")
    if not set(run.tolist()) <= {one.run for one in record.runs}:
        raise RecordError(f"there are cases of '{split}' of a run that the record does not have")


def _require_its_classes(record: Recorded, kind: Kind, split: str, classes: Sequence[str | None]) -> None:
    """Refuses cases that lack a class of the task or have another: a mean over the easier ones would look right."""
    wanted = record.task.classes if record.task.kind is None else kind.recorded_classes(record.task.classes)
    if odd := sorted({str(name) for name in {*wanted} ^ {*classes}}):
        what = "of the task, and missing in" if odd[0] in wanted else "none of the task, and in"
        raise RecordError(f"the class {odd[0]} is {what} the cases of '{split}'")


_remembered = functools.lru_cache(_REMEMBERED)(_reported)


def _has(kind: Kind, field: str, values: np.ndarray, has_targets: bool) -> bool:
    """Returns whether a record has a field: an outcome it always has; without targets it has Dice, if undefined."""
    if kind.outcome:
        return True
    if field.startswith("dice_"):
        return not has_targets
    return has_targets if field == "target" else not np.isnan(values).all()


def _or_none(values: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in values]


def _coded(column: pa.ChunkedArray, rows: np.ndarray, *, ascending: bool = False) -> tuple[list[Any], np.ndarray]:
    """Returns the different names in rows of a column, sorted or as they first come, and the place of each row's."""
    every, codes = arrow.coded(column)
    used, codes = np.unique(codes[rows], return_inverse=True)
    names = [every[code] for code in used]
    if not ascending:
        return names, codes
    order = sorted(range(len(names)), key=names.__getitem__)
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    return [names[code] for code in order], place[codes]
