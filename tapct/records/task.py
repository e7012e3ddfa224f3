"""What a record says of the task."""

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from tapct import kinds
from tapct.records.types import (
    AtLeast1,
    Count,
    Fraction,
    Frozen,
    Name,
    Settings,
    Sha256,
    Text,
    Whole,
    optional,
)


def _kind(name: str) -> str:
    return kinds.kind(name).name


class FoldsRecord(Frozen):
    """How patients were cross-validated: every case is predicted by a head of the folds that it is not in.

    Attributes:
        repeats: How often patients were dealt into folds anew; run k is repeat k.
        folds: Folds of a repeat.
    """

    repeats: AtLeast1
    folds: AtLeast1


class TaskRecord(Frozen):
    """The task.

    Attributes:
        name: Its name.
        version: Goes up whenever a number could change.
        kind: What is predicted.
        metric: The metric that is ranked, by its name in `metrics`.
        classes: Names by label; background first in segmentation.
        options: Settings of the data set.
        split: The file or the rule that the split is from.
        split_sha256: Hash of its rows.
        cases: Cases by split.
        patients: Patients by split.
        excluded: Cases that are left out, and why.
        accepted_orientation: Cases that lie otherwise than their headers say and were accepted, and how they lie.
        batch_size: Training cases that the probe saw at once.
        order_seed: Decides the order of the training cases.
        train_fraction: Fraction of the training patients that trained.
        train_draw: Which patients these were.
        perturbation: Of the reported scans, by name.
        perturbation_parameters: Its parameters.
        unit: Of the targets, where they have one.
        folds: How patients were cross-validated, if they were.
    """

    name: Name
    version: Count
    kind: Annotated[Name, AfterValidator(_kind)] | None = None
    metric: Name | None = None
    classes: tuple[Name, ...] = ()
    options: Settings = Field(default_factory=dict)
    split: Text | None = None
    split_sha256: Sha256 | None = None
    cases: dict[Name, Count] = Field(default_factory=dict)
    patients: dict[Name, Count] = Field(default_factory=dict)
    excluded: dict[Name, Text] = Field(default_factory=dict)
    accepted_orientation: dict[Name, Text] = Field(default_factory=dict)
    batch_size: Count | None = None
    order_seed: Whole | None = None
    train_fraction: Fraction = 1.0
    train_draw: Count = 0
    perturbation: Name | None = None
    perturbation_parameters: Settings | None = None
    unit: Name | None = optional()
    folds: FoldsRecord | None = optional()

    @model_validator(mode="after")
    def _check_metric(self) -> "TaskRecord":
        ranked = [name for one in ([self.kind] if self.kind else kinds.KINDS) for name in kinds.kind(one).ranked]
        if self.metric is not None and self.metric not in ranked:
            raise ValueError(f"no task of {self.kind or 'any kind'} is ranked by {self.metric}: {', '.join(ranked)}")
        return self

    def with_unit(self, metric: str) -> str:
        """Returns the name of a metric with its unit, where it has one; of what is no metric of the kind its name."""
        of = None if self.kind is None else kinds.kind(self.kind).by_name.get(metric)
        return ", ".join(filter(None, (metric, None if of is None else of.unit_of(self.unit))))
