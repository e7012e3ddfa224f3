"""Student and teacher, and the forward and backward pass of one micro-batch.

The student is a backbone with a DINO and an iBOT head; the teacher has the same shape and follows it as an
exponential moving average. Parameters are float32; with "bf16" the matrix products run in bfloat16
(autocast), the residual stream, norms, softmax and losses in float32.

Healthy values (of the losses: see `pretrain.ssl.losses`): the teacher's entropy lies between 0, where it picks
one prototype for everything, and ln(prototypes), 11.1 at 65,536, where it tells nothing apart. A fresh teacher is
in between; while the centre settles (tens of steps) its CLS entropy may rise to nearly the maximum, and must come
down again. Staying at either end is collapse.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._functorch import config as functorch

from pretrain.config import Config
from pretrain.data.counters import Stream, generator
from pretrain.data.masking import draw_computed, masked_patches
from pretrain.ssl import losses
from pretrain.ssl.heads import ProjectionHead
from pretrain.ssl.prototypes import ChunkTerms, CrossEntropy, chunk_terms, cross_entropy, sum_of_logits
from tapct import vit

if TYPE_CHECKING:  # the network needs none of what reads volumes
    from pretrain.data.batches import MicroBatch

HEADS = ("dino", "ibot")


@dataclass(frozen=True)
class Losses:
    """What one micro-batch gives; detached tensors on the device, so that reading them is the caller's choice.

    Attributes:
        total: The weighted sum that is minimised.
        dino_local: Local views against the teacher's global views, unweighted, divisor shared with the next.
        dino_global: Each global view against the teacher's other one, unweighted.
        ibot: Masked patches, unweighted.
        koleo: Sum over both global views, unweighted.
        dino_teacher_entropy: Mean entropy of the teacher's CLS distributions, in nats.
        ibot_teacher_entropy: Mean entropy of its distributions at the masked patches, in nats.
        teacher_cls: The teacher's CLS tokens of the global crops, ``(2 b, C)``, for the effective rank.
    """

    total: Tensor
    dino_local: Tensor
    dino_global: Tensor
    ibot: Tensor
    koleo: Tensor
    dino_teacher_entropy: Tensor
    ibot_teacher_entropy: Tensor
    teacher_cls: Tensor

    def scalars(self) -> dict[str, Tensor]:
        """Returns the scalars by name, without copying them to the host."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "teacher_cls"}


def build_backbone(config: Config) -> vit.VisionTransformer:
    """Builds the vision transformer of a configuration, with fresh weights from the global random state."""
    options: dict[str, Any] = {
        "window_size": config.crops.global_size,
        "patch_size": config.model.patch_size,
        "num_register_tokens": config.model.num_register_tokens,
        "layer_scale_init": config.model.layer_scale_init,
        "drop_path_rate": config.model.drop_path_rate,
    }
    if config.model.size == "debug":
        return vit.VisionTransformer(embed_dim=96, depth=4, num_heads=3, **options)
    return {"t": vit.vit_tiny, "s": vit.vit_small, "b": vit.vit_base}[config.model.size](**options)


class Network(nn.Module):
    """A backbone with its two heads: the student, and the teacher.

    Args:
        config: The settings of the run.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.backbone = build_backbone(config)
        self.dino_head = self._head(config)
        self.ibot_head = self._head(config)

    def _head(self, config: Config) -> ProjectionHead:
        return ProjectionHead(
            self.backbone.embed_dim,
            hidden_dim=config.heads.hidden_dim,
            bottleneck_dim=config.heads.bottleneck_dim,
            prototypes=config.heads.prototypes,
            num_layers=config.heads.num_layers,
            train_gain=config.heads.train_gain,
        )


@dataclass(frozen=True)
class _Targets:
    """What the teacher makes of the global crops of a micro-batch."""

    cls: Tensor
    """CLS tokens, ``(2 b, C)``."""
    dino: Tensor
    """Their bottleneck vectors, ``(2 b, d)``."""
    ibot: Tensor
    """Bottleneck vectors of the masked patches, ``(M, d)``."""


class Pretrainer(nn.Module):
    """The student, the teacher and the centres of a run.

    A step is: `forward_backward` for each micro-batch; all-reduce the gradients and `centre_statistics`; the
    optimizer; `update_centres`; `update_teacher`. The centres that a step uses are those of the steps before
    it, as in DINOv2. A step that is given up ends with `discard_step` instead.

    Its state dict is all that a run has besides the optimizer: "student.*", "teacher.*", "dino_centre" and
    "ibot_centre".

    Args:
        config: The settings of the run. The initial weights depend on its seed alone.
    """

    dino_centre: Tensor
    ibot_centre: Tensor
    _statistics: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator(config.run.seed, 0, 0, Stream.INITIALISATION).initial_seed())
            self.student = Network(config)
        with torch.random.fork_rng(devices=[]):  # its own initial weights are replaced at once
            self.teacher = Network(config).requires_grad_(False)
        self.teacher.load_state_dict(self.student.state_dict())
        for head in HEADS:
            self.register_buffer(f"{head}_centre", torch.zeros(config.heads.prototypes))
        width = config.heads.bottleneck_dim if config.losses.centre_from_bottleneck else config.heads.prototypes
        self.register_buffer("_statistics", torch.zeros(len(HEADS), width + 1), persistent=False)
        self._centres_are_due = False
        self.terms: Callable[..., ChunkTerms] = chunk_terms
        if config.run.compile:
            self._compile()
        self.train()

    def _compile(self) -> None:
        """Compiles for each shape by itself.

        A run has two of the student's blocks, one of the teacher's, and those of the chunks of each loss (the masked
        patches of a micro-batch are always as many).
        """
        for network in (self.student, self.teacher):
            for block in network.backbone.blocks:
                block.compile(dynamic=False)
        self.terms = torch.compile(chunk_terms, dynamic=False)

    def leave_compiled_code(self) -> None:
        """Leaves compiled code for good."""
        for network in (self.student, self.teacher):
            for block in network.backbone.blocks:
                block._compiled_call_impl = None
        self.terms = chunk_terms

    def train(self, mode: bool = True) -> "Pretrainer":
        """Sets the mode of the student; the teacher never leaves evaluation."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward_backward(self, batch: "MicroBatch", *, teacher_temperature: float, scale: float) -> Losses:
        """Runs one micro-batch and adds the gradients of ``scale * total`` to the student's.

        The local and the global crops go forward and backward one after the other, which halves the
        activations that exist at one time; the gradients only add up.

        Args:
            batch: Crops and masks, on the device of the model. Its step and index choose the samples that
                stochastic depth keeps.
            teacher_temperature: Of the teacher's softmax.
            scale: Factor on the gradients: one over the micro-batches of the step.

        Returns:
            The losses, not scaled.
        """
        weights = self.config.losses
        drop_path = generator(self.config.run.seed, batch.step, batch.index, Stream.DROP_PATH)
        patches = masked_patches(batch.masks, batch.num_masked)
        targets = self._run_teacher(batch, patches)

        dino_local = self._local_pass(batch.local_crops, targets, drop_path, teacher_temperature)
        (scale * weights.dino_weight * dino_local.loss).backward()

        dino_global, ibot, koleo = self._global_pass(batch, patches, targets, drop_path, teacher_temperature)
        total = weights.dino_weight * dino_global.loss + weights.ibot_weight * ibot.loss + weights.koleo_weight * koleo
        (scale * total).backward()
        return Losses(
            total=(weights.dino_weight * dino_local.loss + total).detach(),
            dino_local=dino_local.loss.detach(),
            dino_global=dino_global.loss.detach(),
            ibot=ibot.loss.detach(),
            koleo=koleo.detach(),
            dino_teacher_entropy=dino_global.teacher_entropy,
            ibot_teacher_entropy=ibot.teacher_entropy,
            teacher_cls=targets.cls,
        )

    def _local_pass(
        self, crops: Tensor, targets: _Targets, drop_path: torch.Generator, teacher_temperature: float
    ) -> CrossEntropy:
        """Runs the student on the local crops."""
        with self.computing(crops.device):
            cls, _ = self.student.backbone.forward_at(
                crops, generator=drop_path, prune=self.config.run.prune_last_block
            )
            vectors = self.student.dino_head(cls)
            return losses.dino_local_loss(self._cross_entropy("dino", teacher_temperature), vectors, targets.dino)

    def _global_pass(
        self,
        batch: "MicroBatch",
        patches: Tensor,
        targets: _Targets,
        drop_path: torch.Generator,
        teacher_temperature: float,
    ) -> tuple[CrossEntropy, CrossEntropy, Tensor]:
        """Runs the student on the masked global crops: DINO, iBOT, KoLeo."""
        with self.computing(batch.global_crops.device):
            cls, tokens = self.student.backbone.forward_at(
                batch.global_crops,
                patches,
                masks=batch.masks,
                computed=self._computed_patches(batch),
                most_patches=self.config.most_masked,
                generator=drop_path,
                prune=self.config.run.prune_last_block,
            )
            dino = losses.dino_global_loss(
                self._cross_entropy("dino", teacher_temperature),
                self.student.dino_head(cls),
                targets.dino,
                self.config.crops.num_local,
            )
            vectors = self.student.ibot_head(tokens)
            weights = losses.ibot_weights(batch.masks, patches, vectors.dtype)
            ibot = self._cross_entropy("ibot", teacher_temperature)(vectors, targets.ibot, weights)
            koleo = torch.stack([losses.koleo_loss(view) for view in cls.chunk(2)]).sum()
        return dino, ibot, koleo

    @torch.no_grad()
    def _run_teacher(self, batch: "MicroBatch", patches: Tensor) -> _Targets:
        """Runs the teacher on the unmasked global crops and adds to the centre statistics."""
        with self._precision(batch.global_crops.device):
            cls, tokens = self.teacher.backbone.forward_at(
                batch.global_crops,
                patches,
                most_patches=self.config.most_masked,
                prune=self.config.run.prune_last_block,
            )
            targets = _Targets(cls, self.teacher.dino_head(cls), self.teacher.ibot_head(tokens))
        for row, name in zip(self._statistics, HEADS, strict=True):
            vectors: Tensor = getattr(targets, name)
            if self.config.losses.centre_from_bottleneck:
                row[:-1] += vectors.sum(0)
            else:
                row[:-1] += sum_of_logits(vectors, self._teacher_prototypes(name), self.config.losses.chunk_rows)
            row[-1] += len(vectors)
        self._centres_are_due = True
        return targets

    def _cross_entropy(self, head: str, teacher_temperature: float) -> losses.CrossEntropyOf:
        """Binds the row-wise loss to one of the two heads."""
        (student, lengths_count), (teacher, _) = (
            getattr(network, f"{head}_head").vectors() for network in (self.student, self.teacher)
        )

        def of(student_rows: Tensor, teacher_rows: Tensor, weights: Tensor) -> CrossEntropy:
            return cross_entropy(
                student_rows,
                student,
                teacher_rows,
                teacher,
                getattr(self, f"{head}_centre"),
                weights,
                student_temperature=self.config.losses.student_temperature,
                teacher_temperature=teacher_temperature,
                chunk_rows=self.config.losses.chunk_rows,
                matmul_dtype=self.matmul_dtype,
                lengths_count=lengths_count,
                terms=self.terms,
            )

        return of

    def _teacher_prototypes(self, head: str) -> Tensor:
        module: ProjectionHead = self.teacher.get_submodule(f"{head}_head")  # type: ignore[assignment]
        return module.prototypes()

    def centre_statistics(self) -> Tensor:
        """Returns the sums and counts of this step so far, flat; the engine sums them over processes, in place.

        For each head: the sum of the teacher's bottleneck vectors and their number. The teacher's logits are
        linear in these, so their mean needs no pass over the logits, and 514 numbers are sent instead of
        131,074.
        """
        return self._statistics.view(-1)

    @torch.no_grad()
    def update_centres(self, statistics: Tensor) -> None:
        """Moves the centres towards the mean logits of the step, and starts the statistics anew.

        Must come before `update_teacher`: the logits are those of the teacher that ran.

        Args:
            statistics: Those of `centre_statistics`, summed over processes.
        """
        momentum = self.config.losses.centre_momentum
        for row, name in zip(statistics.view_as(self._statistics), HEADS, strict=True):
            mean, count = row[:-1] / row[-1].clamp(min=1), row[-1]
            if self.config.losses.centre_from_bottleneck:
                mean = self._teacher_prototypes(name) @ mean
            centre: Tensor = getattr(self, f"{name}_centre")
            # Without a masked patch in the whole step there is no mean to move to.
            centre.lerp_(mean, (1 - momentum) * (count > 0).to(centre.dtype))
        self.discard_step()

    @torch.no_grad()
    def update_teacher(self, momentum: float, applied: Tensor | None = None) -> None:
        """Moves the teacher to ``momentum x teacher + (1 - momentum) x student``.

        Args:
            momentum: Share of the teacher that stays.
            applied: Scalar on the device, 1 to move, 0 to leave the teacher as it is; None moves. So a step can be
                given up without the host's knowing yet.

        Raises:
            RuntimeError: `update_centres` (or `discard_step`) has not been called for this step.
        """
        if self._centres_are_due:
            raise RuntimeError("update_centres must come before update_teacher: it needs the teacher that ran")
        teacher: list[Tensor] = list(self.teacher.parameters())
        student: list[Tensor] = list(self.student.parameters())
        if applied is None:
            torch._foreach_lerp_(teacher, student, 1 - momentum)
        else:
            weight = (applied.double() * (1 - momentum)).to(teacher[0].dtype)
            torch._foreach_lerp_(teacher, student, (weight,) * len(teacher))

    def discard_step(self) -> None:
        """Forgets the centre statistics since the last update; gradients are the optimizer's to clear."""
        self._statistics.zero_()
        self._centres_are_due = False

    def _computed_patches(self, batch: "MicroBatch") -> Tensor | None:
        """Draws the patches of the global crops that the student computes; None for all."""
        config = self.config
        if not config.masking.drop:
            return None
        draw = generator(config.run.seed, batch.step, batch.index, Stream.DROP_PATCHES)
        return draw_computed(batch.masks, config.computed_patches, draw)

    @property
    def matmul_dtype(self) -> torch.dtype | None:
        """Precision of the losses' matrix products; None for that of the vectors."""
        return torch.bfloat16 if self.config.run.precision == "bf16" else None

    @contextmanager
    def computing(self, device: torch.device) -> Iterator[None]:
        """Runs the student as the configuration says: precision, and what compiled code holds."""
        with self._precision(device), self._holding():
            yield

    def _holding(self) -> AbstractContextManager[None]:
        """Tells the compiler, which starts at a block's first call, what a block may hold for its backward pass.

        By itself it holds what a backward matrix product reads, the results of GELUs and norms: over a quarter of all.
        """
        return functorch.patch(ban_recompute_materialized_backward=not self.config.run.recompute)

    @contextmanager
    def _precision(self, device: torch.device) -> Iterator[None]:
        """Runs the matrix products in bfloat16 if the configuration says so."""
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.run.precision == "bf16"):
            yield
