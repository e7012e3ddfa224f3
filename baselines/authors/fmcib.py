"""FMCiB by MONAI's class and transforms, as the authors name them (AIM-Harvard/foundation-cancer-image-biomarker)."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from baselines.authors.monai_steps import MONAI
from tapct.encoders import Authors, Features


class FMCIBAuthors(Authors):
    """fmcib/models/__init__.py and preprocessing/__init__.py; the crop about a seed point is left out."""

    source = "MONAI's resnet50 and transforms, as fmcib/models and fmcib/preprocessing name them"
    requires = MONAI
    left_out = "resampling, padding and the crop about a lesion"
    axes = "SPL"

    def build(self) -> nn.Module:
        """Returns MONAI's ResNet-50 of double width."""
        from monai.networks.nets.resnet import resnet50

        return resnet50(
            pretrained=False,
            n_input_channels=1,
            widen_factor=2,
            conv1_t_stride=2,
            feed_forward=False,
            bias_downsample=True,
        )

    def published(self, network: nn.Module) -> dict[str, Any]:
        """Returns the trunk where load_model.py looks for it."""
        return {"trunk_state_dict": network.state_dict()}

    def load(self, network: nn.Module, published: dict[str, Any]) -> None:
        """Loads the trunk, as load_model.py names it."""
        state = published.get("trunk_state_dict")
        if state is None:
            state = {k.removeprefix("model.trunk."): v for k, v in published["state_dict"].items() if ".trunk." in k}
        super().load(network, state)

    def prepare(self, scan: Path) -> torch.Tensor:
        """Returns the scan towards L, P, S, turned to (z, y, x), as (HU + 1024) / 3072."""
        from monai import transforms

        steps = [
            transforms.LoadImaged(keys="image"),
            transforms.EnsureChannelFirstd(keys="image"),
            transforms.NormalizeIntensityd(keys="image", subtrahend=-1024, divisor=3072),  # type: ignore[arg-type]
            transforms.Orientationd(keys="image", axcodes="LPS"),
            transforms.Transposed(keys="image", indices=(0, 3, 2, 1)),
        ]
        return torch.as_tensor(transforms.Compose(steps)({"image": str(scan)})["image"])[None]

    def encode(self, network: nn.Module, x: torch.Tensor) -> Features:
        """Returns what the last stage gives, and the network's own output."""
        caught: list[torch.Tensor] = []
        hook = network.layer4.register_forward_hook(lambda _m, _i, out: caught.append(out))  # type: ignore[union-attr]
        try:
            pooled = network(x)
        finally:
            hook.remove()
        return Features(caught[0], pooled.flatten(1), None)
