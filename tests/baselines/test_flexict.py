"""FlexiCT-3D against its formulas in double precision, the rotation rounded to bfloat16 as its authors' code does."""

import numpy as np
import pytest
import torch

from baselines.flexict import FlexiCT3D, FlexiViT
from tapct.errors import EncoderError, WeightsError
from tapct.features import extract
from tapct.volumes import Grid
from tests.baselines.rotary import Kind, assert_near, bfloat16, exact, random_state, recomputed, windows

DIM, SPECIAL = 864, 5  # the class token and four storage tokens
KIND = Kind(heads=12, special=SPECIAL, eps=1e-6, rounded=bfloat16)
NAMES = {"patch": "patch_embed_3D.proj", "periods": "rope_embed_3D.periods"}
# As the authors' constructor has them at e120a9b, computed in bfloat16.
PERIODS_3D = (1.0, 1.2890625, 1.671875, 2.15625, 2.78125, 3.59375, 4.65625, 6.0, 7.78125, 10.0, 12.875, 16.5)
PERIODS_2D = (*PERIODS_3D, 21.625, 27.875, 35.75, 46.25, 60.5, 77.5)


def published_shapes(depth=16) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the file's backbone without the periods, in its order."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, DIM),
        "storage_tokens": (1, 4, DIM),
        "mask_token": (1, DIM),
        "patch_embed_2D.proj.weight": (DIM, 1, 8, 8),
        "patch_embed_2D.proj.bias": (DIM,),
        "patch_embed_3D.proj.weight": (DIM, 1, 8, 8, 8),
        "patch_embed_3D.proj.bias": (DIM,),
    }
    for i in range(depth):
        at = f"blocks.{i}"
        shapes |= {f"{at}.norm1.weight": (DIM,), f"{at}.norm1.bias": (DIM,)}
        shapes |= {f"{at}.attn.qkv.weight": (3 * DIM, DIM)}  # no bias
        shapes |= {f"{at}.attn.proj.weight": (DIM, DIM), f"{at}.attn.proj.bias": (DIM,), f"{at}.ls1.gamma": (DIM,)}
        shapes |= {f"{at}.norm2.weight": (DIM,), f"{at}.norm2.bias": (DIM,)}
        shapes |= {f"{at}.mlp.fc1.weight": (4 * DIM, DIM), f"{at}.mlp.fc1.bias": (4 * DIM,)}
        shapes |= {f"{at}.mlp.fc2.weight": (DIM, 4 * DIM), f"{at}.mlp.fc2.bias": (DIM,), f"{at}.ls2.gamma": (DIM,)}
    return shapes | {"norm.weight": (DIM,), "norm.bias": (DIM,)}


def with_periods(state) -> dict[str, torch.Tensor]:
    periods = {"2D": PERIODS_2D, "3D": PERIODS_3D}
    return state | {f"rope_embed_{k}.periods": torch.tensor(v, dtype=torch.bfloat16) for k, v in periods.items()}


def published(state) -> dict:
    """The layout of ct_3d_teacher.pth: under "teacher" the backbone and the heads of pretraining."""
    heads = {"dino_head.mlp.0.weight": torch.zeros(4, 4), "ibot_head.last_layer.weight": torch.zeros(4, 4)}
    return {"teacher": {f"backbone.{key}": value for key, value in state.items()} | heads}


@pytest.fixture(scope="module", autouse=True)
def _shallow():
    """Two blocks of sixteen: the others are of the same kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlexiCT3D, "build", lambda self: FlexiViT(depth=2))
        yield


@pytest.fixture(scope="module")
def state():
    return with_periods(random_state(published_shapes(depth=2)))


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("flexict") / "ct_3d_teacher.pth"
    torch.save(published(state), path)
    return path


@pytest.fixture(scope="module")
def encoder(file):
    return FlexiCT3D(file)


def normalised(x: torch.Tensor) -> np.ndarray:
    """Clipping and the z-score of each window (B, 1, D, H, W), the deviation unbiased."""
    clipped = x[:, 0].double().numpy().clip(-1000, 1000)
    mean, std = (f(axis=(1, 2, 3), keepdims=True) for f in (clipped.mean, lambda **kw: clipped.std(ddof=1, **kw)))
    return (clipped - mean) / std


def test_the_whole_network_is_that_of_the_file_and_what_the_card_says():
    with torch.device("meta"):
        network = FlexiViT()
    there = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    ours = {"patch_embed_3D.": "patch_embed.", "rope_embed_3D.": "rope."}
    wanted = published_shapes() | {"rope_embed_2D.periods": (18,), "rope_embed_3D.periods": (12,)}
    for old, new in ours.items():
        wanted = {key.replace(old, new): shape for key, shape in wanted.items()}
    assert there == wanted
    assert len(there) == 219
    card = FlexiCT3D.card
    assert sum(p.numel() for p in network.parameters()) == card.num_params == 143_999_424
    assert (card.window_size, card.spacing_mm, card.pad_hu) == ((160,) * 3, (2.0,) * 3, -1000.0)
    assert (card.weights.licence or "").startswith("CC BY-NC-ND 4.0")


@pytest.mark.parametrize("grid", [(1, 2, 3), pytest.param((3, 2, 1), marks=pytest.mark.thorough)])
def test_the_network_equals_its_formulas_in_double_precision(grid, encoder, state):
    network = FlexiViT(depth=2).double()
    network.load_state_dict({key: value.double() for key, value in encoder.network.state_dict().items()})
    network.rope.to(torch.bfloat16)
    x = torch.randn(2, *(8 * n for n in grid), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = network(x[:, None])
    exactly = recomputed(state, x.numpy(), KIND._replace(rounded=exact), **NAMES)
    for actual, expected, unrounded in zip(found, recomputed(state, x.numpy(), KIND, **NAMES), exactly, strict=True):
        assert_near(actual, expected, 1e-9)
        assert np.abs(expected - unrounded).max() > 1e-4 * np.abs(expected).max()


def test_a_small_variance_shows_the_epsilon_of_the_norms(encoder, state):
    network = FlexiViT(depth=0).double()
    small = {key: 1e-3 * value.double() for key, value in encoder.network.state_dict().items() if "patch_" in key}
    network.load_state_dict(encoder.network.state_dict() | small, strict=False)
    x = torch.randn(1, 1, 8, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        patch = network.patch_embed(x)[0, :, 0, 0, 0]
        scaled = (patch - patch.mean()) / (patch.var(unbiased=False) + 1e-6).sqrt()
        torch.testing.assert_close(network(x)[1].flatten(), scaled * network.norm.weight + network.norm.bias)
    assert patch.var() < 1e-4


def test_features_are_those_of_the_formulas(encoder, state):
    x = windows(2, 1, 16, 24, 32)
    features = encoder(x)
    cls, expected = recomputed(state, normalised(x), KIND, **NAMES)
    assert features.map.shape == (2, DIM, 2, 3, 4)
    assert_near(features.map, expected, 2e-3)  # roundings to bfloat16 that fall on the other side in float32
    assert_near(features.embedding, cls, 2e-3)
    assert torch.equal(features.cls, features.embedding)
    assert encoder.feature_centre() == (3.5, 3.5, 3.5)


def test_features_of_a_flipped_scan_are_those_of_the_formulas(encoder, state):
    x = windows(1, 1, 16, 24, 32)
    for axis in (2, 3, 4):
        flipped = encoder(x.flip(axis)).map
        assert (flipped.flip(axis) - encoder(x).map).abs().max() > 0.01 * flipped.abs().max()
    _, expected = recomputed(state, normalised(x.flip(2, 4)), KIND, **NAMES)
    assert_near(encoder(x.flip(2, 4)).map, expected, 2e-3)


def test_hu_are_clipped_before_the_z_score(encoder):
    x = windows(1, 1, 16, 16, 16)
    assert torch.equal(encoder(x).map, encoder(x.clamp(-1000, 1000)).map)
    assert not torch.equal(encoder(x).map, encoder(x.clamp(-990, 1000)).map)
    assert not torch.equal(encoder(x).map, encoder(x.clamp(-1000, 990)).map)


@pytest.mark.parametrize("value", [-1024.0, 0.0, 37.5])
def test_a_window_of_one_value_is_centred_and_no_more(value, encoder, state):
    features = encoder(torch.full((1, 1, 8, 8, 16), value))
    cls, expected = recomputed(state, np.zeros((1, 8, 8, 16)), KIND, **NAMES)
    assert_near(features.map, expected, 2e-3)
    assert_near(features.cls, cls, 2e-3)


def test_each_window_gets_the_z_score_of_its_scan_and_the_padding_the_scans_least_value(file, state):
    """As the authors do: z-score of the whole scan, then padding with the minimum, then cutting."""
    encoder = FlexiCT3D(file, window_size=(16, 16, 16))
    scan = torch.empty(13, 32, 16).uniform_(-700, 2700, generator=torch.Generator().manual_seed(2))
    found = extract(encoder, scan, Grid.of(scan.shape, np.diag([2.0, 2.0, 2.0, 1.0])), fit_windows=False)
    z = normalised(scan[None, None])[0]
    padded = np.pad(z, ((0, 3), (0, 0), (0, 0)), constant_values=z.min())
    halves = [recomputed(state, padded[None, :, at : at + 16], KIND, **NAMES) for at in (0, 16)]
    assert_near(found.map, np.concatenate([half[1][0] for half in halves], axis=2), 2e-3)
    assert_near(found.embeddings, np.concatenate([half[0] for half in halves]), 2e-3)


def test_the_embedding_may_have_the_mean_of_the_patches_behind_the_class_token(encoder, file):
    x = windows(2, 1, 16, 16, 24)
    plain, both = encoder(x), FlexiCT3D(file, embedding="cls_and_mean")
    features = both(x)
    assert torch.equal(features.cls, plain.cls)
    torch.testing.assert_close(features.embedding, torch.cat([plain.cls, plain.map.mean((2, 3, 4))], dim=1))
    assert (both.card.embedding_dim, encoder.card.embedding_dim) == (1728, 864)
    assert both.options == {"embedding": "cls_and_mean"}
    with pytest.raises(EncoderError, match="embedding must be 'cls' or 'cls_and_mean'"):
        FlexiCT3D(file, embedding="mean")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("backbone.blocks.0.ls2.gamma"), r"1 missing: blocks\.0\.ls2\.gamma"),
        (lambda s: s.pop("backbone.patch_embed_2D.proj.bias"), r"1 missing: patch_embed_2D\.proj\.bias"),
        (lambda s: s.pop("backbone.rope_embed_3D.periods"), r"1 missing: rope\.periods"),
        (
            lambda s: s.update({"backbone.blocks.0.attn.qkv.bias": torch.zeros(1)}),
            r"1 unexpected: blocks\.0\.attn\.qkv",
        ),
        (lambda s: s.update({"vision_projection.weight": torch.zeros(1)}), "1 unexpected: vision_projection"),
        (lambda s: s.update({"backbone.cls_token": torch.zeros(1, 1, 768)}), "1 of another shape: cls_token"),
    ],
)
def test_loading_is_strict_beside_the_heads(change, message, state, tmp_path):
    bad = published(state)
    change(bad["teacher"])
    torch.save(bad, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match=message):
        FlexiCT3D(tmp_path / "bad.pth")


def test_periods_of_the_formula_are_taken_and_others_refused(state, file, tmp_path):
    def loaded(base):
        periods = torch.tensor([base ** (2 * j / 36) for j in range(12)])
        torch.save(published(state | {"rope_embed_3D.periods": periods}), tmp_path / "periods.pth")
        return FlexiCT3D(tmp_path / "periods.pth").network.rope.periods

    assert loaded(100).dtype == torch.bfloat16
    assert not torch.equal(loaded(100), torch.tensor(PERIODS_3D, dtype=torch.bfloat16))  # computed in float32
    assert torch.equal(FlexiCT3D("random").network.rope.periods, torch.tensor(PERIODS_3D, dtype=torch.bfloat16))
    with pytest.raises(WeightsError, match=r"rope_embed_3D\.periods is \[1\.0, 1\.66.* in the file"):
        loaded(10_000)


@pytest.mark.parametrize("size", [(8, 8, 12), (4, 8, 8)])
def test_a_window_that_is_no_multiple_of_the_patch_is_refused(encoder, size):
    with pytest.raises(EncoderError, match="multiple of its stride"):
        encoder(windows(1, 1, *size))


def test_bf16_is_near_float32(file, encoder):
    x = windows(1, 1, 16, 16, 16)
    difference = (encoder(x).map - FlexiCT3D(file, precision="bf16")(x).map).abs().max()
    assert 0 < difference < 0.1 * encoder(x).map.abs().max()
