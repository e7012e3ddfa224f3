"""A step that went wrong, kept so that it can be looked at: what is not finite, and which module gave it first."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from pretrain.config import Config
from pretrain.data.batches import MicroBatch
from pretrain.errors import PretrainError
from pretrain.files import cannot_write
from pretrain.settings import dump_config, parse_config
from pretrain.ssl.model import Losses, Pretrainer
from pretrain.state_files import bytes_of, load_checkpoint, write_whole

DUMPS_PER_STEP = 2
"""Of one process; the others would show the same."""
_TENSORS = ("global_crops", "local_crops", "masks")


@dataclass(frozen=True)
class Diagnosis:
    """What one micro-batch does to the networks.

    Attributes:
        losses: The scalars.
        inputs: Names of the batch's tensors with values that are not finite.
        gradients: Names of the parameters whose gradients are not finite.
        first_module: The first module, in the order of execution, whose output is not finite; None if none, or if it
            was compiled and could not be watched.
    """

    losses: dict[str, float]
    inputs: list[str]
    gradients: list[str]
    first_module: str | None

    @property
    def is_finite(self) -> bool:
        """Whether all is well."""
        return not (self.bad_losses or self.gradients)

    @property
    def bad_losses(self) -> list[str]:
        """Names of the losses that are not finite."""
        return [name for name, value in self.losses.items() if not torch.tensor(value).isfinite()]

    def __str__(self) -> str:
        if self.is_finite:
            return "all losses and gradients are finite"
        parts = [f"losses {', '.join(self.bad_losses)} are not finite"] if self.bad_losses else []
        if self.gradients:
            parts.append(f"{len(self.gradients)} gradients are not finite, such as {', '.join(self.gradients[:3])}")
        if self.inputs:
            parts.append(f"the input {', '.join(self.inputs)} is not finite itself")
        if self.first_module is not None:
            parts.append(f"the first output that is not finite is that of {self.first_module}")
        return "; ".join(parts)


def diagnose(model: Pretrainer, batch: MicroBatch, *, teacher_temperature: float, scale: float) -> Diagnosis:
    """Runs one micro-batch by itself, and leaves the model without gradients and centre statistics.

    Args:
        model: Student, teacher and centres.
        batch: On the model's device.
        teacher_temperature: That of the step.
        scale: That of the step.
    """
    for parameter in model.student.parameters():
        parameter.grad = None
    with _first_not_finite(model) as found:
        losses: Losses = model.forward_backward(batch, teacher_temperature=teacher_temperature, scale=scale)
    gradients = [
        name for name, p in model.student.named_parameters() if p.grad is not None and not p.grad.isfinite().all()
    ]
    for parameter in model.student.parameters():
        parameter.grad = None
    model.discard_step()
    return Diagnosis(
        losses={name: float(value) for name, value in losses.scalars().items()},
        inputs=[name for name in _TENSORS if not getattr(batch, name).isfinite().all()],
        gradients=gradients,
        first_module=found[0] if found else None,
    )


def write_dump(
    path: Path, model: Pretrainer, batch: MicroBatch, *, teacher_temperature: float, scale: float, diagnosis: Diagnosis
) -> None:
    """Writes what is needed to run a micro-batch again.

    Raises:
        PretrainError: If it cannot be written.
    """
    state = {
        "format": 1,
        "step": batch.step,
        "index": batch.index,
        "batch": {name: getattr(batch, name) for name in _TENSORS},
        "samples": [str(sample) for sample in batch.samples],
        "teacher_temperature": teacher_temperature,
        "scale": scale,
        "diagnosis": str(diagnosis),
        "config": dump_config(model.config),
        "model": model.state_dict(),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, state)
    except (OSError, RuntimeError) as error:
        hint = f"The batch of step {batch.step} was not dumped, and the newest checkpoint is from before it"
        raise cannot_write(path, error, bytes_of(state), hint) from error


def dump_faults(
    folder: Path, model: Pretrainer, batches: Iterable[MicroBatch], *, teacher_temperature: float, scale: float
) -> str:
    """Runs micro-batches of a step one by one, and dumps the first of those that are not finite.

    Args:
        folder: Where the dumps lie.
        model: As in `diagnose`.
        batches: Made one after the other.
        teacher_temperature: That of the step.
        scale: That of the step.

    Returns:
        Which they are, what is wrong, and how to look at it; nothing where all are finite.

    Raises:
        PretrainError: If a dump cannot be written.
    """
    found: list[str] = []
    how = {"teacher_temperature": teacher_temperature, "scale": scale}
    for batch in batches:
        diagnosis = diagnose(model, batch, **how)
        if diagnosis.is_finite:
            continue
        path = folder / f"step_{batch.step:08d}_micro_batch_{batch.index:04d}.pt"
        write_dump(path, model, batch, diagnosis=diagnosis, **how)
        found.append(f"micro-batch {batch.index}: {diagnosis} (python -m pretrain.replay {path})")
        if len(found) == DUMPS_PER_STEP:
            break
    return "; ".join(found)


def read_dump(path: Path, device: torch.device) -> tuple[Pretrainer, MicroBatch, dict[str, Any]]:
    """Reads a dump.

    Returns:
        The networks as they were, the micro-batch, and all that the file holds.

    Raises:
        PretrainError: If the file is not a dump, or of another version.
    """
    state = load_checkpoint(path)
    if "batch" not in state:
        raise PretrainError(f"{path} is a checkpoint, not the dump of a batch (RUN/dumps/step_*.pt)")
    config = _eager(parse_config(yaml.safe_load(state["config"]), str(path)))
    model = Pretrainer(config).to(device)
    model.load_state_dict(state["model"])
    tensors = {name: tensor.to(device) for name, tensor in state["batch"].items()}
    return model, MicroBatch(step=state["step"], index=state["index"], samples=state["samples"], **tensors), state


def _eager(config: Config) -> Config:
    """Returns the settings without compilation, so that every module can be watched."""
    return config.model_copy(update={"run": config.run.model_copy(update={"compile": False})})


@contextmanager
def _first_not_finite(model: nn.Module) -> Iterator[list[str]]:
    """Collects the names of the modules whose outputs are not finite, in the order of execution."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            tensors = output if isinstance(output, tuple) else (output,)
            if any(isinstance(t, Tensor) and t.is_floating_point() and not t.isfinite().all() for t in tensors):
                found.append(name)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
