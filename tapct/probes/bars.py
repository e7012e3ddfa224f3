"""How far a probe has come: Lightning's bars, in optimizer steps, and reports for who watches from elsewhere."""

import contextlib
import math
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from typing_extensions import override

from tapct._utils.progress import report


def run_index(trainer: pl.Trainer) -> int:
    """Returns which run of its session this is; eva tells it only by the name of the log folder."""
    name = Path(str(trainer.log_dir)).name
    return int(name.removeprefix("run_")) if name.startswith("run_") else 0


def of_run(trainer: pl.Trainer, what: str) -> str:
    """Returns what is done, and of which run where there are several: "testing run 2 of 3"."""
    runs = getattr(trainer, "n_runs", 1)
    return what if runs == 1 else f"{what} run {run_index(trainer) + 1} of {runs}"


class ProgressReports(Callback):
    """Tells who watches from elsewhere how many steps are done, and how many cases of a run are tested."""

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *of_batch: Any, **more: Any) -> None:
        if trainer.max_steps > 0:
            report("step", trainer.global_step, trainer.max_steps)

    @override
    def on_test_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *more: Any
    ) -> None:
        _report_cases(trainer, "testing", batch_idx, trainer.num_test_batches)

    @override
    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *more: Any
    ) -> None:
        if trainer.state.fn == "validate":  # looks at the selection cases while heads train are part of their steps
            _report_cases(trainer, "validating", batch_idx, trainer.num_val_batches)


def _report_cases(trainer: pl.Trainer, what: str, batch_idx: int, batches: list[int | float]) -> None:
    if math.isfinite(total := sum(batches)):
        report(f"{of_run(trainer, what)}, case", batch_idx + 1, int(total))


class TrainingProgress(TQDMProgressBar):
    """Lightning's progress bar, of optimizer steps, on stderr.

    Lightning's own counts batches, and epochs: "Epoch 0/-2" of what is trained by steps.
    """

    @property
    @override
    def total_train_batches(self) -> int | float:
        return self.trainer.max_steps if self.trainer.max_steps > 0 else self.trainer.estimated_stepping_batches

    @property
    @override
    def train_description(self) -> str:
        return "training"

    @property
    @override
    def test_description(self) -> str:
        return of_run(self.trainer, "testing")

    @property
    @override
    def validation_description(self) -> str:
        looks = self.trainer.state.fn == "fit"
        return "selection cases" if looks else of_run(self.trainer, "validating")

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Leaves the bar alone: it is one for all epochs."""

    @override
    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        super().on_train_start()
        total = self.total_train_batches
        self.train_progress_bar.total = total if math.isfinite(total) else None
        self.train_progress_bar.initial = self.train_progress_bar.n = trainer.global_step

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *of_batch: Any) -> None:
        if trainer.global_step > self.train_progress_bar.n:
            self.train_progress_bar.n = trainer.global_step
            self.train_progress_bar.set_postfix(self.get_metrics(trainer, pl_module))

    @override
    def on_test_batch_start(self, trainer: pl.Trainer, *of_batch: Any) -> None:
        super().on_test_batch_start(trainer, *of_batch)
        self.test_progress_bar.set_description(self.test_description)  # not "... DataLoader 0"

    @override
    def on_validation_batch_start(self, trainer: pl.Trainer, *of_batch: Any) -> None:
        super().on_validation_batch_start(trainer, *of_batch)
        self.val_progress_bar.set_description(self.validation_description)

    @override
    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        shown = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in shown.items() if name != "v_num"}  # the end of a folder's name

    @override
    def init_train_tqdm(self) -> Tqdm:
        with contextlib.redirect_stdout(sys.stderr):
            bar = super().init_train_tqdm()
        bar.unit = "step"
        return bar

    @override
    def init_validation_tqdm(self) -> Tqdm:
        with contextlib.redirect_stdout(sys.stderr):
            return super().init_validation_tqdm()

    @override
    def init_test_tqdm(self) -> Tqdm:
        with contextlib.redirect_stdout(sys.stderr):
            bar = super().init_test_tqdm()
        bar.set_description(self.test_description)
        return bar
