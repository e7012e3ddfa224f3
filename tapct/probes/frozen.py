"""What both probes share: a frozen encoder, seeds by run, cached features, records."""

import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from eva.core.models.modules import module
from lightning.pytorch.cli import LRSchedulerCallable
from lightning.pytorch.trainer.states import TrainerFn
from loguru import logger
from torch import nn
from typing_extensions import override

from tapct import telemetry
from tapct.encoders import Encoder, Precision, load_encoder
from tapct.encoders.weights import content_sha256
from tapct.errors import EncoderError, TaskError
from tapct.features import CaseFeatures, FeatureMemory, extract
from tapct.records import CaseResult, Record, RunRecord, environment, print_summary, write_record
from tapct.volumes import Grid


@dataclass(frozen=True)
class Case:
    """One case of a batch, as tensors on the device.

    Attributes:
        name: Case in the split file.
        patient: Patient in the split file.
        source: File of the scan.
        hu: (D, H, W) float32.
        grid: Grid of `hu`.
        target: The rest of the batch: labels (D, H, W), or class targets.
    """

    name: str
    patient: str
    source: str
    hu: torch.Tensor
    grid: Grid
    target: torch.Tensor


class FrozenEncoderProbe(module.ModelModule):
    """A probe on a frozen encoder, run by eva.

    What eva 0.4.5 leaves to chance is settled here. Run k of a session starts from seed + k, so the runs
    differ from each other and each can be reproduced alone (eva copies one initialised head). The encoder
    stays in eval mode, without gradients, at one precision in every stage. Features of a case are computed
    once a process. A record is written as each run ends, from the objects that ran.
    """

    encoder: Encoder
    head_name: str
    """Name of the attribute that holds the trained head; what eva's checkpoints save."""

    def _init_encoder(
        self,
        encoder: str | Encoder,
        weights: str | None,
        precision: Precision,
        encoder_options: dict[str, Any] | None,
    ) -> None:
        if not telemetry.is_off():
            logger.warning(
                f"Set {telemetry.VARIABLE}=1 before starting eva: it imports onnxruntime, which phones home."
            )
        if isinstance(encoder, str):
            encoder = load_encoder(encoder, weights, precision=precision, **(encoder_options or {}))
        elif weights is not None or encoder_options or precision != "auto":
            raise EncoderError(
                "an encoder given by class_path takes its weights, precision and options in its own init_args"
            )
        self.encoder = encoder

    def _init_probe(
        self,
        window_overlap: float,
        feature_memory_gb: float,
        seed: int,
        lr_scheduler: LRSchedulerCallable | None,
        fit_windows: bool = False,
    ) -> None:
        self.window_overlap = window_overlap
        self.fit_windows = fit_windows
        self.seed = seed
        self.lr_scheduler = lr_scheduler
        self.run = 0
        self.memory = FeatureMemory(int(feature_memory_gb * 2**30))
        self._cases: dict[str, list[CaseResult]] = defaultdict(list)
        self._metrics: dict[str, dict[str, float | None]] = {}
        self._seconds: dict[str, float] = defaultdict(float)
        self._trained: dict[str, Any] = {}

    # -- The run ---------------------------------------------------------------------------------------

    @override
    def configure_model(self) -> None:
        """Leaves the head alone; it is built in `setup`, where the run is known."""

    @override
    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1:
            raise TaskError(
                f"a probe trains on one device, but the trainer has {self.trainer.world_size}. "
                "Run several cells side by side instead."
            )
        if stage == "fit":
            self.run = _run_index(self.trainer)
            pl.seed_everything(self.seed + self.run, workers=True)
            self._cases.clear()
            self._metrics.clear()
            self._seconds.clear()
            setattr(self, self.head_name, self.build_head(self.classes))

    def build_head(self, classes: list[str]) -> nn.Module:
        """Returns a freshly initialised head for these classes (with background, in segmentation)."""
        raise NotImplementedError

    @property
    def classes(self) -> list[str]:
        """Names of the classes, from the dataset that the trainer holds.

        Raises:
            TaskError: If the dataset names none.
        """
        datasets = self.trainer.datamodule.datasets
        for dataset in (datasets.train, datasets.val, datasets.test):
            one = dataset[0] if isinstance(dataset, list) else dataset
            if names := getattr(one, "classes", None):
                return list(names)
        raise TaskError("the datasets name no classes: give them a `classes` property, as eva's datasets have")

    def full_precision(self) -> torch.autocast:
        """Returns a context without autocast: sums over millions of voxels lose their digits in bf16.

        The trainer's `precision` then changes nothing here; the encoder has its own.
        """
        return torch.autocast(self.device.type, enabled=False)

    @property
    def trained_head(self) -> nn.Module:
        """The trained head."""
        return getattr(self, self.head_name)

    @override
    def configure_optimizers(self) -> Any:
        # eva's default, ConstantLR, is a third of the rate for five epochs: with one long epoch, for ever.
        optimizer = self.optimizer(self.trained_head.parameters())
        if self.lr_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "interval": "step"}}

    @override
    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._started = time.perf_counter()
        if self._notice:
            print(f"\n{self._notice}\n")

    @override
    def on_fit_end(self) -> None:
        self._seconds["fit"] = time.perf_counter() - self._started
        self._trained = _training_settings(self.trainer)

    # -- One case --------------------------------------------------------------------------------------

    def case_of(self, batch: Any) -> Case:
        """Returns the one case of a batch (data (1, D, 1, H, W), target, metadata).

        Raises:
            TaskError: If the batch holds several cases, or no affine.
        """
        data, target, metadata = batch
        if data.shape[0] != 1 or data.ndim != 5 or data.shape[2] != 1:
            raise TaskError(f"a probe wants one scan a batch, (1, D, 1, H, W), but got {tuple(data.shape)}")
        if not metadata or "affine" not in metadata:
            raise TaskError(
                "the batch has no 'affine' in its metadata, so its voxels have no size. eva's collate drops the "
                "affine of a Volume: datasets must return it in their metadata, as those of tapct.tasks do"
            )
        hu = data[0, :, 0].as_subclass(torch.Tensor).float()
        grid = Grid.of(hu.shape, metadata["affine"][0].double().cpu().numpy())
        name, patient, source = (str(metadata[key][0]) for key in ("case", "patient", "source"))
        return Case(name, patient, source, hu, grid, target.as_subclass(torch.Tensor)[0])

    def features_of(self, case: Case) -> CaseFeatures:
        """Returns the features of a case, encoding it if they are not in memory.

        Raises:
            EncoderError: If the encoder gives features that are not finite.
        """
        key = (case.source, case.name)  # several cases may be crops of one file
        features = self.memory.get(key)
        if features is None:
            start = time.perf_counter()
            features = extract(
                self.encoder, case.hu, case.grid, overlap=self.window_overlap, fit_windows=self.fit_windows
            )
            if not bool(torch.isfinite(features.map).all()):
                raise EncoderError(f"{self.encoder.card.name} gives features that are not finite for {case.name}")
            self._seconds["extract"] += time.perf_counter() - start
            self._report_padding(case, features)
            self.memory.put(key, features)
        return features

    def _report_padding(self, case: Case, features: CaseFeatures) -> None:
        size, window = features.encoder_grid.shape, self.encoder.card.window_size
        if not self.fit_windows and any(n < w for n, w in zip(size, window, strict=True)):
            voxels, wanted = (" x ".join(map(str, s)) for s in (size, window))
            logger.warning(f"{case.name}: {voxels} voxels are fewer than a window of {wanted}; padded with air")

    def keep(self, result: CaseResult) -> None:
        """Keeps the result of a case of the split that is being evaluated."""
        self._cases[self._split].append(result)

    # -- The record ------------------------------------------------------------------------------------

    @property
    def _split(self) -> str:
        return "test" if self.trainer.state.fn == TrainerFn.TESTING else "val"

    @property
    def _notice(self) -> str | None:
        return getattr(self.trainer.datamodule, "notice", None)

    @override
    def on_validation_start(self) -> None:
        super().on_validation_start()
        self._begin_evaluation()

    @override
    def on_test_start(self) -> None:
        super().on_test_start()
        self._begin_evaluation()

    def _begin_evaluation(self) -> None:
        self._cases.pop(self._split, None)
        self._evaluation_started = time.perf_counter()

    @override
    def on_validation_end(self) -> None:
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self._end_evaluation()

    @override
    def on_test_end(self) -> None:
        self._end_evaluation()

    def _end_evaluation(self) -> None:
        split = self._split
        self._seconds[split] = time.perf_counter() - self._evaluation_started
        # Kept here: the next stage starts with Lightning's metrics empty.
        self._metrics[split] = {
            name.removeprefix(f"{split}/"): None if torch.isnan(value) else float(value)
            for name, value in self.trainer.callback_metrics.items()
            if name.startswith(f"{split}/")
        }
        record = self._record()
        path = write_record(record, Path(str(self.trainer.log_dir)).parent)
        reported = split == "test" or self.trainer.datamodule.datasets.test is None
        if reported and self.run == record.runs_planned - 1:
            print_summary(path)

    def _record(self) -> Record:
        run = RunRecord(
            run=self.run,
            seed=self.seed + self.run,
            probe_sha256=content_sha256(self.trained_head.state_dict()),
            metrics=dict(self._metrics),
            cases={split: self._cases[split] for split in self._metrics},
        )
        return Record(
            notice=self._notice,
            encoder={"card": asdict(self.encoder.card), **self.encoder.describe()},
            task=self.trainer.datamodule.describe(),
            probe=self.describe(),
            runs_planned=getattr(self.trainer, "n_runs", 1),
            runs=[run],
            execution={
                "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": {k: round(v, 2) for k, v in self._seconds.items()},
                **environment(self.device),
            },
        )

    def describe(self) -> dict[str, Any]:
        """Returns the settings of the probe for the record, from the objects that ran."""
        return {
            "module": f"{type(self).__module__}.{type(self).__qualname__}",
            "head": str(self.trained_head),
            "classes": self.classes,
            "window_overlap": self.window_overlap,
            "fit_windows": self.fit_windows,
            "seed": self.seed,
            **self._trained,
        }


def _run_index(trainer: pl.Trainer) -> int:
    """Returns which run of its session this is; eva tells it only by the name of the log folder."""
    name = Path(str(trainer.log_dir)).name
    return int(name.removeprefix("run_")) if name.startswith("run_") else 0


def _training_settings(trainer: pl.Trainer) -> dict[str, Any]:
    """Returns how the head was trained, from the trainer's own objects."""
    optimizer = trainer.optimizers[0]
    schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
    group = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    return {
        "optimizer": {"class": type(optimizer).__name__, **_plain(group)},
        "lr_scheduler": [{"class": type(s).__name__, **_plain(s.state_dict())} for s in schedules],
        "steps": trainer.global_step,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "precision": str(trainer.precision),
        "gradient_clip_val": trainer.gradient_clip_val,
        "checkpoint": getattr(trainer, "checkpoint_type", None),
    }


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that JSON can hold."""
    return {k: v for k, v in settings.items() if isinstance(v, bool | int | float | str | list | tuple | None)}
