"""Merlin by its authors' network and transforms, at a commit of StanfordMIMI/Merlin; Astra, whose network it is."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from baselines.authors.monai_steps import MONAI, prepared
from tapct.encoders import Authors, Features
from tapct.encoders.authors import bare_package, module_at

_HEADS = ("classifier.", "contrastive_head.")
"""Of Merlin's network, which Astra's file has not."""


class MerlinAuthors(Authors):
    """merlin/models/i3res.py on torchvision's ResNet-152, and merlin/data/monai_transforms.py."""

    source = "merlin/models/i3res.py and merlin/data/monai_transforms.py of StanfordMIMI/Merlin"
    requires = (*MONAI, "torchvision")
    repository = "github.com/StanfordMIMI/Merlin"
    paths = ("merlin/models", "merlin/data/monai_transforms.py")
    read_at = "2489a96bab716b6b27e3e693e2e9e9a1587135a5"
    axes = "RAS"
    prefix = "encode_image.i3_resnet."

    def build(self) -> nn.Module:
        """Returns their network as build.py makes it, but with random weights in place of ImageNet's."""
        from torchvision.models import resnet152

        assert self.code is not None
        bare_package("merlin", self.code / "merlin")
        bare_package("merlin.models", self.code / "merlin" / "models")
        from merlin.models.i3res import I3ResNet  # type: ignore[import-not-found]

        return I3ResNet(resnet152(weights=None), class_nb=1692, conv_class=True, ImageEmbedding=True)

    def published(self, network: nn.Module) -> dict[str, Any]:
        """Returns their file, without the encoder of reports."""
        return {f"{self.prefix}{key}": value for key, value in network.state_dict().items()}

    def load(self, network: nn.Module, published: dict[str, Any]) -> None:
        """Loads the network out of their whole model."""
        state = published.items()
        super().load(network, {k.removeprefix(self.prefix): v for k, v in state if k.startswith(self.prefix)})

    def prepare(self, scan: Path) -> torch.Tensor:
        """Returns the scan by their transforms, up to the padding to 224 x 224 x 160."""
        assert self.code is not None
        steps = module_at(self.code / "merlin" / "data" / "monai_transforms.py").ImageTransforms.transforms[:5]
        item: Any = {"image": str(scan)}
        for step in steps:
            item = step(item)
        return item["image"].as_tensor()[None]

    def received(self, x: torch.Tensor) -> torch.Tensor:
        """Returns (1, 3, z, x, y), as the first two lines of their `forward` make it."""
        return x.permute(0, 1, 4, 2, 3).expand(-1, 3, -1, -1, -1)

    def encode(self, network: nn.Module, x: torch.Tensor) -> Features:
        """Returns the last layer's map, turned back as they turn it for decoders, and the network's own output."""
        caught: list[torch.Tensor] = []
        hook = network.layer4.register_forward_hook(lambda _m, _i, out: caught.append(out))  # type: ignore[union-attr]
        try:
            embedding = network(x).squeeze(0)
        finally:
            hook.remove()
        mapped = caught[0].permute(0, 1, 3, 4, 2)  # (z, x, y) to (x, y, z), as `return_skips` does
        return Features(mapped, embedding, None)


class AstraAuthors(MerlinAuthors):
    """Astra's image encoder: Merlin's network under another prefix, with the HU range of the adapter's region.

    Its own repository has no code any more (commit dd62dd8 of zh-Wang-Med/Astra had it). A chest is cropped and
    stretched there, which windows of a fixed spacing cannot do.
    """

    source = "merlin/models/i3res.py of StanfordMIMI/Merlin, whose network Astra has; MONAI's transforms"
    left_out = "resampling, padding, and of a chest the crop and the stretching"
    prefix = "visual_encoder.model.encode_image.i3_resnet."

    def published(self, network: nn.Module) -> dict[str, Any]:
        """Returns what is published of their checkpoint, which is without heads."""
        heads = tuple(f"{self.prefix}{head}" for head in _HEADS)
        return {key: value for key, value in super().published(network).items() if not key.startswith(heads)}

    def load(self, network: nn.Module, published: dict[str, Any]) -> None:
        """Loads the shards of the package, which have no heads: those of the network are left as they are."""
        state = published.get("state_dict", published)
        heads = {key: value for key, value in network.state_dict().items() if key.startswith(_HEADS)}
        trunk = {key.removeprefix(self.prefix): value for key, value in state.items()}
        Authors.load(self, network, trunk | heads)

    def prepare(self, scan: Path) -> torch.Tensor:
        """Returns the scan towards R, A, S, the HU range of the region as 0 to 1 (sft/dataset/data_helper.py)."""
        high_hu = 1000 if self.encoder.options.get("region") == "abdomen" else 200
        return prepared(scan, "RAS", None, -1000, high_hu)
