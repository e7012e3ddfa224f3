"""eva's backbones by their cards: against eva's own classes, our adapter and MONAI's networks, on the same weights."""

import copy
import re
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from eva.core.models.wrappers import _utils
from eva.vision.models.networks.backbones import backbone_registry
from eva.vision.models.networks.backbones.radiology import SegResNetEncoder, SwinUNETREncoder
from monai.networks.nets import SegResNet
from monai.networks.nets.swin_unetr import PatchMergingV2

import tapct
from baselines.voco import VoCoB
from tapct.encoders import encoder_class, list_declared
from tapct.encoders.eva_cards import SHIPPED
from tapct.encoders.eva_names import encoder_name, from_folders, in_folders
from tapct.encoders.identity import identity
from tapct.errors import EncoderError, WeightsError
from tests.baselines.golden import assert_same, light
from tests.baselines.test_voco import channels, merging_of_monai_13

CPU = torch.device("cpu")


def scan(*size: int) -> torch.Tensor:
    """A gradient along every axis, beyond the range on both sides."""
    z, y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    noise = torch.randn(size, generator=torch.Generator().manual_seed(1))
    return (100 * z + 200 * y + 400 * x + 150 * noise)[None, None]


def in_ras(hu: torch.Tensor) -> torch.Tensor:
    scaled = (np.clip(hu.double().numpy(), -175, 250) + 175) / 425
    return torch.from_numpy(scaled.transpose(0, 1, 4, 3, 2)[:, :, ::-1, ::-1].copy()).float()


def from_ras(features: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(features.numpy()[:, :, ::-1, ::-1].transpose(0, 1, 4, 3, 2).copy())


def published(network: torch.nn.Module, path: Path, inside: str | None, prefix: str) -> Path:
    """A file of the layout that eva's classes read, with what else is in such a file."""
    state = {prefix + key: value for key, value in network.state_dict().items()}
    state |= (
        {} if inside is None else {f"{prefix}decoder5.weight": torch.ones(1), "module.organ_up.bias": torch.ones(1)}
    )
    torch.save(state if inside is None else {inside: state, "epoch": 3}, path)
    return path


@pytest.fixture(scope="module", params=[12, pytest.param(48, marks=pytest.mark.thorough)])
def swin(request) -> SwinUNETREncoder:
    """eva's class, by default with a quarter of the channels."""
    torch.manual_seed(0)
    return SwinUNETREncoder(feature_size=request.param).eval().requires_grad_(False)


@pytest.fixture
def voco_b(swin, own) -> str:
    """The shipped card at full width; else a copy of it that differs by what hangs on the width."""
    if (width := swin.state_dict()["encoder1.layer.conv1.conv.weight"].shape[0]) == 48:
        return "eva:radiology/voco_b"
    params = sum(parameter.numel() for parameter in swin.parameters())
    narrow = {"backbone": "radiology/swin_unetr_encoder", "arguments": {"feature_size": width}, "num_params": params}
    return own({**narrow, "feature_dim": 16 * width, "embedding_dim": 24 * width}, like="radiology/voco_b")


@pytest.fixture
def own(tmp_path):
    """Writes a card of a user's: a shipped one with changes."""

    def write(changes=None, like="segresnet_encoder", file="mine.yaml", **more) -> str:
        content = yaml.safe_load((SHIPPED / f"{like}.yaml").read_text())
        content |= {"name": "mine", "display_name": "Mine"} | (changes or {}) | more
        path = tmp_path / file
        path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v != "left out"}))
        return f"eva:{path}"

    return write


# -- The cards that ship -------------------------------------------------------------------------------


def test_every_radiology_backbone_of_eva_has_a_card_and_lists():
    of_eva = {
        name for name in backbone_registry.entries() if name.startswith("radiology/") or name == "segresnet_encoder"
    }
    assert {name.removeprefix("eva:") for name in list_declared()} == of_eva
    assert not set(list_declared()) & set(tapct.list_encoders()), "`-e all` is the adapters"


@pytest.mark.parametrize("name", list_declared())
def test_a_card_is_of_the_backbone_of_its_name_with_the_file_and_md5_that_eva_names(name):
    cls, of_eva = encoder_class(name), backbone_registry.get(name.removeprefix("eva:"))
    card, weights = cls.card, cls.declared.weights
    assert (card.name, cls.declared.backbone) == (name, name.removeprefix("eva:"))
    assert card.inputs_as_declared
    address = getattr(of_eva, "_checkpoint", None)
    assert weights.md5 == card.weights.md5 == getattr(of_eva, "_md5", None)
    if address is None:
        assert (weights.repository, weights.file) == (None, None)
    else:
        assert f"https://{weights.repository}/resolve/main/{weights.file}" == address


@pytest.fixture
def of_docs(tmp_path) -> str:
    """The card of docs/eva.md."""
    page = (Path(__file__).parents[2] / "docs" / "eva.md").read_text(encoding="utf-8")
    (card,) = re.findall(r"```yaml\n# coralbay\.yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "coralbay.yaml").write_text(card)
    return f"eva:{tmp_path / 'coralbay.yaml'}"


@pytest.mark.parametrize("name", [*list_declared(), "of docs/eva.md"])
def test_a_card_says_what_the_network_has(name, of_docs, monkeypatch):
    linspace = torch.linspace
    monkeypatch.setattr(torch, "linspace", lambda *of, **how: linspace(*of, **how | {"device": "cpu"}))
    with torch.device("meta"):  # 850 M parameters without their memory
        encoder = tapct.load_encoder(of_docs if name == "of docs/eva.md" else name, "random", deferred=True)
        network = encoder.build()  # refuses another num_params
    card, window = encoder.card, (32, 64, 32)
    embedding, maps = network.forward_intermediates(torch.empty(1, 1, *window, device="meta"))
    patches = tuple(n // s for n, s in zip(window, card.feature_stride, strict=True))
    assert maps[encoder.declared.feature].shape[1:] == (card.feature_dim, *patches)
    assert embedding.shape == (1, card.embedding_dim)


# -- Equal to what we have of them ---------------------------------------------------------------------


def test_the_card_of_voco_b_says_what_our_adapters_does():
    ours, evas = VoCoB.card, encoder_class("eva:radiology/voco_b").card
    for field in ("window_size", "spacing_mm", "pad_hu", "num_params", "pretraining_data"):
        assert getattr(ours, field) == getattr(evas, field)
    assert ours.weights.repository == evas.weights.repository


def test_voco_b_is_our_adapter_to_the_last_bit(swin, voco_b, tmp_path):
    file = published(swin, tmp_path / "VoCo_B_SSL_head.pt", None, "")
    hu = scan(32, 64, 64)
    evas = tapct.load_encoder(voco_b, file)
    with channels(VoCoB, evas.card.feature_dim // 16):
        ours = VoCoB(file)(hu)
    for one, other in zip(ours[:2], evas(hu)[:2], strict=True):
        assert torch.equal(one, other)


def test_evas_own_class_differs_by_axes_and_patch_merging_alone(swin, voco_b, tmp_path):
    file = published(swin, tmp_path / "voco.pt", None, "")
    hu = scan(32, 64, 64)
    found = tapct.load_encoder(voco_b, file)(hu)
    stock, _ = swin.forward_intermediates(in_ras(hu))
    assert (found.embedding - stock).abs().max() > 0.01, "MONAI's new merging gives other features, without an error"
    fixed = copy.deepcopy(swin)
    for module in fixed.modules():
        if isinstance(module, PatchMergingV2):
            module.forward = types.MethodType(merging_of_monai_13, module)
    embedding, maps = fixed.forward_intermediates(in_ras(hu))
    assert_same(found.embedding, embedding)
    assert_same(found.map, from_ras(maps[-1]))


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("radiology/suprem_swin_unetr", "module.backbone."),
        pytest.param("radiology/universal_swinunetr", "module.", marks=pytest.mark.thorough),
    ],
)
def test_swin_encoders_without_v2_load_from_their_checkpoints(name, prefix, tmp_path):
    network = SwinUNETREncoder(use_v2=False).eval().requires_grad_(False)
    network.load_state_dict(light(network.state_dict()))
    encoder = tapct.load_encoder(f"eva:{name}", published(network, tmp_path / "file.pth", "net", prefix))
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in encoder.network.state_dict().items())


def test_suprem_segresnet_is_monais_encoder(tmp_path):
    torch.manual_seed(0)
    monai = SegResNet(3, init_filters=16, blocks_down=(1, 2, 2, 4), in_channels=1, out_channels=2).eval()
    monai.requires_grad_(False)
    state = {f"module.{key}": value for key, value in monai.state_dict().items()}
    torch.save({"net": state}, tmp_path / "segresnet.pth")
    encoder = tapct.load_encoder("eva:radiology/suprem_segresnet", tmp_path / "segresnet.pth")
    hu = scan(16, 32, 24)
    x = in_ras(hu)
    deepest, stages = monai.encode(x)
    found = encoder(hu)
    assert_same(found.map, from_ras(deepest))
    assert_same(found.embedding, torch.cat([stage.mean((2, 3, 4)) for stage in stages], dim=1))
    assert encoder.feature_centre() == (0.0, 7.0, 7.0)  # first voxel of the stride, along R and A from the other end


# -- Weights -------------------------------------------------------------------------------------------


def test_nothing_is_downloaded_by_eva(monkeypatch):
    monkeypatch.setattr(_utils, "load_state_dict_from_url", lambda *_, **__: pytest.fail("eva downloaded"))
    assert tapct.load_encoder("eva:radiology/suprem_segresnet", "random").weights_source == "random"


def test_the_published_file_is_fetched_as_every_encoders_and_its_md5_checked(monkeypatch, tmp_path):
    asked = []
    (tmp_path / "other.pth").write_bytes(b"something else")

    def ask(repository, weights, name_s, answer_s):
        asked.append((repository, weights.file, weights.revision))
        return tmp_path / "other.pth"

    monkeypatch.setattr("tapct.encoders.download.asked_hub", ask)
    monkeypatch.setattr("tapct.encoders.download.offline", lambda: None)
    with pytest.raises(WeightsError, match="is not the published file: md5"):
        tapct.load_encoder("eva:radiology/suprem_segresnet")
    assert asked == [("MrGiovanni/SuPreM", "supervised_suprem_segresnet_2100.pth", None)]


def test_without_published_weights_it_says_so():
    with pytest.raises(WeightsError, match=r"segresnet_encoder: no file that could be downloaded is known"):
        tapct.load_encoder("eva:segresnet_encoder")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("module.convInit.conv.weight"), "1 missing: convInit.conv.weight"),
        (lambda s: s.update({"module.convInit.conv.odd": torch.ones(1)}), r"1 unexpected: convInit\.conv\.odd"),
        (lambda s: s.update({"module.convInit.conv.weight": torch.ones(2)}), "1 of another shape: convInit"),
    ],
)
def test_loading_is_strict(tmp_path, change, message):
    state = {f"module.{key}": value for key, value in SegResNetEncoder().state_dict().items()}
    change(state)
    torch.save({"net": state}, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match=message):
        tapct.load_encoder("eva:radiology/suprem_segresnet", tmp_path / "bad.pth")


def test_a_checkpoint_without_its_key_is_refused_and_pickles_are_not_run(tmp_path):
    torch.save(SegResNetEncoder().state_dict(), tmp_path / "flat.pth")
    with pytest.raises(WeightsError, match=r"finds no weights in .*'net'"):
        tapct.load_encoder("eva:radiology/suprem_segresnet", tmp_path / "flat.pth")
    torch.save({"net": {}, "more": Path("x")}, tmp_path / "objects.pth")
    with pytest.raises(WeightsError, match="pickled objects"):
        tapct.load_encoder("eva:radiology/suprem_segresnet", tmp_path / "objects.pth")


def test_weights_with_and_without_the_prefix_are_refused(own, tmp_path):
    state = SegResNetEncoder().state_dict()
    torch.save(state | {f"net.{key}": value + 1 for key, value in state.items()}, tmp_path / "both.pth")
    with pytest.raises(WeightsError, match=r"with 'net\.' in front and without: let weights\.keep"):
        tapct.load_encoder(own({"weights": {"strip": "net."}}), tmp_path / "both.pth")


# -- A card of a user's --------------------------------------------------------------------------------


def test_a_card_of_a_users_is_loaded_by_its_path_and_called_by_its_name(own):
    name = own({"axes": "LPS", "clip_hu": [-1000, 1000], "scaled_to": [-1, 1], "feature": 1, "feature_dim": 32,
                "feature_stride": [2, 2, 2], "window_multiple": [8, 8, 8], "embedding": "feature",
                "embedding_dim": 32})  # fmt: skip
    encoder = tapct.load_encoder(name, "random")
    assert encoder.card.name == encoder_name(name) == "eva:mine"
    hu = scan(8, 16, 24)
    with pytest.raises(EncoderError, match="must be a multiple of"):
        encoder(hu[..., :20])
    found = encoder(hu)
    x = (hu.clamp(-1000, 1000) / 1000).permute(0, 1, 4, 3, 2)  # (x, y, z) towards L, P, S
    with torch.no_grad():
        expected = encoder.network.convInit(x)
        for block in encoder.network.down_layers[:2]:
            expected = block(expected)
    assert_same(found.map, expected.permute(0, 1, 4, 3, 2))
    assert_same(found.embedding, expected.mean((2, 3, 4)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fature": -1}, "unknown key fature. Did you mean 'feature'"),
        ({"weights": {"md": "0" * 32}}, r"unknown key weights\.md\. Did you mean 'md5'"),
        ({"clip_hu": "left out"}, "the key clip_hu is missing"),
        ({"axes": "SPP"}, "axes SPP must name each"),
        ({"clip_hu": [250, -175]}, r"clip_hu \[250\.0, -175\.0\] must rise"),
        ({"window_size": [96, 96, 90]}, r"window_size \[96, 96, 90\] must be multiples"),
        ({"weights": {"keep": "("}}, "keep is not a regular expression"),
        ({"name": "segresnet_encoder"}, "a card that ships is called segresnet_encoder"),
        ({"name": "Mine"}, "name: String should match"),
        ({"name": "a~b"}, "name: String should match"),
        ({"name": "mine.yaml"}, r"name mine\.yaml would be taken for the path of a card"),
        (
            {"weights": {"repository": "zenodo.org/records/1", "file": "a.pt"}},
            "weights: name the md5 of the file",
        ),
        ({"scaled_to": [1, 1]}, r"scaled_to \[1\.0, 1\.0\] makes every voxel the same"),
        ({"patch_centre": [0, 0, 12]}, r"patch_centre \[0\.0, 0\.0, 12\.0\] must lie in a stride of \[8, 8, 8\]"),
    ],
)
def test_a_malformed_card_is_refused_with_file_and_key(own, changes, message):
    with pytest.raises(EncoderError, match=message) as caught:
        encoder_class(own(changes))
    assert "mine.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"backbone": "radiology/voco"},
            "eva's registry has no backbone 'radiology/voco'. Did you mean 'radiology/voco_",
        ),
        ({"backbone": "universal/vit_small_patch16_224_dino"}, "gives no maps of windows"),
        ({"arguments": {"filters": 3}}, "does not take the card's arguments"),
        ({"num_params": 7}, "says num_params 7, and the network has 4399344"),
        (
            {"patch_merging": "monai-1.4"},
            "the network has no patch merging, and its card says patch_merging: monai-1.4",
        ),
    ],
)
def test_a_card_that_is_not_its_networks_is_refused_when_it_is_built(own, changes, message):
    with pytest.raises(EncoderError, match=message):
        tapct.load_encoder(own(changes), "random")


def test_a_swin_transformer_must_name_its_patch_merging(own):
    with pytest.raises(EncoderError, match=r"has 4 patch mergings .* patch_merging: null"):
        tapct.load_encoder(own({"patch_merging": None}, like="radiology/swin_unetr_encoder"), "random")


@pytest.mark.parametrize(
    "changes",
    [{"feature": 9}, {"feature": 1}, {"feature_stride": [4, 8, 8]}, {"feature_dim": 64}, {"embedding_dim": 128}],
)
def test_a_wrong_feature_stride_or_length_is_refused_before_a_number_is_made_of_it(own, changes):
    encoder = tapct.load_encoder(own(changes), "random")
    with pytest.raises(EncoderError, match="feature"):
        encoder(scan(16, 32, 24))


def test_a_name_that_is_none_is_refused(tmp_path):
    with pytest.raises(
        EncoderError, match=r"there is no card 'eva:radiology/voco'\. Did you mean 'eva:radiology/voco_"
    ):
        encoder_class("eva:radiology/voco")
    with pytest.raises(EncoderError, match=r"there is no card .*none\.yaml"):
        encoder_class(f"eva:{tmp_path / 'none.yaml'}")


# -- Keys and names ------------------------------------------------------------------------------------


def test_keys_cover_what_the_card_declares_and_evas_version(own, monkeypatch):
    one = identity(tapct.load_encoder(own(), "random", deferred=True), CPU)
    assert one["libraries"]["eva"] == "0.4.5"
    assert "monai" in one["libraries"]
    about = identity(
        tapct.load_encoder(own({"reference": "another", "display_name": "M"}), "random", deferred=True), CPU
    )
    assert about == one, "what a card says about a backbone decides nothing"
    for changes in ({"clip_hu": [-200, 250]}, {"scaled_to": [-1, 1]}, {"axes": "RAS"}, {"patch_centre": None},
                    {"feature": -2}, {"arguments": {"init_filters": 16}}, {"pad_hu": -1000}):  # fmt: skip
        other = identity(tapct.load_encoder(own(changes), "random", deferred=True), CPU)
        assert other != one, changes


def test_names_in_folders_can_be_read_back_and_differ():
    names = ["tap-s-2.5d", *list_declared()]
    folders = [in_folders(name) for name in names]
    assert [from_folders(folder) for folder in folders] == names
    assert in_folders("eva:radiology/voco_l") == "eva~radiology~voco_l"
    assert not set("".join(folders)) & set('/\\:*?"<>|%+@')
    assert len({folder.casefold() for folder in folders}) == len(names)
