import numpy as np
import pytest
import torch

from baselines import nnfoundation
from baselines.nnfoundation import NNFoundationViT
from baselines.primus import Primus
from tapct.errors import EncoderError, WeightsError
from tapct.features import extract
from tapct.volumes import Grid
from tests.baselines import primus
from tests.baselines.golden import light
from tests.baselines.primus import assert_near

DIM, HEADS, DEPTH, TABLE = 1056, 16, 1, (24, 24, 24)


def random_state():
    return primus.random_state(DIM, DEPTH, TABLE)


def published(state):
    """nnssl's checkpoint: the network with the decoder of pretraining, the plan and the citations."""
    decoder = {"decoder.blocks.0.norm1.weight": torch.ones(4), "mask_token": torch.zeros(1, 1, DIM)}
    decoder |= {"up_projection.decode.0.0.weight": torch.ones(4), "encoder_norm.weight": torch.ones(2)}
    plan = {"architecture_plans": {"arch_class_name": "Primus"}, "recommended_downstream_patchsize": [192, 192, 192]}
    return {"network_weights": {**state, **decoder}, "nnssl_adaptation_plan": plan, "citations": ["nnFoundation"]}


def recomputed(state, x: torch.Tensor, mean=None, std=None) -> np.ndarray:
    """Map of windows in HU (B, 1, D, H, W), in float64: z-scores of each window, or by these statistics."""
    voxels = x[:, 0].double().numpy()
    mean = voxels.mean((1, 2, 3), keepdims=True) if mean is None else mean
    std = voxels.std((1, 2, 3), keepdims=True) if std is None else std
    return primus.recomputed(state, (voxels - mean) / std, HEADS, TABLE)


def windows(*shape, seed=0) -> torch.Tensor:
    """HU far beyond any clip."""
    return torch.empty(shape).uniform_(-2700, 2700, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _shallow(monkeypatch):
    monkeypatch.setattr(nnfoundation, "DEPTH", DEPTH)


@pytest.fixture(scope="module")
def state():
    return random_state()


@pytest.fixture(scope="module")
def encoder(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("nnfoundation") / NNFoundationViT.card.weights.file
    torch.save(published(state), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nnfoundation, "DEPTH", DEPTH)
        encoder = NNFoundationViT(path.parent)
    path.unlink()
    return encoder


def test_the_network_is_what_its_card_and_the_published_file_say(monkeypatch):
    with torch.device("meta"):
        network = Primus(DIM, 40, HEADS, table=TABLE)
        names = set(primus.random_state(DIM, 40, TABLE))
    assert sum(p.numel() for p in network.parameters()) == NNFoundationViT.card.num_params == 551_364_704
    assert set(network.state_dict()) == names
    assert len(names) == 925
    assert network.state_dict()["eva.pos_embed"].shape == (1, 13_824, 1056)


def test_windows_alone_are_normalised_by_themselves_and_not_clipped(encoder, state):
    x = windows(2, 1, 16, 24, 32)
    x[1] = x[1] / 100 + 40
    found = encoder(x)
    expected = recomputed(state, x)
    assert_near(found.map, expected, 2e-5)
    assert_near(found.embedding, expected.mean((2, 3, 4)), 2e-5)
    assert found.cls is None


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_features_of_a_flipped_scan_are_those_of_the_formulas(axis, encoder, state):
    x = windows(1, 1, 16, 24, 16)
    flipped = encoder(x.flip(axis)).map
    assert (flipped.flip(axis) - encoder(x).map).abs().max() > 0.01 * flipped.abs().max()
    assert_near(flipped, recomputed(state, x.flip(axis)), 2e-5)


def test_every_window_of_a_scan_is_normalised_by_the_whole_scan(state, tmp_path):
    """Three windows of 16 slices, the last of them padded: the padding is air, and not among the statistics."""
    torch.save(published(state), tmp_path / "checkpoint_final.pth")
    encoder = NNFoundationViT(tmp_path, window_size=(16, 16, 16))
    scan = windows(45, 16, 16)
    scan[:16] = scan[:16] / 50 - 900  # a window whose own statistics are others
    found = extract(encoder, scan, Grid.of(scan.shape, np.diag([3.0, 0.7, 0.7, 1.0])))
    mean, std = scan.double().mean().item(), scan.double().std(correction=0).item()
    padded = torch.cat((scan, torch.full((3, 16, 16), -1000.0)))
    expected = recomputed(state, padded.reshape(3, 1, 16, 16, 16), mean, std)
    assert_near(found.map, expected.transpose(1, 0, 2, 3, 4).reshape(DIM, 6, 2, 2), 2e-5)
    assert_near(found.embeddings, expected.mean((2, 3, 4)), 2e-5)


def test_a_scan_of_one_value_has_features_of_its_mean(encoder, state):
    x = torch.full((1, 1, 16, 16, 16), -1000.0)
    assert_near(encoder(x).map, recomputed(state, x, std=1e-8), 2e-5)


def test_a_window_that_is_no_multiple_of_the_patch_is_refused(encoder):
    with pytest.raises(EncoderError, match="multiple of its stride"):
        encoder(windows(1, 1, 16, 16, 20))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["network_weights"].pop("eva.pos_embed"), r"1 missing: eva\.pos_embed"),
        (lambda f: f["network_weights"].update({"eva.cls_token": torch.zeros(1)}), "1 unexpected: eva.cls_token"),
        (lambda f: f["network_weights"].update({"eva.pos_embed": torch.zeros(1, 8000, 1056)}), "1 of another shape"),
        (lambda f: f.pop("network_weights"), "finds no weights in .*KeyError: 'network_weights'"),
    ],
)
def test_loading_is_strict_beside_the_decoder_of_pretraining(change, message, state, tmp_path):
    file = published(light(state))
    change(file)
    torch.save(file, tmp_path / "checkpoint_final.pth")
    with pytest.raises(WeightsError, match=message):
        NNFoundationViT(tmp_path / "checkpoint_final.pth")
