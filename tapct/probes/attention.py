"""Gated attention over bags of any size: eva's heads, on a slab of instances at a time.

A whole scan has tens of thousands of patch features, at 512 x 512 hundreds of thousands. Padded to the longest bag of a
batch, in float32, with what every head keeps of them for its gradient, they would take tens of GiB. Here a bag stays as
it is stored, mapped from disk; a slab of it is converted and scaled when its turn comes, once for all heads that train
side by side. What is kept of a bag is its pooled vector, and what the softmax was divided by.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pad_sequence
from typing_extensions import override

from tapct.features.channels import Channels
from tapct.probes.scaling import ChannelScale

if TYPE_CHECKING:
    from eva.vision.models.networks import ABMIL

PADDED_VALUES = 2**22
"""Values of a padded batch up to which eva's own forward takes it in one go: class tokens always, crops mostly."""

INSTANCES = 2**13
"""Instances of a slab; at 768 features, 24 MiB of float32."""


@dataclass(frozen=True, eq=False)
class Bag:
    """The instances of a case, as they are stored.

    Attributes:
        features: (C, N) of them, on any device.
        scale: What each channel is divided by when a head sees it; None is nothing.
    """

    features: Channels
    scale: ChannelScale | None = None

    def slabs(self, like: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yields all instances in order, (n, C), about `INSTANCES` at a time.

        Args:
            like: Whose device and dtype they get.
        """
        for slab in self.features.slabs(INSTANCES, like):
            yield (slab if self.scale is None else self.scale.divided(slab, 0)).T


def logits(heads: "Sequence[ABMIL]", bags: Sequence[Bag]) -> torch.Tensor:
    """Returns (heads, bags, K) logits; their gradients reach the heads' parameters.

    Args:
        heads: Of one architecture, without projection and dropout.
        bags: Of any lengths, of the same channels.
    """
    like = next(heads[0].parameters())
    longest, channels = max(bag.features.shape[1] for bag in bags), bags[0].features.shape[0]
    if len(bags) * longest * channels <= PADDED_VALUES:
        # eva's ABMIL masks instances of minus infinity: bags of any length in one pass, as if each came alone.
        whole = [torch.cat([*bag.slabs(like)]) for bag in bags]
        padded = pad_sequence(whole, batch_first=True, padding_value=-math.inf)
        return torch.stack([head(padded) for head in heads])
    gates = [head.gated_attention for head in heads]
    pooled = _Pooled.apply(gates, bags, *(p for gate in gates for p in gate.parameters()))
    return torch.stack([head.classifier(of_head) for head, of_head in zip(heads, pooled, strict=True)])


class _Pooled(torch.autograd.Function):
    """The (heads, bags, C) means of bags, weighted by the softmax of each gate over a bag's instances."""

    @staticmethod
    @override
    def forward(ctx: Any, gates: Sequence[nn.Module], bags: Sequence[Bag], *parameters: torch.Tensor) -> torch.Tensor:
        each = [_pooled(gates, bag, parameters[0]) for bag in bags]
        pooled, normaliser = (torch.stack(parts, dim=1) for parts in zip(*each, strict=True))
        ctx.gates, ctx.bags = gates, bags
        ctx.save_for_backward(pooled, normaliser, *parameters)
        return pooled

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        pooled, normaliser, *parameters = ctx.saved_tensors
        total = [torch.zeros_like(parameter) for parameter in parameters]
        of_gate = len(parameters) // len(ctx.gates)
        for column, bag in enumerate(ctx.bags):
            for slab in bag.slabs(parameters[0]):
                for row, gate in enumerate(ctx.gates):
                    own = slice(row * of_gate, (row + 1) * of_gate)
                    with torch.enable_grad():
                        score = gate(slab)[:, 0]
                    weight = (score.detach() - normaliser[row, column]).exp()
                    towards = gradient[row, column]
                    # The derivative of a softmax-weighted mean by its scores.
                    of_score = weight * (slab @ towards - pooled[row, column] @ towards)
                    parts = torch.autograd.grad(score, parameters[own], of_score)
                    torch._foreach_add_(total[own], parts)
        return None, None, *total


def _pooled(gates: Sequence[nn.Module], bag: Bag, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the (gates, C) weighted means of a bag, and the (gates,) log of the sum of exp(score)."""
    normaliser = like.new_full((len(gates),), -math.inf)
    mean = like.new_zeros((len(gates), bag.features.shape[0]))
    for slab in bag.slabs(like):
        for row, gate in enumerate(gates):  # one by one: each head comes out as if it were alone, to the bit
            score = gate(slab)[:, 0]
            after = torch.logaddexp(normaliser[row], score.logsumexp(dim=0))
            mean[row] = mean[row] * (normaliser[row] - after).exp() + (score - after).exp() @ slab
            normaliser[row] = after
    return mean, normaliser
