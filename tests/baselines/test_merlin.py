import pytest
import torch
import torchvision

from baselines.merlin import I3ResNet, Merlin
from tapct.errors import EncoderError, WeightsError
from tests.baselines.golden import light, on_meta
from tests.baselines.i3resnet import BLOCKS, DEPTHS, assert_near, random_state, recomputed, upstream, windows

RANGE = (-1000.0, 1000.0)
BUILD = Merlin.build


def published(state):
    """The layout of the published checkpoint: all of Merlin, its image encoder among the rest."""
    return {
        "logit_scale": torch.ones(()),
        **{f"encode_image.i3_resnet.{key}": value for key, value in state.items()},
        "encode_image.i3_resnet.classifier.weight": torch.zeros(1692, 2048, 1, 1, 1),
        "encode_image.i3_resnet.classifier.bias": torch.zeros(1692),
        "encode_image.i3_resnet.contrastive_head.weight": torch.zeros(512, 2048, 1, 1, 1),
        "encode_image.i3_resnet.contrastive_head.bias": torch.zeros(512),
        "encode_text.text_encoder.embeddings.word_embeddings.weight": torch.zeros(4, 768),
        "encode_text.linear_layer.weight": torch.zeros(512, 768),
    }


@pytest.fixture(scope="module", params=DEPTHS)
def blocks(request):
    """Lets the adapter build fewer blocks than the published ones, which are of one kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Merlin, "build", lambda self: I3ResNet(request.param))
        yield request.param


@pytest.fixture(scope="module")
def state(blocks):
    return random_state(blocks)


@pytest.fixture(scope="module")
def encoder(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("merlin") / Merlin.card.weights.file
    torch.save(published(state), path)
    encoder = Merlin(path.parent)
    path.unlink()
    return encoder


def test_the_network_is_what_its_card_says(monkeypatch):
    monkeypatch.setattr(Merlin, "build", BUILD)
    card, network = Merlin.card, on_meta(Merlin)
    assert sum(p.numel() for p in network.parameters()) == card.num_params == 117_366_208
    # encoders.md, section 10: with the running statistics.
    statistics = sum(b.numel() for name, b in network.named_buffers() if "running" in name)
    assert card.num_params + statistics == 117_517_632
    assert [len(getattr(network, f"layer{i}")) for i in (1, 2, 3, 4)] == [*BLOCKS] == [3, 8, 36, 3]
    assert (card.window_size, card.spacing_mm, card.pad_hu) == ((160, 224, 224), (3.0, 1.5, 1.5), -1000.0)


def test_features_are_those_of_the_upstream_pipeline(encoder, state, blocks):
    x = windows(1, 1, 32, 64, 32)
    features = encoder(x)
    expected = upstream(state, x, *RANGE, blocks)
    assert features.map.shape == (1, 2048, 2, 2, 1)  # stride 16 along z, 32 in the plane
    assert_near(features.map, expected)
    assert_near(features.embedding, expected.mean((2, 3, 4)))
    assert features.cls is None


def test_features_of_a_flipped_scan_are_those_of_the_upstream_pipeline(encoder, state, blocks):
    x = windows(1, 1, 16, 32, 64).flip(2, 4)
    assert_near(encoder(x).map, upstream(state, x, *RANGE, blocks))


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_no_axis_of_a_scan_can_be_flipped_without_notice(encoder, axis):
    x = windows(1, 1, 16, 32, 32)
    straight = encoder(x).map
    assert (encoder(x.flip(axis)).map - straight).abs().max() > 0.01 * straight.abs().max()


def test_a_batch_gives_one_embedding_a_window_whatever_else_it_holds(encoder):
    # Upstream's ImageEmbedding gives (1, B, 2048); and batch norms in train mode would mix the windows.
    x = windows(2, 1, 16, 32, 64)
    both = encoder(x)
    assert both.embedding.shape == (2, 2048)
    assert_near(both.map[1:], encoder(x[1:]).map)


def test_inflated_imagenet_weights_see_each_slice_as_torchvisions_resnet_does():
    # Numbers that are not ours: where only the middle slice of a kernel has weights, and all slices of a scan are
    # alike, the 3D network is the 2D one (how the upstream network was initialised).
    torch.manual_seed(0)
    blocks = (2, 1, 2, 1)
    flat = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, list(blocks))
    for norm in flat.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.weight.data.uniform_(0.3, 0.6)
            norm.bias.data.normal_(0, 0.1)
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
    flat.fc, flat.avgpool = torch.nn.Identity(), torch.nn.Identity()
    network = I3ResNet(blocks)
    inflated = network.state_dict()
    for key, value in flat.state_dict().items():
        if value.ndim == 4:
            inflated[key].zero_()[:, :, inflated[key].shape[2] // 2] = value
        else:
            inflated[key] = value
    network.load_state_dict(inflated)
    image = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        expected = flat.eval()(image).view(1, 2048, 1, 1, 2)
        actual = network.eval()(image[:, :, None].expand(-1, -1, 32, -1, -1))
    assert_near(actual, expected.expand(-1, -1, 2, -1, -1))


def test_a_small_network_equals_its_formulas_in_double_precision():
    blocks = (2, 1, 2, 1)
    state = random_state(blocks, seed=1)
    network = I3ResNet(blocks)
    network.load_state_dict(state)
    x = torch.rand(2, 1, 32, 32, 64, dtype=torch.float64)
    with torch.no_grad():
        actual = network.eval().double()(x.expand(-1, 3, -1, -1, -1))
    assert_near(actual, recomputed(state, x, blocks), 1e-12)


def test_hu_are_clipped_to_the_upstream_range(encoder):
    x = windows(1, 1, 16, 32, 32)
    assert x.min() < -1000
    assert x.max() > 1000
    assert torch.equal(encoder(x).map, encoder(x.clamp(-1000, 1000)).map)
    assert not torch.equal(encoder(x).map, encoder(x.clamp(-1000, 900)).map)


@pytest.mark.parametrize("size", [(8, 64, 64), (16, 48, 64), (16, 64, 48)])
def test_a_window_that_is_no_multiple_of_the_stride_is_refused(encoder, size):
    with pytest.raises(EncoderError, match=r"multiple of its stride \(16, 32, 32\)"):
        encoder(windows(1, 1, *size))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("encode_image.i3_resnet.layer3.1.conv2.weight"), r"1 missing: layer3\.1\.conv2\.weight"),
        (lambda s: s.pop("encode_image.i3_resnet.bn1.running_mean"), r"1 missing: bn1\.running_mean"),
        (lambda s: s.update({"encode_image.i3_resnet.fc.weight": torch.zeros(1)}), r"1 unexpected: fc\.weight"),
        (lambda s: s.update({"encode_image.other.weight": torch.zeros(1)}), "1 unexpected: encode_image.other"),
        (lambda s: s.update({"decode_text.weight": torch.zeros(1)}), "1 unexpected: decode_text"),
    ],
)
def test_loading_is_strict_beside_the_parts_that_are_dropped_by_name(change, message, state, tmp_path):
    file = published(light(state))
    change(file)
    torch.save(file, tmp_path / "merlin.pt")
    with pytest.raises(WeightsError, match=message):
        Merlin(tmp_path / "merlin.pt")


def test_a_file_of_astra_is_refused(state, tmp_path):
    torch.save({"state_dict": light(state), "meta": {}}, tmp_path / "astra_encoder.pt")
    with pytest.raises(WeightsError, match="2 unexpected: state_dict, meta"):
        Merlin(tmp_path / "astra_encoder.pt")
