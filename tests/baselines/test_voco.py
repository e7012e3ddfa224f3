"""VoCo-B against eva's own class and MONAI's SwinUNETR, both with the patch merging of MONAI 1.3.0 sliced out here."""

import contextlib
import dataclasses
import types
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from eva.vision.models.networks.backbones.radiology.swin_unetr import SwinUNETREncoder
from monai.networks.nets.swin_unetr import PatchMerging, PatchMergingV2, SwinTransformer, SwinUNETR
from torch import nn
from torch.nn import functional as F

from baselines import voco
from baselines.voco import VoCoB
from tapct.encoders import Encoder, Features
from tapct.encoders.patch_merging import LegacyPatchMerging, kinds_of
from tapct.errors import EncoderError, WeightsError
from tests.baselines.golden import assert_same, light, on_meta, views

SIZE = (32, 64, 64)  # patches (1, 2, 2)
WIDTHS = [12, pytest.param(48, marks=pytest.mark.thorough)]
"""Channels of the first stage; the others have multiples of them. The published 48 take sixteen times as long."""
CARD, SWIN_ENCODER = VoCoB.card, voco._SwinEncoder


@contextlib.contextmanager
def channels(adapter: type[Encoder], width: int) -> Iterator[None]:
    """Lets an adapter build its network with so many channels in the first stage."""
    card = dataclasses.replace(adapter.card, feature_dim=16 * width, embedding_dim=24 * width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(voco, "_SwinEncoder", lambda features: SWIN_ENCODER(width))
        patch.setattr(adapter, "card", card)
        yield


@pytest.fixture(scope="module", params=WIDTHS)
def width(request) -> Iterator[int]:
    with channels(VoCoB, request.param):
        yield request.param


def merging_of_monai_13(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Eight slices of which two come twice, layer norm, linear layer: each step by its formula."""
    eight = [
        x[:, 0::2, 0::2, 0::2, :],
        x[:, 1::2, 0::2, 0::2, :],
        x[:, 0::2, 1::2, 0::2, :],
        x[:, 0::2, 0::2, 1::2, :],
        x[:, 1::2, 0::2, 1::2, :],
        x[:, 0::2, 1::2, 0::2, :],
        x[:, 0::2, 0::2, 1::2, :],
        x[:, 1::2, 1::2, 1::2, :],
    ]
    x = torch.concatenate(eight, dim=4)
    x = F.layer_norm(x, x.shape[-1:], self.norm.weight, self.norm.bias, eps=1e-5)
    return torch.einsum("...i,oi->...o", x, self.reduction.weight)


def with_old_merging(network: nn.Module) -> nn.Module:
    merging = [module for module in network.modules() if isinstance(module, PatchMergingV2)]
    assert len(merging) == 4
    for module in merging:
        module.forward = types.MethodType(merging_of_monai_13, module)
    return network


@pytest.fixture(scope="module")
def unetr(width) -> SwinUNETR:
    """The network of VoComni-B, as upstream's README.md builds it."""
    return SwinUNETR(in_channels=1, out_channels=21, feature_size=width, use_v2=True).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vocomni(unetr) -> dict[str, torch.Tensor]:
    """VoComni_B.pt: a whole SwinUNETR, every parameter random.

    Those of one length of row are views of the same numbers, so that 300 MB fit a smaller file.
    """
    state = unetr.state_dict()
    shapes = {key: tensor.shape for key, tensor in unetr.named_parameters()}
    matrices = {key for key, shape in shapes.items() if len(shape) > 1}
    scales = {key: 1 if key.endswith("bias_table") else (3 / shapes[key][1:].numel()) ** 0.5 for key in matrices}
    for scale in sorted(set(scales.values())):
        state |= views({key: shapes[key] for key in shapes if scales.get(key) == scale}, scale=scale)
    for key, numbers in views({key: shapes[key] for key in shapes if key not in matrices}, scale=0.5).items():
        state[key] = numbers + (1.0 if key.endswith("weight") else 0.0)
    unetr.load_state_dict(state)
    return state


@pytest.fixture(scope="module")
def eva(width) -> SwinUNETREncoder:
    """What eva's `radiology/voco_b` is before it downloads its weights (radiology/voco.py)."""
    return SwinUNETREncoder(in_channels=1, feature_size=width, spatial_dims=3).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def ssl_head(vocomni, eva) -> dict[str, torch.Tensor]:
    """VoCo_B_SSL_head.pt: the names of VoComni_B.pt without decoder and output layer."""
    return {key: vocomni[key] for key in eva.state_dict()}


def saved(path, tensors):
    torch.save(tensors, path)
    return path


@pytest.fixture(scope="module")
def encoder(ssl_head, tmp_path_factory) -> VoCoB:
    return VoCoB(saved(tmp_path_factory.mktemp("voco") / "VoCo_B_SSL_head.pt", ssl_head))


def scans() -> torch.Tensor:
    """A scan with a gradient along every axis and beyond the range on both sides, and the same the other way round."""
    noise = torch.randn(1, 1, *SIZE, generator=torch.Generator().manual_seed(1)) * 150
    z, y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SIZE), indexing="ij")
    scan = noise + 100 * z + 200 * y + 400 * x
    return torch.cat([scan, scan.flip(2, 3, 4)])


def prepared(scans: torch.Tensor) -> torch.Tensor:
    """HU -175..250 to 0..1, turned to (x, y, z) towards right, anterior, superior."""
    scaled = (np.clip(scans.double().numpy(), -175.0, 250.0) + 175.0) / 425.0
    return torch.from_numpy(scaled.transpose(0, 1, 4, 3, 2)[:, :, ::-1, ::-1].copy()).float()


def turned_back(features: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(features.numpy()[:, :, ::-1, ::-1].transpose(0, 1, 4, 3, 2).copy())


@pytest.fixture(scope="module")
def features(encoder) -> Features:
    return encoder(scans())


def test_features_are_those_of_evas_class_with_the_old_merging(features, eva, ssl_head, width):
    eva.load_state_dict(ssl_head)
    embedding, maps = with_old_merging(eva).forward_intermediates(prepared(scans()[:1]))
    assert_same(features.map[:1], turned_back(maps[-1]))
    assert_same(features.embedding[:1], embedding)
    assert features.map.shape == (2, 16 * width, 1, 2, 2)
    assert features.embedding.shape == (2, 24 * width)
    assert features.cls is None


def test_the_map_is_swinunetrs_with_the_old_merging_and_not_with_the_new_for_a_scan_the_other_way_round(
    features, unetr, vocomni
):
    x = prepared(scans()[1:])

    def deepest():
        return turned_back(unetr.encoder10(unetr.swinViT(x, unetr.normalize)[4]))

    assert {type(m) for m in unetr.modules() if isinstance(m, PatchMergingV2)} == {PatchMerging}
    new = deepest()  # MONAI's current merging, with the very same tensors
    with_old_merging(unetr)
    assert_same(features.map[1:], deepest())
    assert (features.map[1:] - new).abs().max() > 0.1
    # A network that could not tell the two scans apart would prove nothing.
    assert (features.map[1].flip(1, 2, 3) - features.map[0]).abs().max() > 0.1


def test_monai_has_changed_the_merging_that_is_kept_here(encoder, width):
    x = torch.randn(1, 4, 6, 8, width, generator=torch.Generator().manual_seed(2))
    ours = encoder.network.swinViT.layers1[0].downsample
    current = PatchMerging(width)
    current.load_state_dict(ours.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(x), merging_of_monai_13(ours, x), rtol=1e-5, atol=1e-5)
        assert (ours(x) - current(x)).abs().max() > 0.1


@pytest.mark.parametrize("merging", ["merging", "mergingv2"])
@pytest.mark.usefixtures("width")
def test_whichever_merging_monai_builds_the_old_one_is_in_its_place(monkeypatch, merging):
    def deaf(**options):
        return SwinTransformer(**options | {"downsample": merging})

    monkeypatch.setattr("monai.networks.nets.swin_unetr.SwinTransformer", deaf)
    assert kinds_of(VoCoB("random").network) == [LegacyPatchMerging] * 4


@pytest.mark.usefixtures("width")
def test_a_monai_without_any_merging_that_is_known_is_refused(monkeypatch):
    class Unknown(nn.Module):
        def __init__(self, dim, norm_layer, spatial_dims):
            super().__init__()

    monkeypatch.setattr(
        "monai.networks.nets.swin_unetr.SwinTransformer",
        lambda **options: SwinTransformer(**options | {"downsample": Unknown}),
    )
    with pytest.raises(EncoderError, match=r"voco-b.*no patch merging"):
        VoCoB("random")


def test_the_encoder_is_what_its_card_says():
    with channels(VoCoB, 48):
        assert CARD.num_params == 53_164_146 == sum(p.numel() for p in on_meta(VoCoB).parameters())
        encoder, card = VoCoB("random", deferred=True), CARD
    assert (card.window_size, card.spacing_mm, card.feature_stride) == ((96,) * 3, (1.5,) * 3, (32,) * 3)
    assert (card.feature_dim, card.embedding_dim) == (768, 1152)
    assert card.pad_hu == -175.0  # what upstream scales to the 0 that it pads with
    assert encoder.feature_centre() == (15.5,) * 3  # patches, and merging of 2 x 2 x 2
    assert card.weights.licence == "Apache-2.0"
    assert "MONAI 1.3.0" in card.reference


def test_a_whole_swinunetr_gives_the_same_encoder_wrapped_or_not(encoder, vocomni, tmp_path):
    assert {k.split(".")[0] for k in vocomni} > {"swinViT", "encoder10", "decoder1", "decoder5", "out"}
    whole = VoCoB(saved(tmp_path / "VoComni_B.pt", vocomni))
    assert whole.describe()["weights_sha256"] == encoder.describe()["weights_sha256"]
    flat, wrapped = encoder._convert(vocomni), encoder._convert({"state_dict": vocomni})
    assert flat.keys() == wrapped.keys()
    assert all(flat[key] is wrapped[key] for key in flat)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("encoder10.layer.conv2.conv.weight"), "1 missing: encoder10.layer.conv2.conv.weight"),
        (lambda s: s.pop("swinViT.layers4.0.downsample.norm.weight"), "1 missing: swinViT.layers4.0.downsample"),
        (lambda s: s.update({"encoder5.layer.conv1.conv.weight": torch.ones(1)}), "1 unexpected: encoder5"),
        (lambda s: s.update({"decoder6.weight": torch.ones(1)}), "1 unexpected: decoder6"),
        (lambda s: s.update({"outer.weight": torch.ones(1)}), "1 unexpected: outer"),
        # Upstream's loader would leave this one at random values.
        (lambda s: s.update({"swinViT.patch_embed.proj.bias": torch.ones(96)}), "1 of another shape: swinViT.patch"),
    ],
)
def test_loading_is_strict(ssl_head, tmp_path, change, message):
    state = light(ssl_head)
    change(state)
    with pytest.raises(WeightsError, match=message):
        VoCoB(saved(tmp_path / "bad.pt", state))
