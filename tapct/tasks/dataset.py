"""The base class of every task's dataset: scans on disk as eva datasets, untouched."""

import abc
import copy
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch.utils.data import Dataset
from typing_extensions import override

from tapct._utils import renamed
from tapct.errors import TapctError, TaskError
from tapct.source_code import code_of
from tapct.tasks.case_columns import CaseColumns
from tapct.tasks.own_split import OwnSplit
from tapct.tasks.spec import TaskSpec
from tapct.tasks.splits import Split
from tapct.volumes import Grid, Volume, read_ct, read_grid
from tapct.volumes.perturb import Perturbation

if TYPE_CHECKING:
    from eva.vision.data import tv_tensors as eva_tv_tensors

MIN_SLICES_OF_A_SCAN = 5
"""A scan of fewer slices is taken for a broken export. The shortest of the ten releases have tens."""

DoctorFinding = tuple[Literal["ok", "warn", "fail"], str, str]
"""What the doctor found: status ("warn": a run continues), message, how to fix it."""

ARCHIVES = ("*.zip", "*.tar", "*.tar.gz", "*.tgz", "*.7z", "*.zip.0*")


def require_slices(ct: Volume) -> None:
    """Checks that a scan has as many slices as any scan has.

    Raises:
        TaskError: If it has fewer.
    """
    if ct.shape[0] < MIN_SLICES_OF_A_SCAN:
        raise TaskError(f"{ct.source} has {ct.shape[0]} slices, fewer than {MIN_SLICES_OF_A_SCAN}: a broken export")


RENAMED = {
    "answers": "strata",
    "answers_of": "strata_of",
    "scan_reading": "scan_cache_key",
    "target_reading": "target_cache_key",
    "mask_reading": "mask_cache_key",
}
"""What tasks set, by its old name."""


class CTDataset(OwnSplit, CaseColumns, Dataset["tuple[eva_tv_tensors.Volume, Any, dict[str, Any]]"], abc.ABC):
    """Scans in HU with their targets, untouched, in SPL order.

    A sample is an eva `Volume` (D, 1, H, W), the target, and metadata with `case`, `patient`, `source`, `affine` and
    `notes` (of how the scan was read, one a line): the affine is repeated there because collating drops it from the
    `Volume`. No dataset knows an encoder; nothing is resampled or normalised here.

    It has the methods of eva's `VisionDataset`, and is not derived from it: importing eva takes seconds, which
    whoever lists tasks, looks at their files or reads their cases (`read`) need not wait for.

    A task sets `spec` and implements `ct_path`, `target_paths` and `read_target`; its split: `OwnSplit`.
    """

    spec: ClassVar[TaskSpec]
    described: ClassVar[tuple[str, ...]] = ()
    """What records hold of its options, by name: its attributes, where `describe` does not say otherwise."""
    shipped_root: ClassVar[Path | None] = None
    """Folder of the data, for a task that ships with the project."""

    perturbation: Perturbation | None = None
    """What is done to the scans after they are read; see `perturbed`."""

    _perturbing: tuple[dict[str, Any], ...] = ()

    scan_patterns: tuple[str, ...] = ()
    """Globs under the root that find the scans of the release, for the doctor's count."""

    window: ClassVar[str] = "soft-tissue"
    """Of `tapct.viz.canvas.WINDOWS_HU`, the one in which its scans are looked at."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Refuses the names that tasks set before they were called otherwise."""
        super().__init_subclass__(**keywords)
        renamed.refuse(cls, RENAMED, TaskError)

    def __init__(self, root: str | Path, split: Split, split_file: str | Path | None = None) -> None:
        """Initializes the dataset.

        Args:
            root: Folder of the task.
            split: Which cases.
            split_file: Another split than the task's own: a CSV with the columns case, patient, split (or fold_0,
                fold_1, ..., to cross-validate), or the name of one that ships next to it (`names.SHIPPED_SPLITS`).

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

    def left_out(self) -> dict[str, str]:
        """Returns the cases of the release's label file that cannot be used, with the reason, next to those that ship.

        The record lists them: what is left out silently changes a number as much as what is reported.
        """
        return {}

    def release_findings(self) -> Iterator[DoctorFinding]:
        """Yields what a task's tables say against its release, for the doctor; it is asked once, of any split.

        Raises:
            TapctError: If a table cannot be read.
        """
        return iter(())

    def describe(self) -> dict[str, Any]:
        """Returns the options of the dataset, for the record."""
        return {name: getattr(self, name) for name in self.described}

    def point_mm(self, case: str) -> tuple[float, float, float] | None:
        """Returns the place (x, y, z) in mm, RAS+, that a case is about; None where it is about the whole scan."""
        return None

    def strata(self, case: str) -> frozenset[str]:
        """Returns what a case is an example of, to draw few patients evenly by; nothing where all are alike."""
        return frozenset()

    @classmethod
    def strata_of(cls, spec: TaskSpec, target: torch.Tensor) -> frozenset[str]:
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

    def scan_cache_key(self, case: str) -> list[Any]:
        """Returns everything next to the files that decides what the scan of a case is: stored features hang on it."""
        return [*self.reading, case, *self._perturbing]

    def target_cache_key(self, case: str) -> list[Any]:
        """Returns everything next to the files that decides what the target of a case is: stored labels hang on it."""
        whole = self.perturbation is None or not self.perturbation.changes_labels
        return [*self.reading, case] if whole else self.scan_cache_key(case)

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
            require_slices(ct)
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
