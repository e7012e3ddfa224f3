"""nnFoundation ViT (MIC-DKFZ, arXiv 2609.26924): a Primus ViT, pretrained on 2.1 million volumes by masked images.

Facts: nnssl 7044864, normalization_schemes.py (z-score of the whole image); nnU-Net 0e49508,
dynamicPretrainedTrainer.py (what of the file is read) and load_weights_utils.py (positions for another canvas);
dynamic-network-architectures 0.4.4 (network). Width, depth and heads, and that scans are given as SimpleITK reads them,
are a third party's reading.

* Intensities are z-scores of the whole scan: mean and deviation of every voxel, without a mask and without a clip. So a
  scan whose field of view is surrounded by -3024 HU is another one than with air there.
* Scans keep their own spacing, so that the size of a patch is the scanner's.
* The embedding is the mean over patches: the authors have no class token, and name no pooling.
* The window is the canvas of pretraining, 13,824 tokens: `window_size=96x96x96` is what a third party's evaluation
  takes, and what a CPU can. The learnt positions are interpolated for it.
* Padding is air. nnU-Net pads what it has normalised with 0, which is the mean of the scan: open.
"""

import math
from typing import Any

import torch
from torch import nn

from baselines.primus import PATCH, Primus
from tapct.encoders import Declared, Encoder, EncoderCard, Features, HuWindow, InputSheet, Weights, mean_and_std

DIM, DEPTH, HEADS = 1056, 40, 16
CANVAS = (192, 192, 192)
MIN_STD_HU = 1e-8  # normalization_schemes.py

# Of the file, only the network of the encoder is read, as nnU-Net does; next to it are the decoder of pretraining with
# its mask token, the plan and the citations.
KEPT = ("down_projection.", "eva.")


class NNFoundationViT(Encoder):
    """nnFoundation's vision transformer."""

    axes = "SPL"  # SimpleITK's arrays, not reoriented
    authors = "baselines.authors.nnfoundation:NNFoundationAuthors"
    card = EncoderCard(
        name="nnfoundation-vit",
        display_name="nnFoundation ViT",
        window_size=CANVAS,
        spacing_mm=None,
        in_plane_size=None,
        pad_hu=-1000.0,
        feature_stride=(PATCH, PATCH, PATCH),
        feature_dim=DIM,
        embedding_dim=DIM,
        has_cls=False,
        num_params=551_364_704,
        weights=Weights(
            repository="huggingface.co/MIC-DKFZ/nnFoundationViT",
            file="checkpoint_final.pth",
            licence="CC BY-SA 4.0",
        ),
        pretraining_data=("2.1 million public volumes of CT and other modalities; which sets is not established here",),
        reference="nnFoundation, arXiv 2609.26924, 2026",
    )

    def build(self) -> nn.Module:
        """Returns the vision transformer."""
        patches = (CANVAS[0] // PATCH, CANVAS[1] // PATCH, CANVAS[2] // PATCH)
        return Primus(DIM, DEPTH, HEADS, table=patches)

    def scan_statistics(self, scan_hu: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns mean and population deviation of all voxels, as numpy has them."""
        return mean_and_std(scan_hu)

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        return InputSheet(
            orientation="third party: SimpleITK's arrays, not reoriented",
            grid="third party: an evaluation of the released file",
            hu_window=HuWindow(-math.inf, math.inf, "authors: nnssl, normalization_schemes.py"),
            normalisation=Declared(
                "z-score of the whole scan, population deviation", "authors: nnssl, normalization_schemes.py"
            ),
            padding="ours: air; nnU-Net pads with 0 after the z-score",
            window="third party: the canvas of pretraining",
            patches="authors: dynamic-network-architectures, patches",
            embedding=Declared("mean over the patches", "ours: the authors name no pooling"),
        )

    def _encode(self, windows_hu: torch.Tensor, statistics: dict[str, torch.Tensor]) -> Features:
        found = self.network((windows_hu - statistics["mean"]) / statistics["std"].clamp_min(MIN_STD_HU))
        return Features(found, found.mean((2, 3, 4)), None)

    def _convert(self, state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {key: value for key, value in state_dict["network_weights"].items() if key.startswith(KEPT)}
