"""VoxelFM by its authors' code, at a commit of rmaguado/VoxelFM."""

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from tapct.encoders import Authors, Features
from tapct.encoders.authors import module_at, patches_of


class VoxelFMAuthors(Authors):
    """dinov2/models with the settings of dinov2/configs, and dinov2/inference/loaders.py."""

    source = "dinov2/models and dinov2/inference/loaders.py of rmaguado/VoxelFM"
    requires = ("einops>=0.6", "SimpleITK>=2.3")
    repository = "github.com/rmaguado/VoxelFM"
    paths = ("dinov2",)
    read_at = "fba41a34c3e4dcfebbe902be5e2b2ce26db27d52"
    axes = "SPL"

    def _config(self) -> dict[str, Any]:
        assert self.code is not None
        file = self.code / "dinov2" / "configs" / "ssl_default_config.yaml"
        return yaml.safe_load(file.read_text(encoding="utf-8"))

    def build(self) -> nn.Module:
        """Returns the vision transformer as dinov2/inference/model.py makes it."""
        from dinov2.models import DinoVisionTransformer  # type: ignore[import-not-found]

        same = (
            *("embed_dim", "depth", "num_heads", "mlp_ratio", "patch_size", "rope_base", "rope_rescale_coords"),
            *("ffn_layer", "qkv_bias", "proj_bias", "ffn_bias", "num_register_tokens"),
        )
        student = self._config()["student"]
        return DinoVisionTransformer(init_values=student["layerscale"], **{key: student[key] for key in same})

    def published(self, network: nn.Module) -> dict[str, Any]:
        """Returns their checkpoint, without the heads of pretraining."""
        return {"teacher": {f"module.backbone.{key}": value for key, value in network.state_dict().items()}}

    def load(self, network: nn.Module, published: dict[str, Any]) -> None:
        """Loads the teacher as dinov2/inference/model.py does."""
        state = {k.replace("module.", "").replace("backbone.", ""): v for k, v in published["teacher"].items()}
        super().load(network, {k: v for k, v in state.items() if not k.startswith(("dino_head", "ibot_head"))})

    def prepare(self, scan: Path) -> torch.Tensor:
        """Returns the scan as their reader clips it, centred and divided as in their configuration."""
        assert self.code is not None
        image, _ = module_at(self.code / "dinov2" / "inference" / "loaders.py").load_nifti(scan)
        norm = self._config()["datasets"][0]["norm"]
        return ((image - norm["mean"]) / norm["std"])[None, None]

    def encode(self, network: nn.Module, x: torch.Tensor) -> Features:
        """Returns patch tokens and class token."""
        out = network(x[:, 0])  # it takes (B, D, H, W)
        cls, patches = out["x_norm_clstoken"], out["x_norm_patchtokens"]
        return Features(patches_of(patches, tuple(x.shape[2:]), (14, 14, 14)), cls, cls)
