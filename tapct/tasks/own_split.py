"""The split of a task: which ships, which is derived from the release, and what it must come out as."""

import abc
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tapct.errors import TaskError
from tapct.names import SHIPPED_SPLITS
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import SplitTable, read_exclusions, read_split


@dataclass(frozen=True)
class SplitPin:
    """What a split that is derived from the release's label file must come out as.

    Attributes:
        sha256: Hash of the table.
        counts: Cases in (train, val, test).
    """

    sha256: str
    counts: tuple[int, int, int]


class OwnSplit(abc.ABC):
    """The part of a task that knows its split.

    It is the CSV of the task's name in `splits/` next to its module, or comes from `derive_split` where the release's
    list of cases may not be passed on.
    """

    spec: ClassVar[TaskSpec]
    root: Path

    split_pin: ClassVar[SplitPin | None] = None
    """What `derive_split` must give on the release's own label file."""

    split_rule: ClassVar[str | None] = None
    """What the table of `derive_split` is called, where only the data tell which cases it has: a rule of each name."""

    @classmethod
    def split_counts(cls) -> tuple[int, int, int] | None:
        """Returns the number of cases in (train, val, test); None where only the data tell."""
        if cls.split_pin is not None:
            return cls.split_pin.counts
        table = cls.shipped_split()
        return None if table is None else (table.counts["train"], table.counts["val"], table.counts["test"])

    @classmethod
    def shipped_exclusions(cls) -> dict[str, str]:
        """Returns the cases that are left out wherever the release is read, with the reason."""
        return read_exclusions(cls._shipped("exclusions", f"{cls.spec.name}.csv"))

    @classmethod
    def shipped_split(cls) -> SplitTable | None:
        """Returns the task's own split where it ships; None of one that is derived from the release's label file."""
        if cls.split_pin is not None or cls.split_rule is not None:
            return None
        return read_split(cls._split_path()).without(cls.shipped_exclusions())

    @classmethod
    def shipped_split_sha256(cls) -> str | None:
        """Returns the hash of the task's own split, as records hold it; None where only the data tell."""
        if cls.split_pin is not None:
            return cls.split_pin.sha256
        table = cls.shipped_split()
        return None if table is None else table.sha256

    @classmethod
    def alternative_splits(cls) -> dict[str, SplitTable]:
        """Returns the splits that ship next to the task's own, by name, without the cases that are left out."""
        excluded = cls.shipped_exclusions()
        paths = {name: cls._split_path(f"-{name}") for name in SHIPPED_SPLITS}
        return {name: SplitTable.read(path).without(excluded) for name, path in paths.items() if path.is_file()}

    @classmethod
    def shipped_config(cls) -> Path | None:
        """Returns the config that ships next to the module as `configs/TASK.yaml`; ours are in `eva_configs/`."""
        path = cls._shipped("configs", f"{cls.spec.name}.yaml")
        return path if path.is_file() else None

    @classmethod
    def _shipped(cls, folder: str, name: str) -> Path:
        """Returns where a file ships: in a folder next to the module of the class, or of one that it derives from."""
        modules = dict.fromkeys(each.__module__ for each in cls.__mro__ if issubclass(each, OwnSplit))
        files = (getattr(sys.modules.get(module), "__file__", None) for module in modules)
        paths = [Path(file).parent / folder / name for file in files if file is not None]
        return next((path for path in paths if path.is_file()), paths[0])

    @classmethod
    def _split_path(cls, which: str = "") -> Path:
        """Returns where a split of the task would ship: its own, its folds, else that of the release that it shares."""
        names = (cls.spec.name, f"{cls.spec.name}_folds", cls.spec.folder)
        paths = [cls._shipped("splits", f"{name}{which}.csv") for name in names]
        return next((path for path in paths if path.is_file()), paths[-1])

    @classmethod
    def _alternative(cls, name: str) -> Path:
        path = cls._split_path(f"-{name}")
        if not path.is_file():
            raise TaskError(
                f"{cls.spec.name} ships no split '{name}' next to its own. Leave split_file out "
                "(data.init_args.split_file, the variable SPLIT_FILE), or name a CSV; docs/tasks.md says what ships"
            )
        return path

    def derive_split(self) -> SplitTable:
        """Returns the split of a release whose list of cases may not be passed on, from its label file."""
        raise TaskError(f"{self.spec.name} ships no split and has no rule for one")

    def _table(self, split_file: str | Path | None) -> SplitTable:
        if split_file is not None:
            named = str(split_file) in SHIPPED_SPLITS
            return read_split(self._alternative(str(split_file)) if named else Path(split_file))
        shipped = self._split_path()
        if shipped.is_file():
            return read_split(shipped)
        table = self.derive_split()
        counts = tuple(table.counts.values())
        if self.split_pin is not None and table.sha256 != self.split_pin.sha256:
            raise TaskError(
                f"{self.spec.name}: the label file under {self.root} gives another split than the release's: {counts} "
                f"instead of {self.split_pin.counts} cases in (train, val, test), or the same number of others. "
                "Results would not be comparable. Fetch the label file again; to use another list of cases on "
                "purpose, give it as split_file (data.init_args.split_file), which the record names"
            )
        return table
