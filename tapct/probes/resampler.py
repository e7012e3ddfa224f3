"""A perceiver resampler (Alayrac et al. 2022, arXiv:2204.14198): any number of patches become a few tokens.

Learned queries attend to the patches and to each other, layer after layer. Where a patch lies is given to it as sines
and cosines of its place in the patient.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

WAVELENGTHS_MM = tuple(32.0 * 2**step for step in range(6))
"""Of the sines that tell a place: from two patches of 16 mm to twice the length of a chest."""

PLACE_SIZE = 3 * 2 * len(WAVELENGTHS_MM)

_INITIAL = 0.02
"""Standard deviation of the queries at the start, as of the paper's code for transformers (GPT-2's)."""


def of_places(places_mm: torch.Tensor) -> torch.Tensor:
    """Returns (n, 36) sines and cosines of (n, 3) places in mm, float64: by axis, by wavelength, sine before cosine."""
    turns = places_mm.double()[:, :, None] / torch.tensor(WAVELENGTHS_MM, dtype=torch.float64, device=places_mm.device)
    angle = 2 * math.pi * turns
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


class ResamplerLayer(nn.Module):
    """Cross-attention of queries to patches and queries, and a feed-forward network, each added to the queries."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.of_patches, self.of_queries, self.of_hidden = (nn.LayerNorm(width) for _ in range(3))
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.hidden = nn.Linear(width, 4 * width, bias=False)
        self.back = nn.Linear(4 * width, width, bias=False)

    def forward(self, queries: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Returns (L, D) queries after they have seen (n, D) patches."""
        asked = self.of_queries(queries)
        key, value = self.key_value(torch.cat([self.of_patches(patches), asked])).chunk(2, dim=-1)
        query, key, value = (self._by_head(part) for part in (self.query(asked), key, value))
        seen = F.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1).flatten(1)
        queries = queries + self.out(seen)
        return queries + self.back(F.gelu(self.hidden(self.of_hidden(queries))))

    def _by_head(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns (1, heads, n, D / heads) of (n, D)."""
        return rows.unflatten(1, (self.heads, -1)).transpose(0, 1)[None]


class Resampler(nn.Module):
    """Makes of the patches of a scan a fixed number of tokens for a language model.

    Its first layer alone sees the channels of features (`patches.weight`), and it is linear: a scale of the channels
    can be folded into it.
    """

    def __init__(
        self, channels: int, tokens: int, size: int, *, width: int, layers: int, heads: int, token_rms: float
    ) -> None:
        """Initializes the resampler.

        Args:
            channels: Of the patches.
            tokens: Queries, and so tokens that come out.
            size: Of a token.
            width: Of everything in between.
            layers: How many.
            heads: Of attention; a divisor of the width.
            token_rms: Root mean square of what comes out at the start: that of the language model's own tokens, which
                is what its first layer expects.

        Raises:
            ValueError: If the width is not a multiple of the heads.
        """
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} cannot be divided among {heads} heads")
        self.patches = nn.Linear(channels, width)
        self.places = nn.Linear(PLACE_SIZE, width, bias=False)
        self.queries = nn.Parameter(_INITIAL * torch.randn(tokens, width))
        self.layers = nn.ModuleList(ResamplerLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, size)
        nn.init.normal_(self.out.weight, std=token_rms / math.sqrt(width))
        nn.init.zeros_(self.out.bias)

    def forward(self, patches: torch.Tensor, places_mm: torch.Tensor) -> torch.Tensor:
        """Returns (L, E) tokens of a scan.

        Args:
            patches: (C, n) features.
            places_mm: (n, 3) where they lie in the patient.
        """
        like = self.patches.weight
        seen = self.patches(patches.T.to(like)) + self.places(of_places(places_mm).to(like))
        queries = self.queries
        for layer in self.layers:
            queries = layer(queries, seen)
        return self.out(self.norm(queries))
