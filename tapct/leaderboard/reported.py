"""What a record reports on a split, as arrays: taken from its table, not case by case."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tapct import numeric
from tapct.errors import RecordError
from tapct.records import arrow
from tapct.records.cases import CLASS_METRICS
from tapct.records.record import Recorded
from tapct.records.stored import StoredRecord

_REMEMBERED = 10_000
"""Records of which what they report is kept: some 100 kB each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reported:
    """The cases of one split of a record, the same in every run, in the order of their names.

    Attributes:
        cases: C names.
        patients: The patient of each.
        labels: L labels, in the record's order; empty where cases have no targets.
        targets: (C, L) 0/1 references; None where there are none.
        means: By metric that the record has, (runs, C) means over a case's classes, NaN where none is defined.
        by_class: Likewise, by class its mean over cases in each run, None where no case defines it.
        scores: (runs, C, L) what cases are ranked by: logits; of older records, probabilities. NaN: there is none.
        probabilities: (runs, C, L) likewise.
    """

    cases: tuple[str, ...]
    patients: tuple[str, ...]
    labels: tuple[str, ...]
    targets: np.ndarray | None
    means: dict[str, np.ndarray]
    by_class: dict[str, dict[str, list[float | None]]]
    scores: np.ndarray
    probabilities: np.ndarray

    @property
    def identities(self) -> dict[str, Any]:
        """What must be the same of each case in every record, by name."""
        rows = [None] * len(self.cases) if self.targets is None else self.targets.tolist()
        targets = (None if row is None else dict(zip(self.labels, row, strict=True)) for row in rows)
        return {
            f"case {case}": (patient, target)
            for case, patient, target in zip(self.cases, self.patients, targets, strict=True)
        }

    def is_of_the_cases_of(self, other: "Reported") -> bool:
        """Returns whether another record's cases, patients and targets are the same."""
        if (self.cases, self.patients, self.labels) != (other.cases, other.patients, other.labels):
            return False
        if self.targets is None or other.targets is None:
            return self.targets is other.targets
        return np.array_equal(self.targets, other.targets)

    def ordered(self, labels: tuple[str, ...]) -> "Reported":
        """Returns the same with its labels in another order; itself where they are not the same ones."""
        if self.labels == labels or self.targets is None or sorted(self.labels) != sorted(labels):
            return self
        order = [self.labels.index(label) for label in labels]
        return Reported(
            cases=self.cases,
            patients=self.patients,
            labels=labels,
            targets=self.targets[:, order],
            means=self.means,
            by_class=self.by_class,
            scores=self.scores[:, :, order],
            probabilities=self.probabilities[:, :, order],
        )


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
    _require_its_classes(record, split, classes)
    shape = (len(record.runs), len(cases), len(classes))
    order = np.lexsort((of_class, case, run))

    def column(name: str) -> np.ndarray:
        return arrow.numbers(table[name]).astype(np.float64)[rows][order].reshape(shape)

    names, of_patient = _coded(table["patient"], rows)
    patient, target = of_patient[order].reshape(shape), column("target")
    differs = (patient != patient[:1, :, :1]) | ~((target == target[:1]) | np.isnan(target) & np.isnan(target[:1]))
    if differs.any():
        name = cases[np.flatnonzero(differs.any(axis=(0, 2)))[0]]
        raise RecordError(f"its runs differ in the patient or the target of case {name}")
    logits, probabilities = column("logit"), column("probability")
    has_targets = not np.isnan(target).any()
    numbers = {} if has_targets else {metric: column(metric) for metric in CLASS_METRICS}
    numbers = {metric: values for metric, values in numbers.items() if _has(metric, values)}
    return Reported(
        cases=tuple(cases),
        patients=tuple(names[code] for code in patient[0, :, 0]),
        labels=tuple(classes) if has_targets else (),
        targets=target[0].astype(np.int64) if has_targets else None,
        means={metric: _means(values, axis=2) for metric, values in numbers.items()},
        by_class={
            metric: dict(zip(classes, _or_none(_means(values, axis=1).T), strict=True))
            for metric, values in numbers.items()
        },
        scores=probabilities if np.isnan(logits).all() else logits,
        probabilities=probabilities,
    )


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


def _require_its_classes(record: Recorded, split: str, classes: Sequence[str | None]) -> None:
    """Refuses cases that lack a class of the task or have another: a mean over the easier ones would look right."""
    wanted = record.task.classes[1:] if record.task.kind == "segmentation" else record.task.classes
    if odd := sorted({str(name) for name in {*wanted} ^ {*classes}}):
        what = "of the task, and missing in" if odd[0] in wanted else "none of the task, and in"
        raise RecordError(f"the class {odd[0]} is {what} the cases of '{split}'")


_remembered = functools.lru_cache(_REMEMBERED)(_reported)


def _has(metric: str, values: np.ndarray) -> bool:
    """Returns whether a record has a metric: Dice it always has, if only as undefined."""
    return metric.startswith("dice_") or not np.isnan(values).all()


def _means(values: np.ndarray, axis: int) -> np.ndarray:
    """Returns the mean of the defined numbers along an axis, NaN where none is."""
    rows = np.moveaxis(values, axis, -1)
    return numeric.means(rows.reshape(-1, rows.shape[-1])).reshape(rows.shape[:-1])


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
