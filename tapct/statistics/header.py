"""What every statistic over one metric of one task says first."""

from dataclasses import dataclass
from typing import Any

from tapct.statistics import thin
from tapct.statistics.inputs import TaskInputs


@dataclass(frozen=True, kw_only=True)
class OfMetric:
    """One metric of one task.

    Attributes:
        task: Name of the task.
        metric: The metric.
        notice: What must stand next to every number, if anything.
        num_patients: Reported patients.
        warnings: What to know before reading the numbers.
    """

    task: str
    metric: str
    notice: str | None
    num_patients: int
    warnings: tuple[str, ...]


def header(inputs: TaskInputs) -> dict[str, Any]:
    """Returns the fields of `OfMetric`, of what a statistic is computed from."""
    return {
        "task": inputs.task,
        "metric": inputs.metric,
        "notice": inputs.notice,
        "num_patients": inputs.num_patients,
        "warnings": thin.of_task(inputs),
    }
