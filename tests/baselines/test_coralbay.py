"""CoralBay against eva's own class, with MONAI's patch merging of today and that of 1.3 as VoCo's tests slice it."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from eva.vision.models.networks.backbones.radiology.swin_unetr import SwinUNETREncoder
from monai.networks.nets.swin_unetr import PatchMerging as OfMonai
from monai.networks.nets.swin_unetr import PatchMergingV2

from baselines.coralbay import CoralBay
from tapct.encoders import Features
from tapct.errors import EncoderError, WeightsError
from tests.baselines.golden import assert_same, light, on_meta, views
from tests.baselines.test_voco import WIDTHS, channels, with_old_merging

SIZE = (32, 64, 64)
CARD = CoralBay.card


@pytest.fixture(scope="module", params=WIDTHS)
def width(request) -> Iterator[int]:
    """Channels of the first stage, by default a quarter of the published 48."""
    with channels(CoralBay, request.param):
        yield request.param


@pytest.fixture(scope="module")
def eva(width) -> SwinUNETREncoder:
    """eva's class as its registry builds it, every parameter random: norms too."""
    network = SwinUNETREncoder(feature_size=width).eval().requires_grad_(False)
    shapes = {key: tensor.shape for key, tensor in network.named_parameters()}
    state = network.state_dict()
    for key, shape in shapes.items():
        matrix = len(shape) > 1 and not key.endswith("bias_table")
        scale = (3 / shape[1:].numel()) ** 0.5 if matrix else 1.0
        numbers = views({"": shape}, scale=scale)[""] if matrix else torch.empty(shape).uniform_(-0.5, 0.5)
        state[key] = numbers + (1.0 if not matrix and key.endswith("weight") else 0.0)
    network.load_state_dict(state)
    return network


@pytest.fixture(scope="module")
def published(eva) -> dict[str, torch.Tensor]:
    return {f"encoder.{key}": tensor for key, tensor in eva.state_dict().items()}


@pytest.fixture(scope="module")
def file(published, tmp_path_factory):
    path = tmp_path_factory.mktemp("coralbay") / "weights.pt"
    torch.save(published, path)
    return path


def scan() -> torch.Tensor:
    """A scan with a gradient along every axis, far beyond the range on both sides."""
    noise = torch.randn(1, 1, *SIZE, generator=torch.Generator().manual_seed(1)) * 300
    z, y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SIZE), indexing="ij")
    values = noise + 400 * z + 700 * y + 1500 * x
    assert values.min() < -2000 < 2000 < values.max()
    return values


def prepared(hu: torch.Tensor, orientation: str) -> torch.Tensor:
    """HU -1000..1000 to 0..1, (x, y, z) towards right, anterior, superior, or left, posterior, superior."""
    scaled = (np.clip(hu.double().numpy(), -1000.0, 1000.0) + 1000.0) / 2000.0
    turned = scaled.transpose(0, 1, 4, 3, 2)
    return torch.from_numpy((turned[:, :, ::-1, ::-1] if orientation == "RAS" else turned).copy()).float()


def turned_back(features: torch.Tensor, orientation: str) -> torch.Tensor:
    array = features.numpy()
    return torch.from_numpy(
        (array[:, :, ::-1, ::-1] if orientation == "RAS" else array).transpose(0, 1, 4, 3, 2).copy()
    )


READINGS = [(o, m) for o in ("RAS", "LPS") for m in ("monai-1.5", "monai-1.4")]


@pytest.fixture(scope="module")
def readings(file, width) -> dict[tuple[str, str], Features]:
    """All four at full width, else two, in which each orientation and each merging comes once."""
    some = READINGS if width == 48 else READINGS[::3]
    return {(o, m): CoralBay(file, orientation=o, merging=m)(scan()) for o, m in some}


def test_each_reading_is_evas_class_so_fed_and_all_differ(readings, eva, width):
    assert {type(m) for m in eva.modules() if isinstance(m, PatchMergingV2)} == {OfMonai}
    forwards = {m: m.forward for m in eva.modules() if isinstance(m, PatchMergingV2)}
    for (orientation, merging), found in readings.items():
        if merging == "monai-1.4":
            with_old_merging(eva)
        embedding, maps = eva.forward_intermediates(prepared(scan(), orientation))
        for module, forward in forwards.items():
            module.forward = forward
        assert_same(found.map, turned_back(maps[-1], orientation))
        assert_same(found.embedding, embedding)
        assert found.cls is None
    assert readings["RAS", "monai-1.5"].map.shape == (1, 16 * width, 1, 2, 2)
    assert readings["RAS", "monai-1.5"].embedding.shape == (1, 24 * width)
    maps = [found.map for found in readings.values()]
    assert all((one - other).abs().max() > 0.05 for i, one in enumerate(maps) for other in maps[:i])


def test_the_map_of_stride_16_is_the_transformers_with_the_same_embedding(file, eva, readings, width):
    encoder = CoralBay(file, stride=16)
    found = encoder(scan())
    _, maps = eva.forward_intermediates(prepared(scan(), "RAS"))
    assert_same(found.map, turned_back(maps[4], "RAS"))
    assert_same(found.embedding, readings["RAS", "monai-1.5"].embedding)
    assert (encoder.card.feature_dim, encoder.card.feature_stride) == (8 * width, (16, 16, 16))
    assert encoder.feature_centre() == (7.5,) * 3
    with pytest.raises(EncoderError, match="multiple of 32, and one of them more than 32"):
        encoder(scan()[..., :48])


def test_the_encoder_is_what_its_card_says(monkeypatch):
    with channels(CoralBay, 48):
        network = on_meta(CoralBay)
    assert len(network.state_dict()) == 145
    assert CARD.num_params == 53_164_146 == sum(p.numel() for p in network.parameters())
    monkeypatch.setattr(CoralBay, "card", CARD)
    encoder, card = CoralBay("random", deferred=True), CARD
    assert (card.window_size, card.spacing_mm, card.feature_stride) == ((192,) * 3, (1.5,) * 3, (32,) * 3)
    assert (card.feature_dim, card.embedding_dim, card.pad_hu, card.in_plane_filter) == (768, 1152, -1000.0, "linear")
    assert encoder.feature_centre() == (15.5,) * 3
    assert "open" in card.reference
    with pytest.raises(EncoderError, match="more than 32"):
        encoder(scan()[..., :32, :32])


def test_options_are_told_apart_and_unknown_ones_refused():
    encoder = CoralBay("random", deferred=True, orientation="LPS", merging="monai-1.4", stride=16)
    assert encoder.options == {"merging": "monai-1.4", "orientation": "LPS", "stride": 16}
    for name, value in (("orientation", "SAR"), ("merging", "monai-1.3"), ("stride", 8)):
        with pytest.raises(EncoderError, match=f"{name} must be one of"):
            CoralBay("random", deferred=True, **{name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("encoder.encoder10.layer.conv2.conv.weight"), r"1 missing: encoder10.layer.conv2.conv.weight"),
        (lambda s: s.update({"decoder.weight": torch.ones(1)}), "1 unexpected: decoder.weight"),
        (lambda s: s.update({"encoder.encoder5.weight": torch.ones(1)}), "1 unexpected: encoder5.weight"),
    ],
)
def test_loading_is_strict(published, tmp_path, change, message):
    state = light(published)
    change(state)
    torch.save(state, tmp_path / "bad.pt")
    with pytest.raises(WeightsError, match=message):
        CoralBay(tmp_path / "bad.pt")
