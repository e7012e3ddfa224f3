"""FMCiB against a recomputation in double precision, from the names and shapes of the published file."""

import dataclasses
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets import resnet

from baselines.fmcib import FMCIB
from tapct.errors import EncoderError, WeightsError
from tests.baselines.golden import assert_close, light, on_meta, uninitialised

BLOCKS = (3, 4, 6, 3)
CARD, INPLANES = FMCIB.card, resnet.get_inplanes


def published_shapes(first: int = 128) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the trunk in `model_weights.torch`: a bottleneck ResNet-50 of double width, 128 at first."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (first, 1, 7, 7, 7)}

    def norm(name, width):
        shapes.update({f"{name}.{k}": (width,) for k in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    norm("bn1", first)
    inputs = first
    for level, blocks in enumerate(BLOCKS):
        width = first * 2**level
        for block in range(blocks):
            at = f"layer{level + 1}.{block}"
            sizes = [(width, inputs, 1), (width, width, 3), (4 * width, width, 1)]
            for i, (out, into, kernel) in enumerate(sizes, start=1):
                shapes[f"{at}.conv{i}.weight"] = (out, into, kernel, kernel, kernel)
                norm(f"{at}.bn{i}", out)
            if block == 0:
                shapes[f"{at}.downsample.0.weight"] = (4 * width, inputs, 1, 1, 1)
                shapes[f"{at}.downsample.0.bias"] = (4 * width,)
                norm(f"{at}.downsample.1", 4 * width)
            inputs = 4 * width
    return shapes


def random_state(first: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = published_shapes(first)
    state = {}
    for name, shape in shapes.items():
        is_norm = name.rsplit(".", 1)[0] + ".running_var" in shapes
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(17_900)
        elif name.endswith("running_var") or (is_norm and name.endswith("weight")):
            state[name] = torch.empty(shape).uniform_(0.5, 1.5, generator=generator)
        else:
            scale = (3 / (np.prod(shape[1:]) if len(shape) > 1 else 12)) ** 0.5
            state[name] = torch.empty(shape).uniform_(-scale, scale, generator=generator)
    return state


def reference(state: dict[str, torch.Tensor], hu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The authors' pipeline on arrays (z, y, x): the last map and its mean, in double precision."""
    x = torch.from_numpy((hu.astype(np.float64) + 1024) / 3072)[:, None]

    def conv(x, name, stride=1, padding=0):
        bias = state.get(f"{name}.bias")
        weight = state[f"{name}.weight"].double()
        return F.conv3d(x, weight, None if bias is None else bias.double(), stride=stride, padding=padding)

    def norm(x, name):
        weight, bias, mean, var = (
            state[f"{name}.{k}"].double()[:, None, None, None]
            for k in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    x = norm(conv(x, "conv1", stride=2, padding=3), "bn1").clamp_min(0)
    x = F.max_pool3d(x, 3, stride=2, padding=1)
    for level, blocks in enumerate(BLOCKS):
        for block in range(blocks):
            at, stride = f"layer{level + 1}.{block}", 2 if level > 0 and block == 0 else 1
            y = norm(conv(x, f"{at}.conv1"), f"{at}.bn1").clamp_min(0)
            y = norm(conv(y, f"{at}.conv2", stride=stride, padding=1), f"{at}.bn2").clamp_min(0)
            y = norm(conv(y, f"{at}.conv3"), f"{at}.bn3")
            if block == 0:
                x = norm(conv(x, f"{at}.downsample.0", stride=stride), f"{at}.downsample.1")
            x = (x + y).clamp_min(0)
    return x.numpy(), x.mean((2, 3, 4)).numpy()


def as_upstream_sees_it(spl: np.ndarray) -> np.ndarray:
    """A scan stored as NIfTI in (x, y, z) RAS, brought to LPS by nibabel and transposed, as upstream does."""
    image = nibabel.Nifti1Image(np.ascontiguousarray(spl[:, ::-1, ::-1].transpose(2, 1, 0)), np.eye(4))
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt("LPS")
    )
    return np.asarray(image.as_reoriented(turn).dataobj).transpose(2, 1, 0).copy()


def scan(*shape: int, seed: int = 1) -> np.ndarray:
    """HU far beyond the 0..1 that (HU + 1024) / 3072 has between air and bone."""
    return np.random.default_rng(seed).uniform(-3024, 4000, shape).astype(np.float32)


Uninitialised = uninitialised(FMCIB)


@pytest.fixture(scope="module", params=[16, pytest.param(128, marks=pytest.mark.thorough)])
def first(request):
    """Channels of the first convolution, by default an eighth of the published 128; the others are multiples."""
    of_card = dataclasses.replace(CARD, feature_dim=32 * request.param, embedding_dim=32 * request.param)
    with pytest.MonkeyPatch.context() as patch:
        inplanes = [request.param // 2 * 2**level for level in range(4)]
        patch.setattr("monai.networks.nets.resnet.get_inplanes", lambda: inplanes)  # widened by the factor
        patch.setattr(FMCIB, "card", of_card)
        yield request.param


@pytest.fixture(scope="module")
def state(first):
    return random_state(first)


@pytest.fixture(scope="module")
def encoder(state):
    with tempfile.TemporaryDirectory() as folder:  # removed at once, since it is large
        torch.save({"trunk_state_dict": state}, Path(folder) / "model_weights.torch")
        return Uninitialised(folder)


def test_map_and_embedding_are_those_of_the_authors_pipeline(encoder, state, first):
    window = scan(64, 32, 32)
    both = np.stack([window, window[::-1, ::-1, ::-1]])  # flipped too, so that no turn can hide
    features = encoder(torch.from_numpy(both)[:, None])
    expected, pooled = reference(state, np.stack([as_upstream_sees_it(w) for w in both]))
    assert expected.shape == (2, 32 * first, 2, 1, 1)
    assert_close(features.map, expected)
    assert_close(features.embedding, pooled)
    assert features.cls is None


def test_the_network_is_the_published_one(monkeypatch):
    monkeypatch.setattr("monai.networks.nets.resnet.get_inplanes", INPLANES)
    network = on_meta(FMCIB)
    assert CARD.num_params == sum(p.numel() for p in network.parameters()) == 184_477_824
    assert (CARD.feature_dim, CARD.embedding_dim) == (4096, 4096)
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == published_shapes()


def test_the_card_tells_the_truth(encoder, first):
    card = encoder.card
    assert (card.window_size, card.feature_stride) == ((64, 64, 64), (32, 32, 32))
    assert (card.spacing_mm, card.in_plane_size) == ((1.0, 1.0, 1.0), None)
    features = encoder(torch.from_numpy(scan(1, 1, *card.window_size)))
    assert features.map.shape == (1, card.feature_dim, 2, 2, 2)
    assert features.embedding.shape == (1, card.embedding_dim) == (1, 32 * first)
    assert not card.has_cls


def test_the_authors_crop_of_50_gives_the_grid_of_64(encoder, first):
    assert encoder(torch.from_numpy(scan(1, 1, 50, 50, 50))).map.shape == (1, 32 * first, 2, 2, 2)
    for size in ((50, 50, 48), (50, 64, 64), (33, 33, 33)):
        assert not encoder.supports(size)
    with pytest.raises(EncoderError, match="multiple of its stride"):
        encoder(torch.from_numpy(scan(1, 1, 48, 48, 48)))


def test_hu_are_not_clipped(encoder):
    window = torch.from_numpy(scan(1, 1, 32, 32, 32))
    before = window.clone()
    features = encoder(window)
    assert torch.equal(window, before)
    assert (encoder(window.clamp(min=-1024)).map - features.map).abs().max() > 1e-3
    assert (encoder(window.clamp(max=2048)).map - features.map).abs().max() > 1e-3


def test_padding_is_the_zero_of_upstreams_pipeline(encoder):
    """Upstream pads with zeros after scaling: the card's HU must become exactly that."""
    padding = torch.full((1, 1, 32, 32, 32), encoder.card.pad_hu)
    with torch.no_grad():
        assert torch.equal(encoder(padding).map, encoder.network(torch.zeros_like(padding)))


@pytest.mark.parametrize(
    "layout",
    [
        lambda s: {"trunk_state_dict": s, "head_state_dict": {"0.weight": torch.zeros(2, 4096)}},
        lambda s: {"state_dict": {f"model.trunk.{k}": v for k, v in s.items()} | {"model.heads.0.bias": torch.ones(2)}},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {"state_dict": {f"module.model.trunk.{k}": v for k, v in s.items()}},
    ],
    ids=["trunk_state_dict", "model.trunk", "module", "module.model.trunk"],
)
def test_every_published_layout_loads_the_same_weights(state, layout, tmp_path):
    """Upstream's own loader leaves random weights where `module.` precedes the names."""
    state = light(state)
    path = tmp_path / "model_weights.torch"
    torch.save(layout(state), path)
    loaded = Uninitialised(path).network.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[k], v) for k, v in state.items())


def refusal(tmp_path, state) -> str:
    path = tmp_path / "model_weights.torch"
    torch.save({"trunk_state_dict": light(state)}, path)
    with pytest.raises(WeightsError) as error:
        Uninitialised(path)
    return str(error.value)


def test_missing_and_unexpected_keys_are_refused(state, tmp_path):
    missing = {k: v for k, v in state.items() if k != "layer4.2.bn3.running_var"}
    assert "1 missing: layer4.2.bn3.running_var" in refusal(tmp_path, missing)
    classifier = state | {"fc.weight": torch.zeros(400, 4096)}
    assert "1 unexpected: fc.weight" in refusal(tmp_path, classifier)
    assert "1 unexpected: heads.0.bias" in refusal(tmp_path, state | {"heads.0.bias": torch.zeros(2)})


def test_a_trunk_without_bias_in_the_shortcuts_is_refused(state, tmp_path):
    bare = {k: v for k, v in state.items() if not k.endswith("downsample.0.bias")}
    assert "4 missing: layer1.0.downsample.0.bias" in refusal(tmp_path, bare)


def test_norms_use_the_statistics_of_training(encoder):
    window = torch.from_numpy(scan(1, 1, 32, 32, 32))
    alone = encoder(window).map
    beside = encoder(torch.cat([window, window / 3, torch.full_like(window, -1000)])).map
    torch.testing.assert_close(beside[:1], alone, rtol=1e-5, atol=1e-4)
