"""SuPreM against an independent fp64 re-computation of the upstream network from the tensors of its checkpoint."""

import nibabel
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from baselines.suprem import SuPreM
from tapct.errors import EncoderError, WeightsError
from tests.baselines.golden import assert_same

# Channels of the two convolutions of each stage of the upstream U-Net.
ENCODER = {
    "down_tr64": ((1, 32), (32, 64)),
    "down_tr128": ((64, 64), (64, 128)),
    "down_tr256": ((128, 128), (128, 256)),
    "down_tr512": ((256, 256), (256, 512)),
}
DECODER = {
    "up_tr256": ((768, 256), (256, 256)),
    "up_tr128": ((384, 128), (128, 128)),
    "up_tr64": ((192, 64), (64, 64)),
}
SIZE = (16, 16, 24)


def published() -> dict:
    """A checkpoint as supervised_pretraining/train.py saves it: DDP model, optimizer, scheduler, epoch."""
    rng = torch.Generator().manual_seed(0)

    def normal(*shape, std=1.0, mean=0.0):
        return torch.randn(shape, generator=rng) * std + mean

    net = {}
    for stage, convolutions in (ENCODER | DECODER).items():
        for i, (channels, out) in enumerate(convolutions):
            block = f"module.backbone.{stage}.ops.{i}"
            net[f"{block}.conv1.weight"] = normal(out, channels, 3, 3, 3, std=(27 * channels) ** -0.5)
            net[f"{block}.conv1.bias"] = normal(out)
            net[f"{block}.bn1.weight"] = normal(out, std=0.3, mean=1.0)
            net[f"{block}.bn1.bias"] = normal(out, std=0.3)
            net[f"{block}.bn1.running_mean"] = normal(out, std=5.0)
            net[f"{block}.bn1.running_var"] = normal(out).square() + 2.0
            net[f"{block}.bn1.num_batches_tracked"] = torch.tensor(123_456)
    for stage, channels in (("up_tr256", 512), ("up_tr128", 256), ("up_tr64", 128)):
        up = f"module.backbone.{stage}.up_conv"
        net[f"{up}.weight"] = normal(channels, channels, 2, 2, 2, std=channels**-0.5)
        net[f"{up}.bias"] = normal(channels)
    net |= {
        "module.organ_embedding": normal(25, 512),
        "module.text_to_vision.weight": normal(256, 512),
        "module.text_to_vision.bias": normal(256),
        "module.precls_conv.0.weight": normal(64),
        "module.precls_conv.2.weight": normal(8, 64, 1, 1, 1),
        "module.GAP.0.bias": normal(512),
        "module.GAP.3.weight": normal(256, 512, 1, 1, 1),
        "module.controller.weight": normal(153, 512, 1, 1, 1),
    }
    optimizer = {"state": {0: {"step": 5, "exp_avg": normal(3)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    return {"net": net, "optimizer": optimizer, "scheduler": {"last_epoch": 800, "base_lrs": [1e-4]}, "epoch": 800}


CHECKPOINT = published()
IN_FP64 = {k.removeprefix("module.backbone."): v.double() for k, v in CHECKPOINT["net"].items() if "backbone" in k}


def upstream(x: torch.Tensor, features: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The network as upstream runs it, ContBatchNorm3d included: statistics of the batch in hand, always."""
    net = IN_FP64

    def stage(name, x):
        for i in (0, 1):
            x = F.conv3d(x, net[f"{name}.ops.{i}.conv1.weight"], net[f"{name}.ops.{i}.conv1.bias"], padding=1)
            norm = {
                k: net[f"{name}.ops.{i}.bn1.{k}"].clone() for k in ("running_mean", "running_var", "weight", "bias")
            }
            x = F.relu(F.batch_norm(x, **norm, training=True, momentum=0.1, eps=1e-5))
        return x

    skips = []
    for name in ENCODER:
        x = stage(name, F.max_pool3d(skips[-1], 2) if skips else x)
        skips.append(x)
    out512 = skips.pop()
    if features == "encoder":
        return out512, out512
    for name in DECODER:
        x = F.conv_transpose3d(x, net[f"{name}.up_conv.weight"], net[f"{name}.up_conv.bias"], stride=2)
        x = stage(name, torch.cat([x, skips.pop()], dim=1))
    return out512, x


def turned(array: torch.Tensor, start: str, end: str) -> torch.Tensor:
    """Turns (1, C, ...) as nibabel does."""
    codes = nibabel.orientations.axcodes2ornt
    transform = nibabel.orientations.ornt_transform(codes(tuple(start)), codes(tuple(end)))
    last = nibabel.orientations.apply_orientation(np.moveaxis(array[0].numpy(), 0, -1), transform)
    return torch.from_numpy(np.moveaxis(last, -1, 0).copy())[None]


def by_hand(scan: torch.Tensor, features: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Map and embedding of one scan: RAS, -175..250 HU to 0..1, upstream's network, and the map turned back."""
    scaled = (np.clip(turned(scan, "SPL", "RAS").double().numpy(), -175.0, 250.0) + 175.0) / 425.0
    out512, chosen = upstream(torch.from_numpy(scaled), features)
    return turned(chosen, "RAS", "SPL"), out512.mean((2, 3, 4))


def scan(seed=0, size=SIZE) -> torch.Tensor:
    """Smooth, with a gradient along every axis, and far beyond the range on both sides."""
    noise = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(seed)) * 150
    z, y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    return noise + 100 * z + 200 * y + 400 * x


def saved(path, checkpoint):
    torch.save(checkpoint, path)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("suprem") / "supervised_suprem_unet_2100.pth", CHECKPOINT)


@pytest.fixture(scope="module", params=["encoder", "decoder"])
def encoder(request, file):
    return SuPreM(file, features=request.param)


@pytest.mark.parametrize(
    ("encoder", "flip"),
    [*(("encoder", flip) for flip in ((), (2,), (3,), (4,))), ("decoder", ()), ("decoder", (2, 3, 4))],
    indirect=["encoder"],
)
def test_features_are_upstreams_whichever_way_the_scan_lies(encoder, flip):
    x = scan().flip(flip)
    features, (expected, embedding) = encoder(x), by_hand(x, encoder.features)
    assert_same(features.map, expected)
    assert_same(features.embedding, embedding)
    assert features.cls is None
    if flip:  # a network that could not tell would prove nothing
        assert (encoder(scan()).map.flip(flip) - features.map).abs().max() > 0.1


def test_features_do_not_depend_on_the_batch_though_upstreams_do(encoder):
    one, two = scan(1), scan(2) * 2 + 300
    with torch.backends.mkldnn.flags(enabled=False):  # oneDNN takes other kernels for a batch, by the processor
        both = encoder(torch.cat([one, two]))
        for i, x in enumerate((one, two)):
            alone = encoder(x)
            assert_same(both.map[i : i + 1], alone.map)
            assert_same(both.embedding[i : i + 1], alone.embedding)
    scaled = (torch.cat([one, two]).double().clamp(-175, 250) + 175) / 425
    together, alone = upstream(scaled, "encoder")[0][:1], upstream(scaled[:1], "encoder")[0]
    assert (together - alone).abs().max() > 0.1  # issue 19


def test_running_statistics_are_neither_read_nor_kept(encoder, tmp_path):
    other = {k: v + 7 if "running" in k else v for k, v in CHECKPOINT["net"].items()}
    same = SuPreM(saved(tmp_path / "other.pth", CHECKPOINT | {"net": other}), features=encoder.features)
    before = encoder.describe()["weights_sha256"]
    encoder(scan())
    assert before == same.describe()["weights_sha256"] == encoder.describe()["weights_sha256"]
    assert not list(encoder.network.buffers())


def test_the_card_counts_what_is_frozen_and_says_what_the_paper_counts(encoder):
    card = encoder.card
    dim, stride, params = {"encoder": (512, 8, 7_027_776), "decoder": (64, 1, 19_073_600)}[encoder.features]
    assert (card.feature_dim, card.feature_stride, card.num_params) == (dim, (stride,) * 3, params)
    assert card.num_params == sum(p.numel() for p in encoder.parameters()) == encoder.describe()["parameters"]
    x = scan()
    features = encoder(x)
    assert features.map.shape == (1, dim, *(n // stride for n in SIZE))
    assert features.embedding.shape == (1, card.embedding_dim)
    assert (card.window_size, card.spacing_mm, card.pad_hu) == ((96,) * 3, (1.5,) * 3, -175.0)
    assert encoder.feature_centre() == ((stride - 1) / 2,) * 3  # max-pooling and 2-fold transposed convolutions
    assert "19.1M" in card.reference
    assert "7,027,776" in card.reference
    assert "NC" in card.weights.licence
    assert "Apache" in card.weights.licence


def test_the_records_can_tell_the_two_apart(encoder):
    assert encoder.describe()["features"] == encoder.features
    assert (
        encoder.full_name == {"encoder": "SuPreM U-Net", "decoder": "SuPreM U-Net, features decoder"}[encoder.features]
    )
    assert SuPreM.card.feature_dim == 512  # the class's own card is untouched


def test_unknown_features_are_refused():
    with pytest.raises(EncoderError, match="'encoder' or 'decoder'"):
        SuPreM("random", features="bottleneck")


@pytest.mark.parametrize("size", [(12, 16, 16), (16, 16, 20)])
def test_windows_that_cannot_be_halved_three_times_are_refused(encoder, size):
    assert not encoder.supports(size)
    with pytest.raises(EncoderError, match="cannot take windows"):
        encoder(scan(size=size))
    with pytest.raises(EncoderError, match="multiple of"):
        SuPreM("random", features=encoder.features, window_size=size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net: net.pop("module.backbone.down_tr128.ops.1.conv1.bias"), "1 missing: down_tr128.ops.1.conv1.bias"),
        (lambda net: net.pop("module.backbone.down_tr64.ops.0.bn1.weight"), "1 missing: down_tr64.ops.0.bn1.weight"),
        (lambda net: net.update({"module.backbone.down_tr64.ops.2.conv1.bias": torch.ones(1)}), "1 unexpected: down_"),
        (lambda net: net.update({"module.backbone.out_tr.final_conv.bias": torch.ones(1)}), "1 unexpected: out_tr"),
        (lambda net: net.update({"module.GAPS.0.bias": torch.ones(1)}), "1 unexpected: module.GAPS"),
        (lambda net: net.update({"module.backbone.down_tr64.ops.0.conv1.bias": torch.ones(5)}), "another shape"),
    ],
)
def test_loading_is_strict(tmp_path, change, message):
    net = dict(CHECKPOINT["net"])
    change(net)
    with pytest.raises(WeightsError, match=message):
        SuPreM(saved(tmp_path / "bad.pth", CHECKPOINT | {"net": net}))


def test_the_decoder_is_needed_only_where_it_is_used(tmp_path):
    net = {k: v for k, v in CHECKPOINT["net"].items() if k != "module.backbone.up_tr64.up_conv.bias"}
    path = saved(tmp_path / "no-decoder.pth", CHECKPOINT | {"net": net})
    SuPreM(path)
    with pytest.raises(WeightsError, match=r"1 missing: up_tr64.up_conv.bias"):
        SuPreM(path, features="decoder")
