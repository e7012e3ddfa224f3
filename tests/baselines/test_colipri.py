import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from baselines import colipri
from baselines.colipri import Colipri, ImageEncoder
from baselines.primus import Primus
from tapct.errors import EncoderError, WeightsError
from tapct.features import extract
from tapct.volumes import Grid
from tests.baselines import primus
from tests.baselines.golden import light
from tests.baselines.primus import assert_near

DIM, PROJECTED, HEADS, DEPTH = 864, 768, 12, 2
BACKBONE = "image_encoder.backbone."


def random_state(depth=DEPTH, seed=0) -> dict[str, torch.Tensor]:
    """The image encoder in the published layout."""
    g = torch.Generator().manual_seed(seed + 1)
    state = primus.random_state(DIM, depth, prefix=BACKBONE, seed=seed)
    state[f"{BACKBONE}mask_token"] = torch.zeros(1, 1, DIM)
    shapes = {"projector.weight": (PROJECTED, DIM, 1, 1, 1), "projector.bias": (PROJECTED,)}
    shapes |= {"pooler.attn.in_proj_weight": (3 * PROJECTED, PROJECTED), "pooler.attn.in_proj_bias": (3 * PROJECTED,)}
    shapes |= {"pooler.attn.out_proj.weight": (PROJECTED, PROJECTED), "pooler.attn.out_proj.bias": (PROJECTED,)}
    for name, shape in shapes.items():
        std = 0.2 if len(shape) == 1 else 1 / math.sqrt(shape[1])
        state[f"image_encoder.{name}"] = torch.empty(shape).normal_(0, std, generator=g)
    return state


def published(state):
    """With what is dropped: the encoder of reports, and the temperature."""
    text = {"text_encoder.backbone.encoder.layer.0.output.dense.bias": torch.ones(4)}
    return {**state, **text, "softmax_temperature": torch.tensor(0.07)}


def turned(spl: np.ndarray, orientation: str) -> np.ndarray:
    """(..., z, y, x) towards S, P, L as the network has it."""
    sar = spl[..., :, ::-1, ::-1]
    return sar if orientation == "SAR" else sar.swapaxes(-1, -3)


def back(array, orientation: str):
    """Undoes `turned`, of numpy or torch."""
    sar = array if orientation == "SAR" else array.swapaxes(-1, -3)
    return sar.flip(-1, -2) if isinstance(sar, torch.Tensor) else sar[..., :, ::-1, ::-1]


def recomputed(state, x: torch.Tensor, orientation="RAS") -> dict[str, np.ndarray]:
    """Map, aligned map and embedding of windows in HU (B, 1, D, H, W), in float64; maps in SPL order."""
    w = {k.removeprefix("image_encoder."): v.double().numpy() for k, v in state.items()}
    normalised = np.clip(turned(x[:, 0].double().numpy(), orientation), -1000, 1000) / 1000
    found = primus.recomputed(state, normalised, HEADS, prefix=BACKBONE)
    grid = found.shape[2:]
    tokens = found.reshape(*found.shape[:2], -1).swapaxes(1, 2) @ w["projector.weight"][:, :, 0, 0, 0].T
    tokens = tokens + w["projector.bias"]
    query, key, value = (
        each @ weight.T + bias
        for each, weight, bias in zip(
            (tokens.mean(1, keepdims=True), tokens, tokens),
            np.split(w["pooler.attn.in_proj_weight"], 3),
            np.split(w["pooler.attn.in_proj_bias"], 3),
            strict=True,
        )
    )
    q, k, v = (each.reshape(len(x), -1, HEADS, 64).swapaxes(1, 2) for each in (query, key, value))
    mixed = primus.attended(q, k, v).swapaxes(1, 2).reshape(len(x), PROJECTED)

    def out(y):
        return y @ w["pooler.attn.out_proj.weight"].T + w["pooler.attn.out_proj.bias"]

    aligned = out(value).swapaxes(1, 2).reshape(len(x), PROJECTED, *grid)
    return {"tokens": back(found, orientation), "aligned": back(aligned, orientation), "embedding": out(mixed)}


def windows(*shape, seed=0) -> torch.Tensor:
    """HU that go beyond the range of clipping."""
    return torch.empty(shape).uniform_(-2700, 2700, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _shallow(monkeypatch):
    monkeypatch.setattr(colipri, "DEPTH", DEPTH)


@pytest.fixture(scope="module")
def state():
    return random_state()


@pytest.fixture(scope="module")
def path(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("colipri") / Colipri.card.weights.file
    save_file(published(state), path)
    return path


def test_the_network_is_what_its_card_and_the_published_file_say():
    with torch.device("meta"):
        network = ImageEncoder(Primus(DIM, 16, HEADS))
    assert sum(p.numel() for p in network.parameters()) == Colipri.card.num_params == 147_112_224
    assert sum(p.numel() for p in network.backbone.parameters()) == 144_085_536
    assert len(network.state_dict()) + 1 == 379  # and the token of masked pretraining, which is dropped
    with torch.device("meta"):
        names = set(random_state(16)) - {f"{BACKBONE}mask_token"}
    assert {f"image_encoder.{name}" for name in network.state_dict()} == names


@pytest.mark.parametrize("orientation", ["RAS", "SAR"])
def test_features_are_those_of_the_formulas(orientation, state, path):
    x = windows(2, 1, 16, 24, 32)
    expected = recomputed(state, x, orientation)
    for features in ("tokens", "aligned"):
        encoder = Colipri(path.parent, orientation=orientation, features=features)
        found = encoder(x)
        assert_near(found.map, expected[features], 2e-5)
        assert_near(found.embedding, expected["embedding"], 2e-5)
        assert found.map.shape[1] == encoder.card.feature_dim
        assert found.cls is None


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_features_of_a_flipped_scan_are_those_of_the_formulas(axis, state, path):
    x, encoder = windows(1, 1, 16, 24, 16), Colipri(path)
    flipped = encoder(x.flip(axis)).map
    assert (flipped.flip(axis) - encoder(x).map).abs().max() > 0.01 * flipped.abs().max()
    assert_near(flipped, recomputed(state, x.flip(axis))["tokens"], 2e-5)


def test_the_two_orientations_differ(path):
    x = windows(1, 1, 16, 16, 16)
    one, other = (Colipri(path, orientation=each)(x).map for each in ("RAS", "SAR"))
    assert torch.dist(one, other) > 0.1 * one.norm()


def test_hu_are_clipped(path):
    x, encoder = windows(1, 1, 16, 16, 16), Colipri(path)
    assert torch.equal(encoder(x).map, encoder(x.clamp(-1000, 1000)).map)
    assert not torch.equal(encoder(x).map, encoder(x.clamp(-1000, 999)).map)


def test_padding_is_the_smallest_value_of_the_whole_clipped_scan(state, path):
    """A scan without air in two windows, the second of which is padded and lies higher than the first."""
    scan = windows(26, 16, 16).abs() / 10 - 300
    scan[16:] += 200
    found = extract(Colipri(path, window_size=(16, 16, 16)), scan, Grid.of(scan.shape, np.diag([2.0, 2.0, 2.0, 1.0])))
    padded = torch.cat((scan, torch.full((6, 16, 16), scan.min().item()))).reshape(2, 1, 16, 16, 16)
    expected = recomputed(state, padded)
    assert_near(found.map, expected["tokens"].transpose(1, 0, 2, 3, 4).reshape(DIM, 4, 2, 2), 2e-5)
    assert_near(found.embeddings, expected["embedding"], 2e-5)


@pytest.mark.parametrize("features", ["tokens", "aligned"])
def test_normalised_features_have_a_length_of_one_and_the_same_direction(features, path):
    x = windows(1, 1, 16, 16, 24)
    plain, unit = (Colipri(path, features=features, normalise=each)(x) for each in (False, True))
    for one, other in ((plain.map, unit.map), (plain.embedding, unit.embedding)):
        torch.testing.assert_close(other, one / one.square().sum(1, keepdim=True).sqrt())


@pytest.mark.parametrize("option", [{"orientation": "LPS"}, {"features": "dense"}])
def test_unknown_options_are_refused(option):
    with pytest.raises(EncoderError, match=f"colipri: {next(iter(option))} must be one of"):
        Colipri("random", **option)


def test_options_are_settings_and_in_the_name(path):
    encoders = [Colipri(path), Colipri(path, orientation="SAR"), Colipri(path, normalise=True)]
    settings = [encoder.describe()["identity"]["settings"] for encoder in encoders]
    assert all(one != other for i, one in enumerate(settings) for other in settings[:i])
    assert encoders[1].full_name == "COLIPRI-CRM, orientation SAR"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(f"{BACKBONE}eva.blocks.1.gamma_2"), r"1 missing: backbone\.eva\.blocks\.1\.gamma_2"),
        (lambda s: s.pop("image_encoder.pooler.attn.in_proj_bias"), "1 missing: pooler.attn.in_proj_bias"),
        (lambda s: s.update({f"{BACKBONE}eva.pos_embed": torch.zeros(1)}), "1 unexpected: backbone.eva.pos_embed"),
        (lambda s: s.update({f"{BACKBONE}up_projection.weight": torch.zeros(1)}), "1 unexpected: backbone.up_proj"),
        (lambda s: s.update({"image_encoder.projector.bias": torch.zeros(864)}), "1 of another shape: projector.bias"),
    ],
)
def test_loading_is_strict_beside_the_encoder_of_reports(change, message, state, tmp_path):
    file = published(light(state))
    change(file)
    torch.save(file, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=message):
        Colipri(tmp_path / "model.pt")
