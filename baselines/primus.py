"""Primus (Wald et al., arXiv 2503.01835): the 3D vision transformer that COLIPRI and nnFoundation share.

Facts: dynamic-network-architectures 0.4.4, architectures/primus.py and building_blocks/eva.py, on timm's EvaBlock. The
network is written here from its formulas, under the names of the published files: timm has moved its table of rotary
positions since (from 1.0.23 on, Primus cannot be built on it).

* Rotary positions count patches from 0 along each axis, whatever the window. Pairs of *neighbouring* channels turn; a
  third of a head's pairs belongs to each axis, in the order of the array. The table is not in the files.
* q and v have a bias, k has none. The heads' output is normed before its projection, as the gated hidden layer is.
* All norms have an epsilon of 1e-5.
"""

import math
from collections import OrderedDict

import torch
from torch import nn
from torch.nn.functional import interpolate, scaled_dot_product_attention, silu

PATCH = 8
ROPE_BASE = 10_000.0
SCALE = 0.1  # init_values of both models


class Primus(nn.Module):
    """The encoder of Primus, without class token and decoder."""

    def __init__(self, dim: int, depth: int, heads: int, table: tuple[int, int, int] | None = None) -> None:
        """Builds the network with its authors' initialisation.

        Args:
            dim: Channels; a head's number of them must be a multiple of 6.
            depth: Number of blocks.
            heads: Number of heads.
            table: Patches, along the axes of the array, of the canvas whose absolute positions it learnt; None has
                none.
        """
        super().__init__()
        proj = nn.Conv3d(1, dim, kernel_size=PATCH, stride=PATCH)
        nn.init.kaiming_normal_(proj.weight, a=1e-2)
        assert proj.bias is not None
        nn.init.zeros_(proj.bias)
        self.down_projection = nn.Sequential(OrderedDict(proj=proj))
        self.eva = _Eva(dim, depth, heads, table)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the map (B, C, d, h, w) of the tokens after the final norm, of (B, 1, D, H, W)."""
        patches = self.down_projection(x)
        tokens = self.eva(patches.flatten(2).transpose(1, 2), patches.shape[2:])
        return tokens.transpose(1, 2).unflatten(2, patches.shape[2:])


class _Eva(nn.Module):
    def __init__(self, dim: int, depth: int, heads: int, table: tuple[int, int, int] | None) -> None:
        super().__init__()
        self.table, self.bands = table, dim // heads // 6
        if table is not None:
            self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, math.prod(table), dim), std=0.02))
        blocks = [_Block(dim, heads) for _ in range(depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for number, block in enumerate(blocks, start=1):
            for last in (block.attn.proj, block.mlp.fc2):
                last.weight.data /= math.sqrt(2 * number)

    def forward(self, tokens: torch.Tensor, grid: torch.Size) -> torch.Tensor:
        if self.table is not None:
            tokens = tokens + self._positions(grid)
        rotation = self._rotation(grid)
        for block in self.blocks:
            tokens = block(tokens, rotation)
        return self.norm(tokens)

    def _positions(self, grid: torch.Size) -> torch.Tensor:
        """Returns the learnt positions (1, T, C); for another grid, interpolated as nnU-Net does when it loads them."""
        if tuple(grid) == self.table:
            return self.pos_embed
        canvas = self.pos_embed.transpose(1, 2).unflatten(2, self.table)
        return interpolate(canvas, tuple(grid), mode="trilinear", align_corners=False).flatten(2).transpose(1, 2)

    def _rotation(self, grid: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns cosine and sine (T, pairs of channels)."""
        like = self.norm.weight
        bands = ROPE_BASE ** -(torch.arange(self.bands).to(like) / self.bands)
        places = torch.stack(torch.meshgrid(*(torch.arange(n).to(like) for n in grid), indexing="ij"), dim=-1)
        angles = (places.flatten(0, 2)[:, :, None] * bands).flatten(1)
        return angles.cos(), angles.sin()


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = _Attention(dim, heads)
        self.gamma_1 = nn.Parameter(torch.full((dim,), SCALE))
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = _SwiGLU(dim, dim * 8 // 3)
        self.gamma_2 = nn.Parameter(torch.full((dim,), SCALE))

    def forward(self, x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        x = x + self.gamma_1 * self.attn(self.norm1(x), rotation)
        return x + self.gamma_2 * self.mlp(self.norm2(x))


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, dim, bias=biased) for biased in (True, False, True))
        self.norm = nn.LayerNorm(dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        projected = (projection(x) for projection in (self.q_proj, self.k_proj, self.v_proj))
        q, k, v = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in projected)
        mixed = scaled_dot_product_attention(_rotated(q, *rotation), _rotated(k, *rotation), v)
        return self.proj(self.norm(mixed.transpose(1, 2).flatten(2)))


class _SwiGLU(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1_g, self.fc1_x = nn.Linear(dim, hidden), nn.Linear(dim, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.norm(silu(self.fc1_g(x)) * self.fc1_x(x)))


def _rotated(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns the pairs of neighbouring channels of (B, heads, T, c)."""
    a, b = heads.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2).to(heads.dtype)
