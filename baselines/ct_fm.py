"""CT-FM (Pai et al.): the encoder of a SegResNet, trained by contrast on the Imaging Data Commons.

Facts: project-lighter/CT-FM: experiments/fm/{base,backbones/segresenc,frameworks/intrasample_simclr}.yaml (network,
SPL, spacing, HU range, padding) and scripts/feature_extractor.py (embedding = mean of the last map).

* Norms are BatchNorm, MONAI's default, which no configuration names. With instance norm the file loads once its
  running statistics are dropped, and gives other features; loading is strict.
* The window is (32, 128, 128), the crop of pretraining (64 x 128 x 128 mm), and not the (24, 128, 128) of
  feature_extractor.py and of the paper's table. Each stride-2 convolution (kernel 3, padding 1) centres its patch i
  on patch 2i, so patch i of the last map sits on voxel 16i, and 24 slices give ceil(24/16) = 2 patches, on slices 0 and
  16, just as 32 do. Windows of 32 side by side have patches on 0, 16, 32, 48, ...; windows of 24 on 0, 16, 24, 40, 48,
  ..., which no stride describes: under the 12 that would fit the count, every second patch is 4 slices (12 mm) off.
  The authors' window is accepted by a direct call, to reproduce their embeddings.
* Its own pipeline crops the foreground before it cuts windows; here the scan is whole.
"""

import re
from typing import Any

import torch
from torch import nn

from tapct.encoders import Declared, Encoder, EncoderCard, Features, HuWindow, InputSheet, Weights

HU_RANGE = (-1024.0, 2048.0)  # to 0..1, clipped: intrasample_simclr.yaml, feature_extractor.py
AUTHORS_WINDOW = (24, 128, 128)  # feature_extractor.py

# Lightning (`model.`, under torch.compile `_orig_mod.`, SimCLR's `backbone.`) or a SegResNet (`encoder.`).
PREFIX = re.compile(r"^(model\.)?(_orig_mod\.)?(backbone|encoder)\.")
# Dropped on purpose: SimCLR's head (models/frameworks/simclr.py), and the decoder of ct_fm_segresnet.
DROPPED = re.compile(r"^((model\.)?(_orig_mod\.)?projection_head|up_layers)\.")


class CTFM(Encoder):
    """CT-FM."""

    axes = "SPL"
    patch_centre = (0.0, 0.0, 0.0)  # four convolutions of stride 2 and padding 1: patch i is on voxel 16 i
    authors = "baselines.authors.ct_fm:CTFMAuthors"
    card = EncoderCard(
        name="ct-fm",
        display_name="CT-FM",
        window_size=(32, 128, 128),
        spacing_mm=(3.0, 1.0, 1.0),
        in_plane_size=None,
        in_plane_filter="linear",  # feature_extractor.py: MONAI's bilinear, which averages nothing
        pad_hu=-1024.0,
        feature_stride=(16, 16, 16),
        feature_dim=512,
        embedding_dim=512,
        has_cls=False,
        num_params=77_760_992,
        weights=Weights(
            repository="huggingface.co/project-lighter/ct_fm_feature_extractor",
            file="model.safetensors",
            licence="Apache-2.0",
        ),
        # notebooks/data-download/query.sql: every public CT series of 1 to 5 mm in IDC v14, 148,394 of them. Named
        # are the large or widely used collections of notebooks/data-exploration/idc_data_exploration.ipynb: NLST
        # (128,037 series) is the source of LUNA25, LIDC-IDRI (974) of LUNA16, C4KC-KiTS (366) of a part of KiTS23.
        pretraining_data=(
            "Imaging Data Commons v14",
            "NLST",
            "LIDC-IDRI",
            "C4KC-KiTS",
            "CT COLONOGRAPHY",
            "NSCLC-Radiomics",
            "NSCLC-Radiogenomics",
            "TCGA",
            "CPTAC",
        ),
        reference="Pai et al., Vision Foundation Models for Computed Tomography, arXiv 2501.09001, 2025",
    )

    def build(self) -> nn.Module:
        """Returns the encoder; its norm is spelled out, since everything hangs on it."""
        from monai.networks.nets.segresnet_ds import SegResEncoder

        return SegResEncoder(spatial_dims=3, in_channels=1, init_filters=32, blocks_down=(1, 2, 2, 4, 4), norm="batch")

    def supports(self, size: tuple[int, int, int]) -> bool:
        """Takes multiples of the stride, and the window of the authors' script."""
        return size == AUTHORS_WINDOW or super().supports(size)

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        return InputSheet(
            orientation="authors: scripts/feature_extractor.py",
            grid="authors: scripts/feature_extractor.py",
            resizing=Declared("bilinear, in MONAI without averaging", "authors: scripts/feature_extractor.py"),
            hu_window=HuWindow(*HU_RANGE, "authors: intrasample_simclr.yaml, scripts/feature_extractor.py"),
            normalisation=Declared("the HU window to 0 to 1, linear", "authors: intrasample_simclr.yaml"),
            padding="authors: intrasample_simclr.yaml",
            window="authors: intrasample_simclr.yaml, pretraining's crop; feature_extractor.py has 24 slices",
            patches="authors: experiments/fm/backbones/segresenc.yaml, MONAI's padded convolutions",
            embedding=Declared("mean of the last map", "authors: scripts/feature_extractor.py"),
        )

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        low, high = HU_RANGE
        features = self.network((windows_hu.clamp(low, high) - low) / (high - low))[-1]
        return Features(features, features.mean((2, 3, 4)), None)

    def _convert(self, state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        state = state_dict.get("state_dict", state_dict)
        return {PREFIX.sub("", key): value for key, value in state.items() if not DROPPED.match(key)}
