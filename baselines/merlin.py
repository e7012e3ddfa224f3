"""Merlin (Blankemeier et al., Nature 2026): an inflated 3D ResNet-152, trained on abdominal CT with reports and codes.

Facts from github.com/StanfordMIMI/Merlin: merlin/models/i3res.py, inflate.py and build.py (network),
merlin/models/load.py (checkpoint), merlin/data/monai_transforms.py (preprocessing); kernel sizes and the number of
blocks are those of the weights of Astra, the same network (astra.py). Upstream pads or crops a scan about its centre to
160 slices of 224 x 224, the window here; the harness tiles the scan with such windows, so that none of it is lost.

Traps: The network sees (z, x, y) of a RAS volume, one channel repeated to three. Of a bottleneck's convolutions the
middle one has three slices and the stride, along z too. The stride is 16 along z and 32 in the plane, where the stem
alone halves. `ImageEmbedding=True` returns the embeddings of a batch as (1, B, 2048); here they are (B, 2048). The
checkpoint holds the text encoder and two heads next to the network.
"""

from typing import Any

import torch
from torch import nn

from tapct.encoders import Declared, Encoder, EncoderCard, Features, HuWindow, InputSheet, Weights

PREFIX = "encode_image.i3_resnet."
# merlin/models/build.py and i3res.py: what the checkpoint holds next to the network.
HEADS = ("encode_text.", "logit_scale", f"{PREFIX}classifier.", f"{PREFIX}contrastive_head.")


class Merlin(Encoder):
    """The image encoder of Merlin."""

    axes = "SRA"
    clip_hu: tuple[float, float] = (-1000.0, 1000.0)
    """merlin/data/monai_transforms.py: a_min, a_max."""

    patch_centre = (0.0, 0.0, 0.0)  # padded strided convolutions and max-pool: patch i is on voxel 16 i, 32 i, 32 i
    authors = "baselines.authors.merlin:MerlinAuthors"
    card = EncoderCard(
        name="merlin",
        display_name="Merlin",
        window_size=(160, 224, 224),
        spacing_mm=(3.0, 1.5, 1.5),
        in_plane_size=None,
        in_plane_filter="linear",  # monai_transforms.py: MONAI's bilinear, which averages nothing
        pad_hu=-1000.0,  # SpatialPadd fills with 0, after scaling
        feature_stride=(16, 32, 32),
        feature_dim=2048,
        embedding_dim=2048,
        has_cls=False,
        num_params=117_366_208,
        weights=Weights(
            repository="huggingface.co/stanfordmimi/Merlin",
            file="i3_resnet_clinical_longformer_best_clip_04-02-2024_23-21-36_epoch_99.pt",
            licence="MIT",
        ),
        pretraining_data=("Merlin Abdominal CT Dataset, 15,331 CTs of Stanford", "ImageNet (the initialisation)"),
        reference="Blankemeier et al., Merlin: a computed tomography vision-language foundation model and dataset, "
        "Nature, 2026",
    )

    def build(self) -> nn.Module:
        """Returns the inflated ResNet-152, without its pooling and heads."""
        return I3ResNet()

    def input_sheet(self) -> InputSheet:
        """Returns where its input was read."""
        return InputSheet(
            orientation="authors: merlin/data/monai_transforms.py, RAS, and merlin/models/i3res.py, (z, x, y)",
            grid="authors: merlin/data/monai_transforms.py",
            resizing=Declared("bilinear, in MONAI without averaging", "authors: merlin/data/monai_transforms.py"),
            hu_window=HuWindow(*self.clip_hu, "authors: merlin/data/monai_transforms.py, a_min and a_max"),
            normalisation=Declared(
                "the HU window to 0 to 1, linear; one channel three times", "authors: merlin/data/monai_transforms.py"
            ),
            padding="authors: merlin/data/monai_transforms.py, 0 after scaling",
            window="authors: merlin/data/monai_transforms.py, to which they pad or crop a scan",
            patches="authors: merlin/models/i3res.py, padded convolutions",
            embedding=Declared("mean of the last map", "authors: merlin/models/i3res.py"),
        )

    def _encode(self, windows_hu: torch.Tensor) -> Features:
        low, high = self.clip_hu
        features = self.network(((windows_hu.clamp(low, high) - low) / (high - low)).expand(-1, 3, -1, -1, -1))
        return Features(features, features.float().mean((2, 3, 4)), None)

    def _convert(self, state_dict: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {key.removeprefix(PREFIX): tensor for key, tensor in state_dict.items() if not key.startswith(HEADS)}


class I3ResNet(nn.Module):
    """A ResNet-152 inflated to 3D, under the names of torchvision; `blocks` is the number of each stage's blocks."""

    def __init__(self, blocks: tuple[int, int, int, int] = (3, 8, 36, 3)) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 64, kernel_size=(3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(64, 64, blocks[0], stride=1)
        self.layer2 = _stage(256, 128, blocks[1], stride=2)
        self.layer3 = _stage(512, 256, blocks[2], stride=2)
        self.layer4 = _stage(1024, 512, blocks[3], stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the last map, (B, 2048, z / 16, x / 32, y / 32) of (B, 3, z, x, y)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, width: int, stride: int, *, downsample: bool) -> None:
        super().__init__()
        out = 4 * width
        self.conv1 = nn.Conv3d(channels, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, out, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm3d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv3d(channels, out, kernel_size=1, stride=stride, bias=False), nn.BatchNorm3d(out))
            if downsample
            else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def _stage(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = _Bottleneck(channels, width, stride, downsample=True)
    return nn.Sequential(first, *(_Bottleneck(4 * width, width, 1, downsample=False) for _ in range(blocks - 1)))
