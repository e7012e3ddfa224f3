"""VoCo-B (Wu et al., TPAMI 2026): a Swin transformer with the convolutional stages of SwinUNETR, self-supervised.

Facts: Luffy03/Large-Scale-Medical: Self-supervised/models/voco_head.py (network, embedding), voco_train.py (HU range,
spacing) and utils/ (orientation, padding, data); README.md (files); Downstream/monai/BTCV/main.py (window).

* It was trained with MONAI 1.3.0, whose patch merging takes two of a patch's eight voxels twice and two never. MONAI
  1.5.0 fixed that in place: the file still loads, and gives other features without an error. The network here has
  the old merging.
* `VoComni_B.pt` is a whole SwinUNETR with the same encoder, whose decoder and output layer are dropped.
* Upstream's loader leaves at random what does not fit by name or shape; here every key of the encoder counts.
* In pretraining, chest scans alone had 5 x 1.25 x 1.25 mm and -1000..500 HU (utils/data_trans.py). One setting serves
  all tasks here: that of the other scans, and of upstream's abdominal downstream tasks.
* A window needs two patches at least: the instance norm of a single voxel is undefined.
"""

import re
from typing import Any

import torch
from torch import nn

from tapct.encoders import Declared, Encoder, EncoderCard, Features, HuWindow, InputSheet, Weights
from tapct.encoders.patch_merging import MergingVersion, set_merging

CLIP_HU = (-175.0, 250.0)  # to 0..1: voco_train.py, a_min and a_max

# PreCT-160K: utils/data_utils_{abdomen,chest,headneck,tumor}.py.
PRETRAINING_DATA = (
    "AbdomenAtlas 1.0", "AMOS22", "BTCV", "CT Colonography Trials", "CT-RATE", "DeepLesion", "FLARE22", "FLARE23",
    "HeadNeckPET", "HealthyCT", "HNSCC", "KiTS23", "LIDC-IDRI", "LiTS17", "LUNA16", "MELA", "MSD Task07 Pancreas",
    "NLST", "PANORAMA", "QIN-HeadNeck", "STOIC 2021", "StonyBrook-CT", "TCGA-HNSC", "TCIA Covid-19",
    "TotalSegmentator", "WORD",
)  # fmt: skip


class VoCoB(Encoder):
    """VoCo's base model, with the patch merging that it was trained with."""

    axes = "RAS"
    least_patches = 2  # instance norm on the last map
    authors = "baselines.authors.voco:VoCoAuthors"
    card = EncoderCard(
        name="voco-b",
        display_name="VoCo-B",
        window_size=(96, 96, 96),  # downstream; pretraining had crops of 64
        spacing_mm=(1.5, 1.5, 1.5),
        in_plane_size=None,
        in_plane_filter="linear",  # data_trans.py: MONAI's bilinear, which averages nothing
        pad_hu=CLIP_HU[0],  # SpatialPadd fills with 0, after scaling
        feature_stride=(32, 32, 32),
        feature_dim=768,
        embedding_dim=1152,
        has_cls=False,
        num_params=53_164_146,
        weights=Weights(
            # The encoder of VoComni_B.pt has the same layout; which of the two the TAP-CT paper used is not
            # established. eva pins this one by MD5: f80c4da2f81d700bdae3df188f2057eb.
            repository="huggingface.co/Luffy503/VoCo",
            file="VoCo_B_SSL_head.pt",
            licence="Apache-2.0",
        ),
        pretraining_data=PRETRAINING_DATA,
        reference="Wu et al., Large-Scale 3D Medical Image Pre-training with Geometric Context Priors, TPAMI 2026; "
        "patch merging as in MONAI 1.3.0",
    )

    def build(self) -> nn.Module:
        """Returns the encoder, with the old merging."""
        return swin_encoder(self.card.name, "monai-1.4")

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        return InputSheet(
            orientation="authors: Self-supervised/utils",
            grid="authors: Self-supervised/voco_train.py",
            resizing=Declared("bilinear, in MONAI without averaging", "authors: Self-supervised/utils/data_trans.py"),
            hu_window=HuWindow(
                *CLIP_HU, "authors: Self-supervised/voco_train.py, a_min and a_max; chest scans had -1000 to 500"
            ),
            normalisation=Declared("the HU window to 0 to 1, linear", "authors: Self-supervised/voco_train.py"),
            padding="authors: Self-supervised/utils, 0 after scaling",
            window="authors: Downstream/monai/BTCV/main.py",
            patches="authors: Self-supervised/models/voco_head.py",
            embedding=Declared("means of all five stages", "authors: Self-supervised/models/voco_head.py"),
        )

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        low, high = CLIP_HU
        maps = self.network((windows_hu.clamp(low, high) - low) / (high - low))
        return Features(maps[-1], multiscale(maps), None)

    def _convert(self, state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        flat = state_dict.get("state_dict", state_dict)
        # Dropped on purpose: the decoder and the output layer of VoComni_B.pt.
        return {key: tensor for key, tensor in flat.items() if not re.match(r"(decoder[1-5]|out)\.", key)}


def swin_encoder(name: str, merging: MergingVersion) -> nn.Module:
    """Returns the encoder of SwinUNETR under the names of MONAI; it gives six maps, the deepest last.

    The maps have 48, 48, 96, 192, 384 and 768 channels at strides 1, 2, 4, 8, 16 and 32. The fifth is the transformer's
    own; the others went through a convolutional block.

    Args:
        name: Of the encoder that it is for, for errors.
        merging: The MONAI whose patch merging it has.

    Raises:
        EncoderError: If this MONAI builds no patch merging.
    """
    network = _SwinEncoder(features=48)
    set_merging(network, merging, name)
    return network


def multiscale(maps: list[torch.Tensor]) -> torch.Tensor:
    """Returns the embedding (B, 1152) that is pooled of all maps of `swin_encoder` but the fifth."""
    return torch.cat([each.mean((2, 3, 4)) for each in (*maps[:4], maps[5])], dim=1)


class _SwinEncoder(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        from monai.networks.blocks import UnetrBasicBlock
        from monai.networks.nets.swin_unetr import SwinTransformer

        self.swinViT = SwinTransformer(
            in_chans=1,
            embed_dim=features,
            window_size=(7, 7, 7),
            patch_size=(2, 2, 2),
            depths=(2, 2, 2, 2),
            num_heads=(3, 6, 12, 24),
            use_v2=True,
        )
        self.encoder1 = UnetrBasicBlock(3, 1, features, 3, 1, "instance", res_block=True)
        self.encoder2 = UnetrBasicBlock(3, features, features, 3, 1, "instance", res_block=True)
        self.encoder3 = UnetrBasicBlock(3, 2 * features, 2 * features, 3, 1, "instance", res_block=True)
        self.encoder4 = UnetrBasicBlock(3, 4 * features, 4 * features, 3, 1, "instance", res_block=True)
        self.encoder10 = UnetrBasicBlock(3, 16 * features, 16 * features, 3, 1, "instance", res_block=True)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        hidden = self.swinViT(x)
        return [
            self.encoder1(x),
            self.encoder2(hidden[0]),
            self.encoder3(hidden[1]),
            self.encoder4(hidden[2]),
            hidden[3],
            self.encoder10(hidden[4]),
        ]
