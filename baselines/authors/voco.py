"""VoCo-B by its authors' class, at a commit of Luffy03/Large-Scale-Medical."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from baselines.authors.monai_steps import MONAI, prepared
from tapct.encoders import Authors, Features
from tapct.encoders.authors import module_at


class VoCoAuthors(Authors):
    """Self-supervised/models/voco_head.py.

    It was trained with MONAI 1.3, whose patch merging is put into today's MONAI by `tapct.encoders.patch_merging`, as
    in the adapter: that part is not compared.
    """

    source = "Self-supervised/models/voco_head.py of Luffy03/Large-Scale-Medical, and MONAI's transforms"
    requires = (*MONAI, "dynamic-network-architectures==0.4.4", "timm>=1.0.16,<1.0.23")  # which it imports
    repository = "github.com/Luffy03/Large-Scale-Medical"
    paths = ("Self-supervised/models/voco_head.py",)
    read_at = "1ad538b8081c6f14fd7b3ace38664e7c6b9f0530"
    left_out = "resampling, padding, and the patch merging of MONAI 1.3, put into both"
    axes = "RAS"

    def build(self) -> nn.Module:
        """Returns their encoder, without the heads of pretraining."""
        from tapct.encoders.patch_merging import set_merging

        assert self.code is not None
        module = module_at(self.code / "Self-supervised" / "models" / "voco_head.py")
        settings = {"in_channels": 1, "feature_size": 48, "dropout_path_rate": 0.0, "use_checkpoint": False}
        network: nn.Module = module.Swin(SimpleNamespace(spatial_dims=3, **settings))
        set_merging(network, "monai-1.4", self.encoder.card.name)
        return network

    def load(self, network: nn.Module, published: dict[str, Any]) -> None:
        """Loads the encoder of either published file."""
        flat = published.get("state_dict", published)
        super().load(network, {key: value for key, value in flat.items() if key in network.state_dict()})

    def prepare(self, scan: Path) -> torch.Tensor:
        """Returns the scan towards R, A, S, -175 to 250 HU as 0 to 1 (voco_train.py, a_min and a_max)."""
        return prepared(scan, "RAS", (1.5, 1.5, 1.5), -175, 250)

    def encode(self, network: nn.Module, x: torch.Tensor) -> Features:
        """Returns what encoder10 gives, and the network's own output."""
        caught: list[torch.Tensor] = []
        hook = network.encoder10.register_forward_hook(lambda _m, _i, out: caught.append(out))  # type: ignore[union-attr]
        try:
            embedding = network(x)
        finally:
            hook.remove()
        return Features(caught[0], embedding, None)
