"""VISTA3D as its authors ship it in MONAI: the whole model, of which the encoder is compared."""

from pathlib import Path

import torch
from torch import nn

from baselines.authors.monai_steps import MONAI, prepared
from tapct.encoders import Authors, Features


class Vista3DAuthors(Authors):
    """MONAI's vista3d132, and the transforms of Project-MONAI/VISTA, vista3d/configs/infer.yaml."""

    source = "MONAI's vista3d132, and transforms as configs/infer.yaml of Project-MONAI/VISTA lists them"
    requires = MONAI
    axes = "RAS"

    def build(self) -> nn.Module:
        """Returns the whole model."""
        from monai.networks.nets.vista3d import vista3d132

        return vista3d132(in_channels=1)

    def prepare(self, scan: Path) -> torch.Tensor:
        """Returns the scan towards R, A, S, scaled to 0..1."""
        return prepared(scan, "RAS", (1.5, 1.5, 1.5), -963.8247715525971, 1053.678477684517, align_corners=True)

    def encode(self, network: nn.Module, x: torch.Tensor) -> Features:
        """Returns the deepest of the image encoder's maps; the authors pool nothing, and its mean is ours."""
        last = network.image_encoder.encoder(x)[-1]  # type: ignore[operator, union-attr]
        return Features(last, last.mean((2, 3, 4)), None)
