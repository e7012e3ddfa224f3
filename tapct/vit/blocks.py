"""The transformer block of DINOv2: pre-norm attention and MLP, LayerScale, stochastic depth by batch subset.

A block is a pure function of tensors: the samples that stochastic depth keeps are drawn outside and handed
in, so that a compiled block meets neither a random generator nor a changing shape.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapct._utils.transfer import send


class Attention(nn.Module):
    """Multi-head self-attention through ``scaled_dot_product_attention``.

    The matrix of attention weights is never stored: at 2,357 tokens (a 12 x 224 x 224 window in patches of
    4 x 8 x 8) it would dominate the memory of the model.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"embed_dim {dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Attends over the tokens ``(B, T, C)`` of each sample; same shape out."""
        # The rows of ``qkv`` are ordered (q | k | v), within each by head: (B, T, 3, heads, C / heads).
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        out = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))

    def attend(self, queries: Tensor, x: Tensor) -> Tensor:
        """Attends from some tokens to all tokens, without the output projection.

        Args:
            queries: The tokens that ask, ``(B, Q, C)``.
            x: The tokens that are looked at, ``(B, T, C)``.

        Returns:
            What `forward` hands to ``proj`` at the tokens that ask, ``(B, Q, C)``.
        """
        dim = x.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        q = functional.linear(queries, weight[:dim], bias[:dim]).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        kv = functional.linear(x, weight[dim:], bias[dim:]).unflatten(-1, (2, self.num_heads, -1))
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU between them."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms each token of ``(B, T, C)`` by itself; same shape out."""
        return self.fc2(functional.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned gain per channel on a residual branch, small at first."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor) -> Tensor:
        """Scales the channels of ``(B, T, C)``; same shape out."""
        return x * self.gamma


class Block(nn.Module):
    """One pre-norm transformer block of DINOv2.

    Args:
        dim: Channels ``C`` of a token.
        num_heads: Attention heads.
        mlp_ratio: Hidden channels of the MLP over ``C``.
        layer_scale_init: First value of both LayerScales.
        norm_eps: Epsilon of the layer norms.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, layer_scale_init: float, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads)
        self.ls1 = LayerScale(dim, layer_scale_init)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.ls2 = LayerScale(dim, layer_scale_init)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Runs the block.

        Args:
            x: Tokens, ``(B, T, C)``.
            kept: ``(2, K)``, the samples that pass the attention branch and the MLP branch, as drawn by
                `draw_kept_samples`; None for all.

        Returns:
            Tokens, ``(B, T, C)``.
        """
        kept_attn, kept_mlp = (None, None) if kept is None else kept.unbind(0)
        x = _add_residual(x, lambda tokens: self.ls1(self.attn(self.norm1(tokens))), kept_attn)
        return _add_residual(x, lambda tokens: self.ls2(self.mlp(self.norm2(tokens))), kept_mlp)

    def forward_at(self, x: Tensor, at: "Places", kept: Tensor | None = None) -> Tensor:
        """Runs the block for some tokens only: all give keys and values, the others are not computed.

        After the last block nobody reads the other tokens, so this is exact.

        Args:
            x: Tokens, ``(B, T, C)``.
            at: Which tokens.
            kept: As in `forward`.

        Returns:
            What `forward` gives at these tokens, ``(R, C)``.
        """
        kept_attn, kept_mlp = (None, None) if kept is None else kept.unbind(0)
        batch, _, dim = x.shape
        tokens = x.flatten(0, 1).index_select(0, at.tokens)

        asked = at.asked if kept_attn is None else at.asked.index_select(0, kept_attn)
        normed = self.norm1(x if kept_attn is None else x.index_select(0, kept_attn))
        heads = self.attn.attend(normed.gather(1, asked.unsqueeze(-1).expand(-1, -1, dim)), normed)
        if kept_attn is not None:
            heads = heads.new_zeros(batch, *heads.shape[1:]).index_copy(0, kept_attn, heads)
        heads = heads.flatten(0, 1).index_select(0, at.slots)
        tokens = tokens + self.ls1(self.attn.proj(heads)) * _residual_scale(kept_attn, batch, at.samples, tokens)
        # The MLP runs on the chosen tokens of dropped samples too, times 0: their number is small and fixed.
        return tokens + self.ls2(self.mlp(self.norm2(tokens))) * _residual_scale(kept_mlp, batch, at.samples, tokens)


class Places(NamedTuple):
    """Some tokens of each sample of a batch ``(B, T, C)``: ``R`` in all, at most ``Q`` in one sample.

    Attributes:
        tokens: ``(R,)``, their indices into the ``B T`` tokens of the batch.
        samples: ``(R,)``, the sample of each.
        slots: ``(R,)``, where each is found in ``asked``, as indices into its ``B Q`` entries.
        asked: ``(B, Q)``, the tokens of each sample, within its ``T``; token 0 fills what is left over.
    """

    tokens: Tensor
    samples: Tensor
    slots: Tensor
    asked: Tensor


def _residual_scale(kept: Tensor | None, batch: int, samples: Tensor, like: Tensor) -> Tensor | float:
    """Returns, ``(R, 1)``, B / K for tokens of kept samples and 0 for the others; 1 where all are kept."""
    if kept is None:
        return 1.0
    scale = like.new_zeros(batch).index_fill(0, kept, batch / kept.shape[0])
    return scale.index_select(0, samples).unsqueeze(-1)


def _add_residual(x: Tensor, branch: Callable[[Tensor], Tensor], kept: Tensor | None) -> Tensor:
    """Adds ``branch(x)`` to ``x``, or, on the kept samples alone, scaled to the same expectation."""
    if kept is None:
        return x + branch(x)
    # A sample is kept with probability K / B, so B / K makes the expected residual the full one. The kept
    # samples are distinct, so that index_add is deterministic on a GPU too.
    residual = branch(x.index_select(0, kept))
    return x.index_add(0, kept, residual, alpha=x.shape[0] / kept.shape[0])


def num_kept_samples(batch: int, rate: float) -> int:
    """Returns ``K = max(1, round(B (1 - rate)))``, the samples of a batch that pass a branch."""
    return max(1, round(batch * (1 - rate)))


def draw_kept_samples(
    batch: int, rate: float, depth: int, *, device: torch.device, generator: torch.Generator | None = None
) -> Tensor | None:
    """Draws, for every residual branch, the samples of the batch that pass it.

    This is stochastic depth as DINOv2 has it: a branch is computed on a random subset of
    ``K`` samples (`num_kept_samples`), which saves its work on the others. The rate is the same for
    all blocks, as in DINOv2's recipe (``drop_path_uniform``). DINOv2 rounds down, and takes this path only
    above a rate of 0.1; rounding to the nearest stays closer to the rate, and TAP-S trains at 0.1 itself.

    Args:
        batch: Samples ``B``.
        rate: The drop path rate, in [0, 1).
        depth: Number of blocks.
        device: Where the result is needed.
        generator: Source of randomness. Drawn on its own device: a CPU generator gives the same samples
            whatever the accelerator. None for the global one of ``device``.

    Returns:
        Indices ``(depth, 2, K)``, distinct along the last axis; or None where every sample is kept.
    """
    count = num_kept_samples(batch, rate)
    if count == batch:
        return None
    source = device if generator is None else generator.device
    # The order of independent uniform numbers is a uniform permutation: all draws in one call and one copy.
    order = torch.rand(depth, 2, batch, device=source, generator=generator).argsort(dim=-1)
    kept = order[..., :count]
    return send(kept, device) if kept.device.type == "cpu" else kept.to(device)
