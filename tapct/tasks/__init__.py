"""Downstream tasks: what they are, how their files are read, and eva's data module over them."""

from typing import TYPE_CHECKING

from tapct._utils import lazy
from tapct.tasks.checks import examine, require_valid
from tapct.tasks.classification import ClassificationDataset
from tapct.tasks.dataset import CTDataset
from tapct.tasks.eva_task import EvaTask
from tapct.tasks.quickstart import Quickstart
from tapct.tasks.registry import core_tasks, list_tasks, task_class, task_datasets, task_root
from tapct.tasks.reliability import ReliabilityDataset
from tapct.tasks.report import ReportDataset
from tapct.tasks.retrieval import RetrievalDataset
from tapct.tasks.segmentation import SegmentationDataset
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import SPLITS, Split, SplitTable

if TYPE_CHECKING:
    from tapct.tasks.data import TaskData

__all__ = [
    "SPLITS",
    "CTDataset",
    "ClassificationDataset",
    "EvaTask",
    "Quickstart",
    "ReliabilityDataset",
    "ReportDataset",
    "RetrievalDataset",
    "SegmentationDataset",
    "Split",
    "SplitTable",
    "TaskData",
    "TaskSpec",
    "core_tasks",
    "examine",
    "list_tasks",
    "require_valid",
    "task_class",
    "task_datasets",
    "task_root",
]

__getattr__ = lazy.names(__name__, __all__, "tapct.tasks.data")  # which imports eva
