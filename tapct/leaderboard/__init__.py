"""What the records say: intervals over patients, what separates models and what does not, and ranks."""

from tapct.leaderboard.inputs import TaskInputs, comparison_settings, from_records, model_name, model_names
from tapct.leaderboard.intervals import Estimate
from tapct.leaderboard.label_efficiency import LabelEfficiency, LabelPoint, label_efficiency
from tapct.leaderboard.overall import OverallModel, summarise_tasks
from tapct.leaderboard.paper import PAPER, PaperRow, read_paper
from tapct.leaderboard.robustness import Drop, Robustness, robustness
from tapct.leaderboard.summary import (
    RESAMPLES,
    Comparison,
    Difference,
    ModelSummary,
    TaskSummary,
    summarise_task,
)

__all__ = [
    "PAPER",
    "RESAMPLES",
    "Comparison",
    "Difference",
    "Drop",
    "Estimate",
    "LabelEfficiency",
    "LabelPoint",
    "ModelSummary",
    "OverallModel",
    "PaperRow",
    "Robustness",
    "TaskInputs",
    "TaskSummary",
    "comparison_settings",
    "from_records",
    "label_efficiency",
    "model_name",
    "model_names",
    "read_paper",
    "robustness",
    "summarise_task",
    "summarise_tasks",
]
