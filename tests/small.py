"""Small encoders and tasks, real in kind, that a test can run in a second."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from torch import nn

from tapct import vit
from tapct.encoders import Encoder, EncoderCard, Features, mean_and_std, registry
from tapct.encoders.tap_ct import TapCT
from tapct.tasks.quickstart import Quickstart
from tapct.volumes import LabelMap, Volume


@contextlib.contextmanager
def known_by_name(name: str, path: str) -> Iterator[None]:
    """Makes an encoder known by a name for a while, next to those installed, as a third-party package would."""
    installed = registry.entry_points
    with pytest.MonkeyPatch.context() as patch:
        point = EntryPoint(name, path, registry.GROUP)
        patch.setattr(registry, "entry_points", lambda group: [*installed(group=group), point])
        yield


def small_card(**changes) -> EncoderCard:
    fields = {
        "name": "small-3d",
        "display_name": "Small 3D",
        "window_size": (8, 64, 64),
        "spacing_mm": None,
        "in_plane_size": 64,
        "pad_hu": -1008.0,
        "feature_stride": (4, 8, 8),
        "feature_dim": 48,
        "embedding_dim": 48,
        "has_cls": True,
        "num_params": 75_648,
    }
    return EncoderCard(**{**fields, **changes})


class Small3D(TapCT):
    """TAP-CT's architecture and preprocessing, two blocks deep."""

    card = small_card()
    size = "s"
    patch_size = (4, 8, 8)
    native_window = (8, 64, 64)

    def build(self) -> nn.Module:
        return vit.VisionTransformer(
            window_size=self.native_window, patch_size=self.patch_size, embed_dim=48, depth=2, num_heads=3
        )


class Drifting(Encoder):
    """An encoder that shows it when it is trained: batch statistics and dropout."""

    card = small_card(
        name="drifting", display_name="Drifting", feature_dim=6, embedding_dim=6, has_cls=False, num_params=1_554
    )

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Conv3d(1, 6, (4, 8, 8), (4, 8, 8)), nn.BatchNorm3d(6), nn.Dropout(0.5))

    def _encode(self, windows_hu):
        features = self.network(windows_hu / 1000)
        return Features(features, features.mean((2, 3, 4)), None)


class CubicMillimetres(Encoder):
    """An encoder that resamples: 4 mm cubes, mean HU of each stride."""

    card = small_card(
        name="cubic",
        display_name="Cubic",
        num_params=0,
        spacing_mm=(4.0, 4.0, 4.0),
        in_plane_size=None,
        window_size=(16, 32, 32),
        feature_stride=(2, 2, 2),
        feature_dim=1,
        embedding_dim=1,
        has_cls=False,
    )

    def build(self) -> nn.Module:
        return nn.AvgPool3d(2)

    def _encode(self, windows_hu):
        features = self.network(windows_hu)
        return Features(features, features.mean((2, 3, 4)), None)


class Standardised(CubicMillimetres):
    """An encoder whose network takes z-scores of whole scans."""

    card = replace(CubicMillimetres.card, name="standardised", display_name="Standardised")

    def scan_statistics(self, scan_hu):
        return mean_and_std(scan_hu)

    def _encode(self, windows_hu, statistics):
        return super()._encode((windows_hu - statistics["mean"]) / statistics["std"].clamp_min(1e-8))


def cropped(volume: Volume, labels: LabelMap | None, where: tuple[slice, slice, slice]):
    """Cuts a block out of a scan (and its labels), keeping its place in the patient."""
    affine = volume.affine.copy()
    affine[:3, 3] = volume.index_to_world(np.array([[s.start or 0 for s in where]]))[0]
    scan = Volume(volume.hu[where].copy(), affine, volume.source)
    if labels is None:
        return scan
    return scan, LabelMap(labels.labels[where].copy(), affine, labels.source)


@cache
def _abdomen() -> tuple[Volume, LabelMap]:
    dataset = Quickstart(Quickstart.shipped_root, "train")
    volume, mask, metadata = dataset[0]
    ct = Volume(np.asarray(volume.as_subclass(torch.Tensor)[:, 0]), metadata["affine"].numpy(), metadata["source"])
    return ct, LabelMap(np.asarray(mask.as_subclass(torch.Tensor)[:, 0]), ct.affine, "organs")


def abdomen(where=(slice(40, 72), slice(None), slice(None))) -> tuple[Volume, LabelMap]:
    """A slab of the quickstart's abdomen with its labels as the task has them."""
    return cropped(*_abdomen(), where)


def small_encoder(cls: type[Encoder] = Small3D) -> Encoder:
    return cls("random")


class Rescaled(Small3D):
    """An encoder whose features are shifted, multiplied and put in another order: nothing is known by it."""

    card = small_card(name="rescaled", display_name="Rescaled")

    def __init__(
        self,
        weights="random",
        factor: float = 1.0,
        by_channel: bool = False,
        shift: float = 0.0,
        permuted: bool = False,
        **options,
    ) -> None:
        super().__init__(weights, **options)
        channels = 10.0 ** torch.linspace(-2, 2, self.card.feature_dim) if by_channel else torch.ones(1)
        self.factor, self.shift = (factor * channels).tolist(), shift
        order = torch.randperm(self.card.feature_dim, generator=torch.Generator().manual_seed(7))
        self.order = (order if permuted else order.sort().values).tolist()

    def _encode(self, windows_hu):
        features, factor = super()._encode(windows_hu), torch.tensor(self.factor)
        feature_map = ((features.map + self.shift) * factor.view(-1, 1, 1, 1))[:, self.order]
        embedding = ((features.embedding + self.shift) * factor)[:, self.order]
        return Features(feature_map, embedding, embedding)
