"""eva's trainer with the benchmark's protocol as its defaults, so that a config says only what is its own."""

from typing import Any

import eva
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.plugins.environments import LightningEnvironment
from typing_extensions import override

from tapct._utils import terminal
from tapct.errors import TaskError
from tapct.probes import config_errors, quiet
from tapct.probes.bars import ProgressReports, TrainingProgress

config_errors.say_mistakes_in_one_message()
quiet.print_results_once()


class Trainer(eva.Trainer):
    """eva's trainer: batch 1, gradients accumulated over 4 cases (Appendix C.1), three runs.

    There are no Lightning checkpoints: the probe keeps the head that it reports and writes it next to the run.
    """

    def __init__(
        self,
        *args: Any,
        default_root_dir: str = "logs",
        max_steps: int = 1000,
        n_runs: int = 3,
        accumulate_grad_batches: int = 4,
        checkpoint_type: str = "last",
        enable_checkpointing: bool = False,
        enable_model_summary: bool = False,
        num_sanity_val_steps: int = 0,
        log_every_n_steps: int = 1,
        callbacks: list[Callback] | None = None,
        **kwargs: Any,
    ) -> None:
        """Initializes the trainer; everything else is as in `eva.Trainer`.

        Args:
            args: Positional arguments of `lightning.pytorch.Trainer`.
            default_root_dir: Folder of the sessions.
            max_steps: Optimizer steps.
            n_runs: Runs, one seed each.
            accumulate_grad_batches: Cases per optimizer step.
            checkpoint_type: Only "last", which is what the probe has in memory; it does the choosing itself.
            enable_checkpointing: Refused for the same reason.
            enable_model_summary: Whether to print the layers.
            num_sanity_val_steps: Validation batches before training.
            log_every_n_steps: Steps between log lines.
            callbacks: Of Lightning; a progress bar is added where there is none.
            kwargs: Keyword arguments of `lightning.pytorch.Trainer`.

        Raises:
            TaskError: If Lightning is to choose or restore a head as well.
        """
        if checkpoint_type != "last" or enable_checkpointing:
            raise TaskError(
                "the probe chooses the head that is reported (model.init_args.select: best or last) and writes it as "
                "head.safetensors; leave checkpoint_type and enable_checkpointing out"
            )
        quiet.leave_out_adverts()
        terminal.accept_any_text()  # Lightning's bar has a bullet
        # One process, whatever the variables of a job say. By RANK or SLURM_PROCID of 1 and more, Lightning leaves the
        # writing to process 0 and eva puts records next to their session; of SLURM_NTASKS it wants as many devices.
        rank_zero_only.rank = 0  # type: ignore[attr-defined]
        kwargs.setdefault("plugins", [LightningEnvironment()])
        callbacks = [*(callbacks or []), ProgressReports()]
        has_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
        if not has_bar and kwargs.get("enable_progress_bar") is not False:
            callbacks.append(TrainingProgress())
        super().__init__(
            *args,
            callbacks=callbacks,
            default_root_dir=default_root_dir,
            max_steps=max_steps,
            n_runs=n_runs,
            accumulate_grad_batches=accumulate_grad_batches,
            checkpoint_type=checkpoint_type,
            enable_checkpointing=enable_checkpointing,
            enable_model_summary=enable_model_summary,
            num_sanity_val_steps=num_sanity_val_steps,
            log_every_n_steps=log_every_n_steps,
            **kwargs,
        )

    @override
    def validate(self, model: Any = None, *args: Any, verbose: bool = True, **kwargs: Any) -> Any:
        return super().validate(model, *args, verbose=verbose and not _shows_results(model), **kwargs)

    @override
    def test(self, model: Any = None, *args: Any, verbose: bool = True, **kwargs: Any) -> Any:
        return super().test(model, *args, verbose=verbose and not _shows_results(model), **kwargs)


def _shows_results(model: Any) -> bool:
    """Returns whether a model prints what came out itself, as probes do: Lightning's tables would be a second time."""
    return getattr(model, "shows_results", False)
