"""Whether compiled code computes what the plain code says, asked at the start of a run.

PyTorch 2.11 has compiled a form of the prototype loss to a wrong loss without a word. So before the first step each
shape that is compiled runs once compiled and once plainly, forward and backward: a block of the student on global and
on local crops, and the loss on the chunks of the run. What is compiled here is what the run then uses.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from pretrain.config import Config
from pretrain.data.masking import masked_counts
from pretrain.distributed import World
from pretrain.errors import PretrainError
from pretrain.ssl.model import Pretrainer
from pretrain.ssl.prototypes import chunk_terms, cross_entropy
from tapct.vit.blocks import Block, draw_kept_samples

TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}
"""Largest norm of a difference over the norm of what is compared, of one sample or row, by precision of the matrix
products. Inductor on a CPU is off by 4e-7 and 2e-5; on a GPU it rounds to bfloat16 (2^-9 a time) in other places than
plain code does."""


def check_compiled(model: Pretrainer, world: World, phases: Sequence[Config] = ()) -> str | None:
    """Compares compiled code with plain code on every process, and follows `run.compile_check`.

    Args:
        model: On its device; keeps weights and gradients.
        world: The processes.
        phases: Settings of all phases of the run, whose shapes are met; by default those of the model alone.

    Returns:
        What the run falls back from, where it does; the model computes plainly then. None where all is well.

    Raises:
        PretrainError: They differ, and the settings refuse to start.
    """
    run = model.config.run
    if not run.compile or run.compile_check == "skip":
        return None
    found = dict.fromkeys(what for own in world.gather(differences(model, world.device, phases)) for what in own)
    if not found:
        return None
    what = (
        f"compiled code does not compute what the plain code says on {world.device.type} with PyTorch "
        f"{torch.__version__}: {'; '.join(found)}"
    )
    if run.compile_check == "refuse":
        raise PretrainError(
            f"{what}. Train with --run.compile=false (slower, more memory), let it fall back by itself with "
            "--run.compile_check=fall_back, or use another version of PyTorch"
        )
    model.leave_compiled_code()
    return f"{what}. The run falls back to plain code (run.compile_check = fall_back): slower, with more memory"


def differences(model: Pretrainer, device: torch.device, phases: Sequence[Config] = ()) -> list[str]:
    """Returns what compiled code computes otherwise than plain code, in words; phases as in `check_compiled`."""
    phases = phases or [model.config]
    blocks: dict[tuple[int, int], str] = {}
    rows: set[int] = set()
    for config in phases:
        size, crops = config.run.micro_batch_size, config.crops
        which = f" of {crops.global_size}" if len(phases) > 1 else ""
        blocks.setdefault((crops.num_global * size, config.computed_patches), f"a block on global crops{which}")
        which = f" of {crops.local_size}" if len(phases) > 1 else ""
        blocks.setdefault((crops.num_local * size, math.prod(config.local_grid)), f"a block on local crops{which}")
        rows |= set() if config.losses.chunk_rows is None else set(loss_rows(config))
    tests: list[tuple[str, Callable[[bool], list[Tensor]]]] = [
        *((name, _of_block(model, batch, patches, device)) for (batch, patches), name in blocks.items()),
        *((f"the loss of {number} rows", _of_loss(model, number, device)) for number in sorted(rows)),
    ]
    precision = model.config.run.precision
    found = []
    for name, compute in tests:
        plain = compute(False)
        try:
            worst = torch.tensor(list(map(_distance, compute(True), plain))).max().item()  # NaN, if one is
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # all errors of the compiler are; it may lack a C compiler or Triton
            found.append(f"{name} cannot be compiled ({str(error).strip().splitlines()[0]})")
            continue
        if not worst <= TOLERANCE[precision]:
            found.append(f"{name} is off by {worst:.2g} (at most {TOLERANCE[precision]:g})")
    return found


def loss_rows(config: Config) -> list[int]:
    """Returns numbers of rows whose chunks have all the shapes that the losses of a run have."""
    size, chunk = config.run.micro_batch_size, config.losses.chunk_rows
    assert chunk is not None
    rows = {2 * size, 2 * size * config.crops.num_local, masked_in_micro_batch(config)}
    return sorted({number if number <= chunk else chunk + number % chunk for number in rows} - {0})


def masked_in_micro_batch(config: Config) -> int:
    """Returns the masked patches of a micro-batch: they differ from crop to crop, and their sum never."""
    crops, patches = config.crops.num_global * config.run.micro_batch_size, math.prod(config.global_grid)
    return sum(masked_counts(crops, patches, config.masking, np.random.default_rng(0)))


def _of_block(model: Pretrainer, batch: int, patches: int, device: torch.device) -> Callable[[bool], list[Tensor]]:
    """Runs the first block of the student; returns what it gives and its gradients."""
    backbone = model.student.backbone
    block = backbone.blocks[0]
    assert isinstance(block, Block)
    rng = torch.Generator().manual_seed(batch)
    shape = (batch, 1 + backbone.num_register_tokens + patches, backbone.embed_dim)
    x, upstream = (torch.randn(shape, generator=rng).to(device) for _ in range(2))
    drawn = draw_kept_samples(batch, backbone.drop_path_rate, 1, device=device, generator=rng)
    kept = None if drawn is None else drawn[0]

    def compute(compiled: bool) -> list[Tensor]:
        tokens, parameters = x.clone().requires_grad_(), list(block.parameters())
        with _branches_count(block):
            with model.computing(device):
                out = (block if compiled else block.forward)(tokens, kept)
            return [out.detach(), *torch.autograd.grad(out, [tokens, *parameters], upstream)]

    return compute


def _of_loss(model: Pretrainer, rows: int, device: torch.device) -> Callable[[bool], list[Tensor]]:
    """Runs the iBOT loss on unit vectors; returns loss, entropy and gradients."""
    heads, config = (model.student.ibot_head, model.teacher.ibot_head), model.config
    rng = torch.Generator().manual_seed(rows)
    width, prototypes = config.heads.bottleneck_dim, config.heads.prototypes
    vectors = [torch.nn.functional.normalize(torch.randn(rows, width, generator=rng)).to(device) for _ in range(2)]
    centre = (0.1 * torch.randn(prototypes, generator=rng)).to(device)
    weights = torch.rand(rows, generator=rng).to(device)

    def compute(compiled: bool) -> list[Tensor]:
        student = vectors[0].clone().requires_grad_()
        with model.computing(device):
            result = cross_entropy(
                student,
                heads[0].last_layer.weight,
                vectors[1],
                heads[1].last_layer.weight,
                centre,
                weights,
                student_temperature=config.losses.student_temperature,
                teacher_temperature=config.losses.teacher_temperature[0],
                chunk_rows=config.losses.chunk_rows,
                matmul_dtype=model.matmul_dtype,
                terms=model.terms if compiled else chunk_terms,
            )
        gradients = torch.autograd.grad(result.loss, [student, heads[0].last_layer.weight])
        return [result.loss.detach()[None], result.teacher_entropy[None], *gradients]

    return compute


@contextmanager
def _branches_count(block: Block) -> Iterator[None]:
    """Makes the LayerScales 1 for a while: as they begin, at 1e-5, nothing of the branches would show."""
    gammas = [block.ls1.gamma, block.ls2.gamma]
    before = [gamma.detach().clone() for gamma in gammas]
    try:
        with torch.no_grad():
            for gamma in gammas:
                gamma.fill_(1.0)
        yield
    finally:
        with torch.no_grad():
            for gamma, value in zip(gammas, before, strict=True):
                gamma.copy_(value)


def _distance(one: Tensor, other: Tensor) -> float:
    """Returns the largest relative distance of two tensors, of what one index of the first axis holds.

    Rows that hold next to nothing, as a gradient may, are measured by the mean of the others.
    """
    one, other = (tensor.double().reshape(len(tensor) if tensor.ndim > 1 else 1, -1) for tensor in (one, other))
    norms = other.norm(dim=1)
    return float(((one - other).norm(dim=1) / norms.clamp(min=norms.mean().clamp(min=1e-30))).max())
