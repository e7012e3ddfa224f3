"""Training that was ended before its time resumes: the same command finds its checkpoint by what decides the numbers.

A checkpoint lies between two steps. It holds what is trained (never what is frozen), the optimizer, how far the order
of the cases has come, and what the record will say of the steps so far; so that a resumed run is the one that was never
broken, to the bit on the same machine. It goes once the session's last record is written.
"""

import contextlib
import hashlib
import io
import json
import pickle
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from loguru import logger

from tapct._utils.files import write_atomically
from tapct.errors import TaskError
from tapct.probes.heads import CandidateHeads, SharedByRuns
from tapct.probes.recording import probe_record, task_record, training_settings
from tapct.records import EncoderRecord
from tapct.source_code import code_of

FOLDER = "checkpoints"
"""Next to the sessions of a `default_root_dir`."""


def decides(
    trainer: pl.Trainer, candidates: CandidateHeads, encoder: EncoderRecord, probe: Mapping[str, Any], module: str
) -> dict[str, Any]:
    """Returns all that decides the numbers of a fit, as JSON has it, from the objects that are about to run.

    Args:
        trainer: With its optimizers.
        candidates: The heads.
        encoder: What the record will hold of the encoder.
        probe: What the probe says of itself.
        module: That of the probe: its code, and all that it imports.

    Raises:
        TaskError: If that code is in no file.
    """
    try:
        code = code_of(module, __name__).sha256
    except LookupError as error:
        raise TaskError(f"checkpoints need the code of the probe in a file: {error}") from error
    return {
        "encoder": encoder.settings(),
        "task": task_record(trainer.datamodule).content(),  # type: ignore[attr-defined]
        "probe": probe_record({**probe, **training_settings(trainer)}).content(),
        "runs": [candidate.run for candidate in candidates.all],
        "steps": [trainer.max_steps, trainer.val_check_interval, str(trainer.limit_val_batches)],
        "code": code,
    }


class Checkpoints:
    """Those of one fit, each in the place of the one before.

    Attributes:
        path: The file.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        candidates: CandidateHeads,
        session: SharedByRuns,
        *,
        of: Mapping[str, Any],
        every: int,
    ) -> None:
        """Initializes the checkpoints; nothing is read or written yet.

        Args:
            trainer: Whose optimizers and loops are meant, once they are there.
            candidates: The heads.
            session: Whose statistics of features are kept as well, and which removes the file when it has ended.
            of: What decides the numbers, as JSON has it (`decides`): another is another checkpoint.
            every: Optimizer steps between two.

        Raises:
            TaskError: If `every` is not a number of steps, or the order of the training cases cannot be taken up.
        """
        if every < 1:
            raise TaskError(f"checkpoint_every is a number of steps, at least 1, or null for none; not {every}")
        if not hasattr(getattr(trainer, "datamodule", None), "resume_after"):
            raise TaskError(
                "checkpoints need data whose order can be taken up where it was left, as that of tapct.tasks.TaskData "
                "can: leave checkpoint_every out"
            )
        self._trainer, self._candidates, self._features, self._every = trainer, candidates, session.features, every
        key = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
        self.path = Path(trainer.default_root_dir) / FOLDER / f"{key[:32]}.pt"
        session.checkpoints.append(self.path)
        self._random: dict[str, Any] | None = None
        self._saved_at = 0
        self._before_s, self._started = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long the fit has taken, over all processes."""
        return self._before_s + time.perf_counter() - self._started

    def resume(self) -> None:
        """Takes up the training where a checkpoint left it, if there is one; called before any case is loaded.

        Raises:
            TaskError: If it cannot be read.
        """
        if not self.path.is_file():
            return
        found = self._read()
        trainer: Any = self._trainer
        self._candidates.load(found["candidates"])
        for optimizer, state in zip(trainer.optimizers, found["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        for config, state in zip(trainer.lr_scheduler_configs, found["schedulers"], strict=True):
            config.scheduler.load_state_dict(state)
        trainer.fit_loop.load_state_dict(found["loops"])
        self._features.load(found["features"])
        trainer.datamodule.resume_after(found["batches"])
        self._random, self._before_s, self._saved_at = found["random"], found["seconds"], trainer.global_step
        logger.info(f"resumes at step {trainer.global_step} of {trainer.max_steps}, from {self.path}")

    def restore_random(self) -> None:
        """Puts the generators of random numbers where they were; called when the loaders have begun."""
        if self._random is not None:
            torch.set_rng_state(self._random["cpu"])
            if self._random["cuda"] and len(self._random["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(self._random["cuda"])

    def save_if_due(self, batches: int) -> None:
        """Writes a checkpoint if so many steps were taken since the last; called before a batch is trained on.

        Args:
            batches: Batches so far.
        """
        step = self._trainer.global_step
        if step % self._every == 0 and step != self._saved_at:
            self.save(batches)

    def save(self, batches: int) -> None:
        """Writes a checkpoint; batches are those so far."""
        trainer: Any = self._trainer
        is_first, self._saved_at = not self._saved_at, trainer.global_step
        content = {
            "candidates": self._candidates.state(),
            "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
            "loops": trainer.fit_loop.state_dict(),
            "features": self._features.state(),
            "batches": batches,
            "random": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            },
            "seconds": self.seconds,
        }
        written = io.BytesIO()
        torch.save(content, written)
        write_atomically(self.path, written.getvalue())
        if is_first:
            self._read()  # now, and not when a day of training hangs on it

    def _read(self) -> dict[str, Any]:
        try:
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TaskError(
                f"the checkpoint {self.path} cannot be read: {why}. Delete it to train from the start, or set "
                "checkpoint_every to null (an optimizer or schedule may hold what no checkpoint can)"
            ) from error


def remove(paths: list[Path]) -> None:
    """Removes checkpoints that no session needs any more, and their folder if it is empty."""
    for path in paths:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()
