"""A task as eva's data module: the splits of one dataset, and their loaders."""

from pathlib import Path
from typing import Any

import eva
import torch
from eva.core.data import dataloaders
from eva.core.data.datamodules import schemas
from torch.utils.data import DataLoader, RandomSampler
from typing_extensions import override

from tapct.tasks.registry import task_class, task_root
from tapct.tasks.spec import SPLITS


class TaskData(eva.DataModule):
    """The data of a task.

    Training cases come as one endless shuffled stream of `max_steps x accumulate_grad_batches` cases,
    seeded by the run. With epochs, the last accumulation of each would step on fewer cases, at the wrong
    scale (Lightning divides by the full number).
    """

    def __init__(self, task: str, data_root: str | None = None, num_workers: int = 0) -> None:
        """Initializes the data.

        Args:
            task: Name of a task (`tapct list tasks`).
            data_root: Folder that holds one folder per task, under the task's name.
            num_workers: Processes that read cases ahead.

        Raises:
            TaskError: If the task is unknown, or its folder is not there.
        """
        dataset = task_class(task)
        self.spec = dataset.spec
        self.root: Path = task_root(task, data_root)
        parts: dict[str, Any] = {
            split: dataset(self.root, split) if self.spec.splits[split] else None for split in SPLITS
        }
        loader = dataloaders.DataLoader(
            batch_size=1,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=num_workers > 0,
            prefetch_factor=2 if num_workers else None,
        )
        super().__init__(
            datasets=schemas.DatasetsSchema(**parts),
            dataloaders=schemas.DataloadersSchema(train=loader, val=loader, test=loader, predict=loader),
        )

    @property
    def notice(self) -> str | None:
        """What must stand beside every number of this task."""
        return self.spec.notice

    def describe(self) -> dict[str, Any]:
        """Returns what a record must hold of the task."""
        return {
            "name": self.spec.name,
            "version": self.spec.version,
            "kind": self.spec.kind,
            "classes": list(self.spec.classes),
            "split_file": self.spec.split_file.name,
            "split_sha256": self.spec.split_sha256,
            "cases": {split: len(cases) for split, cases in self.spec.splits.items()},
        }

    @override
    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        if trainer is None or trainer.max_steps <= 0:
            raise ValueError("the trainer needs max_steps: training is counted in steps, not in epochs")
        sampler = RandomSampler(
            self.datasets.train,
            num_samples=trainer.max_steps * trainer.accumulate_grad_batches,
            generator=torch.Generator().manual_seed(torch.initial_seed() % 2**63),
        )
        return self.dataloaders.train(self.datasets.train, sampler=sampler)

    @override
    def val_dataloader(self) -> Any:
        # A task may have no part for selection (the quickstart): then there is nothing to validate on.
        return [] if self.datasets.val is None else super().val_dataloader()
