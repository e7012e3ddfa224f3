"""CT-CLIP by its authors' code, at a commit of ibrahimethemhamamci/CT-CLIP."""

from pathlib import Path
from typing import Any

import nibabel
import torch
from torch import nn

from tapct.encoders import Authors, Features
from tapct.encoders.authors import bare_package, module_at

_SLICES = 20


class CTCLIPAuthors(Authors):
    """CTViT with the sizes of scripts/run_zero_shot.py, and scripts/data_inference_nii.py.

    Their code names the device "cuda" in the middle of CTViT: it is told the CPU. The projection and the norm behind it
    are the last lines of CTCLIP.forward, written down: the class itself wants an encoder of reports.
    """

    source = "transformer_maskgit and scripts/data_inference_nii.py of ibrahimethemhamamci/CT-CLIP"
    requires = ("vector-quantize-pytorch==1.1.2", "einops>=0.6", "beartype", "pandas", "tqdm")
    repository = "github.com/ibrahimethemhamamci/CT-CLIP"
    paths = ("transformer_maskgit/transformer_maskgit", "scripts/data_inference_nii.py")
    read_at = "a2a155c601987820433c01db69b64d701d3d229d"
    left_out = "resampling; padding is checked only as far as their file pads"
    axes = "SLP"

    def window_for(self, encoder: Any) -> tuple[int, int, int]:
        """Returns two patches of slices, of the only size in the plane."""
        return (_SLICES, encoder.in_plane, encoder.in_plane)

    def build(self) -> nn.Module:
        """Returns CTViT and the projection of images."""
        assert self.code is not None
        bare_package("transformer_maskgit", self.code / "transformer_maskgit" / "transformer_maskgit")
        from transformer_maskgit import attention, ctvit  # type: ignore[import-not-found]

        attention.torch = ctvit.torch = _OnCPU()
        size = self.window[1]
        patches = (size // 20) ** 2
        network = nn.Module()
        network.visual_transformer = ctvit.CTViT(
            dim=512,
            codebook_size=8192,
            image_size=size,
            patch_size=20,
            temporal_patch_size=10,
            spatial_depth=4,
            temporal_depth=4,
            dim_head=32,
            heads=8,
        )
        network.to_visual_latent = nn.Linear(patches * 512, 512, bias=False)
        return network

    def load(self, network: nn.Module, published: dict[str, Any]) -> None:
        """Loads what of their file belongs to images."""
        kept = ("visual_transformer.", "to_visual_latent.")
        super().load(network, {key: value for key, value in published.items() if key.startswith(kept)})

    def prepare(self, scan: Path) -> torch.Tensor:
        """Returns what their data set makes of the file, without its padding."""
        import pandas as pd

        assert self.code is not None
        theirs = module_at(self.code / "scripts" / "data_inference_nii.py").CTReportDatasetinfer
        table = {"VolumeName": scan.name, "RescaleSlope": 1, "RescaleIntercept": 0}
        table |= {"XYSpacing": "[0.75, 0.75]", "ZSpacing": 1.5}
        tensor = theirs.nii_img_to_tensor(None, str(scan), pd.DataFrame([table]))  # (1, 240, 480, 480), padded
        x, y, z = nibabel.Nifti1Image.from_filename(scan).shape
        inside = [slice((whole - n) // 2, (whole - n) // 2 + n) for whole, n in ((240, z), (480, x), (480, y))]
        return tensor[(None, slice(None), *inside)].contiguous()

    def encode(self, network: nn.Module, x: torch.Tensor) -> Features:
        """Returns codes, or tokens before them, and the projected mean of the codes."""
        caught: list[torch.Tensor] = []
        vit: Any = network.visual_transformer
        hook = vit.vq.register_forward_pre_hook(lambda _m, given: caught.append(given[0]))
        try:
            codes = vit(x, return_encoded_tokens=True)  # (B, t, h, w, 512)
        finally:
            hook.remove()
        latent = network.to_visual_latent(codes.mean(dim=1).reshape(x.shape[0], -1))  # type: ignore[operator]
        tokens = caught[0].reshape(codes.shape)
        mapped = tokens if self.encoder.options.get("features") == "tokens" else codes
        return Features(mapped.movedim(-1, 1), nn.functional.normalize(latent, dim=-1), None)


class _OnCPU:
    """Torch for their module, but for the device that it asks for."""

    @staticmethod
    def device(_name: str) -> torch.device:
        return torch.device("cpu")

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)
