"""What a downstream task is, apart from how its files are read."""

from dataclasses import dataclass
from typing import Literal

from tapct.tasks.columns import Column


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """A downstream task.

    Attributes:
        name: The name in commands and configs.
        display_name: The name in tables.
        kind: What is predicted.
        version: Goes up whenever a number could change: labels, splits, metric.
        classes: Names by label; background first in segmentation.
        metric: The metric that is ranked, under its name in the record.
        licence: Of the data.
        source: How to obtain the data.
        notice: What must stand beside every number, if anything.
        adaptor: What the task is ranked on, as its config has it; None where features are not pooled.
        mask: In words, the part of each scan that features may be pooled over (`linear:mask`); None where there is no
            mask of every case, or none that does not give the answer away.
        table: What is known of each case beside its scan (`CTDataset.read_value`); nothing where there is no table.
        release: The task whose data and split it shares, where several ask something of one release; None of its own.
    """

    name: str
    display_name: str
    kind: Literal["segmentation", "classification"]
    version: int
    classes: tuple[str, ...]
    metric: Literal["dice_native", "MicroAUROC", "MicroAP"]
    licence: str
    source: str
    notice: str | None = None
    adaptor: str | None = None
    mask: str | None = None
    table: tuple[Column, ...] = ()
    release: str | None = None

    @property
    def folder(self) -> str:
        """The name of its folder under the data root, and of its split where it has none of its own."""
        return self.release or self.name
