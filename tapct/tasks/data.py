"""A task as eva's data module: the splits of one dataset, and their loaders."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import eva
import torch
from eva.core.data import dataloaders
from eva.core.data.datamodules import schemas
from torch.utils.data import DataLoader, Dataset, RandomSampler
from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.checks import Accepted, require_valid
from tapct.tasks.dataset import CTDataset
from tapct.tasks.fractions import check_fraction
from tapct.tasks.pack import Pack
from tapct.tasks.packed import packed_datasets
from tapct.tasks.registry import task_datasets, task_root
from tapct.tasks.splits import SPLITS, FoldTable
from tapct.tasks.varied import varied
from tapct.volumes import Volume
from tapct.volumes.perturb import perturbation as perturbation_named


class _Order(RandomSampler):
    """Training cases in the order of a seed, from a place in it on; its length is that of the whole."""

    def __init__(self, cases: CTDataset, number: int, seed: int, seen: int) -> None:
        super().__init__(cases, num_samples=number, generator=torch.Generator().manual_seed(seed))
        self._seen = seen

    @override
    def __iter__(self) -> Iterator[int]:
        return itertools.islice(super().__iter__(), self._seen, None)


class TaskData(eva.DataModule):
    """The data of a task.

    Training cases come as one endless shuffled stream, as many as the trainer's steps take, the same in every run.
    With epochs, the last accumulation of each would step on fewer cases, at the wrong scale
    (Lightning divides by the full number).
    """

    def __init__(
        self,
        task: str,
        data_root: str | None = None,
        num_workers: int = 0,
        split_file: str | None = None,
        options: dict[str, Any] | None = None,
        batch_size: int = 1,
        order_seed: int = 0,
        train_fraction: float = 1.0,
        train_draw: int = 0,
        perturbation: str | None = None,
        accept_orientation: list[str] | None = None,
        pack: str | None = None,
    ) -> None:
        """Initializes the data.

        Args:
            task: Name of a task (`tapct list tasks`).
            data_root: Folder that holds one folder per task, under the task's name.
            num_workers: Processes that read cases ahead.
            split_file: Another split than the task's own: a CSV with the columns case, patient, split, or `eva` for the
                lists of eva's class where they ship next to it.
            options: Settings of the task's dataset, such as {s1: sacrum} for totalsegmentator.
            batch_size: Training cases that a probe sees at once; more than one needs stored features.
            order_seed: Decides the order of the training cases.
            train_fraction: Share of the training patients that train, in (0, 1]; see `fractions.drawn_patients`. The
                selection cases stay whole.
            train_draw: Which patients these are: the number of the draw. A smaller share of one draw is part of a
                larger one.
            perturbation: Of the reported scans, by its name in `tapct.volumes.perturb.PERTURBATIONS`; None for none.
            accept_orientation: Cases whose organs may lie otherwise than in most people, such as mirrored; [all] for
                every case. Any other such case ends the run before it starts.
            pack: A feature pack that was unpacked here, by its name or folder; its cases take the place of the scans,
                which need not be here. The record says so.

        Raises:
            TaskError: If the task, an option or the perturbation is unknown, the task's folder is not there, the
                fraction cannot be, or the pack is of something else.
        """
        check_fraction(train_fraction, train_draw)
        self.pack = None if pack is None else Pack.find(pack)
        self.batch_size, self.order_seed = batch_size, order_seed
        self.train_fraction, self.train_draw, self.perturbation = train_fraction, train_draw, perturbation
        parts = varied(self._datasets(task, data_root, split_file, options), train_fraction, train_draw, perturbation)
        self.parts = [part for part in parts.values() if part is not None]
        self.spec = self.parts[0].spec
        self.accept_orientation = Accepted(self.parts[0], accept_orientation or ())
        self._accepted: dict[str, str] = {} if self.pack is None else self.pack.manifest.task["accepted_orientation"]
        self._encoded: Callable[[CTDataset], Dataset] | None = None
        self._batches_seen = 0
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

    def _datasets(
        self, task: str, data_root: str | None, split_file: str | None, options: dict[str, Any] | None
    ) -> dict[str, CTDataset | None]:
        if self.pack is None:
            return task_datasets(task, task_root(task, data_root), split_file, options)
        if self.perturbation is not None:
            raise TaskError(f"{self.perturbation} cannot be applied: the pack {self.pack.name} has no scans")
        return packed_datasets(self.pack, task, data_root, split_file, options)

    @property
    def folds(self) -> FoldTable | None:
        """The folds of a task that is cross-validated, None of one that is not."""
        table = self.parts[0].table
        return table if isinstance(table, FoldTable) else None

    @property
    def notice(self) -> str | None:
        """What must stand next to every number of this task."""
        return self.spec.notice

    def describe(self) -> dict[str, Any]:
        """Returns what a record must hold of the task."""
        one = self.parts[0]
        of_split = {part.split: part for part in self.parts}
        parameters = None if self.perturbation is None else perturbation_named(self.perturbation).describe()
        return {
            "name": self.spec.name,
            "version": self.spec.version,
            "kind": self.spec.kind,
            "metric": self.spec.metric,
            "classes": list(self.spec.classes),
            "options": one.describe(),
            "split": one.table.source,
            "split_sha256": one.table.sha256,
            "cases": {split: len(of_split[split]) if split in of_split else 0 for split in SPLITS},
            "patients": {split: len(of_split[split].patients) if split in of_split else 0 for split in SPLITS},
            "excluded": one.excluded,
            "accepted_orientation": {case: why.partition(":")[0] for case, why in self._accepted.items()},
            "batch_size": self.batch_size,
            "order_seed": self.order_seed,
            "train_fraction": self.train_fraction,
            "train_draw": self.train_draw,
            "perturbation": self.perturbation,
            "perturbation_parameters": parameters,
            **({} if self.spec.unit is None else {"unit": self.spec.unit}),
            **({} if self.folds is None else {"folds": {"repeats": self.folds.repeats, "folds": self.folds.number}}),
        }

    def use_encoded(self, encoded: Callable[[CTDataset], Dataset]) -> None:
        """Hands out encoded cases from now on, instead of scans.

        Args:
            encoded: Gives the cases of a part as their features.
        """
        self._encoded = encoded

    def resume_after(self, batches: int) -> None:
        """Hands out the training cases behind so many batches of their order, the next time that they are asked for."""
        self._batches_seen = batches

    def scan(self, case: str) -> Volume:
        """Returns the scan of a case, whatever split it is in, as encoders get it."""
        part = next(part for part in self.parts if case in part.cases)
        return part.scan(case)

    @override
    def setup(self, stage: str) -> None:
        """Checks that every file is there and every case is valid, before any GPU time is spent."""
        # eva asks only those of the stage: a missing test scan would show after the training.
        needed = {"test": ["test"], "validate": ["val"]}.get(stage, SPLITS)
        parts = [part for part in self.parts if part.split in needed]
        if not parts:
            raise TaskError(f"{self.spec.name}: the split has no cases of '{needed[0]}' to {stage}")
        for part in parts:
            part.validate()
        super().setup(stage)
        if self.pack is not None:
            return
        workers = self.dataloaders.train.num_workers or 0
        # Added up: a record is written in every stage, and must not change from one to the next.
        self._accepted |= require_valid(parts, workers, self.accept_orientation)

    @override
    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        if trainer is None or trainer.max_steps <= 0:
            raise ValueError("the trainer needs max_steps: training is counted in steps, not in epochs")
        number = trainer.max_steps * trainer.accumulate_grad_batches * self.batch_size
        seen, self._batches_seen = self._batches_seen, 0
        sampler = _Order(self.datasets.train, number, self.order_seed, seen * self.batch_size)
        if self._encoded is not None:
            # A list: cases of several sizes do not stack, and each probe knows what to do with its own.
            cases = self._encoded(self.datasets.train)
            return DataLoader(cases, batch_size=self.batch_size, sampler=sampler, collate_fn=list)
        if self.batch_size > 1:
            raise TaskError(
                f"{self.spec.name}: batch_size {self.batch_size} needs stored features (model.init_args.features other "
                "than 'off'); encoded on the way, cases come one by one: use trainer.accumulate_grad_batches"
            )
        return self.dataloaders.train(self.datasets.train, sampler=sampler)

    @override
    def val_dataloader(self) -> Any:
        # A task may have no part for selection (the quickstart): then there is nothing to validate on.
        return [] if self.datasets.val is None else self._in_order(self.datasets.val, super().val_dataloader)

    @override
    def test_dataloader(self) -> Any:
        return self._in_order(self.datasets.test, super().test_dataloader)

    def _in_order(self, part: Any, stock: Callable[[], Any]) -> Any:
        return stock() if self._encoded is None else DataLoader(self._encoded(part), batch_size=None)
