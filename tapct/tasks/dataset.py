"""The base class of every task's dataset: scans on disk as eva datasets, untouched."""

import abc
import copy
import itertools
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch.utils.data import Dataset
from typing_extensions import override

from tapct.errors import TapctError, TaskError
from tapct.names import SHIPPED_SPLITS
from tapct.source_code import code_of
from tapct.tasks import shortcuts
from tapct.tasks.columns import Column, Value
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import Split, SplitTable, read_exclusions, read_split
from tapct.volumes import Grid, Volume, read_ct, read_grid
from tapct.volumes.perturb import Perturbation

if TYPE_CHECKING:
    from eva.vision.data import tv_tensors as eva_tv_tensors

MIN_SLICES = 5
"""A scan of fewer slices is taken for a broken export. The shortest of the ten releases have tens."""

Finding = tuple[Literal["ok", "warn", "fail"], str, str]
"""What the doctor found: status ("warn": a run continues), message, how to mend it."""

_OF_GRID = frozenset(column.name for column in shortcuts.GEOMETRY)

ARCHIVES = ("*.zip", "*.tar", "*.tar.gz", "*.tgz", "*.7z", "*.zip.0*")


@dataclass(frozen=True)
class SplitPin:
    """What a split that is derived from the release's label file must come out as.

    Attributes:
        sha256: Hash of the table.
        counts: Cases in (train, val, test).
    """

    sha256: str
    counts: tuple[int, int, int]


class CTDataset(Dataset["tuple[eva_tv_tensors.Volume, Any, dict[str, Any]]"], abc.ABC):
    """Scans in HU with their targets, untouched, in SPL order.

    A sample is an eva `Volume` (D, 1, H, W), the target, and metadata with `case`, `patient`, `source`, `affine` and
    `notes` (of how the scan was read, one a line): the affine is repeated there because collating drops it from the
    `Volume`. No dataset knows an
    encoder; nothing is resampled or normalised here.

    It has the methods of eva's `VisionDataset`, and is not derived from it: importing eva takes seconds, which
    whoever lists tasks, looks at their files or reads their cases (`read`) need not wait for.

    A task sets `spec` and implements `ct_path`, `target_paths` and `read_target`. Its split is the CSV of its
    name in `splits/`, or comes from `derive_split` where the release's list of cases may not be passed on.
    """

    spec: ClassVar[TaskSpec]
    described: ClassVar[tuple[str, ...]] = ()
    """What records hold of its options, by name: its attributes, where `describe` does not say otherwise."""
    shipped_root: ClassVar[Path | None] = None
    """Folder of the data, for a task that ships with the project."""

    split_pin: ClassVar[SplitPin | None] = None
    """What `derive_split` must give on the release's own label file."""

    split_rule: ClassVar[str | None] = None
    """What the table of `derive_split` is called, where only the data tell which cases it has: a rule of each name."""

    perturbation: Perturbation | None = None
    """What is done to the scans after they are read; see `perturbed`."""

    _perturbing: tuple[dict[str, Any], ...] = ()

    _header: tuple[str, dict[str, Value]] | None = None
    """The case whose header was read last, and what it says."""

    _sizes: tuple[str, dict[str, float]] | None = None
    """The case whose grid was read last, and its columns."""

    scan_patterns: tuple[str, ...] = ()
    """Globs under the root that find the scans of the release, for the doctor's count."""

    window: ClassVar[str] = "soft-tissue"
    """Of `tapct.viz.canvas.WINDOWS_HU`, the one in which its scans are looked at."""

    def __init__(self, root: str | Path, split: Split, split_file: str | Path | None = None) -> None:
        """Initializes the dataset.

        Args:
            root: Folder of the task.
            split: Which cases.
            split_file: Another split than the task's own: a CSV with the columns case, patient, split (or fold_0,
                fold_1, ..., to cross-validate), or the name of one that ships beside it (`names.SHIPPED_SPLITS`).

        Raises:
            TaskError: If the split cannot be read.
        """
        super().__init__()
        self.root = Path(root)
        self.split = split
        self.excluded = {**self.shipped_exclusions(), **self.left_out()}
        self.table = self._table(split_file).without(self.excluded)
        self._patients = self.table.cases[split]
        self._cases = list(self._patients)

    # -- What a task says ------------------------------------------------------------------------------

    @abc.abstractmethod
    def ct_path(self, case: str) -> Path:
        """Returns the scan of a case: a file, or a folder of DICOM slices. It need not be there."""

    @abc.abstractmethod
    def target_paths(self, case: str) -> list[Path]:
        """Returns the files that hold the target of a case; they need not be there."""

    @abc.abstractmethod
    def read_target(self, case: str, ct: Volume) -> torch.Tensor:
        """Returns the target of a case, given its scan: labels (D, H, W) on its grid, or class targets (K,)."""

    def read_scan(self, case: str) -> Volume:
        """Returns the scan of a case; tasks on crops cut here."""
        return read_ct(self.ct_path(case))

    def scan_grid(self, case: str) -> Grid:
        """Returns the grid that `scan` gives a case, from headers alone where that can be.

        A task that reads its scans in its own way (`read_scan`) has its scan read here, until it says otherwise. No
        perturbation changes a grid.

        Raises:
            TapctError: If it cannot be read.
        """
        if type(self).read_scan is CTDataset.read_scan:
            return read_grid(self.ct_path(case))
        return self.read_scan(case).grid

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
        """Returns the splits that ship beside the task's own, by name, without the cases that are left out."""
        excluded = cls.shipped_exclusions()
        paths = {name: cls._split_path(f"-{name}") for name in SHIPPED_SPLITS}
        return {name: SplitTable.read(path).without(excluded) for name, path in paths.items() if path.is_file()}

    @classmethod
    def shipped_config(cls) -> Path | None:
        """Returns the config that ships beside the module as `configs/TASK.yaml`; ours are in `eva_configs/`."""
        path = cls._shipped("configs", f"{cls.spec.name}.yaml")
        return path if path.is_file() else None

    @classmethod
    def _shipped(cls, folder: str, name: str) -> Path:
        """Returns where a file ships: in a folder beside the module of the class, or of one that it derives from."""
        modules = dict.fromkeys(each.__module__ for each in cls.__mro__ if issubclass(each, CTDataset))
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
                f"{cls.spec.name} ships no split '{name}' beside its own. Leave split_file out "
                "(data.init_args.split_file, the variable SPLIT_FILE), or name a CSV; docs/tasks.md says what ships"
            )
        return path

    def derive_split(self) -> SplitTable:
        """Returns the split of a release whose list of cases may not be passed on, from its label file."""
        raise TaskError(f"{self.spec.name} ships no split and has no rule for one")

    def left_out(self) -> dict[str, str]:
        """Returns the cases of the release's label file that cannot be used, with the reason, beside those that ship.

        The record lists them: what is left out silently changes a number as much as what is reported.
        """
        return {}

    def release_findings(self) -> Iterator[Finding]:
        """Yields what a task's tables say against its release, for the doctor; it is asked once, of any split.

        Raises:
            TapctError: If a table cannot be read.
        """
        return iter(())

    def describe(self) -> dict[str, Any]:
        """Returns the options of the dataset, for the record."""
        return {name: getattr(self, name) for name in self.described}

    def read_value(self, case: str, column: str) -> Value:
        """Returns what a column of `spec.table` or `spec.shortcuts` holds of a case; None where nothing is known.

        What every task has, `value` knows. Those of `tapct.tasks.shortcuts.DICOM` are in the headers of scans that are
        DICOM; a task with a table says here what that holds.

        Raises:
            TapctError: If it cannot be read.
        """
        if column in {one.name for one in shortcuts.DICOM}:
            if self._header is None or self._header[0] != case:
                self._header = (case, shortcuts.of_header(self.ct_path(case)))
            return self._header[1][column]
        raise NotImplementedError(f"{type(self).__name__} reads no '{column}', but its spec says that there is one")

    def value_paths(self, case: str, column: str) -> list[Path]:
        """Returns the files that `read_value` reads of a column, beside the scan; they need not be there."""
        return []

    def value(self, case: str, column: str) -> Value:
        """Returns what a column of `spec.columns` holds of a case; None where nothing is known.

        Raises:
            TapctError: If it cannot be read.
        """
        if column not in _OF_GRID:
            return self.read_value(case, column)
        if self._sizes is None or self._sizes[0] != case:
            self._sizes = (case, shortcuts.of_grid(self.scan_grid(case)))
        return self._sizes[1][column]

    def column_paths(self, case: str, column: str) -> list[Path]:
        """Returns the files that `value` reads of a column, beside the scan; they need not be there."""
        return [] if column in _OF_GRID else self.value_paths(case, column)

    def table_columns(self, names: Sequence[str]) -> list[Column]:
        """Returns the columns of `spec.columns` that have these names; see `TaskSpec.named`.

        Raises:
            TaskError: If there is none of such a name, or files that it is read from are not there.
        """
        columns = self.spec.named(names)
        for column in columns:
            paths = dict.fromkeys(path for case in self.cases for path in self.column_paths(case, column.name))
            if missing := [path for path in paths if not path.exists()]:
                raise TaskError(
                    f"{self.spec.name}: {len(missing)} files that the column '{column.name}' is read from are not "
                    f"there, such as {missing[0]}. To obtain the data: {self.spec.source}"
                )
        return columns

    def values(self, case: str, columns: Sequence[Column]) -> list[float]:
        """Returns what columns hold of a case, a number each (`Column.number`), NaN where nothing is known.

        Raises:
            TapctError: If a value cannot be read, or cannot be; the message names task and case.
        """
        try:
            return [column.number(self.value(case, column.name)) for column in columns]
        except TapctError as error:
            where = f"{self.spec.name}, case {case}"
            raise error if str(error).startswith(where) else type(error)(f"{where}: {error}") from error

    def levels(self, case: str, columns: Sequence[Column] | None = None) -> dict[str, str | None]:
        """Returns what a case is in columns of `spec.shortcuts`: by name its level, None where nothing is known.

        Args:
            case: The case.
            columns: The columns; all of them by default.

        Raises:
            TapctError: If a value cannot be read, or cannot be; the message names task and case.
        """
        chosen = self.spec.shortcuts if columns is None else columns
        try:
            return {column.name: column.level(self.value(case, column.name)) for column in chosen}
        except TapctError as error:
            raise type(error)(f"{self.spec.name}, case {case}: {error}") from error

    def point_mm(self, case: str) -> tuple[float, float, float] | None:
        """Returns the place (x, y, z) in mm, RAS+, that a case is about; None where it is about the whole scan."""
        return None

    def answers(self, case: str) -> frozenset[str]:
        """Returns what a case is an example of, to draw few patients evenly by; nothing where all are alike."""
        return frozenset()

    @classmethod
    def answers_of(cls, spec: TaskSpec, target: torch.Tensor) -> frozenset[str]:
        """Returns what a case with a target is an example of, where the target alone tells it (of a feature pack).

        Raises:
            TaskError: If it takes the task's label file.
        """
        raise TaskError(f"few patients of {spec.name} are drawn by its label file: give DATA_ROOT")

    # -- What every task does --------------------------------------------------------------------------

    def only(self, patients: Collection[str]) -> Self:
        """Returns the dataset with the cases of these patients alone."""
        some = copy.copy(self)
        some._patients = {case: patient for case, patient in self._patients.items() if patient in patients}
        some._cases = list(some._patients)
        return some

    def perturbed(self, perturbation: Perturbation | None) -> Self:
        """Returns the dataset with its scans perturbed (None: as they are), and its labels where they must follow."""
        changed = copy.copy(self)
        changed.perturbation = perturbation
        changed._perturbing = () if perturbation is None else (perturbation.identity(),)
        return changed

    def scan(self, case: str) -> Volume:
        """Returns the scan of a case as encoders get it: read, and perturbed where that was asked for."""
        return self._perturbed(case, self.read_scan(case))

    def _perturbed(self, case: str, ct: Volume) -> Volume:
        return ct if self.perturbation is None else self.perturbation(ct, f"{self.spec.folder}:{case}")

    def scan_reading(self, case: str) -> list[Any]:
        """Returns everything beside the files that decides what the scan of a case is: stored features hang on it."""
        return [*self.reading, case, *self._perturbing]

    def target_reading(self, case: str) -> list[Any]:
        """Returns everything beside the files that decides what the target of a case is: stored labels hang on it."""
        whole = self.perturbation is None or not self.perturbation.changes_labels
        return [*self.reading, case] if whole else self.scan_reading(case)

    @cached_property
    def reading(self) -> list[Any]:
        """What decides how all cases are read: name, version and options of the task, its class, code and libraries.

        Raises:
            TaskError: If the class is in no file, so that a change of it could not be told.
        """
        try:
            code = code_of(*dict.fromkeys(cls.__module__ for cls in type(self).__mro__))
        except LookupError as error:
            raise TaskError(
                f"{self.spec.name}: its class is defined in no file, so a change of its code could not be told "
                f"({error}). Put it into a module, or use features: off"
            ) from error
        own = f"{type(self).__module__}.{type(self).__qualname__}"
        return [self.spec.name, self.spec.version, self.describe(), own, code.sha256, code.libraries]

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

    @property
    def classes(self) -> list[str]:
        """The names of the classes, by label or position in the target."""
        return list(self.spec.classes)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The label, or position in the target, of each class."""
        return {name: index for index, name in enumerate(self.spec.classes)}

    @property
    def cases(self) -> list[str]:
        """The cases of the split, in order."""
        return list(self._cases)

    @property
    def patients(self) -> list[str]:
        """The patients of the split, each once, in order."""
        return list(dict.fromkeys(self._patients.values()))

    def patient(self, case: str) -> str:
        """Returns the patient of a case of the split."""
        return self._patients[case]

    def __len__(self) -> int:
        return len(self._cases)

    def filename(self, index: int) -> str:
        """Returns the path of a scan relative to the root, as eva's writers of embeddings name it."""
        return str(self.ct_path(self._cases[index]).relative_to(self.root))

    def paths(self, case: str) -> list[Path]:
        """Returns every file (or DICOM folder) that a case is read from."""
        return [self.ct_path(case), *self.target_paths(case)]

    def scan_paths(self, case: str) -> list[Path]:
        """Returns what `read_scan` reads: files, folders of DICOM slices, tables that say where to cut."""
        return [self.ct_path(case)]

    def setup(self) -> None:
        """Does what eva's data module asks of a dataset before a stage: `validate`."""
        self.validate()

    def validate(self) -> None:
        """Checks before any work that every file of the split is there.

        Raises:
            TaskError: If not, naming the first that are missing, and archives that were not unpacked.
        """
        missing = {case: [p for p in self.paths(case) if not p.exists()] for case in self._cases}
        absent = [str(p.relative_to(self.root)) for paths in missing.values() for p in paths]
        if absent:
            packed = sorted(p.name for pattern in ARCHIVES for p in self.root.glob(pattern))
            hint = f" There are archives that were not unpacked: {', '.join(packed[:5])}." if packed else ""
            raise TaskError(
                f"{self.spec.name}: {sum(map(bool, missing.values()))} of {len(self)} cases of the split "
                f"'{self.split}' lack files under {self.root}, such as {', '.join(absent[:3])}.{hint} To obtain the "
                f"data: {self.spec.source}"
            )

    def read(self, case: str) -> tuple[Volume, torch.Tensor]:
        """Returns the scan of a case as encoders get it, and its target as `read_target` has it.

        Raises:
            TapctError: If it cannot be used; the message names task and case.
        """
        try:
            ct = self.read_scan(case)
            if ct.shape[0] < MIN_SLICES:
                raise TaskError(f"{ct.source} has {ct.shape[0]} slices, fewer than {MIN_SLICES}: a broken export")
            target = self.read_target(case, ct)
            ct = self._perturbed(case, ct)
        except TapctError as error:
            raise type(error)(f"{self.spec.name}, case {case}: {error}") from error
        return ct, target

    @override
    def __getitem__(self, index: int) -> "tuple[eva_tv_tensors.Volume, Any, dict[str, Any]]":
        from eva.vision.data import tv_tensors as eva_tv_tensors  # see the class

        case = self._cases[index]
        ct, target = self.read(case)
        affine = torch.from_numpy(ct.affine)
        volume = eva_tv_tensors.Volume(torch.from_numpy(ct.hu)[:, None], affine=affine)
        about = {"case": case, "patient": self._patients[case], "source": ct.source}
        return volume, target, {**about, "affine": affine, "notes": "\n".join(ct.notes)}


class Index:
    """Finds files and folders of a release by name, wherever a mirror has put them (it may even make each a folder).

    Two of one scan are an error that names both: neither is taken by chance.
    """

    def __init__(self, root: Path, patterns: Iterable[str], tops: Iterable[str] = ("", "*/")) -> None:
        """Initializes the index.

        Args:
            root: Folder of the task.
            patterns: Globs of what is looked for, from the release's top folder; macOS's `._*` files are passed over.
            tops: Globs of what may be the top folder, each ending in a slash: the task's folder itself, or the one in
                it that the archive made. "**/" is any.
        """
        self._root = root
        self._patterns = tuple(patterns)
        self._tops = tuple(tops)

    @cached_property
    def _found(self) -> dict[str, list[Path]]:
        """Paths by the last parts of their names, as many as their pattern has."""
        found: dict[str, list[Path]] = {}
        for top, pattern in itertools.product(self._tops, self._patterns):
            for path in sorted(self._root.glob(top + pattern)):
                if not path.name.startswith("._"):
                    found.setdefault("/".join(path.parts[-len(PurePath(pattern).parts) :]), []).append(path)
        return found

    def find(self, *names: str) -> Path:
        """Returns what has one of these names, from the release's top folder, else where the first belongs.

        Raises:
            TaskError: There are several.
        """
        return self._single([path for name in names for path in self._found.get(name, [])], names[0])

    def only(self, name: str) -> Path:
        """Returns the only thing that the patterns find, else where `name` belongs.

        Raises:
            TaskError: There are several.
        """
        return self._single([path for paths in self._found.values() for path in paths], name)

    def _single(self, found: list[Path], name: str) -> Path:
        if len(found) > 1:
            # A folder that a mirror has made round a file has its name; links may lead to one file.
            files = [path for path in found if not (path / path.name).exists()]
            found = list({path.resolve(): path for path in reversed(files)}.values())
        if len(found) > 1:
            listed = ", ".join(sorted(str(path.relative_to(self._root)) for path in found))
            what = f"{self._root} holds {found[0].name} {len(found)} times: {listed}"
            raise TaskError(f"{what}. Leave the one to be used")
        return found[0] if found else self._root / name


def nifti(*stems: str) -> tuple[str, ...]:
    """Returns the names that a NIfTI file may have, packed or not."""
    return tuple(stem + end for stem in stems for end in (".nii.gz", ".nii"))
