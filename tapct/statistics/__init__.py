"""What records say: intervals over patients, what separates models and what does not, and ranks."""

from tapct.statistics.inputs import TaskInputs, comparison_settings, from_records, model_name, model_names
from tapct.statistics.intervals import Estimate
from tapct.statistics.label_efficiency import LabelEfficiency, LabelPoint, label_efficiency
from tapct.statistics.overall import OverallModel, summarise_tasks
from tapct.statistics.robustness import Drop, Robustness, robustness
from tapct.statistics.summary import (
    RESAMPLES,
    Difference,
    ModelComparison,
    ModelSummary,
    TaskSummary,
    summarise_task,
)

__all__ = [
    "RESAMPLES",
    "Difference",
    "Drop",
    "Estimate",
    "LabelEfficiency",
    "LabelPoint",
    "ModelComparison",
    "ModelSummary",
    "OverallModel",
    "Robustness",
    "TaskInputs",
    "TaskSummary",
    "comparison_settings",
    "from_records",
    "label_efficiency",
    "model_name",
    "model_names",
    "robustness",
    "summarise_task",
    "summarise_tasks",
]
