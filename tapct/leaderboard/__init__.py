"""What the records say: intervals over patients, what separates models and what does not, and ranks."""

from tapct.leaderboard.inputs import Metric, TaskInputs, from_records
from tapct.leaderboard.intervals import Estimate
from tapct.leaderboard.overall import OverallModel, summarise_tasks
from tapct.leaderboard.paper import PAPER, PaperRow, read_paper
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
    "Estimate",
    "Metric",
    "ModelSummary",
    "OverallModel",
    "PaperRow",
    "TaskInputs",
    "TaskSummary",
    "from_records",
    "read_paper",
    "summarise_task",
    "summarise_tasks",
]
