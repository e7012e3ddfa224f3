"""An encoder and its authors' code, each written on its own: a patch convolution, a norm and a mean."""

from pathlib import Path

import nibabel
import torch
from torch import nn

from tapct.encoders import Authors, Encoder, Features
from tests.small import small_card

DIM, PATCH = 6, (4, 8, 8)  # (z, y, x) here, and their array is (x, y, z)


class Adapter(Encoder):
    """An adapter as it should be; its faults are options."""

    axes = "RAS"
    authors = "tests.verification.code:Published"
    clip_hu = (-1000.0, 400.0)
    eps = 1e-6
    pooled = 1.0
    card = small_card(
        name="patchwork",
        display_name="Patchwork",
        window_size=(16, 32, 48),
        spacing_mm=(3.0, 1.5, 1.5),
        in_plane_size=None,
        feature_dim=DIM,
        embedding_dim=DIM,
        has_cls=False,
        num_params=DIM * 4 * 8 * 8 + 3 * DIM,
    )

    def build(self) -> nn.Module:
        return Network(self.eps)

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        low, high = self.clip_hu
        found = self.network((windows_hu.clamp(low, high) - low) / (high - low))
        return Features(found, self.pooled * found.mean((2, 3, 4)), None)

    def _convert(self, state_dict):
        return {key.removeprefix("backbone."): value for key, value in state_dict["model"].items()}


class Network(nn.Module):
    """The adapter's network."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.patches = nn.Conv3d(1, DIM, PATCH[::-1], PATCH[::-1])
        self.norm = nn.LayerNorm(DIM, eps=eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.patches(x).movedim(1, -1)).movedim(-1, 1)


class Published(Authors):
    """What its authors would have published."""

    source = "patchwork 1.0"
    axes = "RAS"

    def build(self) -> nn.Module:
        network = nn.Module()
        network.patches = nn.Conv3d(1, DIM, (8, 8, 4), (8, 8, 4))
        network.norm = nn.LayerNorm(DIM, eps=1e-6)
        return network

    def published(self, network):
        return {"model": {f"backbone.{key}": value for key, value in network.state_dict().items()}}

    def load(self, network, published):
        super().load(network, {key.removeprefix("backbone."): value for key, value in published["model"].items()})

    def prepare(self, scan: Path) -> torch.Tensor:
        hu = torch.tensor(nibabel.as_closest_canonical(nibabel.load(scan)).get_fdata(dtype="float32").copy())
        return ((hu + 1000) / 1400).clip(0, 1)[None, None]

    def encode(self, network, x):
        tokens = network.norm(network.patches(x).flatten(2).transpose(1, 2))
        grid = [n // p for n, p in zip(x.shape[2:], (8, 8, 4), strict=True)]
        return Features(tokens.transpose(1, 2).unflatten(2, grid), tokens.mean(1), None)
