import math

import numpy as np
import pytest
import torch

from baselines.voxelfm import VoxelFM, VoxelFMViT, _rotated
from tapct.errors import EncoderError, WeightsError
from tests.baselines.golden import light, on_meta

DIM, HEADS, PATCH, SPECIAL = 864, 12, 14, 5  # the class token and four registers
PERIODS = np.array([100 ** (2 * j / 24) for j in range(12)])
BUILD = VoxelFM.build


def random_state(depth=12, seed=0) -> dict[str, torch.Tensor]:
    """Weights of the published names and shapes, none of them trivial; the periods are the formula's."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape, std=0.02, mean=0.0):
        return torch.empty(shape).normal_(mean, std, generator=g)

    state = {
        "cls_token": normal(1, 1, DIM, std=0.5),
        "register_tokens": normal(1, 4, DIM, std=0.5),
        "mask_token": normal(1, DIM),
        "patch_embed.proj.weight": normal(DIM, 1, PATCH, PATCH, PATCH),
        "patch_embed.proj.bias": normal(DIM),
        "rope_embed.periods": torch.from_numpy(PERIODS).float(),
        "norm.weight": normal(DIM, std=0.2, mean=1),
        "norm.bias": normal(DIM, std=0.2),
    }
    for i in range(depth):
        for name, out, channels in (
            ("attn.qkv", 3 * DIM, DIM),
            ("attn.proj", DIM, DIM),
            ("mlp.fc1", 4 * DIM, DIM),
            ("mlp.fc2", DIM, 4 * DIM),
        ):
            state[f"blocks.{i}.{name}.weight"] = normal(out, channels, std=0.05)
            state[f"blocks.{i}.{name}.bias"] = normal(out, std=0.05)
        for name in ("norm1", "norm2"):
            state[f"blocks.{i}.{name}.weight"] = normal(DIM, std=0.2, mean=1)
            state[f"blocks.{i}.{name}.bias"] = normal(DIM, std=0.2)
        for name in ("ls1", "ls2"):
            state[f"blocks.{i}.{name}.gamma"] = normal(DIM, std=0.1, mean=0.3)
    return state


def recomputed(state, x, depth=12, periods=PERIODS) -> tuple[np.ndarray, np.ndarray]:
    """Class token and map of normalised windows (B, D, H, W), from the formulas, in float64 with numpy."""
    w = {key: value.double().numpy() for key, value in state.items()}
    batch, grid = x.shape[0], tuple(n // PATCH for n in x.shape[1:])
    patches = x.double().numpy().reshape(batch, grid[0], PATCH, grid[1], PATCH, grid[2], PATCH)
    patches = np.einsum("bdphqwr,cpqr->bdhwc", patches, w["patch_embed.proj.weight"][:, 0]) + w["patch_embed.proj.bias"]
    special = np.concatenate([w["cls_token"], w["register_tokens"]], axis=1).repeat(batch, axis=0)
    tokens = np.concatenate([special, patches.reshape(batch, -1, DIM)], axis=1)

    def layer_norm(y, name):
        centred = y - y.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(y, name):
        return y @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def rotated(y):  # (B, heads, T, 72)
        y = y.copy()
        for token, place in enumerate(np.ndindex(grid), start=SPECIAL):
            for axis in range(3):
                coordinate = 2 * (place[axis] + 0.5) / grid[axis] - 1
                for j in range(12):
                    angle = 2 * math.pi * coordinate / periods[j]
                    at = 24 * axis + 2 * j
                    a, b = y[:, :, token, at].copy(), y[:, :, token, at + 1].copy()
                    y[:, :, token, at] = a * math.cos(angle) - b * math.sin(angle)
                    y[:, :, token, at + 1] = a * math.sin(angle) + b * math.cos(angle)
        return y

    erf = np.vectorize(math.erf)
    for i in range(depth):
        at = f"blocks.{i}"
        qkv = linear(layer_norm(tokens, f"{at}.norm1"), f"{at}.attn.qkv")
        q, k, v = qkv.reshape(batch, -1, 3, HEADS, DIM // HEADS).transpose(2, 0, 3, 1, 4)
        scores = np.einsum("bhqc,bhkc->bhqk", rotated(q), rotated(k)) / math.sqrt(DIM / HEADS)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("bhqk,bhkc->bqhc", weights, v).reshape(batch, -1, DIM)
        tokens = tokens + linear(mixed, f"{at}.attn.proj") * w[f"{at}.ls1.gamma"]
        hidden = linear(layer_norm(tokens, f"{at}.norm2"), f"{at}.mlp.fc1")
        hidden = hidden * (1 + erf(hidden / math.sqrt(2))) / 2
        tokens = tokens + linear(hidden, f"{at}.mlp.fc2") * w[f"{at}.ls2.gamma"]
    tokens = layer_norm(tokens, "norm")
    return tokens[:, 0], tokens[:, SPECIAL:].reshape(batch, *grid, DIM).transpose(0, 4, 1, 2, 3)


def normalised(x):
    return (x[:, 0].double().clamp(-1000, 1900) + 573.8) / 461.3


def windows(*shape, seed=0) -> torch.Tensor:
    """HU that go beyond the range of clipping."""
    return torch.empty(shape).uniform_(-1500, 2400, generator=torch.Generator().manual_seed(seed))


def published(state, prefix="module.backbone."):
    """The layout of the published checkpoint: a training state, its teacher with the heads of pretraining."""
    return {
        "iteration": 99999,
        "teacher": {
            **{f"{prefix}{key}": value for key, value in state.items()},
            "module.dino_head.mlp.0.weight": torch.zeros(4, 4),
            "ibot_head.last_layer.weight": torch.zeros(4, 4),
        },
    }


def placeholders(state):
    """Other numbers of the same names and shapes in a small file, and the periods."""
    return light(state) | {"rope_embed.periods": state["rope_embed.periods"]}


@pytest.fixture(scope="module", params=[2, pytest.param(12, marks=pytest.mark.thorough)])
def depth(request):
    """Lets the adapter build fewer blocks than the published twelve, which are of one kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VoxelFM, "build", lambda self: VoxelFMViT(depth=request.param))
        yield request.param


@pytest.fixture(scope="module")
def state(depth):
    return random_state(depth)


@pytest.fixture(scope="module")
def encoder(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("voxelfm") / VoxelFM.card.weights.file
    path.parent.mkdir(parents=True)
    torch.save(published(state), path)
    encoder = VoxelFM(path.parents[2])  # a folder of the hub repository's layout
    path.unlink()
    return encoder


@pytest.fixture
def shallow(monkeypatch):
    """Lets the adapter build one block, where a test is not of the network."""
    monkeypatch.setattr(VoxelFM, "build", lambda self: VoxelFMViT(depth=1))
    return random_state(depth=1)


def assert_near(actual, expected, tolerance):
    assert actual.shape == expected.shape
    assert np.abs(actual.double().numpy() - expected).max() < tolerance * np.abs(expected).max()


def test_the_network_is_what_its_card_says(monkeypatch):
    monkeypatch.setattr(VoxelFM, "build", BUILD)
    card, network = VoxelFM.card, on_meta(VoxelFM)
    assert sum(p.numel() for p in network.parameters()) == card.num_params == 110_029_536
    assert {name: b.numel() for name, b in network.named_buffers()} == {"rope_embed.periods": 12}
    assert len(network.state_dict()) == len(random_state(depth=0)) + 12 * 14
    assert (card.window_size, card.spacing_mm, card.pad_hu) == ((112, 112, 112), (1.0, 1.0, 1.0), -1000.0)


@pytest.mark.parametrize("grid", [(1, 2, 3), pytest.param((3, 2, 1), marks=pytest.mark.thorough)])
def test_the_network_equals_its_formulas_in_double_precision(grid):
    state = {key: value.double() for key, value in random_state(depth=2, seed=1).items()}
    state["rope_embed.periods"] = torch.from_numpy(PERIODS)
    network = VoxelFMViT(depth=2).double()
    network.load_state_dict(state)
    x = torch.randn(2, *(PATCH * n for n in grid), dtype=torch.float64)
    with torch.no_grad():
        cls, features = network(x[:, None])
    for actual, expected in zip((cls, features), recomputed(state, x, depth=2), strict=True):
        assert_near(actual, expected, 1e-10)


def test_a_small_variance_shows_the_epsilon_of_the_norms():
    # 1e-5, where DINOv2 has 1e-6: seen where the tokens hardly vary.
    state = {key: value.double() for key, value in random_state(depth=0).items()}
    state["cls_token"] *= 0.002
    network = VoxelFMViT(depth=0).double()
    network.load_state_dict(state)
    x = torch.randn(1, PATCH, PATCH, PATCH, dtype=torch.float64)
    with torch.no_grad():
        assert_near(network(x[:, None])[0], recomputed(state, x, depth=0)[0], 1e-10)


def test_features_are_those_of_the_formulas(encoder, state, depth):
    x = windows(2, 1, 28, 42, 56)
    features = encoder(x)
    cls, expected = recomputed(state, normalised(x), depth)
    assert features.map.shape == (2, 864, 2, 3, 4)
    assert_near(features.map, expected, 1e-4)
    assert_near(features.embedding, cls, 1e-4)
    assert torch.equal(features.cls, features.embedding)


def test_features_of_a_flipped_scan_are_those_of_the_formulas(encoder, state, depth):
    x = windows(1, 1, 28, 42, 28)
    for axis in (2, 3, 4):
        flipped = encoder(x.flip(axis)).map
        assert (flipped.flip(axis) - encoder(x).map).abs().max() > 0.01 * flipped.abs().max()
    _, expected = recomputed(state, normalised(x.flip(2, 4)), depth)
    assert_near(encoder(x.flip(2, 4)).map, expected, 1e-4)


def test_hu_are_clipped_to_the_range_of_pretraining(encoder):
    # Not to the 1000 HU of upstream's DICOM reader.
    x = windows(1, 1, 14, 14, 28)
    features = encoder(x).map
    assert torch.equal(features, encoder(x.clamp(-1000, 1900)).map)
    assert not torch.equal(features, encoder(x.clamp(-1000, 1000)).map)


def test_the_class_token_and_registers_are_not_rotated():
    tokens = torch.randn(1, HEADS, SPECIAL + 6, DIM // HEADS)
    turned = _rotated(tokens, *VoxelFMViT(depth=0).rope_embed(torch.Size((1, 2, 3))))
    assert torch.equal(turned[:, :, :SPECIAL], tokens[:, :, :SPECIAL])
    assert (turned[:, :, SPECIAL:] != tokens[:, :, SPECIAL:]).any(-1).all()


@pytest.mark.parametrize("size", [(16, 28, 28), (28, 42, 50), (7, 14, 14)])
def test_a_window_that_is_no_multiple_of_the_patch_is_refused(encoder, size):
    with pytest.raises(EncoderError, match="multiple of its stride"):
        encoder(windows(1, 1, *size))


@pytest.mark.parametrize("prefix", ["module.backbone.", "backbone.", "module.", ""])
def test_the_prefixes_are_stripped_and_the_heads_dropped(prefix, shallow, tmp_path):
    torch.save(published(shallow, prefix), tmp_path / "99999.pth")
    loaded = VoxelFM(tmp_path / "99999.pth").network.state_dict()
    assert set(loaded) == set(shallow)
    assert all(torch.equal(loaded[key], value) for key, value in shallow.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("module.backbone.blocks.0.ls2.gamma"), r"1 missing: blocks\.0\.ls2\.gamma"),
        (lambda s: s.pop("module.backbone.rope_embed.periods"), r"1 missing: rope_embed\.periods"),
        (lambda s: s.update({"module.backbone.pos_embed": torch.zeros(1)}), "1 unexpected: pos_embed"),
        (lambda s: s.update({"module.segmentation_head.weight": torch.zeros(1)}), "1 unexpected: segmentation_head"),
        (lambda s: s.update({"module.backbone.cls_token": torch.zeros(1, 1, 768)}), "1 of another shape: cls_token"),
    ],
)
def test_loading_is_strict_beside_the_heads(change, message, shallow, tmp_path):
    file = published(placeholders(shallow))
    change(file["teacher"])
    torch.save(file, tmp_path / "voxelfm.pth")
    with pytest.raises(WeightsError, match=message):
        VoxelFM(tmp_path / "voxelfm.pth")


def test_a_file_with_other_periods_is_refused(shallow, tmp_path):
    other = torch.tensor([10_000 ** (2 * j / 24) for j in range(12)])
    torch.save(published(placeholders(shallow) | {"rope_embed.periods": other}), tmp_path / "voxelfm.pth")
    with pytest.raises(WeightsError, match=r"rope_embed\.periods is \[1\.0, 2\.15.* in the file"):
        VoxelFM(tmp_path / "voxelfm.pth")


def test_periods_that_were_rounded_are_read_from_the_file(shallow, tmp_path):
    # Upstream loads the buffer into its network, so that a rounded one is what its features come from.
    rounded = shallow["rope_embed.periods"].to(torch.bfloat16)
    torch.save(published(shallow | {"rope_embed.periods": rounded}), tmp_path / "voxelfm.pth")
    encoder = VoxelFM(tmp_path / "voxelfm.pth")
    x = windows(1, 1, 14, 28, 42)
    _, expected = recomputed(shallow, normalised(x), depth=1, periods=rounded.double().numpy())
    assert_near(encoder(x).map, expected, 1e-5)


def test_bf16_is_near_float32(shallow):
    x = windows(1, 1, 28, 28, 28)
    plain, bf16 = VoxelFM("random"), VoxelFM("random", precision="bf16")
    assert 0 < (plain(x).map - bf16(x).map).abs().max() < 0.05 * plain(x).map.abs().max()
