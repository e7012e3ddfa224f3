"""VoxelFM (arXiv 2604.04133): a 3D vision transformer with rotary positions, pretrained on CT by DINOv2's recipe.

Facts from github.com/rmaguado/VoxelFM: dinov2/models/vision_transformer.py (network), dinov2/inference/model.py
(checkpoint), dinov2/configs/ssl_default_config.yaml (HU range, statistics, crops), dinov2/inference/processing.py
(spacing). The network is written here from its formulas: the source file of its rotary positions carries the DINOv3
licence.

Spacing: upstream resamples each scan to cubes of its own finest spacing, but not under 0.75 mm, and encodes it in one
piece. A card has one spacing for all scans: 1 mm here, which upstream takes for arrays and in its nodule evaluation,
and which lies among those of pretraining, whose crops are 32 % to 100 % of the shortest side of a scan, resized to 112
voxels. Another is an option: `spacing_mm=(0.75, 0.75, 0.75)`. Windows are the pretraining's global crops; positions
are relative to the window, so that any multiple of the patch can be given.

Traps: The norms have an epsilon of 1e-5, not DINOv2's 1e-6. Rotary positions turn the patch tokens only, by pairs of
neighbouring channels. The periods of the rotation are a buffer in the file: they are loaded, as upstream does, after a
check against the formula. Upstream's DICOM reader clips at 1000 HU, its NIfTI reader and the pretraining at 1900, which
is used here. Where a scan is not a multiple of the patch upstream crops it, while the harness pads with air.
"""

import math
from collections import OrderedDict

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from tapct.encoders import Declared, Encoder, EncoderCard, Features, HuWindow, InputSheet, Weights
from tapct.encoders.weights import from_dinov2
from tapct.errors import WeightsError

# dinov2/configs/ssl_default_config.yaml: pixel_range, norm, student.
CLIP_HU = (-1000.0, 1900.0)
MEAN_HU, STD_HU = -573.8, 461.3
DIM, DEPTH, HEADS, PATCH, REGISTERS = 864, 12, 12, 14, 4
ROPE_BASE = 100.0


class VoxelFM(Encoder):
    """VoxelFM."""

    axes = "SPL"  # stored DICOM slices, z ascending; pretraining permutes and flips its crops at random
    authors = "baselines.authors.voxelfm:VoxelFMAuthors"
    card = EncoderCard(
        name="voxelfm",
        display_name="VoxelFM",
        window_size=(112, 112, 112),  # global_crops_size
        spacing_mm=(1.0, 1.0, 1.0),
        in_plane_size=None,
        in_plane_filter="linear",  # processing.py, resize_isotropic: torch's trilinear, which averages nothing
        pad_hu=CLIP_HU[0],
        feature_stride=(PATCH, PATCH, PATCH),
        feature_dim=DIM,
        embedding_dim=DIM,
        has_cls=True,
        num_params=110_029_536,
        weights=Weights(
            repository="huggingface.co/rmaguado/VoxelFM",
            file="vitb_3d/checkpoints/99999.pth",
            licence="not established for the weights; the code is Apache-2.0",
        ),
        pretraining_data=("over 137,000 CT studies of many institutions; which public sets is not established",),
        reference="Learning Robust Visual Features in Computed Tomography Enables Efficient Transfer Learning for "
        "Clinical Tasks, arXiv 2604.04133, 2026",
    )

    def build(self) -> nn.Module:
        """Returns the vision transformer."""
        return VoxelFMViT()

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        return InputSheet(
            orientation="authors: dinov2/inference, stored slices with z ascending",
            grid="ours: 1 mm; dinov2/inference/processing.py takes each scan's finest spacing",
            resizing=Declared("trilinear (torch), without averaging", "authors: dinov2/inference/processing.py"),
            hu_window=HuWindow(
                *CLIP_HU, "authors: dinov2/configs/ssl_default_config.yaml; their DICOM reader clips at 1000 HU"
            ),
            normalisation=Declared(
                f"after clipping, z-score of mean {MEAN_HU} and deviation {STD_HU} HU",
                "authors: dinov2/configs/ssl_default_config.yaml",
            ),
            padding="ours: air; the authors crop to whole patches",
            window="authors: dinov2/configs/ssl_default_config.yaml, global crops",
            patches="authors: dinov2/models/vision_transformer.py, patches",
            embedding=Declared("after the final norm", "authors: dinov2/models/vision_transformer.py"),
        )

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        cls, features = self.network((windows_hu.clamp(*CLIP_HU) - MEAN_HU) / STD_HU)
        return Features(features, cls, cls)

    def _convert(self, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Unwraps "teacher" and its prefixes and drops the heads of pretraining, `dino_head` and `ibot_head`."""
        state = from_dinov2(state_dict)
        found, formula = state.get("rope_embed.periods"), _periods()
        # 1 %: a buffer that was rounded to bf16 is that of this network, one of another base is not.
        if found is not None and found.shape == formula.shape and not torch.allclose(found.float(), formula, rtol=0.01):
            raise WeightsError(
                f"{self.card.name}: rope_embed.periods is {found.tolist()} in the file, while {formula.tolist()} was "
                "expected. The file is of a network with other positions."
            )
        return state


class VoxelFMViT(nn.Module):
    """The vision transformer, under the names of the published checkpoint; `depth` is the number of its blocks."""

    def __init__(self, depth: int = DEPTH) -> None:
        super().__init__()
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv3d(1, DIM, kernel_size=PATCH, stride=PATCH)))
        self.rope_embed = _Rope()
        self.cls_token = nn.Parameter(torch.randn(1, 1, DIM) * 1e-6)
        self.register_tokens = nn.Parameter(torch.randn(1, REGISTERS, DIM) * 1e-6)
        self.mask_token = nn.Parameter(torch.zeros(1, DIM))  # read in pretraining only
        self.blocks = nn.ModuleList(_Block() for _ in range(depth))
        self.norm = nn.LayerNorm(DIM, eps=1e-5)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the class token (B, C) and the map of the patches (B, C, d, h, w), after the final norm."""
        patches = self.patch_embed(x)
        batch, grid = x.shape[0], patches.shape[2:]
        special = torch.cat((self.cls_token, self.register_tokens), dim=1).expand(batch, -1, -1)
        tokens = torch.cat((special, patches.flatten(2).transpose(1, 2)), dim=1)
        rotation = self.rope_embed(grid)
        for block in self.blocks:
            tokens = block(tokens, rotation)
        tokens = self.norm(tokens)
        return tokens[:, 0], tokens[:, 1 + REGISTERS :].transpose(1, 2).unflatten(2, grid)


class _Rope(nn.Module):
    """The angles by which the patches' channels turn: a third of them by each of z, y and x."""

    periods: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("periods", _periods())

    def forward(self, grid: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns cosine and sine (patches, pairs of channels); coordinates run from -1 to 1 over the window."""
        centres = [
            2 * (torch.arange(n, dtype=self.periods.dtype, device=self.periods.device) + 0.5) / n - 1 for n in grid
        ]
        place = torch.stack(torch.meshgrid(*centres, indexing="ij"), dim=-1).flatten(0, 2)
        angles = (2 * math.pi * place[:, :, None] / self.periods).flatten(1)
        return angles.cos(), angles.sin()


class _Block(nn.Module):
    """One pre-norm block, as DINOv2's, with rotary positions."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(DIM, eps=1e-5)
        self.attn = _Attention()
        self.ls1 = _LayerScale()
        self.norm2 = nn.LayerNorm(DIM, eps=1e-5)
        self.mlp = nn.Sequential(OrderedDict(fc1=nn.Linear(DIM, 4 * DIM), act=nn.GELU(), fc2=nn.Linear(4 * DIM, DIM)))
        self.ls2 = _LayerScale()

    def forward(self, x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), rotation))
        return x + self.ls2(self.mlp(self.norm2(x)))


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(DIM, 3 * DIM)
        self.proj = nn.Linear(DIM, DIM)

    def forward(self, x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(_rotated(q, *rotation), _rotated(k, *rotation), v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class _LayerScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((DIM,), 1e-5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


def _periods() -> torch.Tensor:
    pairs = DIM // HEADS // 3 // 2  # of channels, in the third of a head that an axis turns
    return ROPE_BASE ** (torch.arange(pairs) / pairs)


def _rotated(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns the pairs of neighbouring channels of the patches (B, heads, T, c), which come after the other tokens."""
    special, patches = heads.split([heads.shape[2] - len(cos), len(cos)], dim=2)
    a, b = patches.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)
    return torch.cat((special, turned.to(heads.dtype)), dim=2)
