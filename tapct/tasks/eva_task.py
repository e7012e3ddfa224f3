"""Data sets that eva has a class for, as tasks: eva's files and lists, our readers, and a part for selection."""

import importlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from typing_extensions import override

from tapct.errors import TaskError
from tapct.tasks.dataset import CTDataset
from tapct.tasks.splits import SplitTable, set_aside

if TYPE_CHECKING:
    from eva.vision.data.datasets.vision import VisionDataset

EvaSplit = Literal["train", "val", "test"]
"""What eva calls the parts of a data set; its configs fit on `train` and report `val`."""

_ENDING = re.compile(r"(_0000)?(\.nii(\.gz)?|\.npy)$")


class EvaTask(CTDataset):
    """A data set that eva has a class for: a task names it, next to `SegmentationDataset` or `ClassificationDataset`.

    Scans and labels come through our readers, as of every task: in HU on the scan's own grid, in SPL, with the affine,
    labels as the whole numbers that they are (eva casts both to int16, and so truncates a label of 0.99 to 0).

    Cases go by name. eva's classes count them by place in the sorted folder, so that one missing file moves every list
    behind it. What eva reports (`val`, or `test` where its class has one with labels) is reported here as `test`. Where
    it would select on what it reports, a tenth of the patients of its `train` does, by `set_aside`.
    """

    eva_class: ClassVar[str]
    """Where eva's class is imported from, such as "eva.vision.data.datasets.BTCV"."""

    eva_reports: ClassVar[Literal["val", "test"]] = "val"
    """Which of eva's lists is reported. With "test", eva's `val` selects."""

    @classmethod
    def case_of(cls, filename: str) -> str:
        """Returns the case of a file as eva's class names it: "folder/img0001.nii.gz" is img0001."""
        return _ENDING.sub("", PurePath(filename).name)

    @classmethod
    def patient_of(cls, case: str) -> str:
        """Returns the patient of a case; of a release that names none, each case counts as one."""
        return case

    @classmethod
    def eva_dataset(cls, root: str | Path, split: EvaSplit, **settings: Any) -> "VisionDataset":
        """Returns eva's own data set on a folder, after it has looked up its files and lists; imports eva.

        Args:
            root: The folder as eva wants it.
            split: eva's name of the part.
            **settings: Further arguments of eva's class.

        Raises:
            TaskError: If the class cannot be instantiated, as LUNA25 of eva 0.4.5.
        """
        module, _, name = cls.eva_class.rpartition(".")
        dataset = getattr(importlib.import_module(module), name)
        if inspect.isabstract(dataset):
            lacking = ", ".join(sorted(dataset.__abstractmethods__))
            raise TaskError(f"{cls.eva_class} of the installed eva cannot be instantiated: it lacks {lacking}")
        found = dataset(root=str(root), split=split, **settings)
        found.configure()
        return found

    @classmethod
    def eva_files(cls, root: str | Path, split: EvaSplit) -> list[str]:
        """Returns the scans that eva's class lists in a part of a folder, as it names them; imports eva."""
        return _filenames(cls.eva_dataset(root, split))

    @override
    def derive_split(self) -> SplitTable:
        """Returns the split of eva's lists on this folder, where neither a table nor a rule of the task's own ships.

        Raises:
            TaskError: If eva's class finds the data set incomplete: its lists would be moved.
        """
        parts: tuple[EvaSplit, ...] = ("train", "val", "test") if self.eva_reports == "test" else ("train", "val")
        lists: dict[str, dict[str, str]] = {}
        try:
            for part in parts:
                dataset = self.eva_dataset(self.root, part)
                dataset.validate()
                lists[part] = self._by_case(_filenames(dataset), part)
        except (OSError, IndexError) as error:
            raise TaskError(
                f"{self.spec.name}: {self.eva_class} finds {self.root} incomplete ({error}), and counts its lists by "
                f"place in the folder: they would be others. To obtain the data: {self.spec.source}"
            ) from error
        return split_of(lists, f"{self.spec.name} v{self.spec.version}", f"lists of {self.eva_class}", str(self.root))

    def _by_case(self, filenames: list[str], part: str) -> dict[str, str]:
        """Returns the cases of files, with their patients."""
        cases = {self.case_of(filename): self.patient_of(self.case_of(filename)) for filename in filenames}
        if not cases or len(cases) < len(filenames):
            raise TaskError(
                f"{self.spec.name}: the {part} of {self.eva_class} has {len(filenames)} files in {self.root}, of "
                f"{len(cases)} cases. {type(self).__name__}.case_of must name each file's"
            )
        return cases


def _filenames(dataset: "VisionDataset") -> list[str]:
    return [dataset.filename(index) for index in range(len(dataset))]


def split_of(lists: Mapping[Any, Mapping[str, str]], seed: str, source: str, where: str) -> SplitTable:
    """Returns the split of eva's lists.

    Args:
        lists: By eva's name of the part, case to patient. With a `test`, that is reported and `val` selects; without,
            `val` is reported and a tenth of the patients of `train` selects.
        seed: Of the tenth: task and version.
        source: What records name.
        where: What the lists are from, for errors.

    Raises:
        TaskError: If the lists share a case or a patient.
    """
    train, val, test = (dict(lists.get(part, {})) for part in ("train", "val", "test"))
    if not test:
        chosen = set_aside(train.values(), seed)
        test, val = val, {case: patient for case, patient in train.items() if patient in chosen}
        train = {case: patient for case, patient in train.items() if patient not in chosen}
    parts = {"train": train, "val": val, "test": test}
    rows = [(case, patient, part) for part, cases in parts.items() for case, patient in cases.items()]
    return SplitTable.of(rows, source, where=where)
