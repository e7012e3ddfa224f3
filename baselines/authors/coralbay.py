"""CoralBay by kaiko's own class in eva."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from baselines.authors.monai_steps import prepared
from tapct.encoders import Authors, Encoder, Features


class CoralBayAuthors(Authors):
    """eva's SwinUNETREncoder; orientation and patch merging are the adapter's options, which its authors leave open."""

    source = "eva's SwinUNETREncoder (of CoralBay's authors), and the scaling of the model's page"
    requires = ("kaiko-eva>=0.4.5,<0.5",)

    def __init__(self, encoder: Encoder, code: Path | None = None) -> None:
        super().__init__(encoder, code)
        self.axes = encoder.options.get("orientation", "RAS")

    def window_for(self, encoder: Encoder) -> tuple[int, int, int]:
        """Returns a window of 2 x 1 x 3 of the deepest patches, whichever map is compared."""
        return (64, 32, 96)

    def build(self) -> nn.Module:
        """Returns eva's encoder, with the patch merging that the adapter was asked for."""
        from eva.vision.models.networks.backbones.radiology.swin_unetr import SwinUNETREncoder

        from tapct.encoders.patch_merging import set_merging

        network = SwinUNETREncoder(in_channels=1, feature_size=48)
        set_merging(network, self.encoder.options.get("merging", "monai-1.5"), self.encoder.card.name)
        return network

    def published(self, network: nn.Module) -> dict[str, Any]:
        """Returns the names of the file as the adapter infers them."""
        return {f"encoder.{key}": value for key, value in network.state_dict().items()}

    def load(self, network: nn.Module, published: dict[str, Any]) -> None:
        """Loads the file, whose names begin with `encoder.`."""
        super().load(network, {key.removeprefix("encoder."): value for key, value in published.items()})

    def prepare(self, scan: Path) -> torch.Tensor:
        """Returns the scan, -1000 to 1000 HU as 0 to 1."""
        return prepared(scan, self.axes, (1.5, 1.5, 1.5), -1000, 1000)

    def encode(self, network: nn.Module, x: torch.Tensor) -> Features:
        """Returns the map of the adapter's stride, and eva's own embedding."""
        maps = network.forward_features(x)  # type: ignore[operator]
        embedding = network.forward_encoders(maps)  # type: ignore[operator]
        return Features(maps[-2 if self.encoder.options.get("stride") == 16 else -1], embedding, None)
