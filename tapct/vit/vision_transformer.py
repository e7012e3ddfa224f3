"""The DINOv2 vision transformer with registers, for images (2D) and volumes (2.5D and 3D).

One module serves all TAP-CT models (paper, section 3.1): the length of ``patch_size`` decides between a 2D
and a 3D patch embedding, and "2.5D" is a 3D model whose patch is one slice thick. The parameter names are
DINOv2's.

    TAP-S/B-2D      window (224, 224)       patch (16, 16)       196 patches
    TAP-S/B-2.5D    window (6, 224, 224)    patch (1, 16, 16)    1,176 patches
    TAP-S/B-3D      window (12, 224, 224)   patch (4, 8, 8)      2,352 patches
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tapct.vit.blocks import Block, Places, draw_kept_samples
from tapct.vit.positions import patch_grid, positions_on_grid


# A tuple, not a dataclass: PyTorch's tree utilities, which DistributedDataParallel uses, look into tuples.
class Tokens(NamedTuple):
    """What the transformer makes of a batch; all tokens after the final norm.

    Attributes:
        cls: ``(B, C)``.
        registers: ``(B, R, C)``.
        patches: ``(B, N, C)``, row-major over the grid.
        grid: The patch grid, ``(h, w)`` or ``(d, h, w)``, with ``N`` patches.
    """

    cls: Tensor
    registers: Tensor
    patches: Tensor
    grid: tuple[int, ...]

    @property
    def map(self) -> Tensor:
        """The patch tokens as a feature map, ``(B, C, *grid)``."""
        return self.patches.transpose(1, 2).unflatten(2, self.grid)


class PatchEmbed(nn.Module):
    """Cuts an image or a volume into patches and projects each to a token."""

    def __init__(self, patch_size: tuple[int, ...], in_channels: int, dim: int) -> None:
        super().__init__()
        conv: Callable[..., nn.Module] = nn.Conv2d if len(patch_size) == 2 else nn.Conv3d
        self.proj = conv(in_channels, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, in_channels, [D,] H, W)`` to tokens ``(B, N, C)``, row-major over the grid."""
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """The DINOv2 vision transformer in 2D, 2.5D or 3D.

    Any input size that is a multiple of the patch is taken; the window only decides the grid of positions
    that is learned and stored.

    Args:
        window_size: The native input size, ``(H, W)`` or ``(D, H, W)``; a multiple of ``patch_size``.
        patch_size: The patch, of the same length, which makes the model 2D or 3D.
        embed_dim: Channels ``C`` of a token.
        depth: Number of blocks.
        num_heads: Attention heads; divides ``embed_dim``.
        mlp_ratio: Hidden channels of the MLPs over ``embed_dim``.
        in_channels: Channels of the input; CT has one.
        num_register_tokens: Registers ``R`` (Darcet et al., "Vision transformers need registers"); may be 0.
        layer_scale_init: First value of the LayerScales.
        drop_path_rate: Stochastic depth in training, uniform over the blocks as in DINOv2's recipe; 0.2 for
            TAP-B, 0.1 for TAP-S (paper, appendix A.1).
        norm_eps: Epsilon of the layer norms.

    Raises:
        ValueError: The sizes do not fit each other.
    """

    def __init__(
        self,
        *,
        window_size: Sequence[int],
        patch_size: Sequence[int],
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        in_channels: int = 1,
        num_register_tokens: int = 4,
        layer_scale_init: float = 1e-5,
        drop_path_rate: float = 0.0,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.window_size, self.patch_size = tuple(window_size), tuple(patch_size)
        if len(self.window_size) != len(self.patch_size) or len(self.patch_size) not in (2, 3):
            raise ValueError(
                "window_size and patch_size must both have 2 or both have 3 axes, "
                f"got {self.window_size} and {self.patch_size}"
            )
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f"drop_path_rate must be in [0, 1), got {drop_path_rate}")
        self.grid = patch_grid(self.window_size, self.patch_size, "window")
        self.embed_dim = embed_dim
        self.in_channels = in_channels
        self.num_register_tokens = num_register_tokens
        self.drop_path_rate = drop_path_rate

        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + math.prod(self.grid), embed_dim))
        self.register_tokens = (
            nn.Parameter(torch.zeros(1, num_register_tokens, embed_dim)) if num_register_tokens else None
        )
        self.mask_token = nn.Parameter(torch.zeros(1, embed_dim))
        self.patch_embed = PatchEmbed(self.patch_size, in_channels, embed_dim)
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, layer_scale_init, norm_eps) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps)
        self._init_weights()

    def _init_weights(self) -> None:
        """Initialises as DINOv2 does.

        The patch embedding keeps PyTorch's default for convolutions (weight and bias uniform within
        1 / sqrt(fan in)), since DINOv2 touches linear layers only; the mask token stays zero, and the layer
        norms and LayerScales stay as they were built.
        """
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        if self.register_tokens is not None:
            nn.init.normal_(self.register_tokens, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, masks: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tokens:
        """Encodes a batch of images or volumes.

        Args:
            x: ``(B, in_channels, [D,] H, W)``, each spatial axis a multiple of its patch.
            masks: bool ``(B, N)``, True where the mask token stands in for the patch (iBOT); None for none.
            generator: Source of the stochastic depth; None for PyTorch's global one. Unused in eval mode.

        Returns:
            The CLS token, the registers and the patch tokens, after the final norm.

        Raises:
            ValueError: ``x`` or ``masks`` has a shape that the model cannot take.
        """
        grid = self._grid_of(x)
        kept = self._draw_kept_samples(x, generator)
        tokens = self.norm(self._run_blocks(self.embed(x, masks), kept, len(self.blocks)))
        first_patch = 1 + self.num_register_tokens
        return Tokens(tokens[:, 0], tokens[:, 1:first_patch], tokens[:, first_patch:], grid)

    def forward_at(
        self,
        x: Tensor,
        patches: Tensor | None = None,
        *,
        masks: Tensor | None = None,
        computed: Tensor | None = None,
        most_patches: int | None = None,
        generator: torch.Generator | None = None,
        prune: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Encodes a batch and returns the CLS tokens and some of the patch tokens.

        The last block computes keys and values of all tokens, and everything else of the returned ones only.

        Args:
            x: As in `forward`.
            patches: The patches to return, ascending indices ``(M,)`` into the ``B N`` of the batch; None for
                none.
            masks: As in `forward`.
            computed: ``(B, K)``, the patches of each sample that are computed, ascending, ``patches`` among them; the
                blocks never meet the others. None for all.
            most_patches: A bound on the patches of one sample, which fixes the shapes; None counts them,
                which makes a GPU wait.
            generator: As in `forward`.
            prune: False computes the whole last block, for comparison.

        Returns:
            The CLS tokens, ``(B, C)``, and the patch tokens, ``(M, C)``, after the final norm; equal to those
            of `forward` up to rounding.

        Raises:
            ValueError: ``x`` or ``masks`` has a shape that the model cannot take.
        """
        grid = self._grid_of(x)
        kept = self._draw_kept_samples(x, generator)
        tokens, length = self.embed(x, masks), math.prod(grid)
        if computed is not None:
            tokens, patches, length = self._leave_out(tokens, patches, computed)
        at = self._places(len(x), length, patches, most_patches, x.device)
        tokens = self._run_blocks(tokens, kept, len(self.blocks) - 1)
        last_kept = None if kept is None else kept[-1]
        last = self.blocks[-1]
        assert isinstance(last, Block)
        if prune:
            chosen = last.forward_at(tokens, at, last_kept)
        else:
            chosen = last(tokens, last_kept).flatten(0, 1).index_select(0, at.tokens)
        chosen = self.norm(chosen)
        return chosen[: len(x)], chosen[len(x) :]

    def _leave_out(self, tokens: Tensor, patches: Tensor | None, computed: Tensor) -> tuple[Tensor, Tensor | None, int]:
        """Returns the tokens without the patches that are not computed, the new ``patches``, and patches a sample."""
        first_patch = 1 + self.num_register_tokens
        batch, length = computed.shape
        num_patches = tokens.shape[1] - first_patch
        chosen = tokens[:, first_patch:].gather(1, computed.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))
        if patches is not None:
            places = torch.arange(length, device=computed.device).expand(batch, -1)
            rank = computed.new_zeros(batch, num_patches).scatter(1, computed, places)
            patches = patches // num_patches * length + rank.flatten()[patches]
        return torch.cat((tokens[:, :first_patch], chosen), dim=1), patches, length

    def _draw_kept_samples(self, x: Tensor, generator: torch.Generator | None) -> Tensor | None:
        """Draws the samples that pass each residual branch, ``(depth, 2, K)``; None for all."""
        if not self.training:
            return None
        return draw_kept_samples(len(x), self.drop_path_rate, len(self.blocks), device=x.device, generator=generator)

    def _run_blocks(self, tokens: Tensor, kept: Tensor | None, count: int) -> Tensor:
        """Runs the first ``count`` blocks."""
        for index, block in enumerate(self.blocks[:count]):
            tokens = block(tokens, None if kept is None else kept[index])
        return tokens

    def _places(
        self, batch: int, num_patches: int, patches: Tensor | None, most_patches: int | None, device: torch.device
    ) -> Places:
        """Says where the CLS tokens and some patches stand in a batch of tokens; CLS tokens first."""
        first_patch = 1 + self.num_register_tokens
        length = first_patch + num_patches
        cls = torch.arange(batch, device=device)
        if patches is None or len(patches) == 0:
            return Places(cls * length, cls, cls, cls.new_zeros(batch, 1))
        samples = patches // num_patches
        tokens = first_patch + patches % num_patches
        counts = cls.new_zeros(batch).index_add(0, samples, torch.ones_like(samples))
        # The patches ascend, so those of a sample follow each other: its CLS token asks first, then they.
        order = 1 + torch.arange(len(patches), device=device) - (counts.cumsum(0) - counts)[samples]
        width = 1 + (int(counts.max()) if most_patches is None else most_patches)
        asked = cls.new_zeros(batch, width).index_put((samples, order), tokens)
        return Places(
            tokens=torch.cat((cls * length, samples * length + tokens)),
            samples=torch.cat((cls, samples)),
            slots=torch.cat((cls * width, samples * width + order)),
            asked=asked,
        )

    def embed(self, x: Tensor, masks: Tensor | None = None) -> Tensor:
        """Makes the sequence that enters the first block.

        The order of steps is DINOv2's: a masked patch keeps its position, and registers have none.

        Args:
            x: ``(B, in_channels, [D,] H, W)``.
            masks: bool ``(B, N)``, or None.

        Returns:
            ``(B, 1 + R + N, C)``: CLS, registers, patches.

        Raises:
            ValueError: ``x`` or ``masks`` has a shape that the model cannot take.
        """
        grid = self._grid_of(x)
        patches = self.patch_embed(x)
        if masks is not None:
            if masks.dtype != torch.bool or masks.shape != patches.shape[:2]:
                raise ValueError(
                    f"masks must be bool of shape {tuple(patches.shape[:2])}, "
                    f"got {masks.dtype} of shape {tuple(masks.shape)}"
                )
            patches = torch.where(masks.unsqueeze(-1), self.mask_token, patches)
        tokens = torch.cat((self.cls_token.expand(len(x), -1, -1), patches), dim=1)
        tokens = tokens + positions_on_grid(self.pos_embed, self.grid, grid)
        if self.register_tokens is None:
            return tokens
        registers = self.register_tokens.expand(len(x), -1, -1)
        return torch.cat((tokens[:, :1], registers, tokens[:, 1:]), dim=1)

    def _grid_of(self, x: Tensor) -> tuple[int, ...]:
        """Returns the patch grid of an input, or says why the model cannot take it."""
        if x.ndim != 2 + len(self.patch_size) or x.shape[1] != self.in_channels:
            axes = ", ".join(("D", "H", "W")[-len(self.patch_size) :])
            raise ValueError(f"the input must have shape (B, {self.in_channels}, {axes}), got {tuple(x.shape)}")
        return patch_grid(x.shape[2:], self.patch_size)


def vit_tiny(*, window_size: Sequence[int], patch_size: Sequence[int], **options: Any) -> VisionTransformer:
    """Builds a ViT-Ti (192 channels, 12 blocks, 3 heads), for trials; options as in `VisionTransformer`."""
    return VisionTransformer(
        window_size=window_size, patch_size=patch_size, embed_dim=192, depth=12, num_heads=3, **options
    )


def vit_small(*, window_size: Sequence[int], patch_size: Sequence[int], **options: Any) -> VisionTransformer:
    """Builds a ViT-S (384 channels, 12 blocks, 6 heads), as in TAP-S; options as in `VisionTransformer`."""
    return VisionTransformer(
        window_size=window_size, patch_size=patch_size, embed_dim=384, depth=12, num_heads=6, **options
    )


def vit_base(*, window_size: Sequence[int], patch_size: Sequence[int], **options: Any) -> VisionTransformer:
    """Builds a ViT-B (768 channels, 12 blocks, 12 heads), as in TAP-B; options as in `VisionTransformer`."""
    return VisionTransformer(
        window_size=window_size, patch_size=patch_size, embed_dim=768, depth=12, num_heads=12, **options
    )
