"""FlexiCT-3D by its authors' code, at a commit of ricklisz/FlexiCT."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tapct.encoders import Authors, Features
from tapct.encoders.authors import bare_package, patches_of


class FlexiCTAuthors(Authors):
    """flexi_ct/models.py with the settings of flexi_ct_2d.py, and the steps of downstream/vlm/dataset.py.

    That module reads databases and reports as it is imported, so its three lines are written down: clamp, z-score with
    the unbiased deviation.
    """

    source = "flexi_ct of ricklisz/FlexiCT, and the steps of downstream/vlm/dataset.py"
    requires = ("SimpleITK>=2.3",)
    repository = "github.com/ricklisz/FlexiCT"
    paths = ("flexi_ct",)
    read_at = "e120a9bdfce84c5a58707c1a5b8e8bd59f0d6c35"
    tolerance = 5e-3  # rotary positions are rounded to bfloat16: where fp32 rounds across, one step of it shows
    axes = "SPL"

    def build(self) -> nn.Module:
        """Returns the backbone as Flexi_CT_3D makes it."""
        assert self.code is not None
        bare_package("flexi_ct", self.code / "flexi_ct")
        from flexi_ct.flexi_ct_2d import _BACKBONE_KWARGS  # type: ignore[import-not-found]
        from flexi_ct.models import flexi_ct_backbone_base  # type: ignore[import-not-found]

        network = flexi_ct_backbone_base(**_BACKBONE_KWARGS)
        network.init_weights()  # before, the periods are whatever was in memory
        return network

    def published(self, network: nn.Module) -> dict[str, Any]:
        """Returns ct_3d_teacher.pth, without the heads of pretraining."""
        return {"teacher": {f"backbone.{key}": value for key, value in network.state_dict().items()}}

    def load(self, network: nn.Module, published: dict[str, Any]) -> None:
        """Loads the backbone as flexi_ct_2d.py does."""
        kept = {k: v for k, v in published["teacher"].items() if "ibot" not in k and "dino_head" not in k}
        super().load(network, {k.removeprefix("backbone."): v for k, v in kept.items()})

    def prepare(self, scan: Path) -> torch.Tensor:
        """Returns the array as SimpleITK reads it, clamped, as its z-score."""
        import SimpleITK as sitk

        x = torch.from_numpy(sitk.GetArrayFromImage(sitk.ReadImage(str(scan)))).float().clamp(-1000, 1000)
        std = float(x.std())
        return (x - x.mean() if std < 1e-6 else (x - float(x.mean())) / std)[None, None]

    def encode(self, network: nn.Module, x: torch.Tensor) -> Features:
        """Returns patch tokens and class token as Flexi_CT_3D gives them."""
        out = network(x, is_training=True)
        cls, patches = out["x_norm_clstoken"], out["x_norm_patchtokens"]
        both = self.encoder.options.get("embedding") == "cls_and_mean"
        embedding = torch.cat([cls, patches.mean(1)], dim=1) if both else cls
        return Features(patches_of(patches, tuple(x.shape[2:]), (8, 8, 8)), embedding, cls)
