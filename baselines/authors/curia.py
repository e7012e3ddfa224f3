"""Curia and Curia-2 by transformers' own class, which their authors publish, and their processor's steps."""

import json
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from tapct.encoders import Authors, Features
from tapct.encoders.authors import patches_of

CONFIG: dict[str, Any] = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "mlp_ratio": 4,
    "layer_norm_eps": 1e-6,
    "image_size": 512,
    "patch_size": 16,
    "num_channels": 1,
    "use_swiglu_ffn": True,
    "use_mask_token": True,
}
"""config.json as save_model.py of raidium-med/curia writes it."""


class CuriaAuthors(Authors):
    """AutoModel on a folder as the hub has it, whose names are those of transformers 4.

    The processor's code is on a gated page; its steps are written down from a copy that was read (the newer of two:
    clip in HU where it is set, z-score of each slice). Its resize is left out: a slice of 512 pixels needs none.
    """

    source = "transformers' AutoModel of Dinov2, and curia_image_processor.py's steps"
    requires = ("transformers>=5,<6", "SimpleITK>=2.3")
    left_out = "resizing (antialiased bicubic, of slices that have not 512 pixels)"
    axes = "SPL"

    def window_for(self, encoder: Any) -> tuple[int, int, int]:
        """Returns one slice of the only size at which positions are used as they are."""
        return (1, 512, 512)

    def build(self) -> nn.Module:
        """Returns the network of the published configuration."""
        from transformers import AutoConfig, AutoModel

        return AutoModel.from_config(AutoConfig.for_model(**CONFIG))

    def published(self, network: nn.Module) -> dict[str, Any]:
        """Returns the file that transformers itself writes, in the names of transformers 4."""
        with tempfile.TemporaryDirectory() as folder:
            network.save_pretrained(folder)  # type: ignore[operator]
            return safetensors.torch.load_file(Path(folder) / "model.safetensors")

    def load(self, network: nn.Module, published: dict[str, Any]) -> None:
        """Loads the file as transformers loads a folder of the hub."""
        from transformers import AutoModel

        with tempfile.TemporaryDirectory() as folder:
            safetensors.torch.save_file(published, Path(folder) / "model.safetensors", metadata={"format": "pt"})
            (Path(folder) / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
            loaded = AutoModel.from_pretrained(folder)
        super().load(network, loaded.state_dict())

    def prepare(self, scan: Path) -> torch.Tensor:
        """Returns the slices of the scan, turned to LPS by SimpleITK (extract_feat_LP.py), each as its z-score."""
        import SimpleITK as sitk

        image = sitk.DICOMOrient(sitk.ReadImage(str(scan)), "LPS")
        slices = torch.from_numpy(sitk.GetArrayFromImage(image)).float()
        if self.encoder.clip_below_air:
            slices = slices.clamp(min=-1000)
        mean, std = slices.mean((1, 2), keepdim=True), slices.std((1, 2), keepdim=True)
        return torch.where(std < 1e-6, slices - mean, (slices - mean) / std)[:, None]

    def encode(self, network: nn.Module, x: torch.Tensor) -> Features:
        """Returns patch tokens and `pooler_output`."""
        out = network(pixel_values=x)
        patches = patches_of(out.last_hidden_state[:, 1:], tuple(x.shape[2:]), (16, 16))
        return Features(patches.unsqueeze(2), out.pooler_output, out.last_hidden_state[:, 0])
