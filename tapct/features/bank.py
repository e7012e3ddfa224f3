"""The features of a task's cases: extracted once, then read from the store."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils.data import Dataset

from tapct.encoders import Encoder
from tapct.errors import FeatureError
from tapct.features import leases
from tapct.features.cases import EncodedCase, StoredFeatures
from tapct.features.entries import StoredEntries
from tapct.features.filling import Extraction, Filling, MissingEntries
from tapct.features.identity import key_of
from tapct.features.keeping import embeddings_key
from tapct.features.keys import FeatureKeys, KeyedCase
from tapct.features.store import CacheMode, TensorStore
from tapct.features.unwritten import label_of
from tapct.source_code import sources_sha256
from tapct.volumes import Grid

if TYPE_CHECKING:
    from tapct.tasks.classification import ClassificationDataset
    from tapct.tasks.dataset import CTDataset


class FeatureBank:
    """Features and labels of the cases of a task for one encoder, in a store.

    What they are found by is in `tapct.features.keys`, how they get there in `tapct.features.filling`.
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
        self.encoder, self.store, self.mode = encoder, store, CacheMode(mode)
        self.overlap, self.fit_windows = overlap, fit_windows
        self.with_maps, self.num_workers, self.device = with_maps, num_workers, torch.device(device)
        windows: dict[str, Any] = {"overlap": overlap, "fit_windows": fit_windows}
        self._keys = FeatureKeys(encoder, store.folder, dtype=dtype, device=self.device, **windows)
        self.dtype = self._keys.dtype
        self.entries = StoredEntries(store)
        self._cases: dict[tuple[str, str], KeyedCase] = {}
        self.extracted = 0

    # -- Filling ---------------------------------------------------------------------------------------

    def fill(self, parts: "Sequence[CTDataset]", needs_map: Callable[[KeyedCase], bool] | None = None) -> None:
        """Sees to it that the features of every case are in the store, and stay there while this process needs them.

        Args:
            parts: Parts of a task.
            needs_map: Whether the map of a case must be there; by default where cases come with it.

        Raises:
            FeatureError: If something is missing in the mode "only-cached", damaged there, or cannot be written.
        """
        places = [(part, index) for part in parts for index in range(len(part))]
        self._keys.identify()
        with ThreadPoolExecutor(max(4, self.num_workers)) as pool:  # hashing lets go of the interpreter's lock
            cases = list(pool.map(lambda place: self._keys.of(*place), places))
            self._take_lease(cases)
            needed = pool.map(needs_map or (lambda keyed: self.with_maps), cases)
            without = {keyed.features_key for keyed, is_needed in zip(cases, needed, strict=True) if not is_needed}
            missing = MissingEntries(self.entries, self.mode, without)
            todo = [keyed for keyed, keys in zip(cases, pool.map(missing, cases), strict=True) if keys]
        if todo and self.mode is CacheMode.ONLY_CACHED:
            names = ", ".join(keyed.case for keyed in todo[:3])
            raise FeatureError(
                f"the features of {len(todo)} of {len(cases)} cases of {parts[0].spec.name}, such as {names}, are not "
                f"in {self.store.folder} or damaged there, and the mode is 'only-cached'. Run once with the mode 'use' "
                "(in Python: `tapct.load_features(..., extract=True)`)"
            )
        if todo:
            self._extract(todo, missing)
        self.hold(cases)

    def hold(self, cases: Iterable[KeyedCase]) -> None:
        """Takes up cases whose entries are in the store: `case` and the like find them."""
        self._cases |= {(keyed.dataset.split, keyed.case): keyed for keyed in cases}

    def _take_lease(self, cases: Sequence[KeyedCase]) -> None:
        features = [keyed.features_key for keyed in cases]
        labels = [keyed.labels_key for keyed in cases if keyed.labels_key is not None]
        leases.take(self.store.folder, features, [*map(embeddings_key, features), *labels])

    def _extract(self, todo: Sequence[KeyedCase], missing: MissingEntries) -> None:
        how = Extraction(self.encoder, self.overlap, self.fit_windows, self.num_workers, self.device)
        filling = Filling(how, self._keys, self.store, missing, with_maps=self.with_maps)
        try:
            filling.run(todo)
        finally:
            self.extracted += filling.extracted

    # -- Reading ---------------------------------------------------------------------------------------

    def case(self, part: "CTDataset", index: int) -> EncodedCase:
        """Returns a case of one of the parts that the bank was filled with.

        Raises:
            FeatureError: If the bank was not filled with it, or it is not in the store any more, damaged, or there is
                another in its place.
        """
        name = part.cases[index]
        keyed = self._cases.get((part.split, name))
        if keyed is None:
            raise FeatureError(f"the bank was not filled with the case {name} of '{part.split}': call `fill` first")
        entry = self.entries.features(keyed, with_map=self.with_maps)
        features = StoredFeatures.of(entry, with_map=self.with_maps)
        labels = None
        if keyed.labels_key is not None:
            stored = self.entries.of_case(keyed, "labels", keyed.labels_key).tensors
            target, labels = stored["native"], stored["encoder"]
        else:
            target = cast("ClassificationDataset", part).target(name)
        keys = (keyed.features_key, keyed.labels_key)
        return EncodedCase(name, part.patient(name), features, target, labels, *keys, notes=tuple(entry.about["notes"]))

    def whole(self, part: "CTDataset", name: str) -> StoredFeatures:
        """Returns the features of a case with its map, whether cases come with theirs or not.

        Raises:
            FeatureError: As `case`.
        """
        return StoredFeatures.of(self.entries.features(self._cases[part.split, name], with_map=True), with_map=True)

    def keys(self, part: "CTDataset", index: int) -> tuple[str, str | None]:
        """Returns the keys of a case's features and labels (None: it has no label map)."""
        keyed = self._cases[part.split, part.cases[index]]
        return keyed.features_key, keyed.labels_key

    def native_grid(self, part: "CTDataset", index: int) -> Grid:
        """Returns the grid of a case's scan, from what is stored next to its features, which are not read.

        Raises:
            FeatureError: If they are no longer there.
        """
        key = self._cases[part.split, part.cases[index]].features_key
        alone = embeddings_key(key)
        return Grid.from_json(self.store.about(alone if alone in self.store else key)["native_grid"])

    def content_of(self, paths: Sequence[Path]) -> str:
        """Returns a hash of what is in files, for what is derived of them next to features.

        Raises:
            FeatureError: If one cannot be read.
        """
        return self._keys.content_of(paths)

    # -- What is derived of it -------------------------------------------------------------------------

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
            parts: What decides it next to code: the keys of the entries that it is computed of, and what it is.
            modules: Whose code computes it; of one in no file, as in a notebook, nothing is stored.
            compute: Computes it.

        Raises:
            FeatureError: If it cannot be written, or there is another in its place.
        """
        key = _derived_key(parts, modules)
        if key is None:
            return compute()
        of = {"kind": "derived", "task": self._task_name, "case": case}
        entry = None if self.mode is CacheMode.REFRESH else self.entries.find(key, f"{of['task']}, {case}")
        if entry is not None:
            return self.entries.require(entry, of, key).tensors
        tensors = compute()
        if self.mode is not CacheMode.ONLY_CACHED:
            with self.store.lock(key):
                self.store.save(key, tensors, {**of, "card": label_of(self.encoder)})
        return tensors

    def has_derived(self, parts: Mapping[str, Any], modules: Sequence[str]) -> bool:
        """Returns whether `derived` would find what it is asked for in the store; see there."""
        key = _derived_key(parts, modules)
        return (
            self.mode is not CacheMode.REFRESH
            and key is not None
            and self.entries.find(key, str(parts["what"])) is not None
        )

    @property
    def _task_name(self) -> str:
        return next(keyed.dataset.spec.folder for keyed in self._cases.values())

    # -- The encoder -----------------------------------------------------------------------------------

    @property
    def identity(self) -> dict[str, Any]:
        """What the keys say of the encoder, once the bank is filled."""
        return self._keys.identity

    @property
    def precision(self) -> str:
        """What the encoder computes in."""
        return self.encoder.precision_on(self.device.type)

    def description(self) -> dict[str, Any]:
        """Returns what a record must hold of the encoder, as it was when the features were extracted."""
        if self.encoder.is_built or not self._cases:
            return self.encoder.describe()
        one = next(iter(self._cases.values()))
        return self.entries.features(one, with_map=self.with_maps).about["encoder"]


class EncodedCases(Dataset):
    """A part of a task as its encoded cases, for eva's loaders."""

    def __init__(self, bank: FeatureBank, part: "CTDataset") -> None:
        self._bank, self._part = bank, part

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, index: int) -> EncodedCase:
        return self._bank.case(self._part, index)


def _derived_key(parts: Mapping[str, Any], modules: Sequence[str]) -> str | None:
    """Returns the key of what is derived; None where a module is in no file."""
    try:
        return key_of({**parts, "computed_by": sources_sha256(*modules)})
    except LookupError:
        return None
