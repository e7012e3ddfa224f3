"""The features of a task's cases: extracted once, then read from the store."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch
from loguru import logger
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import Dataset

from tapct import terminal
from tapct.encoders import Encoder
from tapct.encoders.identity import identity
from tapct.errors import EncoderError, FeatureError
from tapct.features.extract import CaseFeatures, are_finite, encoder_grid
from tapct.features.filling import CaseTask, Pass, Unwritten
from tapct.features.identity import ContentHashes, key_of
from tapct.features.store import CacheMode, Entry, TensorStore
from tapct.source_code import sources_sha256
from tapct.volumes import Grid, Size, resample_labels

if TYPE_CHECKING:
    from tapct.tasks.classification import ClassificationDataset
    from tapct.tasks.dataset import CTDataset

Seen = Literal["map", "embeddings"]
"""Features of a case that a head may see."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class EncodedCase:
    """What a probe sees of a case.

    Attributes:
        name: Case in the split file.
        patient: Patient in the split file.
        features: Its features; the map may be memory-mapped.
        target: Labels (D, H, W) on the scan's own grid, or class targets (K,).
        labels: Labels on the encoder's grid; None in classification.
        features_key: Key of the stored features; None where nothing is stored.
        labels_key: Key of the stored labels; None where there are none, or nothing is stored.
        notes: What a user should know of how its scan was read.
    """

    name: str
    patient: str
    features: CaseFeatures
    target: torch.Tensor
    labels: torch.Tensor | None
    features_key: str | None = None
    labels_key: str | None = None
    notes: tuple[str, ...] = ()

    def to(
        self,
        device: torch.device,
        seen: Sequence[Seen] = get_args(Seen),
        dtype: torch.dtype | None = torch.float32,
    ) -> "EncodedCase":
        """Returns the case on a device.

        Args:
            device: The device.
            seen: The features that are needed there; others stay where they are.
            dtype: What those become; None leaves them as they are stored, on a CPU mapped from disk.
        """
        moved = {name: getattr(self.features, name).to(device=device, dtype=dtype) for name in seen}
        labels = None if self.labels is None else self.labels.to(device)
        features = replace(self.features, **moved)
        return replace(self, features=features, target=self.target.to(device), labels=labels)


class FeatureBank:
    """Features and labels of the cases of a task for one encoder, in a store.

    What a features entry depends on is in its key: the weights, card, code and settings of the encoder, the windows,
    the content of the case's files, how its task reads them, the code and libraries in between, the dtype. A change of
    any of them is another key.
    """

    def __init__(
        self,
        encoder: Encoder,
        store: TensorStore,
        *,
        mode: CacheMode = CacheMode.USE,
        dtype: str = "bf16",
        overlap: float = 0.0,
        fit_windows: bool = False,
        num_workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        """Initializes the bank.

        Args:
            encoder: May be deferred; it is built only if something must be extracted.
            store: Where entries are.
            mode: What to do with them; not "off".
            dtype: Of stored features: "bf16", "fp16", "fp32".
            overlap: Share of overlap between windows.
            fit_windows: Whether windows shrink to small scans.
            num_workers: Processes that read scans.
            device: Where the encoder runs and scans are resampled.

        Raises:
            FeatureError: If the dtype is unknown, or the mode is "off".
        """
        if CacheMode(mode) is CacheMode.OFF:
            raise FeatureError("a feature bank reads and writes its store; in the mode 'off' there must be none")
        if dtype not in DTYPES:
            raise FeatureError(f"features are stored as {', '.join(DTYPES)}, not as '{dtype}'")
        self.encoder, self.store, self.mode = encoder, store, CacheMode(mode)
        self.dtype, self.overlap, self.fit_windows = dtype, overlap, fit_windows
        self.num_workers, self.device = num_workers, torch.device(device)
        self._hashes = ContentHashes(store.folder / "hashes")
        self._tasks: dict[tuple[str, str], CaseTask] = {}
        self._who: dict[str, Any] = {}
        self._described: dict[str, Any] | None = None
        self._damaged: set[str] = set()
        self.extracted = 0

    # -- Filling ---------------------------------------------------------------------------------------

    def fill(self, parts: "Sequence[CTDataset]") -> None:
        """Sees to it that the features of every case are in the store.

        Raises:
            FeatureError: If something is missing in the mode "only-cached", damaged there, or cannot be written.
        """
        cases = [(part, index) for part in parts for index in range(len(part))]
        self.identify()
        with ThreadPoolExecutor(max(4, self.num_workers)) as pool:  # hashing lets go of the interpreter's lock
            tasks = list(pool.map(lambda case: self._task(*case), cases))
            todo = [task for task, missing in zip(tasks, pool.map(self.missing, tasks), strict=True) if missing]
        if todo and self.mode is CacheMode.ONLY_CACHED:
            names = ", ".join(task.case for task in todo[:3])
            raise FeatureError(
                f"the features of {len(todo)} of {len(tasks)} cases of {parts[0].spec.name}, such as {names}, are not "
                f"in {self.store.folder} or damaged there, and the mode is 'only-cached'. Run once with the mode 'use'"
            )
        if todo:
            self._extract(todo)
        self._tasks |= {(task.dataset.split, task.case): task for task in tasks}

    def identify(self) -> None:
        """Takes down what the encoder is, as the keys hold it: its weights are read for that, but not loaded."""
        self._who, self._described = identity(self.encoder, self.device), None

    def remembered(self, part: "CTDataset", index: int) -> CaseTask | None:
        """Returns the keys of a case whose files are as they were when they were last hashed; None of any other.

        No file is read, so a bill of thousands of scans takes seconds. Call `identify` first.
        """
        content = [self._hashes.known(paths) for paths in _read_of(part, part.cases[index])]
        return None if None in content else self._task(part, index, tuple(filter(None, content)))

    def _task(self, part: "CTDataset", index: int, content: tuple[str, ...] | None = None) -> CaseTask:
        case, card = part.cases[index], self.encoder.card
        content = content or self._content(part, case)
        scan, *target = content
        windows = {"overlap": self.overlap, "fit": self.fit_windows}
        own = {"encoder": self._who, "windows": windows, "dtype": self.dtype}
        features_key = key_of({"scan": scan, "task": part.scan_reading(case), **own})
        if not target:
            return CaseTask(part, index, content, features_key, None)
        grid = [card.spacing_mm, card.in_plane_size]  # encoders of one grid share the labels
        labels_key = key_of({"labels": target, "scan": scan, "task": part.target_reading(case), "grid": grid})
        return CaseTask(part, index, content, features_key, labels_key)

    def _content(self, part: "CTDataset", case: str) -> tuple[str, ...]:
        """Returns hashes of what is on disk: of what the scan is read from, and in segmentation the target."""
        return tuple(self._hashes.of(paths) for paths in _read_of(part, case))

    def require_unchanged(self, task: CaseTask) -> None:
        """Refuses what was read of a case whose files changed meanwhile: its key says what was there before."""
        if self._content(task.dataset, task.case) != task.content:
            raise FeatureError(
                f"{task.dataset.spec.name}, case {task.case}: its files changed while they were read. Nothing was "
                "stored of it; run again when they are at rest"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What the keys say of the encoder, once the bank is filled."""
        return self._who

    @property
    def precision(self) -> str:
        """What the encoder computes in."""
        return self.encoder.precision_on(self.device.type)

    def _description(self) -> dict[str, Any]:
        """Returns what a record must hold of the built encoder; that it is the one of the keys is checked once."""
        if self._described is None:
            if identity(self.encoder, self.device)["weights"] != self._who["weights"]:
                source, name = self.encoder.weights_source, self.encoder.card.name
                raise FeatureError(f"{source} changed while {name} was loaded from it; run again")
            self._described = self.encoder.describe()
        return self._described

    def missing(self, task: CaseTask) -> list[str]:
        """Returns the keys of a case's entries that are to be computed; of a damaged one it is said, once."""
        if self.mode is CacheMode.REFRESH:
            return list(task.keys)
        of = f"{task.dataset.spec.name}, case {task.case}"
        return [key for key in task.keys if self._stored(key, of) is None]

    def _extract(self, todo: Sequence[CaseTask]) -> None:
        columns = (TextColumn("features"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
        with (
            terminal.progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress,
            ThreadPoolExecutor(2) as writers,
        ):
            bar = progress.add_task("", total=len(todo), rate="")

            def advance(cases: int) -> None:
                seconds = max(progress.tasks[0].elapsed or 0, 1e-6)
                rate = (progress.tasks[0].completed + cases) / seconds
                progress.update(bar, advance=cases, rate=f"{rate:.2f} volumes/s")

            busy = Pass(self, todo, writers, advance, wait=False).run()
            # In one order everywhere: two processes that each hold what the other waits for would wait for ever.
            busy.sort(key=lambda task: task.features_key)
            if busy:
                Pass(self, busy, writers, advance, wait=True).run()

    def features_entry(self, task: CaseTask, features: CaseFeatures, notes: Sequence[str]) -> Unwritten:
        """Returns the entry of a case's features.

        Raises:
            EncoderError: If they are not finite, or would not be in the dtype of the store.
        """
        card, dtype = self.encoder.card, DTYPES[self.dtype]
        computed = {"map": features.map, "embeddings": features.embeddings}
        if not are_finite(*computed.values()):
            raise EncoderError(f"{card.name} gives features that are not finite for {task.case}")
        tensors = {name: tensor.to(dtype) for name, tensor in computed.items()}
        if not are_finite(*tensors.values()):
            largest = max(float(tensor.abs().max()) for tensor in computed.values())
            raise EncoderError(
                f"{card.name} gives features up to {largest:.3g} for {task.case}, too large for {self.dtype}. "
                "Store them as bf16 or fp32 (feature_dtype)"
            )
        about: dict[str, Any] = {
            "kind": "features",
            "task": task.dataset.spec.name,
            "case": task.case,
            "card": card.name,
            "encoder": self._description(),
            "native_grid": _plain(features.native_grid),
            "encoder_grid": _plain(features.encoder_grid),
            "feature_grid": _plain(features.feature_grid),
            "padding": list(features.padding),
            "notes": list(notes),
        }
        return Unwritten(task.features_key, tensors, about)

    def labels_entry(self, task: CaseTask, native: torch.Tensor, grid: Grid) -> Unwritten:
        """Returns the entry of a case's labels: as they are on the scan's grid, and on the encoder's."""
        assert task.labels_key is not None
        card = self.encoder.card
        labels = resample_labels(native.to(self.device), grid, encoder_grid(grid, card))
        about = {"kind": "labels", "task": task.dataset.spec.name, "case": task.case, "card": card.name}
        return Unwritten(task.labels_key, {"native": native, "encoder": labels}, about)

    # -- Reading ---------------------------------------------------------------------------------------

    def case(self, part: "CTDataset", index: int) -> EncodedCase:
        """Returns a case of one of the parts that the bank was filled with.

        Raises:
            FeatureError: If the bank was not filled with it, or it is not in the store any more, damaged, or there is
                another in its place.
        """
        name = part.cases[index]
        task = self._tasks.get((part.split, name))
        if task is None:
            raise FeatureError(f"the bank was not filled with the case {name} of '{part.split}': call `fill` first")
        entry = self._entry(task, "features", task.features_key)
        grids = {grid: _grid(entry.about[grid]) for grid in ("native_grid", "encoder_grid", "feature_grid")}
        features = CaseFeatures(
            map=entry.tensors["map"],
            embeddings=entry.tensors["embeddings"],
            padding=Size(*entry.about["padding"]),
            **grids,
        )
        labels = None
        if task.labels_key is not None:
            stored = self._entry(task, "labels", task.labels_key).tensors
            target, labels = stored["native"], stored["encoder"]
        else:
            target = cast("ClassificationDataset", part).target(name)
        keys = (task.features_key, task.labels_key)
        return EncodedCase(name, part.patient(name), features, target, labels, *keys, notes=tuple(entry.about["notes"]))

    def keys(self, part: "CTDataset", index: int) -> tuple[str, str | None]:
        """Returns the keys of a case's features and labels (None: it has no label map)."""
        task = self._tasks[part.split, part.cases[index]]
        return task.features_key, task.labels_key

    def content_of(self, paths: Sequence[Path]) -> str:
        """Returns a hash of what is in files, for what is derived of them beside features.

        Raises:
            FeatureError: If one cannot be read.
        """
        return self._hashes.of(paths)

    def derived(
        self,
        case: str,
        parts: Mapping[str, Any],
        modules: Sequence[str],
        compute: Callable[[], dict[str, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        """Returns what was computed of stored entries, from the store where it is there, else computed and stored.

        Args:
            case: The case that it is of.
            parts: What decides it beside code: the keys of the entries that it is computed of, and what it is.
            modules: Whose code computes it; of one in no file, as in a notebook, nothing is stored.
            compute: Computes it.

        Raises:
            FeatureError: If it cannot be written, or there is another in its place.
        """
        try:
            key = key_of({**parts, "computed_by": sources_sha256(*modules)})
        except LookupError:
            return compute()
        of = {"kind": "derived", "task": self._task_name, "case": case}
        entry = None if self.mode is CacheMode.REFRESH else self._stored(key, f"{of['task']}, {case}")
        if entry is not None:
            return self._require(entry, of, key).tensors
        tensors = compute()
        if self.mode is not CacheMode.ONLY_CACHED:
            with self.store.lock(key):
                self.store.save(key, tensors, {**of, "card": self.encoder.card.name})
        return tensors

    @property
    def _task_name(self) -> str:
        return next(task.dataset.spec.name for task in self._tasks.values())

    def _stored(self, key: str, of: str) -> Entry | None:
        """Returns an entry; None where it is not there or damaged, which is said once."""
        try:
            return self.store.load(key)
        except FeatureError as error:
            if key not in self._damaged:
                logger.warning(f"{of}: {error}")
            self._damaged.add(key)
            return None

    def description(self) -> dict[str, Any]:
        """Returns what a record must hold of the encoder, as it was when the features were extracted."""
        if self.encoder.is_built or not self._tasks:
            return self.encoder.describe()
        task = next(iter(self._tasks.values()))
        return self._entry(task, "features", task.features_key).about["encoder"]

    def _entry(self, task: CaseTask, kind: str, key: str) -> Entry:
        entry = self.store.load(key)
        if entry is None:
            raise FeatureError(f"the features of {task.case} are no longer in {self.store.folder}; run again")
        return self._require(entry, {"kind": kind, "task": task.dataset.spec.name, "case": task.case}, key)

    def _require(self, entry: Entry, wanted: Mapping[str, str], key: str) -> Entry:
        """Returns an entry that says of itself that it is what is wanted."""
        found = {name: entry.about.get(name) for name in wanted}
        if found != wanted:
            raise FeatureError(
                f"{self.store.path(key)} holds the {found['kind']} of case {found['case']} of {found['task']}, not the "
                f"{wanted['kind']} of case {wanted['case']} of {wanted['task']}. `tapct cache rm --broken` removes it"
            )
        return entry


class EncodedCases(Dataset):
    """A part of a task as its encoded cases, for eva's loaders."""

    def __init__(self, bank: FeatureBank, part: "CTDataset") -> None:
        self._bank, self._part = bank, part

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, index: int) -> EncodedCase:
        return self._bank.case(self._part, index)


def _read_of(part: "CTDataset", case: str) -> list[list[Path]]:
    """Returns what the entries of a case are made of: what its scan is read from, and in segmentation its target."""
    paths = [part.scan_paths(case)]
    if part.spec.kind == "segmentation":
        paths.append(part.target_paths(case))
    return paths


def _plain(grid: Grid) -> dict[str, Any]:
    return {"shape": list(grid.shape), "affine": grid.affine.tolist()}


def _grid(plain: dict[str, Any]) -> Grid:
    return Grid.of(plain["shape"], plain["affine"])
