"""Collecting what a run gives, and writing its record from the objects that ran."""

import time
from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from tapct.encoders import EncoderCard
from tapct.encoders.weights import content_sha256
from tapct.records import CaseResult, Record, RunRecord, environment, write_record


class RunRecorder:
    """The results, metrics and times of one run."""

    def __init__(self) -> None:
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
        selection: dict[str, Any],
        card: EncoderCard,
        encoder: dict[str, Any],
        probe: dict[str, Any],
    ) -> Path:
        """Writes the record of the session with this run in it, and returns its path.

        Args:
            trainer: Whose datamodule and log folder are used.
            run: Index of the run.
            seed: Seed of the run's head.
            head: The head that was evaluated.
            selection: How it was chosen.
            card: The encoder's card.
            encoder: What else the record holds of the encoder.
            probe: Settings of the probe.
        """
        one = RunRecord(
            run=run,
            seed=seed,
            probe_sha256=content_sha256(head.state_dict()),
            selection=selection,
            metrics=dict(self.metrics),
            cases={split: self.cases[split] for split in self.metrics},
        )
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        device = trainer.strategy.root_device
        record = Record(
            notice=getattr(datamodule, "notice", None),
            encoder={"card": asdict(card), **encoder},
            task=datamodule.describe(),
            probe=probe,
            runs_planned=getattr(trainer, "n_runs", 1),
            runs=[one],
            execution={
                "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": {k: round(v, 2) for k, v in self.seconds.items()},
                **environment(device),
            },
        )
        return write_record(record, Path(str(trainer.log_dir)).parent)


def training_settings(trainer: pl.Trainer) -> dict[str, Any]:
    """Returns how the heads were trained, from the trainer's own objects."""
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
    }


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that JSON can hold."""
    return {k: v for k, v in settings.items() if isinstance(v, bool | int | float | str | list | tuple | None)}
