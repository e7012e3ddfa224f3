"""The projection head of DINO and iBOT: an MLP onto the unit sphere, and prototypes on the same sphere."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class ProjectionHead(nn.Module):
    """DINOv2's head with the last product left out, which `pretrain.prototypes` computes in chunks.

    The logits of a token are the products of its bottleneck vector with the prototypes, both of length 1:
    DINOv2's last layer is weight-normed, with a gain of 1. (DINOv2 lets the optimizer move the gain from
    there; here it stays 1, as in DINO with ``norm_last_layer``, so that a logit is a cosine.)

    Args:
        in_dim: Channels ``C`` of a token.
        hidden_dim: Width of the hidden layers.
        bottleneck_dim: Width ``d`` of the bottleneck.
        prototypes: Number ``P`` of prototypes.
        num_layers: Linear layers up to the bottleneck, 2 or more.
    """

    def __init__(self, in_dim: int, *, hidden_dim: int, bottleneck_dim: int, prototypes: int, num_layers: int) -> None:
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

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens ``(R, C)`` to bottleneck vectors of length 1, ``(R, d)``, float32 or better."""
        return unit(self.mlp(x))

    def prototypes(self) -> Tensor:
        """Returns the prototypes, of length 1, ``(P, d)``, float32 or better."""
        return unit(self.last_layer.weight)


def unit(vectors: Tensor) -> Tensor:
    """Scales the rows to length 1, in float32 at least: half precision would move them off the sphere."""
    return functional.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)
