"""FMCiB (Pai et al.): a 3D ResNet-50 of double width, trained by contrast on the lesions of DeepLesion.

Facts: AIM-Harvard/foundation-cancer-image-biomarker: fmcib/models/__init__.py (network), models/load_model.py
(layouts of the file), preprocessing/__init__.py (1 mm, HU scale, LPS turned to (z, y, x), zero padding).

* The convolutions of the shortcuts have a bias, and the first convolution a stride of 2 along all axes.
* HU are scaled and not clipped: (HU + 1024) / 3072. (Pretraining cut what lies below -1024; inference does not.)
* Upstream loads without strictness, and its removal of `module.` is overwritten by the next line: such a file would
  leave random weights there. Here every key counts.
* The last map of the authors' 50 voxels has ceil(50/32) = 2 patches along an axis, as that of 64 has, on voxels 0 and
  32. Windows are 64 (the paper's table); 50, no multiple of the stride, cannot tile a scan, but is accepted as a crop.
"""

import math
import re
from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from tapct.encoders import Declared, Encoder, EncoderCard, Features, HuWindow, InputSheet, Weights

SHIFT_HU, SCALE_HU = 1024.0, 3072.0  # preprocessing/__init__.py
AUTHORS_CROP = (50, 50, 50)  # preprocessing/__init__.py

# load_model.py: `state_dict` has `model.trunk.`, and `module.` where it was saved under DataParallel.
PREFIX = re.compile(r"^((module|model|trunk)\.)+")
HEADS = re.compile(r"^((module|model)\.)+heads\.")


class FMCIB(Encoder):
    """FMCiB."""

    axes = "SPL"
    patch_centre = (0.0, 0.0, 0.0)  # padded strided convolutions and max-pool: patch i is on voxel 32 i
    authors = "baselines.authors.fmcib:FMCIBAuthors"
    card = EncoderCard(
        name="fmcib",
        display_name="FMCiB",
        window_size=(64, 64, 64),
        spacing_mm=(1.0, 1.0, 1.0),
        in_plane_size=None,
        in_plane_filter="linear",  # preprocessing/__init__.py: MONAI's bilinear, which averages nothing
        pad_hu=-SHIFT_HU,  # zero after scaling
        feature_stride=(32, 32, 32),
        feature_dim=4096,
        embedding_dim=4096,
        has_cls=False,
        num_params=184_477_824,
        weights=Weights(repository="zenodo.org/records/10528450", file="model_weights.torch"),
        pretraining_data=("DeepLesion",),  # 11,467 of its lesions (docs/replication-guide/download_models.md)
        reference="Pai et al., Foundation model for cancer imaging biomarkers, Nature Machine Intelligence, 2024",
    )

    def build(self) -> nn.Module:
        """Returns the trunk without its pooling, which would hide the map; names stay those of the file."""
        from monai.networks.nets.resnet import resnet50

        trunk = resnet50(
            pretrained=False,
            n_input_channels=1,
            widen_factor=2,
            conv1_t_stride=2,
            feed_forward=False,
            bias_downsample=True,
        )
        return nn.Sequential(OrderedDict((name, part) for name, part in trunk.named_children() if name != "avgpool"))

    def supports(self, size: tuple[int, int, int]) -> bool:
        """Takes multiples of the stride, and the crop of the authors."""
        return size == AUTHORS_CROP or super().supports(size)

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        return InputSheet(
            orientation="authors: preprocessing/__init__.py, LPS turned to (z, y, x)",
            grid="authors: preprocessing/__init__.py",
            resizing=Declared(
                "bilinear, in MONAI without averaging, corners aligned", "authors: preprocessing/__init__.py"
            ),
            hu_window=HuWindow(
                -math.inf, math.inf, "authors: preprocessing/__init__.py; pretraining cut below -1024 HU"
            ),
            normalisation=Declared(f"(HU + {SHIFT_HU:g}) / {SCALE_HU:g}", "authors: preprocessing/__init__.py"),
            padding="authors: preprocessing/__init__.py, 0 after scaling",
            window="paper: Table of TAP-CT; the authors' own crop is 50 voxels",
            patches="authors: fmcib/models/__init__.py, padded convolutions",
            embedding=Declared("mean of the last map", "authors: fmcib/models/__init__.py"),
        )

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        features = self.network((windows_hu + SHIFT_HU) / SCALE_HU)
        return Features(features, features.mean((2, 3, 4)), None)

    def _convert(self, state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        # Dropped on purpose: the heads, under `head_state_dict` or among the rest.
        state = state_dict.get("trunk_state_dict", state_dict.get("state_dict", state_dict))
        return {PREFIX.sub("", key): value for key, value in state.items() if not HEADS.match(key)}
