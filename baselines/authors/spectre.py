"""SPECTRE-Large by its authors' package, spectre-fm."""

from pathlib import Path

import torch
from torch import nn

from baselines import spectre
from tapct.encoders import Authors, Features
from tapct.encoders.authors import patches_of


class SpectreAuthors(Authors):
    """The preset's vision transformer, and the package's own way from a file to crops."""

    source = "spectre-fm 0.2.1"
    requires = ("spectre-fm==0.2.1",)
    axes = "RAS"

    def build(self) -> nn.Module:
        """Returns vit_large_patch16_128 with the arguments of the presets."""
        from spectre.models import VisionTransformer  # type: ignore[import-not-found]
        from spectre.presets import BACKBONE_KWARGS  # type: ignore[import-not-found]

        settings = {"embed_dim": 1080, "num_heads": 12, "norm_layer": nn.LayerNorm}  # vit_large_patch16_128
        return VisionTransformer(depth=spectre.DEPTH, **settings, **BACKBONE_KWARGS)

    def prepare(self, scan: Path) -> torch.Tensor:
        """Returns the one crop of the scan, at its own spacing."""
        from spectre.io import load_and_window  # type: ignore[import-not-found]

        crops, _, _ = load_and_window(scan)
        return crops

    def encode(self, network: nn.Module, x: torch.Tensor) -> Features:
        """Returns patch tokens and class token."""
        tokens = network(x)
        cls, patches = tokens[:, 0], tokens[:, 1:]
        both = self.encoder.options.get("embedding") == "cls_and_mean"
        embedding = torch.cat([cls, patches.mean(1)], dim=1) if both else cls
        return Features(patches_of(patches, tuple(x.shape[2:]), (16, 16, 8)), embedding, cls)
