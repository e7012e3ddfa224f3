"""A task of which only stored features are here: the cases of a feature pack."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.columns import Column
from tapct.tasks.dataset import CTDataset
from tapct.tasks.masked import MaskedDataset
from tapct.tasks.pack import Pack
from tapct.tasks.registry import task_class, task_datasets, task_root
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import SPLITS, Split, SplitTable
from tapct.volumes import Volume


class PackedDataset(CTDataset):
    """Cases of a pack, without scans."""

    spec: TaskSpec  # type: ignore[misc]  # of the task that the pack is of

    def __init__(self, pack: Pack, split: Split) -> None:
        """Initializes the dataset.

        Args:
            pack: The pack.
            split: Which cases.

        Raises:
            TaskError: If the task is not installed, or is of another version.
        """
        of = pack.manifest.task
        self.spec = task_class(of["name"]).spec
        for what, here in (("version", self.spec.version), ("classes", list(self.spec.classes))):
            if of[what] != here:
                raise TaskError(
                    f"the pack {pack.name} is of another {what} of {self.spec.name} ({of[what]}) than the one here "
                    f"({here}): take a pack that was made with this release"
                )
        self.pack, self.split, self.root = pack, split, pack.folder
        self.excluded = dict(of["excluded"])
        rows = [(case.case, case.patient, case.split) for case in pack.manifest.cases]
        self.table = SplitTable.of(rows, of["split"], where=f"the pack {pack.name}")
        self._patients = self.table.cases[split]
        self._cases = list(self._patients)

    @override
    def describe(self) -> dict[str, Any]:
        return self.pack.manifest.task["options"]

    @override
    def validate(self) -> None:
        """Looks for nothing: entries are checked as they are read."""

    @override
    def ct_path(self, case: str) -> Path:
        self._has_none(case)

    @override
    def target_paths(self, case: str) -> list[Path]:
        self._has_none(case)

    @override
    def read_target(self, case: str, ct: Volume) -> torch.Tensor:
        self._has_none(case)

    def _has_none(self, case: str) -> NoReturn:
        raise TaskError(
            f"{self.spec.name}, case {case}: its features come from the pack {self.pack.name}, and there is no scan. "
            "Leave the pack out (data.init_args.pack, or the variable PACK) and give DATA_ROOT"
        )


class PackedTargets(PackedDataset, MaskedDataset):
    """Cases of a pack, and their targets: those in the pack, or those of the label file here."""

    def __init__(self, pack: Pack, split: Split, labels: CTDataset | None) -> None:
        """Initializes the dataset.

        Args:
            pack: The pack.
            split: Which cases.
            labels: The same part of the task on disk, of which the label file alone is read; None: the pack has some.
        """
        super().__init__(pack, split)
        self._labels: Any = labels
        self._packed = {case.case: case for case in pack.manifest.cases}

    def target(self, case: str) -> torch.Tensor:
        """Returns the target of a case."""
        packed = self._packed[case].targets
        if packed is None:
            return self._labels.target(case)
        is_whole = all(isinstance(one, int) for one in packed)
        rows = [[math.nan if v is None else v for v in one] if isinstance(one, tuple) else one for one in packed]
        dtype = torch.int64 if is_whole else torch.float64
        return torch.tensor([math.nan if one is None else one for one in rows], dtype=dtype)

    @override
    def levels(self, case: str, columns: Sequence[Column] | None = None) -> dict[str, str | None]:
        """Returns what a case is in columns, as the pack or the label file here says; None where neither does."""
        columns = self.spec.shortcuts if columns is None else columns
        packed = self._packed[case].levels
        if packed is None and self._labels is not None:
            return self._labels.levels(case, columns)
        return {column.name: (packed or {}).get(column.name) for column in columns}

    @override
    def table_columns(self, names: Sequence[str]) -> list[Column]:
        """Returns columns of these names: of the label file here, else of the levels that the pack has.

        Raises:
            TaskError: If there is none of such a name, or it is a number, of which a pack has the bin alone.
        """
        if self._labels is not None:
            return self._labels.table_columns(names)
        columns = self.spec.named(names)
        if numbers := [column.name for column in columns if column.kind != "text"]:
            raise TaskError(
                f"the pack {self.pack.name} has levels of columns, and no numbers such as '{numbers[0]}'. Name texts "
                "alone in table= (sex, manufacturer), or leave the pack out (PACK) and give DATA_ROOT"
            )
        return columns

    @override
    def values(self, case: str, columns: Sequence[Column]) -> list[float]:
        if self._labels is not None:
            return self._labels.values(case, columns)
        levels = self.levels(case, columns)
        return [column.number(levels[column.name]) for column in columns]

    @override
    def strata(self, case: str) -> frozenset[str]:
        if self._labels is not None:
            return self._labels.strata(case)
        return task_class(self.spec.name).strata_of(self.spec, self.target(case))

    @override
    def require_masks(self) -> None:
        raise TaskError(
            f"the pack {self.pack.name} has no masks to pool features over. Pool them otherwise (HEAD:mean, HEAD:max), "
            "or leave the pack out (data.init_args.pack, or the variable PACK) and give DATA_ROOT"
        )


def packed_datasets(
    pack: Pack, task: str, data_root: str | None, split_file: str | None, options: dict[str, Any] | None
) -> dict[str, CTDataset | None]:
    """Returns the datasets of a pack by split, None for a split without cases.

    Args:
        pack: The pack.
        task: The task that was asked for.
        data_root: Folder with the task's label file, for a pack that has no targets.
        split_file: Another split that was asked for.
        options: Settings of the task that were asked for; None for those of the pack.

    Raises:
        TaskError: If the pack is of another task, split or options, or has no targets and there are none here.
    """
    of = pack.manifest.task
    if of["name"] != task:
        raise TaskError(f"the pack {pack.name} is of the task {of['name']}, not of {task}")
    if split_file is not None:
        raise TaskError(f"the pack {pack.name} has its own split ({of['split']}): leave split_file out")
    if options and options != of["options"]:
        raise TaskError(f"the pack {pack.name} was made with the options {of['options']} of {task}, not {options}")
    dense = task_class(task).spec.of_kind.dense
    if pack.manifest.has_targets:
        labels: dict[str, CTDataset | None] = dict.fromkeys(SPLITS)
    elif not dense and data_root is not None:
        labels = task_datasets(task, task_root(task, data_root), None, of["options"])
    else:
        labels_of = "label maps: it needs DATA_ROOT, all" if dense else "label file, under DATA_ROOT"
        raise TaskError(
            f"the pack {pack.name} holds features alone, and a probe needs targets. Ask its maker for one with them "
            f"(`tapct pack --targets`; the licence of the data decides), or use the task's own {labels_of}"
        )
    parts: dict[str, CTDataset | None] = {}
    for split in SPLITS:
        one = PackedDataset(pack, split) if dense else PackedTargets(pack, split, labels[split])
        local = labels[split]
        if local is not None and local.table.sha256 != one.table.sha256:
            raise TaskError(f"the pack {pack.name} is of another split of {task} than the label file here gives")
        parts[split] = one if len(one) else None
    return parts
