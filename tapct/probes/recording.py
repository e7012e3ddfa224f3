"""Collecting what a run gives, and writing its record from the objects that ran."""

import math
import time
from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from tapct.encoders import Encoder
from tapct.encoders.verified import verification_of
from tapct.encoders.weights import content_sha256
from tapct.probes.heads import Chosen
from tapct.records import (
    CaseResult,
    EncoderRecord,
    Execution,
    FeaturePack,
    PatchSize,
    ProbeRecord,
    Record,
    RunRecord,
    TaskRecord,
    environment,
    git_state,
    write_record,
)
from tapct.records.case import CaseIdentity
from tapct.records.execution import FeaturesSeen, RunExecution, Training
from tapct.records.paths import base_name, without_folders
from tapct.records.reading import checked
from tapct.records.shortcuts import ShortcutsRecord
from tapct.records.types import shown
from tapct.tasks.pack import Pack


class RunRecorder:
    """The results, metrics and times of one run."""

    def __init__(self) -> None:
        git_state()  # now, with the code that runs, and not hours later
        self.cases: dict[str, list[CaseResult]] = defaultdict(list)
        self.metrics: dict[str, dict[str, float | None]] = {}
        self.seconds: dict[str, float] = defaultdict(float)
        self._started = 0.0

    def begin(self, split: str) -> None:
        """Begins the evaluation of a split, anew where it was evaluated before."""
        self.cases.pop(split, None)
        self._started = time.perf_counter()

    def end(self, split: str, logged: dict[str, torch.Tensor]) -> None:
        """Ends the evaluation of a split, keeping the metrics that the trainer logged for it.

        They are kept here because the next stage starts with Lightning's metrics empty.
        """
        self.seconds[split] = time.perf_counter() - self._started
        self.metrics[split] = {
            name.removeprefix(f"{split}/"): None if torch.isnan(value) else float(value)
            for name, value in logged.items()
            if name.startswith(f"{split}/")
        }

    def write(
        self,
        trainer: pl.Trainer,
        *,
        run: int,
        seed: int,
        head: torch.nn.Module,
        chosen: Chosen,
        features: dict[str, Any] | None,
        encoder: EncoderRecord,
        probe: dict[str, Any],
        cell_size: PatchSize | None,
        shortcuts: ShortcutsRecord | None,
    ) -> Path:
        """Writes the record of the session with this run in it, and returns its path.

        Args:
            trainer: Whose datamodule and log folder are used.
            run: Index of the run.
            seed: Seed of the run's head.
            head: The head that was evaluated.
            chosen: How it was chosen.
            features: Statistics of the training features.
            encoder: What the record holds of the encoder.
            probe: Settings of the probe.
            cell_size: Of segmentation, the patches.
            shortcuts: The shortcut audit, where there is one.
        """
        one = RunRecord(
            run=run,
            seed=seed,
            probe_sha256=content_sha256(head.state_dict()),
            selection=chosen.selection,
            metrics=dict(self.metrics),
            cases={split: self.cases[split] for split in self.metrics},
        )
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        seconds = {stage: round(value, 2) for stage, value in self.seconds.items()}
        training = {} if chosen.start_sha256 is None else {"training": _training(head, chosen, chosen.start_sha256)}
        of_run = RunExecution(run=run, ended_at=now, seconds=seconds, **training)
        record = Record(
            notice=getattr(datamodule, "notice", None),
            encoder=encoder,
            task=task_record(datamodule),
            probe=probe_record(probe),
            runs_planned=getattr(trainer, "n_runs", 1),
            runs=[one],
            cell_size=cell_size,
            shortcuts=shortcuts,
            feature_pack=_feature_pack(getattr(datamodule, "pack", None)),
            execution=Execution(
                written_at=now,
                seconds=seconds,
                **environment(trainer.strategy.root_device),
                features=None if features is None else FeaturesSeen(**features),
                runs=(of_run,),
            ),
        )
        return write_record(record, Path(str(trainer.log_dir)).parent)


def _feature_pack(pack: Pack | None) -> FeaturePack | None:
    if pack is None:
        return None
    of = pack.manifest
    return FeaturePack(sha256=pack.sha256, made_with=of.made_with, has_targets=of.has_targets)


def _training(head: torch.nn.Module, chosen: Chosen, start_sha256: str) -> Training:
    losses = tuple(value if math.isfinite(value) else None for value in chosen.losses)
    is_zero = not any(bool(p.any()) for p in head.parameters() if p.ndim > 1)
    return Training(loss=losses, start_sha256=start_sha256, is_zero=is_zero)


def require_recordable(datamodule: Any) -> None:
    """Makes sure, before anything trains, that a record can hold the task and the names of its cases.

    Raises:
        RecordError: If not.
    """
    task_record(datamodule)
    for part in getattr(datamodule, "parts", ()):
        for case in part.cases:
            checked(
                CaseIdentity, {"case": case, "patient": part.patient(case)}, f"case {shown(case)} of '{part.split}'"
            )


def task_record(datamodule: Any) -> TaskRecord:
    """Returns what a record holds of the task.

    Raises:
        RecordError: If it cannot hold what the datamodule says of itself.
    """
    return checked(TaskRecord, without_folders(datamodule.describe()), type(datamodule).__name__)


def probe_record(description: dict[str, Any]) -> ProbeRecord:
    """Returns what a record holds of the probe.

    Raises:
        RecordError: If it cannot hold what the probe says of itself.
    """
    return checked(ProbeRecord, without_folders(description), "the probe")


def encoder_record(encoder: Encoder, description: dict[str, Any]) -> EncoderRecord:
    """Returns what a record holds of the encoder: of its weights the name, not where somebody keeps them.

    Args:
        encoder: The encoder.
        description: What it says of itself.

    Raises:
        RecordError: If a record cannot hold it.
    """
    about = without_folders(description) | {"weights": base_name(description["weights"])}
    # Features may be of an earlier run, which asked for the same in other words.
    asked = {"precision": encoder.precision, "options": without_folders(encoder.describe_options())}
    asked["verification"] = verification_of(encoder, description.get("weights_sha256")).content()
    return checked(EncoderRecord, {"card": asdict(encoder.card), **about, **asked}, encoder.card.name)


def training_settings(trainer: pl.Trainer) -> dict[str, Any]:
    """Returns how the heads were trained, from the trainer's own objects."""
    optimizer = trainer.optimizers[0]
    schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
    group = {k: v for k, v in optimizer.param_groups[0].items() if k not in ("params", "initial_lr")}
    group["lr"] = optimizer.param_groups[0].get("initial_lr", group["lr"])  # a schedule has lowered it since
    return {
        "optimizer": {"class": type(optimizer).__name__, **_for_json(group)},
        "lr_scheduler": [{"class": type(s).__name__, **_without_rates(_for_json(s.state_dict()))} for s in schedules],
        "steps": trainer.global_step,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "precision": str(trainer.precision),
        "gradient_clip_val": trainer.gradient_clip_val,
    }


def _without_rates(state: dict[str, Any]) -> dict[str, Any]:
    """Returns the state of a schedule without the rates of the heads that happened to train side by side."""
    return {key: value for key, value in state.items() if key not in ("base_lrs", "_last_lr")}


def _for_json(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that JSON can hold; "inf" and "nan" as text, for they are not numbers there."""
    kept = {k: v for k, v in settings.items() if isinstance(v, bool | int | float | str | list | tuple | None)}
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in kept.items()}
