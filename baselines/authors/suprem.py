"""SuPreM by its authors' U-Net, at a commit of MrGiovanni/SuPreM."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from baselines.authors.monai_steps import MONAI, prepared
from tapct.encoders import Authors, Features
from tapct.encoders.authors import module_at

_PREFIX = "module.backbone."


class SuPreMAuthors(Authors):
    """direct_inference/model/Unet.py, and the transforms of supervised_pretraining/dataset/dataloader_bdmap.py."""

    source = "direct_inference/model/Unet.py of MrGiovanni/SuPreM, and MONAI's transforms"
    requires = MONAI
    repository = "github.com/MrGiovanni/SuPreM"
    paths = ("direct_inference/model/Unet.py",)
    read_at = "76e1a64a5943dff9338415fdb48efe3ef3557bb4"
    axes = "RAS"

    def window_for(self, encoder: Any) -> tuple[int, int, int]:
        """Returns 3 x 2 x 4 of the deepest patches, whichever map is compared."""
        return (24, 16, 32)

    def build(self) -> nn.Module:
        """Returns the whole U-Net."""
        assert self.code is not None
        network: nn.Module = module_at(self.code / "direct_inference" / "model" / "Unet.py").UNet3D()
        return network

    def published(self, network: nn.Module) -> dict[str, Any]:
        """Returns the checkpoint of supervised_pretraining/train.py, of which the heads are left out."""
        return {"net": {f"{_PREFIX}{key}": value for key, value in network.state_dict().items()}}

    def load(self, network: nn.Module, published: dict[str, Any]) -> None:
        """Loads the U-Net out of their whole model."""
        state = published["net"].items()
        super().load(network, {k.removeprefix(_PREFIX): v for k, v in state if k.startswith(_PREFIX)})

    def prepare(self, scan: Path) -> torch.Tensor:
        """Returns the scan towards R, A, S, -175 to 250 HU as 0 to 1."""
        return prepared(scan, "RAS", (1.5, 1.5, 1.5), -175, 250)

    def encode(self, network: nn.Module, x: torch.Tensor) -> Features:
        """Returns the layer that the adapter's option names, and the mean of the deepest."""
        deepest, last = network(x)
        features = last if self.encoder.options.get("features") == "decoder" else deepest
        return Features(features, deepest.mean((2, 3, 4)), None)
