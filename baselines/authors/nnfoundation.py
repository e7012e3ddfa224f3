"""nnFoundation's ViT by its authors' class in dynamic-network-architectures."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from baselines import nnfoundation
from baselines.authors.colipri import PRIMUS
from tapct.encoders import Authors, Features
from tapct.encoders.authors import patches_of


class NNFoundationAuthors(Authors):
    """Primus on a canvas of its own, for which the table of positions is interpolated as nnU-Net does.

    The z-score and the interpolation are written down from nnssl and nnU-Net (normalization_schemes.py, line 42;
    load_weights_utils.py, line 209), which do not import next to this project's torch.
    """

    source = "Primus of dynamic-network-architectures 0.4.4; z-score and positions as in nnssl and nnU-Net"
    requires = (*PRIMUS, "SimpleITK>=2.3")
    axes = "SPL"

    def build(self) -> nn.Module:
        """Returns Primus; `table` next to it is the table of the file, of the canvas of pretraining."""
        from dynamic_network_architectures.architectures.primus import Primus  # type: ignore[import-not-found]

        network = Primus(
            input_channels=1,
            embed_dim=nnfoundation.DIM,
            patch_embed_size=(8, 8, 8),
            num_classes=1,
            eva_depth=nnfoundation.DEPTH,
            eva_numheads=nnfoundation.HEADS,
            input_shape=self.window,
            init_values=0.1,
            scale_attn_inner=True,
        )
        whole = _Whole(network, [n // 8 for n in nnfoundation.CANVAS], nnfoundation.DIM)
        return whole

    def published(self, network: nn.Module) -> dict[str, Any]:
        """Returns their checkpoint, with the decoder's keys that nnU-Net leaves out too."""
        state = {key.removeprefix("network."): value for key, value in network.state_dict().items() if key != "table"}
        return {"network_weights": state | {"eva.pos_embed": network.table}}

    def load(self, network: nn.Module, published: dict[str, Any]) -> None:
        """Loads what of their checkpoint belongs to the encoder; the rest of the network stays."""
        ours = published["network_weights"]
        state = {key: ours.get(key.removeprefix("network."), value) for key, value in network.state_dict().items()}
        own = network.network.eva.pos_embed  # type: ignore[union-attr]
        super().load(network, state | {"table": ours["eva.pos_embed"], "network.eva.pos_embed": own})

    def prepare(self, scan: Path) -> torch.Tensor:
        """Returns the array as SimpleITK reads it, as a z-score of all voxels with the population's deviation."""
        import SimpleITK as sitk

        array = sitk.GetArrayFromImage(sitk.ReadImage(str(scan))).astype(np.float32)
        array = (array - array.mean()) / max(array.std(), 1e-8)
        return torch.from_numpy(array)[None, None]

    def encode(self, network: nn.Module, x: torch.Tensor) -> Features:
        """Returns the tokens after the last norm; the authors name no pooling, and their mean is ours."""
        mapped = patches_of(network(x), tuple(x.shape[2:]), (8, 8, 8))
        return Features(mapped, mapped.mean((2, 3, 4)), None)


class _Whole(nn.Module):
    """Primus, and the positions of its file, which it interpolates for its own canvas."""

    def __init__(self, network: nn.Module, patches: list[int], dim: int) -> None:
        super().__init__()
        self.network, self.patches = network, patches
        self.table = nn.Parameter(0.02 * torch.randn(1, patches[0] * patches[1] * patches[2], dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns tokens (B, N, C)."""
        grid = tuple(n // 8 for n in x.shape[2:])
        table = self.table.reshape(1, *self.patches, -1).permute(0, 4, 1, 2, 3)
        table = nn.functional.interpolate(table, grid, mode="trilinear", align_corners=False)
        self.network.eva.pos_embed.copy_(table.flatten(2).transpose(1, 2))  # type: ignore[union-attr, operator]
        patches = self.network.down_projection(x)  # type: ignore[operator]
        tokens, _ = self.network.eva(patches.flatten(2).transpose(1, 2))  # type: ignore[operator]
        return tokens
