"""What a downstream task is, apart from how its files are read."""

import csv
import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Literal

from tapct.errors import TaskError

Split = Literal["train", "val", "test"]
"""`train` fits the probe, `val` is the part of the training patients that settings are chosen on, `test`
is reported and nothing is ever chosen on it."""

SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """A downstream task.

    Attributes:
        name: The name in commands and configs, and of the folder under the data root.
        display_name: The name in tables.
        kind: What is predicted.
        version: Goes up whenever a number could change: labels, splits, metric.
        classes: Names by label; background first in segmentation.
        licence: Of the data.
        source: How to obtain the data.
        notice: What must stand beside every number, if anything.
    """

    name: str
    display_name: str
    kind: Literal["segmentation", "classification"]
    version: int
    classes: tuple[str, ...]
    licence: str
    source: str
    notice: str | None = None

    @property
    def split_file(self) -> Path:
        """The CSV with the columns case, patient, split; lines that start with # say where it is from."""
        return Path(str(files("tapct.tasks"))) / "splits" / f"{self.name}.csv"

    @cached_property
    def splits(self) -> dict[str, dict[str, str]]:
        """Split to case to patient, in the order of the file.

        Raises:
            TaskError: If a case is there twice, a split is unknown, or a patient is on two sides.
        """
        splits: dict[str, dict[str, str]] = {split: {} for split in SPLITS}
        side: dict[str, str] = {}
        lines = [line for line in self.split_file.read_text().splitlines() if not line.startswith("#")]
        for row in csv.DictReader(lines):
            case, patient, split = row["case"], row["patient"], row["split"]
            if split not in splits:
                raise TaskError(f"{self.split_file}: case {case} is in the unknown split '{split}'")
            if any(case in cases for cases in splits.values()):
                raise TaskError(f"{self.split_file}: case {case} is there twice")
            if side.setdefault(patient, split) != split:
                raise TaskError(f"{self.split_file}: patient {patient} is in {side[patient]} and in {split}")
            splits[split][case] = patient
        return splits

    @property
    def split_sha256(self) -> str:
        """Hash of the split file."""
        return hashlib.sha256(self.split_file.read_bytes()).hexdigest()
