"""Curia-2 against its published processor, step by step in double precision, and the network of Curia's tests."""

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from baselines.curia import Curia
from baselines.curia_2 import Curia2
from tapct.encoders.options import parse_options
from tapct.errors import EncoderError, WeightsError
from tests.baselines.golden import assert_close, light, uninitialised
from tests.baselines.test_curia import as_upstream_sees_it, encode, random_state, reference

Uninitialised = uninitialised(Curia2)


def processed(pixels: np.ndarray, size: int) -> np.ndarray:
    """The newer processor on one slice in HU: resized as bicubic with antialiasing, clipped, normalised."""
    x = torch.from_numpy(pixels).double()[None, None]
    x = F.interpolate(x, (size, size), mode="bicubic", align_corners=False, antialias=True)[0, 0].numpy()
    x = np.maximum(x, -1000.0)
    std = x.std(ddof=1)
    return (x - x.mean()) / (std if std >= 1e-6 else 1.0)


@pytest.fixture(scope="module")
def state():
    return random_state(seed=4)


@pytest.fixture(scope="module")
def encoder(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("curia-2") / "model.safetensors"
    safetensors.torch.save_file(state, path)
    loaded = Uninitialised(path)
    path.unlink()
    return loaded


def scan(*shape: int) -> np.ndarray:
    """HU far below air, as outside of the field of view, and far above bone."""
    return np.random.default_rng(2).uniform(-2700, 2700, shape).astype(np.float32)


@pytest.mark.parametrize("step", [1, -1], ids=["as it is", "flipped"])
def test_map_and_cls_are_those_of_the_published_processor_and_the_network(encoder, state, step):
    volume = scan(2, 48, 48)[::step, ::step, ::step].copy()
    features = encode(encoder, volume)
    assert torch.equal(features.cls, features.embedding)
    for i, pixels in enumerate(as_upstream_sees_it(volume)):
        tokens = reference(state, processed(pixels, 48))
        assert_close(features.cls[i], tokens[0])
        assert_close(features.map[i], tokens[1:].T.reshape(768, 1, 3, 3))


def test_below_air_nothing_is_seen_and_above_bone_everything_is(encoder):
    pixels = scan(1, 32, 32)
    cls = encode(encoder, pixels).cls
    assert torch.equal(encode(encoder, pixels.clip(min=-1000)).cls, cls)
    assert (encode(encoder, pixels.clip(max=2000)).cls - cls).abs().max() > 1e-2
    assert torch.equal(
        encode(encoder, np.full((1, 32, 32), -3024.0, np.float32)).cls,
        encode(encoder, np.full((1, 32, 32), -1000.0, np.float32)).cls,
    )


@pytest.mark.parametrize(("adapter", "default"), [(Curia, False), (Curia2, True)])
def test_the_clip_is_an_option_of_both_and_on_by_itself_in_the_successor_alone(encoder, adapter, default):
    pixels = scan(1, 32, 32)
    by_itself, other = (adapter("random", deferred=True, **given) for given in ({}, {"clip_below_air": not default}))
    assert (by_itself.options, other.options) == ({}, {"clip_below_air": not default})
    for one in (by_itself, other):
        one.network = encoder.network
    clipped, raw = (by_itself, other) if default else (other, by_itself)
    assert torch.equal(encode(clipped, pixels).cls, encode(encoder, pixels).cls)
    assert torch.equal(encode(raw, pixels.clip(min=-1000)).cls, encode(encoder, pixels).cls)
    assert (encode(raw, pixels).cls - encode(encoder, pixels).cls).abs().max() > 1e-2


def test_the_option_is_written_as_text_and_a_switch_alone():
    assert parse_options("curia", "clip_below_air=true") == {"clip_below_air": True}
    assert parse_options("curia", "clip_below_air=false") == {}
    with pytest.raises(EncoderError, match="clip_below_air cannot be 'air'"):
        parse_options("curia", "clip_below_air=air")


def test_the_card_tells_the_truth(encoder):
    card = encoder.card
    assert card.num_params == sum(p.numel() for p in encoder.parameters()) == 86_072_832
    assert (card.window_size, card.feature_stride, card.in_plane_size) == ((1, 512, 512), (1, 16, 16), 512)
    assert (card.weights.repository, card.weights.gated) == ("huggingface.co/raidium/curia-2", True)
    assert "open" in card.reference
    assert "on in the published setting of its successor" in Curia.card.reference


def test_loading_is_strict(state, tmp_path):
    torch.save(light({k: v for k, v in state.items() if k != "layernorm.bias"}), tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"1 missing: layernorm.bias"):
        Uninitialised(tmp_path / "weights.pt")
