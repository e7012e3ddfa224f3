"""Intensity: what the voxel values of a small block say, and nothing of their arrangement.

The bar that learned features have to clear: a probe on these can tell air, lung, fat, soft tissue, contrast and bone
apart, and flat regions from mixed ones, but knows no shape, no edge's direction, no neighbourhood and no place.

The grid is that of TAP-CT's 3D models: the scan's slices, 224 pixels in the plane, a feature for each 4 x 8 x 8 voxels.
It is among the finest lattices here, so that the baseline does not lose by resolution, and what those models add in a
patch is what they know beyond its voxel values.
"""

import itertools
import math

import torch
from torch import nn

from tapct.encoders import Declared, Encoder, EncoderCard, Features, HuWindow, InputSheet, Weights

HU_RANGE = (-1024.0, 3071.0)
"""What 12 bits hold: values under it are scanners' marks of what was not measured, over it mostly metal."""

PERCENTILES = (5.0, 25.0, 50.0, 75.0, 95.0)

KNOTS_HU = (
    *(-1000.0, -850.0, -700.0, -500.0, -250.0, -160.0, -100.0, -50.0),
    *(0.0, 30.0, 60.0, 100.0, 150.0, 240.0, 400.0, 700.0, 1300.0),
)
"""Centres of the soft histogram's bins, dense where soft tissue lies; ours. The edges of the usual display windows are
among them: soft tissue -160 to 240, bone -500 to 1300, lung up to 150."""

MOMENTS = ("mean", "standard deviation", "minimum", "maximum")
UNIT_HU = 1000.0
"""Mean, deviation, extremes and percentiles are in thousands of HU, near the shares of the histogram in size."""

NUM_STATISTICS = len(MOMENTS) + len(PERCENTILES) + len(KNOTS_HU)


class Statistics(nn.Module):
    """Statistics of the voxel values of blocks: mean, deviation, extremes, percentiles, soft histogram."""

    def __init__(self, block: tuple[int, int, int]) -> None:
        """Initializes the statistics.

        Args:
            block: Voxels (z, y, x) of a block.
        """
        super().__init__()
        self._block = block

    def forward(self, hu: torch.Tensor) -> torch.Tensor:
        """Returns the statistics of each block.

        Args:
            hu: (B, 1, D, H, W), a whole number of blocks along each axis.

        Returns:
            (B, NUM_STATISTICS, d, h, w).
        """
        batch, _, *size = hu.shape
        d, h, w = (n // b for n, b in zip(size, self._block, strict=True))
        z, y, x = self._block
        blocks = hu.reshape(batch, d, z, h, y, w, x).permute(0, 1, 3, 5, 2, 4, 6).reshape(batch, d, h, w, z * y * x)
        return statistics(blocks).permute(0, 4, 1, 2, 3)


def statistics(hu: torch.Tensor) -> torch.Tensor:
    """Returns the statistics (..., NUM_STATISTICS) of the values (..., N) of each block.

    The soft histogram is the mean of hat functions, one at each knot, which add up to one. Any function of HU that is
    linear between knots is a linear combination of them: the mean under a usual display window is one, so that windows
    need no features of their own.
    """
    values = hu.float().clamp(*HU_RANGE).sort(dim=-1).values
    mean, deviation = values.mean(-1), values.std(-1, correction=0)
    plain = [mean, deviation, values[..., 0], values[..., -1], *_percentiles(values)]
    return torch.cat([torch.stack(plain, -1) / UNIT_HU, _histogram(values)], -1)


def _percentiles(ordered: torch.Tensor) -> list[torch.Tensor]:
    """Returns the percentiles of ordered values (..., N), linear between neighbours as NumPy's."""
    last = ordered.shape[-1] - 1
    found = []
    for percentile in PERCENTILES:
        low, share = divmod(percentile / 100 * last, 1)
        high = min(int(low) + 1, last)
        found.append(ordered[..., int(low)].lerp(ordered[..., high], share))
    return found


def _histogram(values: torch.Tensor) -> torch.Tensor:
    """Returns the share (..., knots) of the values (..., N) at each knot, shared out linearly between neighbours."""
    # The mean of a ramp from 0 at one knot to 1 at the next, for each gap; one knot's hat is the difference of two.
    ramps = [((values - low) / (high - low)).clamp(0, 1).mean(-1) for low, high in itertools.pairwise(KNOTS_HU)]
    over = torch.stack([torch.ones_like(ramps[0]), *ramps, torch.zeros_like(ramps[0])], -1)
    return over[..., :-1] - over[..., 1:]


def baseline_card(name: str, display_name: str, features: int) -> EncoderCard:
    """Returns the card of a baseline without parameters on TAP-CT's grid.

    Args:
        name: Its name.
        display_name: Its name in tables.
        features: Channels of the map, and length of the embedding.
    """
    return EncoderCard(
        name=name,
        display_name=display_name,
        window_size=(12, 224, 224),
        spacing_mm=None,
        in_plane_size=224,
        pad_hu=-1024.0,
        feature_stride=(4, 8, 8),
        feature_dim=features,
        embedding_dim=features,
        has_cls=False,
        num_params=0,
        weights=Weights(needed=False),
        reference="a baseline of TAP-CT Bench",
    )


class Intensity(Encoder):
    """Statistics of the voxel values of each block of 4 x 8 x 8 voxels; as embedding, those of the whole window."""

    card = baseline_card("intensity", "Intensity statistics", NUM_STATISTICS)

    def build(self) -> nn.Module:
        """Returns the statistics, which have no parameters."""
        return Statistics(self.card.feature_stride)

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        return InputSheet(
            orientation="ours: as the harness has it",
            grid="ours: that of TAP-CT's 3D models",
            hu_window=HuWindow(-math.inf, math.inf, "ours: its statistics clip, see below"),
            normalisation=Declared(
                f"none before the statistics, which clip to {HU_RANGE[0]:g} to {HU_RANGE[1]:g} HU",
                "ours: what 12 bits hold",
            ),
            padding="ours: the lowest value of 12 bits",
            window="ours: that of TAP-CT's 3D models",
            patches="ours: blocks of TAP-CT's 3D patches",
            embedding=Declared("the same statistics of the whole window", "ours: a baseline"),
        )

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        return Features(self.network(windows_hu), statistics(windows_hu.flatten(1)), None)
