"""The vision transformer of FlexiCT and SPECTRE: DINOv3's kind, with rotary positions in 3D.

Written from its formulas (arXiv 2508.10104 and what each adapter cites): FlexiCT's own layers carry the DINOv3 licence.
Pre-norm blocks with LayerScale; a class token and storage tokens, if any, before the patches. Channel c of a head turns
with channel c + half of the head by an angle of its axis; coordinates run from -1 to 1 over the window, each axis for
itself. Angles and turning are computed in the type of the buffer `periods`, step by step in the order of the formulas,
so that bfloat16 rounds here as it does there; queries and keys of all tokens go through that type.
"""

import dataclasses
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from tapct.encoders import Encoder, Features, Precision
from tapct.errors import EncoderError, WeightsError

Embedding = Literal["cls", "cls_and_mean"]


class RotaryViTEncoder(Encoder):
    """Base of the adapters: what the embedding is, and the check of the periods."""

    network: "RotaryViT"

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        embedding: Embedding = "cls",
        precision: Precision = "auto",
        **options: Any,
    ) -> None:
        """Builds the network and loads its weights.

        Args:
            weights: As in `Encoder`.
            embedding: "cls", the class token after the final norm, or "cls_and_mean": behind it the mean of the
                patches, which makes it twice as long.
            precision: As in `Encoder`.
            options: As in `Encoder`.

        Raises:
            EncoderError: If an option is unknown.
        """
        if embedding not in get_args(Embedding):
            raise EncoderError(f"{self.card.name}: embedding must be 'cls' or 'cls_and_mean', not {embedding!r}")
        self.embedding = embedding  # before the base class, which builds the network
        super().__init__(weights, precision=precision, **options)
        if embedding == "cls_and_mean":
            self.card = dataclasses.replace(self.card, embedding_dim=2 * self.card.embedding_dim)

    def embedding_text(self) -> str:
        """Returns in words what the embedding is."""
        return "after the final norm" + (", then the mean of the patches" if self.embedding == "cls_and_mean" else "")

    def _features(self, normalised: torch.Tensor) -> Features:
        cls, features = self.network(normalised)
        if self.embedding == "cls":
            return Features(features, cls, cls)
        return Features(features, torch.cat((cls, features.mean((2, 3, 4))), dim=1), cls)

    def _check_periods(self, state: dict[str, torch.Tensor], key: str, formula: torch.Tensor) -> None:
        """Refuses a file of a network with other positions.

        Within 2 %: the formula computed in bfloat16 throughout is up to 1.1 % away from itself, and one of another base
        is farther.
        """
        found, expected = state.get(key), formula.float()
        if found is None or found.shape != expected.shape:
            return  # strict loading says so
        if not torch.allclose(found.float(), expected, rtol=0.02):
            raise WeightsError(
                f"{self.card.name}: {key} is {found.tolist()} in the file, while {expected.tolist()} was expected. "
                "The file is of a network with other positions."
            )


class RotaryViT(nn.Module):
    """The vision transformer.

    Args:
        dim: Channels of a token.
        depth: Number of blocks.
        heads: Attention heads.
        patch: Voxels of a patch, along the axes of the input.
        periods: Of the rotation, (dim / heads / 6,); their type is that of its arithmetic.
        storage_tokens: Further tokens next to the class token.
        qkv_bias: Whether queries, keys and values have one.
        norm_eps: Epsilon of the layer norms.
        layer_scale: First value of both LayerScales.
    """

    def __init__(
        self,
        *,
        dim: int,
        depth: int,
        heads: int,
        patch: tuple[int, int, int],
        periods: torch.Tensor,
        storage_tokens: int = 0,
        qkv_bias: bool,
        norm_eps: float,
        layer_scale: float,
    ) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 1e-6)
        self.storage_tokens = nn.Parameter(torch.randn(1, storage_tokens, dim) * 1e-6) if storage_tokens else None
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv3d(1, dim, kernel_size=patch, stride=patch)))
        self.rope = RotaryPositions(periods)
        self.blocks = nn.ModuleList(_Block(dim, heads, qkv_bias, norm_eps, layer_scale) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the class token (B, C) and the map of the patches (B, C, ...), after the final norm."""
        patches = self.patch_embed(x)
        grid = patches.shape[2:]
        special = self.cls_token if self.storage_tokens is None else torch.cat((self.cls_token, self.storage_tokens), 1)
        tokens = torch.cat((special.expand(len(x), -1, -1), patches.flatten(2).transpose(1, 2)), dim=1)
        rotation = self.rope(grid)
        for block in self.blocks:
            tokens = block(tokens, rotation)
        tokens = self.norm(tokens)
        return tokens[:, 0], tokens[:, special.shape[1] :].transpose(1, 2).unflatten(2, grid)


class RotaryPositions(nn.Module):
    """The angles by which the patches' channels turn: a third of them by each axis."""

    periods: torch.Tensor

    def __init__(self, periods: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("periods", periods)

    def forward(self, grid: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns cosine and sine (patches, channels of a head)."""
        dtype, device = self.periods.dtype, self.periods.device
        centres = [2 * ((torch.arange(n, dtype=dtype, device=device) + 0.5) / n) - 1 for n in grid]
        place = torch.stack(torch.meshgrid(*centres, indexing="ij"), dim=-1).flatten(0, -2)
        angles = (2 * math.pi * place[:, :, None] / self.periods).flatten(1).repeat(1, 2)
        return angles.cos(), angles.sin()


class _Block(nn.Module):
    """One pre-norm block."""

    def __init__(self, dim: int, heads: int, qkv_bias: bool, norm_eps: float, layer_scale: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = _Attention(dim, heads, qkv_bias)
        self.ls1 = _LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = nn.Sequential(OrderedDict(fc1=nn.Linear(dim, 4 * dim), act=nn.GELU(), fc2=nn.Linear(4 * dim, dim)))
        self.ls2 = _LayerScale(dim, layer_scale)

    def forward(self, x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), rotation))
        return x + self.ls2(self.mlp(self.norm2(x)))


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(_rotated(q, *rotation), _rotated(k, *rotation), v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class _LayerScale(nn.Module):
    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


def _rotated(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns the patches (B, heads, T, c), which come after the other tokens."""
    special, patches = heads.to(cos.dtype).split([heads.shape[2] - len(cos), len(cos)], dim=2)
    first, second = patches.chunk(2, dim=-1)
    turned = patches * cos + torch.cat((-second, first), dim=-1) * sin
    return torch.cat((special, turned), dim=2).to(heads.dtype)
