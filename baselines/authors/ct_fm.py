"""CT-FM by MONAI's class and transforms, as the authors' configuration names them (project-lighter/CT-FM).

The authors' own wrapper of the class, lighter-zoo, needs Jupyter; it adds no arithmetic to MONAI's.
"""

from pathlib import Path

import torch
from torch import nn

from baselines.authors.monai_steps import MONAI, prepared
from tapct.encoders import Authors, Features


class CTFMAuthors(Authors):
    """experiments/fm/backbones/segresenc.yaml and scripts/feature_extractor.py, lines 16 to 26 and 54."""

    source = "MONAI's SegResEncoder and transforms, as segresenc.yaml and feature_extractor.py name them"
    requires = MONAI
    axes = "SPL"

    def build(self) -> nn.Module:
        """Returns MONAI's encoder; as in the authors' file, without a norm named."""
        from monai.networks.nets.segresnet_ds import SegResEncoder

        return SegResEncoder(spatial_dims=3, in_channels=1, init_filters=32, blocks_down=(1, 2, 2, 4, 4))

    def prepare(self, scan: Path) -> torch.Tensor:
        """Returns the scan towards S, P, L, -1024 to 2048 HU as 0 to 1."""
        return prepared(scan, "SPL", (3.0, 1.0, 1.0), -1024, 2048)

    def encode(self, network: nn.Module, x: torch.Tensor) -> Features:
        """Returns the last of the encoder's maps, and its adaptive average."""
        last = network(x)[-1]
        return Features(last, nn.functional.adaptive_avg_pool3d(last, 1).flatten(1), None)
