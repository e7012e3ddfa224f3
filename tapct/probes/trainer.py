"""eva's trainer with the benchmark's protocol as its defaults, so that a config says only what is its own."""

from typing import Any, Literal

import eva
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from tapct.errors import TaskError
from tapct.probes import config_errors

config_errors.name_nearest_keys()


class Trainer(eva.Trainer):
    """eva's trainer: batch 1, gradients accumulated over 4 cases (Appendix C.1), three runs."""

    def __init__(
        self,
        *args: Any,
        default_root_dir: str = "logs",
        max_steps: int = 1000,
        n_runs: int = 3,
        accumulate_grad_batches: int = 4,
        checkpoint_type: Literal["best", "last"] = "last",
        callbacks: list[Callback] | None = None,
        enable_model_summary: bool = False,
        num_sanity_val_steps: int = 0,
        log_every_n_steps: int = 1,
        **kwargs: Any,
    ) -> None:
        """Initializes the trainer; everything else is as in `eva.Trainer`.

        Args:
            args: Positional arguments of `lightning.pytorch.Trainer`.
            default_root_dir: Folder of the sessions.
            max_steps: Optimizer steps.
            n_runs: Runs, one seed each.
            accumulate_grad_batches: Cases per optimizer step.
            checkpoint_type: Which probe is reported: the "last", or the "best" of a monitored
                `ModelCheckpoint` on the selection part of the training patients.
            callbacks: Callbacks; without a `ModelCheckpoint` among them, the last probe is saved.
            enable_model_summary: Whether to print the layers.
            num_sanity_val_steps: Validation batches before training.
            log_every_n_steps: Steps between log lines.
            kwargs: Keyword arguments of `lightning.pytorch.Trainer`.

        Raises:
            TaskError: If "best" is asked for without a monitored checkpoint (Lightning would silently
                take some other one).
        """
        callbacks = list(callbacks or [])
        saving = [c for c in callbacks if isinstance(c, ModelCheckpoint)]
        if checkpoint_type == "best" and not any(c.monitor for c in saving):
            raise TaskError(
                "checkpoint_type 'best' needs a ModelCheckpoint that monitors a metric of the selection cases, "
                "such as monitor: val/dice_native, mode: max"
            )
        if not saving:
            callbacks.append(ModelCheckpoint(save_last=True))
        super().__init__(
            *args,
            default_root_dir=default_root_dir,
            max_steps=max_steps,
            n_runs=n_runs,
            accumulate_grad_batches=accumulate_grad_batches,
            checkpoint_type=checkpoint_type,
            callbacks=callbacks,
            enable_model_summary=enable_model_summary,
            num_sanity_val_steps=num_sanity_val_steps,
            log_every_n_steps=log_every_n_steps,
            **kwargs,
        )
