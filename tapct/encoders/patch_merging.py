"""The patch merging of MONAI's Swin transformers, which MONAI 1.5 changed under the weights that there were.

Up to MONAI 1.4, two of a patch's eight voxels are taken twice and two never. MONAI 1.5.0 fixed that in place: a file
from before still loads, and gives other features without an error. Whoever trained with the old one needs it.
"""

from typing import Any, Literal

import torch
from torch import nn

from tapct.errors import EncoderError

MergingVersion = Literal["monai-1.4", "monai-1.5"]
"""The last release of MONAI with the old patch merging, and the first with the new one."""

# PatchMerging of MONAI 1.3.0's networks/nets/swin_unetr.py: (0, 1, 0) and (0, 0, 1) come twice.
LEGACY_OFFSETS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))


class LegacyPatchMerging(nn.Module):
    """The patch merging of MONAI up to 1.4, for (B, D, H, W, C) of even sizes, which windows of the stride give."""

    def __init__(self, dim: int, norm_layer: type[nn.LayerNorm], spatial_dims: int) -> None:
        """Initializes the layer, as MONAI's Swin transformer asks for it: 8 x `dim` channels to 2 x `dim`."""
        super().__init__()
        self.reduction = nn.Linear(2**spatial_dims * dim, 2 * dim, bias=False)
        self.norm = norm_layer(2**spatial_dims * dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x at half the resolution, with twice the channels."""
        return self.reduction(self.norm(torch.cat([x[:, i::2, j::2, k::2] for i, j, k in LEGACY_OFFSETS], dim=-1)))


def kinds_of(network: nn.Module) -> list[type[nn.Module]]:
    """Returns the class of each patch merging in a network."""
    from monai.networks.nets.swin_unetr import PatchMergingV2

    return [type(m) for m in network.modules() if isinstance(m, (PatchMergingV2, LegacyPatchMerging))]


def set_merging(network: nn.Module, merging: MergingVersion | None, name: str) -> None:
    """Gives every patch merging of a network the arithmetic that its weights were trained with.

    Args:
        network: A network of MONAI's; its parameters stay as they are.
        merging: Of which MONAI; None for a network without any.
        name: Of the encoder, for errors.

    Raises:
        EncoderError: If the network has some and none is named, or the other way round.
    """
    from monai.networks.nets.swin_unetr import PatchMergingV2

    found = kinds_of(network)
    if bool(found) != (merging is not None):
        there = f"has {len(found)} patch mergings of MONAI's" if found else "has no patch merging"
        raise EncoderError(
            f"{name}: the network {there}, and its card says patch_merging: {merging or 'null'}. MONAI 1.5 changed "
            "them in place, so a card must name the ones that the weights were trained with: monai-1.4 (and before) or "
            "monai-1.5 (and since), or null where there are none"
        )
    if merging == "monai-1.4":
        for parent in list(network.modules()):
            for child, module in list(parent.named_children()):
                if isinstance(module, PatchMergingV2):
                    setattr(parent, child, _legacy(module))


def _legacy(module: Any) -> LegacyPatchMerging:
    """Returns the old merging with the parameters of a layer of MONAI's."""
    with torch.device("meta"):
        legacy = LegacyPatchMerging(1, nn.LayerNorm, spatial_dims=3)
    legacy.reduction, legacy.norm = module.reduction, module.norm
    return legacy
