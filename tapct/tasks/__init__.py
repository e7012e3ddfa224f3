"""Downstream tasks: what they are, how their files are read, and eva's data module over them."""

from tapct.tasks.data import TaskData
from tapct.tasks.quickstart import Quickstart
from tapct.tasks.registry import list_tasks, task_class, task_root
from tapct.tasks.segmentation import SegmentationDataset
from tapct.tasks.spec import SPLITS, Split, TaskSpec

__all__ = [
    "SPLITS",
    "Quickstart",
    "SegmentationDataset",
    "Split",
    "TaskData",
    "TaskSpec",
    "list_tasks",
    "task_class",
    "task_root",
]
