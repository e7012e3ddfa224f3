"""The projection head of DINO and iBOT: an MLP onto the unit sphere, and prototypes on the same sphere."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class ProjectionHead(nn.Module):
    """DINOv2's head with the last product left out, which `pretrain.ssl.prototypes` computes in chunks.

    The logits of a token are the products of its bottleneck vector, of length 1, with the prototypes: directions times
    a gain. DINOv2's last layer is weight-normed likewise, with a gain that starts at 1 and is trained; without
    `train_gain` it stays 1, as in DINO with ``norm_last_layer``, so that a logit is a cosine.

    Args:
        in_dim: Channels ``C`` of a token.
        hidden_dim: Width of the hidden layers.
        bottleneck_dim: Width ``d`` of the bottleneck.
        prototypes: Number ``P`` of prototypes.
        num_layers: Linear layers up to the bottleneck, 2 or more.
        train_gain: Whether the prototypes have lengths that are trained.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        hidden_dim: int,
        bottleneck_dim: int,
        prototypes: int,
        num_layers: int,
        train_gain: bool = False,
    ) -> None:
        super().__init__()
        widths = [in_dim, *[hidden_dim] * (num_layers - 1), bottleneck_dim]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.GELU()]
        self.mlp = nn.Sequential(*layers[:-1])
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        # Left as PyTorch initialises it, as in DINOv2.
        self.last_layer = nn.Linear(bottleneck_dim, prototypes, bias=False)
        # Part of the last layer, with which it rests at first.
        self.last_layer.register_parameter("gain", nn.Parameter(torch.ones(prototypes, 1)) if train_gain else None)

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens ``(R, C)`` to bottleneck vectors of length 1, ``(R, d)``, float32 or better."""
        return unit(self.mlp(x))

    def prototypes(self) -> Tensor:
        """Returns the prototypes, of length 1 or their gain, ``(P, d)``, float32 or better."""
        directions, gain = unit(self.last_layer.weight), self.gain
        return directions if gain is None else directions * gain

    def vectors(self) -> tuple[Tensor, bool]:
        """Returns what `pretrain.ssl.prototypes.cross_entropy` takes: vectors, and whether their lengths count."""
        return (self.last_layer.weight, False) if self.gain is None else (self.prototypes(), True)

    @property
    def gain(self) -> nn.Parameter | None:
        """The lengths of the prototypes, ``(P, 1)``; None where they stay 1."""
        gain = self.last_layer.gain
        return gain if isinstance(gain, nn.Parameter) else None


def unit(vectors: Tensor) -> Tensor:
    """Scales the rows to length 1, in float32 at least: half precision would move them off the sphere."""
    return functional.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)
