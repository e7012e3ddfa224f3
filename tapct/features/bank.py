"""The features of a task's cases: extracted once, then read from the store."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from loguru import logger
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import Dataset

from tapct._utils import terminal
from tapct.encoders import Encoder
from tapct.encoders.identity import identity
from tapct.encoders.options import RANDOM, label
from tapct.errors import EncoderError, FeatureError
from tapct.features import leases, values
from tapct.features.cases import EncodedCase, StoredFeatures
from tapct.features.extract import CaseFeatures, are_finite, encoder_grid
from tapct.features.filling import CaseTask, Pass, Unwritten
from tapct.features.identity import ContentHashes, key_of
from tapct.features.keeping import embeddings_key
from tapct.features.nbytes import require_dtype
from tapct.features.store import CacheMode, Entry, TensorStore
from tapct.source_code import sources_sha256
from tapct.volumes import Grid, resample_labels

if TYPE_CHECKING:
    from tapct.tasks.classification import ClassificationDataset
    from tapct.tasks.dataset import CTDataset


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
        with_maps: bool = True,
        num_workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        """Initializes the bank.

        Args:
            encoder: May be deferred; it is built only if something must be extracted.
            store: Where entries are.
            mode: What to do with them; not "off".
            dtype: Of stored features: "bf16", "fp16", "fp32", "int8"; an encoder may have its own.
            overlap: Share of overlap between windows.
            fit_windows: Whether windows shrink to small scans.
            with_maps: Whether cases come with their maps. Without, embeddings that are stored alone are enough.
            num_workers: Processes that read scans.
            device: Where the encoder runs and scans are resampled.

        Raises:
            FeatureError: If the dtype is unknown, or the mode is "off".
        """
        if CacheMode(mode) is CacheMode.OFF:
            raise FeatureError("a feature bank reads and writes its store; in the mode 'off' there must be none")
        dtype = encoder.feature_dtype or dtype
        require_dtype(dtype)
        self.encoder, self.store, self.mode = encoder, store, CacheMode(mode)
        self.dtype, self.overlap, self.fit_windows = dtype, overlap, fit_windows
        self.with_maps, self.num_workers, self.device = with_maps, num_workers, torch.device(device)
        self._hashes = ContentHashes(store.folder / "hashes")
        self._tasks: dict[tuple[str, str], CaseTask] = {}
        self._who: dict[str, Any] = {}
        self._described: dict[str, Any] | None = None
        self._damaged: set[str] = set()
        self._without_map: set[str] = set()
        self.extracted = 0

    # -- Filling ---------------------------------------------------------------------------------------

    def fill(self, parts: "Sequence[CTDataset]", needs_map: Callable[[CaseTask], bool] | None = None) -> None:
        """Sees to it that the features of every case are in the store, and stay there while this process needs them.

        Args:
            parts: Parts of a task.
            needs_map: Whether the map of a case must be there; by default where cases come with it.

        Raises:
            FeatureError: If something is missing in the mode "only-cached", damaged there, or cannot be written.
        """
        cases = [(part, index) for part in parts for index in range(len(part))]
        self.identify()
        with ThreadPoolExecutor(max(4, self.num_workers)) as pool:  # hashing lets go of the interpreter's lock
            tasks = list(pool.map(lambda case: self._task(*case), cases))
            self._take_lease(tasks)
            needed = pool.map(needs_map or (lambda task: self.with_maps), tasks)
            self._without_map = {
                task.features_key for task, is_needed in zip(tasks, needed, strict=True) if not is_needed
            }
            todo = [task for task, missing in zip(tasks, pool.map(self.missing, tasks), strict=True) if missing]
        if todo and self.mode is CacheMode.ONLY_CACHED:
            names = ", ".join(task.case for task in todo[:3])
            raise FeatureError(
                f"the features of {len(todo)} of {len(tasks)} cases of {parts[0].spec.name}, such as {names}, are not "
                f"in {self.store.folder} or damaged there, and the mode is 'only-cached'. Run once with the mode 'use' "
                "(in Python: `tapct.load_features(..., extract=True)`)"
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

    def _take_lease(self, tasks: Sequence[CaseTask]) -> None:
        features = [task.features_key for task in tasks]
        labels = [task.labels_key for task in tasks if task.labels_key is not None]
        leases.take(self.store.folder, features, [*map(embeddings_key, features), *labels])

    def _task(self, part: "CTDataset", index: int, content: tuple[str, ...] | None = None) -> CaseTask:
        case, card = part.cases[index], self.encoder.card
        content = content or self._content(part, case)
        scan, *target = content
        windows = {"overlap": self.overlap, "fit": self.fit_windows}
        # Rounding to the others is torch's own.
        dtype = [self.dtype, sources_sha256(values.__name__)] if self.dtype == "int8" else self.dtype
        own = {"encoder": self._who, "windows": windows, "dtype": dtype}
        features_key = key_of({"scan": scan, "task": part.scan_reading(case), **own})
        if not target:
            return CaseTask(part, index, content, features_key, None)
        grid: list[Any] = [card.spacing_mm, card.in_plane_size]  # encoders of one grid share the labels
        if self.encoder.way.regrids:
            grid.append(self.encoder.mistake)
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

    def _label(self) -> str:
        """Returns what `tapct cache` calls the encoder, as the cells of a sweep are called."""
        encoder = self.encoder
        is_random = not encoder.awaits_weights and encoder.weights_source == RANDOM
        return label(encoder.card.name, is_random, encoder.describe_options())

    def missing(self, task: CaseTask) -> list[str]:
        """Returns the keys of a case's entries that are to be computed; of a damaged one it is said, once."""
        if self.mode is CacheMode.REFRESH:
            return list(task.keys)
        of = f"{task.dataset.spec.name}, case {task.case}"
        alone = embeddings_key(task.features_key)  # looked at first: to check a map is to read all of it
        spared = task.features_key in self._without_map and self._stored(alone, of) is not None
        keys = [key for key in task.keys if not (spared and key == task.features_key)]
        return [key for key in keys if self._stored(key, of) is None]

    def _extract(self, todo: Sequence[CaseTask]) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        with (
            terminal.progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress,
            ThreadPoolExecutor(2) as writers,
        ):
            bar = progress.add_task("extracting", total=len(todo), rate="")

            def advance(cases: int) -> None:
                seconds = max(progress.tasks[0].elapsed or 0, 1e-6)
                rate = (progress.tasks[0].completed + cases) / seconds
                progress.update(bar, advance=cases, rate=f"{rate:.2f} volumes/s")

            busy = Pass(self, todo, writers, advance, wait=False).run()
            # In one order everywhere: two processes that each hold what the other waits for would wait for ever.
            busy.sort(key=lambda task: task.features_key)
            if busy:
                Pass(self, busy, writers, advance, wait=True).run()

    def features_entries(self, task: CaseTask, features: CaseFeatures, notes: Sequence[str]) -> list[Unwritten]:
        """Returns the entry of a case's features, and before it that of its embeddings where they are read alone.

        Raises:
            EncoderError: If they are not finite, or would not be in the dtype of the store.
        """
        card, computed = self.encoder.card, (features.map, features.embeddings)
        if not are_finite(*computed):
            raise EncoderError(f"{card.name} gives features that are not finite for {task.case}")
        tensors = values.as_stored(*computed, self.dtype)
        if not are_finite(*tensors.values()):
            largest = max(float(tensor.abs().max()) for tensor in computed)
            raise EncoderError(
                f"{card.name} gives features up to {largest:.3g} for {task.case}, too large for {self.dtype}. "
                "Store them as bf16 or fp32 (feature_dtype)"
            )
        about: dict[str, Any] = {
            "kind": "features",
            "task": task.dataset.spec.folder,
            "case": task.case,
            "card": self._label(),
            "encoder": self._description(),
            "native_grid": features.native_grid.to_json(),
            "encoder_grid": features.encoder_grid.to_json(),
            "feature_grid": features.feature_grid.to_json(),
            "padding": list(features.padding),
            "notes": [*notes, *features.notes],
        }
        whole, alone = Unwritten(task.features_key, tensors, about), embeddings_key(task.features_key)
        if self.with_maps and alone not in self.store:
            return [whole]
        return [Unwritten(alone, {"embeddings": tensors["embeddings"]}, about | {"kind": "embeddings"}), whole]

    def labels_entry(self, task: CaseTask, native: torch.Tensor, grid: Grid) -> Unwritten:
        """Returns the entry of a case's labels: as they are on the scan's grid, and on the encoder's."""
        assert task.labels_key is not None
        labels = resample_labels(native.to(self.device), grid, encoder_grid(grid, self.encoder.card, self.encoder.way))
        about = {"kind": "labels", "task": task.dataset.spec.folder, "case": task.case, "card": self._label()}
        return Unwritten(task.labels_key, {"native": native, "encoder": labels}, about, compress=True)

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
        entry = self._features(task)
        features = StoredFeatures.of(entry, with_map=self.with_maps)
        labels = None
        if task.labels_key is not None:
            stored = self._entry(task, "labels", task.labels_key).tensors
            target, labels = stored["native"], stored["encoder"]
        else:
            target = cast("ClassificationDataset", part).target(name)
        keys = (task.features_key, task.labels_key)
        return EncodedCase(name, part.patient(name), features, target, labels, *keys, notes=tuple(entry.about["notes"]))

    def whole(self, part: "CTDataset", name: str) -> StoredFeatures:
        """Returns the features of a case with its map, whether cases come with theirs or not.

        Raises:
            FeatureError: As `case`.
        """
        task = self._tasks[part.split, name]
        return StoredFeatures.of(self._entry(task, "features", task.features_key), with_map=True)

    def keys(self, part: "CTDataset", index: int) -> tuple[str, str | None]:
        """Returns the keys of a case's features and labels (None: it has no label map)."""
        task = self._tasks[part.split, part.cases[index]]
        return task.features_key, task.labels_key

    def native_grid(self, part: "CTDataset", index: int) -> Grid:
        """Returns the grid of a case's scan, from what is stored beside its features, which are not read.

        Raises:
            FeatureError: If they are no longer there.
        """
        key = self._tasks[part.split, part.cases[index]].features_key
        alone = embeddings_key(key)
        return Grid.from_json(self.store.about(alone if alone in self.store else key)["native_grid"])

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
        key = _derived_key(parts, modules)
        if key is None:
            return compute()
        of = {"kind": "derived", "task": self._task_name, "case": case}
        entry = None if self.mode is CacheMode.REFRESH else self._stored(key, f"{of['task']}, {case}")
        if entry is not None:
            return self._require(entry, of, key).tensors
        tensors = compute()
        if self.mode is not CacheMode.ONLY_CACHED:
            with self.store.lock(key):
                self.store.save(key, tensors, {**of, "card": self._label()})
        return tensors

    def has_derived(self, parts: Mapping[str, Any], modules: Sequence[str]) -> bool:
        """Returns whether `derived` would find what it is asked for in the store; see there."""
        key = _derived_key(parts, modules)
        return (
            self.mode is not CacheMode.REFRESH and key is not None and self._stored(key, str(parts["what"])) is not None
        )

    @property
    def _task_name(self) -> str:
        return next(task.dataset.spec.folder for task in self._tasks.values())

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
        return self._features(task).about["encoder"]

    def _features(self, task: CaseTask) -> Entry:
        """Returns the entry of a case's features, or that of its embeddings alone where those are enough."""
        of, key = f"{task.dataset.spec.name}, case {task.case}", embeddings_key(task.features_key)
        if not self.with_maps and self._stored(key, of) is not None:
            return self._entry(task, "embeddings", key)
        return self._entry(task, "features", task.features_key)

    def _entry(self, task: CaseTask, kind: str, key: str) -> Entry:
        entry = self.store.load(key)
        if entry is None:
            raise FeatureError(f"the features of {task.case} are no longer in {self.store.folder}; run again")
        return self._require(entry, {"kind": kind, "task": task.dataset.spec.folder, "case": task.case}, key)

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
    if part.spec.of_kind.dense:
        paths.append(part.target_paths(case))
    return paths


def _derived_key(parts: Mapping[str, Any], modules: Sequence[str]) -> str | None:
    """Returns the key of what is derived; None where a module is in no file."""
    try:
        return key_of({**parts, "computed_by": sources_sha256(*modules)})
    except LookupError:
        return None
