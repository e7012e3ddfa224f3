"""Random pyramid: three layers of random filters, pooled at three scales; an architecture that nobody thought about.

The bar between `intensity` and the random weights of a large network: what edges, textures and neighbourhoods say that
no training chose. Where an encoder is no better than this, its pretraining has not been shown to matter.

The grid is that of TAP-CT's 3D models and of `intensity`: 224 pixels in the plane, a feature for each 4 x 8 x 8 voxels.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from baselines.intensity import baseline_card
from tapct.encoders import Declared, Encoder, Features, HuWindow, InputSheet
from tapct.errors import EncoderError

CLIP_HU = (-1000.0, 1000.0)

FILTERS = (16, 32, 64)
POOLED = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
"""Of each layer, how many filters of 3 x 3 x 3, and what its responses are averaged over on the way to the next."""


class Pyramid(nn.Module):
    """Random convolutions with rectified responses, each layer on the averages of the one before."""

    def __init__(self, draw: int) -> None:
        """Draws the filters.

        They are normal, of variance 2 over the number of inputs, which keeps responses of one size from layer to layer
        (He et al. 2015). NumPy's RandomState draws them, whose stream is the same in every version.

        Args:
            draw: Number of the draw.
        """
        super().__init__()
        random, channels = np.random.RandomState(draw), 1
        for layer, filters in enumerate(FILTERS):
            drawn = random.standard_normal((filters, channels, 3, 3, 3)) * math.sqrt(2 / (27 * channels))
            # Not parameters: nothing is published, loaded or counted.
            self.register_buffer(f"filters_{layer}", torch.tensor(drawn, dtype=torch.float32), persistent=False)
            channels = filters

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the responses of all layers, averaged over each patch.

        Args:
            x: (B, 1, D, H, W) from -1 to 1, a whole number of patches along each axis.

        Returns:
            (B, 112, D / 4, H / 8, W / 8).
        """
        patch, found = np.prod(POOLED, axis=0), []
        for layer, step in enumerate(POOLED):
            x = functional.pad(x, (1,) * 6, mode="replicate")
            x = functional.relu(functional.conv3d(x, getattr(self, f"filters_{layer}")))
            found.append(functional.avg_pool3d(x, tuple(map(int, patch))))
            x, patch = functional.avg_pool3d(x, step), patch // step
        return torch.cat(found, dim=1)


class RandomPyramid(Encoder):
    """Responses of random filters in each patch of 4 x 8 x 8 voxels; as embedding, their mean over the window."""

    card = baseline_card("random-pyramid", "Random pyramid", sum(FILTERS))

    def __init__(self, weights: str | Path | None = None, *, draw: int = 0, **options: Any) -> None:
        """Initializes the baseline.

        Args:
            weights: As in `Encoder`; there are none.
            draw: Number of the draw of its filters.
            options: As in `Encoder`.

        Raises:
            EncoderError: If an option is unknown, or the draw is negative.
        """
        if not 0 <= draw < 2**32:
            raise EncoderError(f"{self.card.name}: draw is a number from 0 on, not {draw}")
        self.draw = draw
        super().__init__(weights, **options)

    def build(self) -> nn.Module:
        """Returns the filters, drawn."""
        return Pyramid(self.draw)

    def describe(self) -> dict[str, Any]:
        """Returns what a record must hold: the base class's entries, and the draw."""
        return super().describe() | {"draw": self.draw}

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        return InputSheet(
            orientation="ours: as the harness has it",
            grid="ours: that of TAP-CT's 3D models",
            hu_window=HuWindow(*CLIP_HU, "ours: air to dense bone"),
            normalisation=Declared("the HU window to -1 to 1, linear", "ours: a baseline"),
            padding="ours: the lowest value of 12 bits",
            window="ours: that of TAP-CT's 3D models",
            patches="ours: blocks of TAP-CT's 3D patches",
            embedding=Declared("the mean of the map", "ours: a baseline"),
        )

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        low, high = CLIP_HU
        found = self.network(windows_hu.clamp(low, high) / high)
        return Features(found, found.mean((2, 3, 4)), None)
