"""A scan with features, in a second: random filters on cubes, as the first layer of a network has them."""

import torch
import torch.nn.functional as F
from torch import nn

from tapct.encoders import Encoder, Features
from tapct.features import extract
from tapct.viz.feature_maps import EncodedScan
from tapct.volumes import Volume
from tests.small import small_card


class Filters(Encoder):
    """32 random filters of 4 cubed voxels of 2 mm, and a rectifier."""

    card = small_card(
        name="filters",
        num_params=2_080,
        display_name="Filters",
        spacing_mm=(2.0, 2.0, 2.0),
        in_plane_size=None,
        window_size=(32, 64, 64),
        feature_stride=(4, 4, 4),
        feature_dim=32,
        embedding_dim=32,
        has_cls=False,
    )

    def build(self) -> nn.Module:
        return nn.Conv3d(1, 32, 4, 4)

    def _encode(self, windows_hu):
        features = self.network(windows_hu.clamp(-1000, 1000) / 300).relu()
        return Features(features, features.mean((2, 3, 4)), None)


class Surroundings(Encoder):
    """The mean HU here and in the six directions, near and far: what lies where is told by its neighbourhood.

    Cubes of 8 mm in one window. It changes little when a patient turns a little, as trained features do.
    """

    card = small_card(
        name="surroundings",
        num_params=0,
        display_name="Surroundings",
        spacing_mm=(4.0, 4.0, 4.0),
        in_plane_size=None,
        window_size=(80, 104, 104),
        feature_stride=(2, 2, 2),
        feature_dim=28,
        embedding_dim=28,
        has_cls=False,
    )

    def build(self) -> nn.Module:
        return nn.AvgPool3d(2)

    def _encode(self, windows_hu):
        patches = self.network(windows_hu.clamp(-1000, 1000) / 500 + 1)
        channels = []
        for reach in (1, 2, 4, 8):
            size = 2 * (reach // 2) + 1
            edges = F.pad(patches, (size // 2 + reach,) * 6, mode="replicate")
            means = F.avg_pool3d(edges, size, stride=1)
            middle = [slice(reach, n - reach) for n in means.shape[2:]]
            channels.append(means[(..., *middle)])
            for axis, step in ((axis, step) for axis in range(3) for step in (-reach, reach)):
                where = [*middle]
                where[axis] = slice(reach + step, means.shape[2 + axis] - reach + step)
                channels.append(means[(..., *where)])
        features = torch.cat(channels, dim=1)
        return Features(features, features.mean((2, 3, 4)), None)


def encoded(ct: Volume, encoder: Encoder | None = None) -> EncodedScan:
    return EncodedScan(ct, extract(encoder or Filters("random"), torch.from_numpy(ct.hu), ct.grid))
