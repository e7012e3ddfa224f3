"""Where a probe's cases come from: the store of features, or the encoder as scans come."""

import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from loguru import logger
from torch.utils.data import SequentialSampler

from tapct._utils import terminal
from tapct.encoders import Encoder
from tapct.encoders.axes import grid_to_axes
from tapct.errors import EncoderError, TaskError
from tapct.features import (
    CacheMode,
    CaseFeatures,
    EncodedCase,
    EncodedCases,
    FeatureBank,
    Seen,
    StoredFeatures,
    extract,
)
from tapct.features.channels import Channels
from tapct.features.extract import are_finite
from tapct.features.packed import PackedBank
from tapct.probes.adaptors import Pooling
from tapct.probes.batches import ScanBatch, scan_of
from tapct.probes.derived import Derived
from tapct.probes.input_sheet import recorded_sheet
from tapct.probes.settings import ProbeSettings
from tapct.probes.solved import PooledCases
from tapct.probes.table_columns import TableColumns
from tapct.tasks.pack import Pack
from tapct.volumes import resample_labels


def needed_parts(trainer: pl.Trainer) -> list[Any]:
    """Returns the datasets of a stage: `eva test` and `eva validate` need what they report, `eva fit` all of them."""
    reported = {"test": "test", "validate": "val"}.get(getattr(trainer.state.fn, "value", ""))
    datasets = trainer.datamodule.datasets  # type: ignore[attr-defined]
    parts = [getattr(datasets, split) for split in ("train", "val", "test") if reported in (None, split)]
    return [part for part in parts if part is not None]


class CaseSource:
    """The encoded cases of a probe.

    The runs of a session share it: eva copies the probe for each, and a copy of this is itself.

    Attributes:
        bank: The stored features; None before `fill`, and where nothing is stored.
        seconds: By stage; what extraction takes is added to "extract".
        table: Columns of the task's table that stand behind the features in a case's vector.
        most_cells: Where heads see merged patches (`tapct.probes.merged_patches`), how many at most; else None.
    """

    def __init__(self, encoder: Encoder, settings: ProbeSettings) -> None:
        """Initializes the source; nothing is read or encoded yet.

        Args:
            encoder: The frozen encoder; it may have a dtype of stored features of its own.
            settings: What is done with stored features, where and as what they are stored, and how scans are tiled.
        """
        self.table = TableColumns()
        self.most_cells: int | None = None
        self._parts: dict[str, Any] = {}
        self._encoder, self._settings = encoder, settings
        self._store, self._memory = settings.store(), settings.memory()
        self._dtype = encoder.feature_dtype or settings.feature_dtype
        self._said: set[tuple[str, str]] = set()
        self.bank: FeatureBank | None = None
        self.seconds: dict[str, float] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "CaseSource":
        """Returns itself: see the class."""
        return self

    @property
    def dtype(self) -> str:
        """What the features that heads see were stored as."""
        return "fp32" if self.bank is None else self._dtype

    @property
    def derived(self) -> Derived:
        """What is computed of the features of cases, and stored next to them."""
        return Derived(self._encoder, self.bank)

    def fill(
        self,
        trainer: pl.Trainer,
        *,
        again: bool,
        seen: Literal["map", "embeddings"] = "map",
        pooling: Pooling | None = None,
    ) -> None:
        """Extracts what the store lacks, and lets the datamodule hand out encoded cases.

        Args:
            trainer: Whose datamodule and device are used.
            seen: Which features heads see, where they are not pooled.
            pooling: How features are pooled for heads: the map of a case whose vector is stored need not be there.
            again: Whether this session has filled the store before: what it has just extracted is read, not refreshed.
        """
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        pack = getattr(datamodule, "pack", None)
        if (pack is None and self._settings.mode is CacheMode.OFF) or not hasattr(datamodule, "use_encoded"):
            return  # cases are encoded as they come, as eva would
        start = time.perf_counter()
        with_maps = pooling is None and seen == "map" and self.most_cells is None
        bank = self._own_bank(trainer, again, with_maps) if pack is None else self._packed_bank(pack, with_maps)
        self.bank = bank
        parts = needed_parts(trainer)
        lacks = None if pooling is None else self.derived.lacks_vector(pooling)
        if self.most_cells is not None:
            lacks = self.derived.lacks_patches(self.most_cells)
        bank.fill(parts, lacks)
        self._parts = {name: part for part in parts for name in part.cases}
        datamodule.use_encoded(functools.partial(EncodedCases, self.bank))
        self._took(start)

    def _own_bank(self, trainer: pl.Trainer, again: bool, with_maps: bool) -> FeatureBank:
        return FeatureBank(
            self._encoder,
            self._store,
            mode=CacheMode.USE if again and self._settings.mode is CacheMode.REFRESH else self._settings.mode,
            dtype=self._dtype,
            overlap=self._settings.window_overlap,
            fit_windows=self._settings.fit_windows,
            with_maps=with_maps,
            num_workers=trainer.datamodule.dataloaders.train.num_workers or 0,  # type: ignore[attr-defined]
            device=trainer.strategy.root_device,
        )

    def _packed_bank(self, pack: Pack, with_maps: bool) -> FeatureBank:
        windows: dict[str, Any] = {"overlap": self._settings.window_overlap, "fit": self._settings.fit_windows}
        return PackedBank(
            self._encoder, pack, mode=self._settings.mode, dtype=self._dtype, with_maps=with_maps, **windows
        )

    def cases_of(self, batch: Any) -> list[EncodedCase]:
        """Returns the cases of a training batch: several where they come encoded."""
        is_list = isinstance(batch, list) and all(isinstance(case, EncodedCase) for case in batch)
        return batch if is_list else [self.case_of(batch)]

    def case_of(self, batch: Any) -> EncodedCase:
        """Returns the one case of a batch, encoded already or now.

        Raises:
            TaskError: If the batch is none that a probe takes; see `scan_of`.
        """
        if isinstance(batch, EncodedCase):
            self._report(batch.name, batch.features, batch.notes)
            return batch
        scan = scan_of(batch)
        features = self._encode(scan)
        notes = (*scan.notes, *features.notes)
        self._report(scan.name, features, notes)
        labels = None
        if scan.target.ndim == 3:
            labels = resample_labels(scan.target, features.native_grid, features.encoder_grid)
        return EncodedCase(scan.name, scan.patient, features, scan.target, labels, notes=notes)

    def training_cases(self, trainer: pl.Trainer, seen: Sequence[Seen] = ()) -> Iterator[EncodedCase]:
        """Yields each training case once, in order, on the trainer's device; of its features, as stored, what is seen.

        Args:
            trainer: Whose training cases and device are used.
            seen: The features that are needed.
        """
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        part, device = datamodule.datasets.train, trainer.strategy.root_device
        if self.bank is not None:
            for index in terminal.track(range(len(part)), "reading training cases", total=len(part)):
                yield self.bank.case(part, index).to(device, seen, None)
            return
        yield from (self.case_of(batch).to(device, seen, None) for batch in self._batches(trainer, part))

    def pooled_cases(
        self, trainer: pl.Trainer, split: Literal["train", "val", "test"], how: Pooling
    ) -> PooledCases | None:
        """Returns the cases of a split as one vector each, stored next to their features; None if it has no such cases.

        Args:
            trainer: Whose datamodule and device are used.
            split: The split.
            how: How features are pooled.

        Raises:
            TaskError: If their targets differ in length.
        """
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        part = getattr(datamodule.datasets, split)
        if part is None:
            return None
        if self.bank is None:
            cases = (self.case_of(batch) for batch in self._batches(trainer, part))
            rows = [(c.name, c.patient, self.vector(part, c, how), c.target) for c in cases]
        else:
            shown = terminal.track(range(len(part)), f"vectors of '{split}'", total=len(part))
            rows = [self._stored_row(part, index, how) for index in shown]
        names, patients, vectors, targets = zip(*rows, strict=True)
        if len({target.numel() for target in targets}) > 1:
            raise TaskError(f"the cases of '{split}' have targets of different lengths")
        features, answers = torch.stack(vectors), torch.stack([target.flatten().double() for target in targets])
        found = PooledCases(names, patients, features.cpu().numpy(), answers.cpu().numpy())
        all_train = getattr(datamodule, "train_fraction", 1) == 1
        return self.table.told(found, part, trains=split == "train", all_train=all_train)

    def vector(self, part: Any, case: EncodedCase, how: Pooling) -> torch.Tensor:
        """Returns a case as one vector, (P,) float64: its features, stored next to them, and the numbers of its table.

        Args:
            part: The dataset that it is of.
            case: The case.
            how: How features are pooled.

        Raises:
            TapctError: If they are pooled over a mask that cannot be read or is empty, or a value cannot be read.
        """
        return self.table.behind(self.derived.vector(part, case, how), part, case.name)

    def merged_patches(self, case: EncodedCase) -> Channels:
        """Returns the (C, d, h, w) merged patches of a case, stored next to its features; see `most_cells`."""
        assert self.most_cells is not None
        return self.derived.merged_patches(self._parts.get(case.name), case, self.most_cells)

    def _stored_row(self, part: Any, index: int, how: Pooling) -> tuple[str, str, torch.Tensor, torch.Tensor]:
        """Returns name, patient, vector and target of a case; its features are read only if that is needed."""
        name = part.cases[index]
        vector = self.table.behind(self.derived.stored_vector(part, index, how), part, name)
        return name, part.patient(name), vector, part.target(name)

    def _batches(self, trainer: pl.Trainer, part: Any) -> Iterator[Any]:
        loader = trainer.datamodule.dataloaders.train(part, sampler=SequentialSampler(part))  # type: ignore[attr-defined]
        return (move_data_to_device(batch, trainer.strategy.root_device) for batch in loader)

    def description(self, device: torch.device) -> dict[str, Any]:
        """Returns what the record must hold of the encoder, which runs (or ran, for a pack) on this device.

        What a pack's encoder was given, nobody saw here.
        """
        of = self._encoder.describe() if self.bank is None else self.bank.description()
        precision = self._encoder.precision_on(device.type) if self.bank is None else self.bank.precision
        sheet = {} if isinstance(self.bank, PackedBank) else {"input_sheet": self._input_sheet}
        return of | {"precision_used": precision} | sheet

    @functools.cached_property
    def _input_sheet(self) -> dict[str, Any]:
        return recorded_sheet(self._encoder)

    def _encode(self, scan: ScanBatch) -> CaseFeatures:
        key = (scan.source, scan.name)
        features = self._memory.get(key)
        if features is None:
            start = time.perf_counter()
            options: dict[str, Any] = {
                "overlap": self._settings.window_overlap,
                "fit_windows": self._settings.fit_windows,
            }
            features = extract(self._encoder, scan.hu, scan.grid, name=scan.name, **options)
            if not are_finite(features.map, features.embeddings):
                raise EncoderError(f"{self._encoder.card.name} gives features that are not finite for {scan.name}")
            self._took(start)
            self._memory.put(key, features)
        return features

    def _took(self, start: float) -> None:
        self.seconds["extract"] = self.seconds.get("extract", 0.0) + time.perf_counter() - start

    def _report(self, case: str, features: CaseFeatures | StoredFeatures, notes: Sequence[str]) -> None:
        """Says once of a case how it was read, and that it is smaller than a window: the encoder saw air around it."""
        for note in notes:
            self._say(case, note)
        given = grid_to_axes(features.encoder_grid, self._encoder.way.axes)
        size, window = given.shape, self._encoder.card.window_size
        if not self._settings.fit_windows and any(n < w for n, w in zip(size, window, strict=True)):
            voxels, wanted = (" x ".join(map(str, s)) for s in (size, window))
            self._say(case, f"{voxels} voxels are fewer than a window of {wanted}; padded with air")

    def _say(self, case: str, message: str) -> None:
        if (case, message) not in self._said:
            self._said.add((case, message))
            logger.warning(f"{case}: {message}")
