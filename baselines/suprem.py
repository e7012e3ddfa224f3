"""SuPreM (Li et al., ICLR 2024): a 3D U-Net, trained with labels on AbdomenAtlas 1.1.

Facts: MrGiovanni/SuPreM: direct_inference/model/Unet.py (network), supervised_pretraining/train.py (checkpoint, HU
range, spacing, window) and its dataset/dataloader_bdmap.py (orientation, padding). The network is written anew from
those facts: the licence of that repository, CC BY-NC-ND, allows no adapted copies.

* The upstream norm, ContBatchNorm3d, takes the statistics of the batch in hand in eval mode too, so that features
  depend on which windows share a batch (issue 19). Upstream infers one window at a time, and there it is an instance
  norm, which is what is built here. The running statistics in the file were never read, and are dropped.
* The 19.1M parameters in Table 1 of the TAP-CT paper are the whole U-Net; the frozen encoder has 7,027,776. Which of
  the two the paper probed is not established: the encoder is the default, `features="decoder"` is the U-Net.
"""

import dataclasses
import math
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import max_pool3d

from tapct.encoders import Declared, Encoder, EncoderCard, Features, HuWindow, InputSheet, Precision, Weights
from tapct.errors import EncoderError

CLIP_HU = (-175.0, 250.0)  # to 0..1: supervised_pretraining/train.py, a_min and a_max

PREFIX = "module.backbone."
# Dropped on purpose: what Universal_model.py in the same folder has next to the U-Net, the running statistics, and,
# where only the encoder is wanted, the decoder.
HEADS = re.compile(r"^module\.(organ_embedding|text_to_vision|precls_conv|GAP|controller)(\.|$)")
RUNNING = re.compile(r"\.bn1\.(running_mean|running_var|num_batches_tracked)$")
DECODER = re.compile(r"^module\.backbone\.up_tr(64|128|256)\.")

# Which 2,100 CTs is not published: the sources of AbdomenAtlas 1.1 are all possible. The authors' recipe starts from
# Models Genesis, which was trained on LUNA16.
PRETRAINING_DATA = (
    "AbdomenAtlas 1.1 (2,100 CTs)", "AbdomenCT-1K", "AMOS22", "BTCV", "CHAOS", "CT-ORG", "KiTS", "LiTS17", "LUNA16",
    "Medical Segmentation Decathlon", "Pancreas-CT", "RSNA 2023 Abdominal Trauma", "WORD",
)  # fmt: skip


class SuPreM(Encoder):
    """The encoder of SuPreM's U-Net, or with its decoder."""

    axes = "RAS"
    authors = "baselines.authors.suprem:SuPreMAuthors"
    card = EncoderCard(
        name="suprem",
        display_name="SuPreM U-Net",
        window_size=(96, 96, 96),
        spacing_mm=(1.5, 1.5, 1.5),
        in_plane_size=None,
        in_plane_filter="linear",  # dataloader_bdmap.py: MONAI's bilinear, which averages nothing
        pad_hu=CLIP_HU[0],  # SpatialPadd fills with 0, after scaling
        feature_stride=(8, 8, 8),
        feature_dim=512,
        embedding_dim=512,
        has_cls=False,
        num_params=7_027_776,
        weights=Weights(
            repository="huggingface.co/MrGiovanni/SuPreM",
            file="supervised_suprem_unet_2100.pth",
            licence="conflicting: CC BY-NC-ND 4.0 (LICENSE of the code), Apache-2.0 (Hugging Face card); "
            "taken as non-commercial",
        ),
        pretraining_data=PRETRAINING_DATA,
        reference="Li et al., How Well Do Supervised 3D Models Transfer to Medical Imaging Tasks?, ICLR 2024 "
        "(Table 1 of the TAP-CT paper counts 19.1M parameters, the whole U-Net; its encoder has 7,027,776)",
    )

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        features: Literal["encoder", "decoder"] = "encoder",
        precision: Precision = "auto",
        **options: Any,
    ) -> None:
        """Builds the network and loads its weights.

        Args:
            weights: As in `Encoder`.
            features: What the feature map is: "encoder", the deepest layer (`out512`: 512 channels, stride 8), or
                "decoder", the last layer of the whole U-Net (`out_up_64`: 64 channels, stride 1). The embedding is
                the mean of `out512` in both, which is what the model itself pools.
            precision: As in `Encoder`.
            options: As in `Encoder`.

        Raises:
            EncoderError: If an option is unknown.
        """
        if features not in ("encoder", "decoder"):
            raise EncoderError(f"{self.card.name}: features must be 'encoder' or 'decoder', not {features!r}")
        self.features = features  # before the base class, which builds the network
        super().__init__(weights, precision=precision, **options)
        if features == "decoder":
            self.card = dataclasses.replace(
                self.card,
                feature_stride=(1, 1, 1),
                feature_dim=64,
                num_params=19_073_600,
            )

    def build(self) -> nn.Module:
        """Returns the encoder, or the whole U-Net."""
        return UNet3D(decoder=self.features == "decoder")

    def supports(self, size: tuple[int, int, int]) -> bool:
        """Takes multiples of 8: the decoder's map has stride 1, but its network too halves the window three times."""
        return all(n > 0 and n % 8 == 0 for n in size) and math.prod(size) > 8**3  # instance norm: not a single patch

    def input_requirement(self) -> str:
        """Returns what `supports` asks of a window's size, for its error."""
        return "each size must be a multiple of 8, and one of them more than 8"

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        return InputSheet(
            orientation="authors: dataset/dataloader_bdmap.py",
            grid="authors: supervised_pretraining/train.py",
            resizing=Declared("bilinear, in MONAI without averaging", "authors: dataset/dataloader_bdmap.py"),
            hu_window=HuWindow(*CLIP_HU, "authors: supervised_pretraining/train.py, a_min and a_max"),
            normalisation=Declared("the HU window to 0 to 1, linear", "authors: supervised_pretraining/train.py"),
            padding="authors: dataset/dataloader_bdmap.py, 0 after scaling",
            window="authors: supervised_pretraining/train.py",
            patches="authors: direct_inference/model/Unet.py",
            embedding=Declared("mean of the deepest layer", "authors: Universal_model.py, which pools it"),
        )

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        low, high = CLIP_HU
        out512, features = self.network((windows_hu.clamp(low, high) - low) / (high - low))
        return Features(features, out512.mean((2, 3, 4)), None)

    def _convert(self, state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        dropped = [HEADS, RUNNING] if self.features == "decoder" else [HEADS, RUNNING, DECODER]
        return {
            key.removeprefix(PREFIX): tensor
            for key, tensor in state_dict.get("net", state_dict).items()
            if not any(pattern.search(key) for pattern in dropped)
        }

    def describe(self) -> dict[str, Any]:
        """Returns what a record must hold: the base class's entries, and which features these are."""
        return super().describe() | {"features": self.features}


class UNet3D(nn.Module):
    """The U-Net, under the names of the published checkpoint; without its decoder where that is not wanted."""

    def __init__(self, *, decoder: bool) -> None:
        super().__init__()
        self.decoder = decoder
        self.down_tr64 = nn.Sequential(OrderedDict(ops=_convolutions(1, 32, 64)))
        self.down_tr128 = nn.Sequential(OrderedDict(ops=_convolutions(64, 64, 128)))
        self.down_tr256 = nn.Sequential(OrderedDict(ops=_convolutions(128, 128, 256)))
        self.down_tr512 = nn.Sequential(OrderedDict(ops=_convolutions(256, 256, 512)))
        if decoder:
            self.up_tr256 = _Up(512)
            self.up_tr128 = _Up(256)
            self.up_tr64 = _Up(128)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the deepest layer, and the last one: the same without a decoder."""
        skip64 = self.down_tr64(x)
        skip128 = self.down_tr128(max_pool3d(skip64, 2))
        skip256 = self.down_tr256(max_pool3d(skip128, 2))
        out512 = self.down_tr512(max_pool3d(skip256, 2))
        if not self.decoder:
            return out512, out512
        return out512, self.up_tr64(self.up_tr128(self.up_tr256(out512, skip256), skip128), skip64)


class _Up(nn.Module):
    """Doubles the resolution and joins the skipped layer of half as many channels, which is what comes out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.up_conv = nn.ConvTranspose3d(channels, channels, kernel_size=2, stride=2)
        self.ops = _convolutions(channels + half, half, half)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.ops(torch.cat((self.up_conv(x), skip), dim=1))


def _convolutions(channels: int, between: int, out: int) -> nn.Sequential:
    return nn.Sequential(*(_convolution(*pair) for pair in ((channels, between), (between, out))))


def _convolution(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv3d(channels, out, kernel_size=3, padding=1),
            bn1=nn.InstanceNorm3d(out, affine=True),  # see the traps above
            activation=nn.ReLU(),
        )
    )
