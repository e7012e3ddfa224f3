"""VISTA3D against an independent re-computation of its encoder from the tensors of its checkpoint.

The names of the published files come from MONAI's own `vista3d132`, which the published bundle builds; the numbers
come from plain convolutions and instance norms.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from monai.networks.nets.segresnet_ds import SegResEncoder
from monai.networks.nets.vista3d import vista3d132
from torch.nn import functional as F

from baselines.vista3d import Vista3D
from tapct.encoders import Features
from tapct.errors import EncoderError, WeightsError
from tests.baselines.golden import assert_same, on_meta, views

PREFIX = "image_encoder.encoder."
SIZE = (32, 48, 16)  # patches (2, 3, 1)


CARD = Vista3D.card


@pytest.fixture(scope="module", params=[12, pytest.param(48, marks=pytest.mark.thorough)])
def width(request) -> Iterator[int]:
    """Channels of the first convolution, by default a quarter of the published 48; the others are multiples."""

    def narrow(*, init_filters: int, **options: object) -> SegResEncoder:
        assert init_filters == 48
        return SegResEncoder(init_filters=request.param, **options)

    of_card = dataclasses.replace(CARD, feature_dim=16 * request.param, embedding_dim=16 * request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("monai.networks.nets.segresnet_ds.SegResEncoder", narrow)
        patch.setattr(Vista3D, "card", of_card)
        yield request.param


def layout(width: int = 48) -> dict[str, torch.Size]:
    """Names and shapes of `model_vista3d.pt` (MONAI 1.4)."""
    with torch.device("meta"):
        whole = vista3d132(encoder_embed_dim=48, in_channels=1).state_dict()
        encoder = SegResEncoder(init_filters=width, blocks_down=(1, 2, 2, 4, 4), norm="instance").state_dict()
    assert {f"{PREFIX}{key}" for key in encoder} == {key for key in whole if key.startswith(PREFIX)}
    return {key: value.shape for key, value in (whole | {f"{PREFIX}{k}": v for k, v in encoder.items()}).items()}


def layout_of_monai_13(width: int = 48) -> dict[str, torch.Size]:
    """Names of `model_monai1.3.pt`: another point head, and a mapper that MONAI 1.4's model has not."""
    renamed = {
        key.replace(".mlp.linear1.", ".mlp.lin1.").replace(".mlp.linear2.", ".mlp.lin2."): shape
        for key, shape in layout(width).items()
    }
    return renamed | {"weight_mapper.0.weight": torch.Size((192, 48)), "weight_mapper.0.bias": torch.Size((192,))}


@pytest.fixture(scope="module")
def weights(width) -> dict[str, torch.Tensor]:
    """The encoder's tensors, every one of them random, norms too.

    Kernels of one length of row are views of the same numbers, so that 700 MB fit a smaller file.
    """
    shapes = {key: shape for key, shape in layout(width).items() if key.startswith(PREFIX)}
    kernels = {key: shape for key, shape in shapes.items() if len(shape) == 5}
    tensors = {
        key: numbers + (1.0 if key.endswith("weight") else 0.0)
        for key, numbers in views({key: shapes[key] for key in shapes if key not in kernels}, scale=0.5).items()
    }
    for row in sorted({shape[1:].numel() for shape in kernels.values()}):
        of_row = {key: shape for key, shape in kernels.items() if shape[1:].numel() == row}
        tensors |= views(of_row, scale=(3 / row) ** 0.5)
    return tensors


@pytest.fixture(scope="module")
def encoder(weights, width, tmp_path_factory) -> Vista3D:
    path = tmp_path_factory.mktemp("vista3d") / "model_monai1.3.pt"
    return Vista3D(saved(path, views(layout_of_monai_13(width)) | weights))


def upstream(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The SegResNet encoder: residual blocks of pre-activated convolutions, strided convolutions between levels."""

    def norm_relu(x, key):
        # Written out, so that no norm layer of torch or MONAI is taken on trust.
        centred = x - x.mean((2, 3, 4), keepdim=True)
        x = centred / (centred.square().mean((2, 3, 4), keepdim=True) + 1e-5).sqrt()
        scale, shift = (weights[f"{PREFIX}{key}.{part}"].view(1, -1, 1, 1, 1) for part in ("weight", "bias"))
        return F.relu(x * scale + shift)

    def convolved(x, key, stride=1):
        return F.conv3d(x, weights[f"{PREFIX}{key}.weight"], stride=stride, padding=1)

    x = convolved(x, "conv_init")
    for level, blocks in enumerate((1, 2, 2, 4, 4)):
        if level:
            x = convolved(x, f"layers.{level - 1}.downsample", stride=2)
        for block in range(blocks):
            key = f"layers.{level}.blocks.{block}"
            inner = convolved(norm_relu(x, f"{key}.norm1"), f"{key}.conv1")
            x = x + convolved(norm_relu(inner, f"{key}.norm2"), f"{key}.conv2")
    return x


def by_hand(weights, scan: torch.Tensor) -> torch.Tensor:
    """The map of scans (B, 1, z, y, x): HU to 0..1, (x, y, z) towards right, anterior, superior, and back."""
    low, high = -963.8247715525971, 1053.678477684517
    scaled = (np.clip(scan.double().numpy(), low, high) - low) / (high - low)
    ras = scaled.transpose(0, 1, 4, 3, 2)[:, :, ::-1, ::-1]
    with torch.no_grad():
        features = upstream(weights, torch.from_numpy(ras.copy()).float())
    return torch.from_numpy(features.numpy()[:, :, ::-1, ::-1].transpose(0, 1, 4, 3, 2).copy())


def scans() -> torch.Tensor:
    """A scan with a gradient along every axis and beyond the range on both sides, and the same the other way round."""
    noise = torch.randn(1, 1, *SIZE, generator=torch.Generator().manual_seed(1)) * 200
    z, y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SIZE), indexing="ij")
    scan = noise + 300 * z + 600 * y + 900 * x
    return torch.cat([scan, scan.flip(2, 3, 4)])


def saved(path, tensors):
    torch.save(tensors, path)
    return path


@pytest.fixture(scope="module")
def features(encoder) -> Features:
    return encoder(scans())


def test_features_are_upstreams_whichever_way_the_scan_lies(features, weights, width):
    expected = by_hand(weights, scans())
    assert_same(features.map, expected)
    assert_same(features.embedding, torch.from_numpy(expected.numpy().mean((2, 3, 4))))
    assert features.map.shape == (2, 16 * width, 2, 3, 1)
    assert features.cls is None
    # A network that could not tell the two scans apart would prove nothing.
    assert (expected[1].flip(1, 2, 3) - expected[0]).abs().max() > 0.1


def test_features_do_not_depend_on_the_batch(encoder, features):
    # With a batch norm, MONAI's default for this class, they would, or there would be running statistics.
    assert_same(features.map[1:], encoder(scans()[1:]).map)
    assert not list(encoder.network.buffers())


def test_the_network_is_the_published_one(monkeypatch):
    monkeypatch.setattr("monai.networks.nets.segresnet_ds.SegResEncoder", SegResEncoder)
    network = on_meta(Vista3D)
    assert CARD.num_params == 174_951_120 == sum(p.numel() for p in network.parameters())
    found = {f"{PREFIX}{key}": value.shape for key, value in network.state_dict().items()}
    with torch.device("meta"):
        published = vista3d132(encoder_embed_dim=48, in_channels=1).state_dict()
    assert found == {key: value.shape for key, value in published.items() if key.startswith(PREFIX)}


def test_the_encoder_is_what_its_card_says(encoder):
    card = CARD
    assert (card.window_size, card.spacing_mm, card.feature_stride) == ((128,) * 3, (1.5,) * 3, (16,) * 3)
    assert card.pad_hu == -963.8247715525971  # what upstream scales to the 0 that it pads with
    assert card.feature_dim == card.embedding_dim == 768
    assert "Noncommercial" in card.weights.licence
    assert "Open Model" in card.weights.licence
    with pytest.raises(EncoderError, match="multiple of"):  # the bare encoder would take it
        encoder(scans()[:, :, :24])


def test_a_patch_lies_where_the_adapter_says():
    """The same strides, narrow, with convolutions that only pass their centre on, fed with each voxel's z, y and x."""

    class Narrow(Vista3D):
        card = dataclasses.replace(Vista3D.card, feature_dim=16, embedding_dim=16)

        def build(self):
            return SegResEncoder(init_filters=1, blocks_down=(1, 2, 2, 4, 4), norm="instance")

    encoder = Narrow("random")
    for key, tensor in encoder.network.named_parameters():
        tensor.zero_()
        if key == "conv_init.weight" or "downsample" in key:
            tensor[0, 0, 1, 1, 1] = 1
    indices = torch.stack(torch.meshgrid(*[torch.arange(32.0)] * 3, indexing="ij"))[:, None]
    low, high = -963.8247715525971, 1053.678477684517
    found = (encoder(indices).map[:, 0] * (high - low) + low).double().round(decimals=1)
    assert found[0, :, 0, 0].tolist() == [0, 16]  # towards S, as in the network
    assert found[1, 0, :, 0].tolist() == found[2, 0, 0, :].tolist() == [15, 31]  # towards P and L, which it turns
    assert encoder.feature_centre() == (0, 15, 15)


@pytest.mark.parametrize("published", [layout, layout_of_monai_13], ids=["monai1.4", "monai1.3"])
def test_both_published_layouts_load(encoder, weights, width, published):
    shapes = published(width)
    assert len(shapes) > len(weights) == len(encoder.network.state_dict())
    converted = encoder._convert(views(shapes))
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in encoder.network.state_dict().items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop(f"{PREFIX}layers.2.blocks.1.norm2.bias"), "1 missing: layers.2.blocks.1.norm2.bias"),
        (lambda f: f.update({f"{PREFIX}layers.0.blocks.0.norm1.running_mean": torch.ones(48)}), "1 unexpected: layers"),
        (lambda f: f.update({f"{PREFIX}head.weight": torch.ones(2)}), "1 unexpected: head.weight"),
        (lambda f: f.update({f"{PREFIX}conv_init.weight": torch.ones(32, 1, 3, 3, 3)}), "1 of another shape"),
        (lambda f: [f.update({f"module.{k}": f.pop(k)}) for k in list(f)], "missing: conv_init.weight"),
    ],
)
def test_loading_is_strict_inside_the_encoder(tmp_path, width, change, message):
    tensors = views(layout(width))
    change(tensors)
    path = saved(tmp_path / "model_vista3d.pt", tensors)
    # On the meta device a network costs nothing to build; it is refused before a number is copied.
    with torch.device("meta"), pytest.raises(WeightsError, match=message):
        Vista3D(path)
