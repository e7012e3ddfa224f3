"""TAP-CT against other people's code: transformers' tokens, and remote code of the published layout."""

import json
import math
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

import tapct
from tapct import vit
from tapct.encoders import encoder_class
from tapct.encoders.remote_code import RemoteTapS3D
from tapct.encoders.tap_ct import TapCT
from tapct.errors import EncoderError, WeightsError
from tapct.features import extract
from tapct.volumes import Grid
from tests.small import small_card


class Small2D(TapCT):
    card = small_card(name="small-2d", num_params=70_272, window_size=(1, 64, 64), feature_stride=(1, 16, 16))
    size, patch_size, native_window = "s", (16, 16), (64, 64)

    def build(self) -> nn.Module:
        return vit.VisionTransformer(
            window_size=self.native_window, patch_size=self.patch_size, embed_dim=48, depth=2, num_heads=3
        )


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A transformers model with every weight random, saved as transformers saves it."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "num_register_tokens": 4}
    config = Dinov2WithRegistersConfig(**sizes, image_size=64, patch_size=16, num_channels=1)
    model = Dinov2WithRegistersModel(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("hub")
    model.save_pretrained(folder)
    return model, folder / "model.safetensors"


@pytest.mark.parametrize("size", [(64, 64), (96, 48)])
def test_a_transformers_checkpoint_gives_the_tokens_of_transformers(size, theirs):
    model, path = theirs
    windows = torch.empty(3, 1, 1, *size).uniform_(-1100, 900)
    ours = Small2D(path)(windows)
    pixels = (windows[:, :, 0].clamp(-1008.0, 822.0) + 86.8086) / 322.6347
    with torch.no_grad():
        tokens = model(pixels).last_hidden_state
    patches = tokens[:, 5:].transpose(1, 2).reshape(3, 48, 1, size[0] // 16, size[1] // 16)
    torch.testing.assert_close(ours.cls, tokens[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.map, patches, atol=1e-5, rtol=1e-5)


def test_a_transformers_checkpoint_of_another_depth_is_refused(theirs, tmp_path):
    class Deeper(Small2D):
        def build(self) -> nn.Module:
            sizes = {"embed_dim": 48, "depth": 3, "num_heads": 3}
            return vit.VisionTransformer(window_size=(64, 64), patch_size=(16, 16), **sizes)

    with pytest.raises(WeightsError, match=r"14 missing: blocks.2"):
        Deeper(theirs[1])


REMOTE_CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

class TAPCTConfig(PretrainedConfig):
    model_type = "tapct"

class TAPCTModel(PreTrainedModel):
    config_class = TAPCTConfig

    def __init__(self, config):
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.post_init()

    def forward(self, x, reshape=False):
        assert reshape
        pooled = torch.nn.functional.avg_pool3d(x, (4, 8, 8)) * self.scale
        features = pooled.expand(-1, 384, -1, -1, -1)
        return BaseModelOutputWithPooling(features, features.mean((2, 3, 4)))
"""


def test_remote_code_runs_only_when_asked_for_with_a_pinned_commit(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "modeling_tapct.py").write_text(REMOTE_CODE)
    auto = {"AutoConfig": "modeling_tapct.TAPCTConfig", "AutoModel": "modeling_tapct.TAPCTModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "tapct", "auto_map": auto}))
    safetensors.torch.save_file({"scale": torch.tensor([2.0])}, folder / "model.safetensors")
    with pytest.raises(EncoderError, match="full commit"):
        RemoteTapS3D(folder, revision="main")
    encoder = RemoteTapS3D(folder, revision="a" * 40)
    windows = torch.full((1, 1, 12, 32, 32), -86.8086 + 322.6347)
    features = encoder(windows)
    assert features.map.shape == (1, 384, 3, 4, 4)
    torch.testing.assert_close(features.map, torch.full_like(features.map, 2.0))
    assert encoder.describe()["weights"].endswith(f"@{'a' * 40}, remote code")
    settings = encoder.describe()["identity"]["settings"]
    (folder / "modeling_tapct.py").write_text(f"{REMOTE_CODE}# read and found good")
    assert encoder.describe()["identity"]["settings"] != settings, "the content of the folder counts"


class RateScores(nn.Module):
    """In place of the network: keeps what it is given."""

    def __init__(self, patch_size: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.patch_size, self.dim, self.seen = patch_size, dim, []

    def forward(self, x: torch.Tensor) -> vit.Tokens:
        self.seen.append(x.double())
        grid = tuple(n // p for n, p in zip(x.shape[2:], self.patch_size, strict=True))
        cls = torch.zeros(x.shape[0], self.dim)
        return vit.Tokens(cls, cls[:, None].expand(-1, 4, -1), cls[:, None].expand(-1, math.prod(grid), -1), grid)


def published_processor(hu: torch.Tensor, divisible_pad_z: int) -> torch.Tensor:
    """As the published configuration has it: resize, pad with -1024 HU, clip, normalise, in this order."""
    x = F.interpolate(hu[None, None].double(), (hu.shape[0], 224, 224), mode="trilinear", align_corners=False)[0, 0]
    x = F.pad(x, (0, 0, 0, 0, 0, -hu.shape[0] % divisible_pad_z), value=-1024.0)
    return (x.clamp(-1008.0, 822.0) - -86.80862426757812) / 322.63470458984375


@pytest.mark.parametrize("name", [f"tap-{size}-{kind}" for size in "sb" for kind in ("2d", "2.5d", "3d")])
def test_the_network_is_given_what_the_published_processor_gives(name, monkeypatch):
    """Of a scan of 14 slices with HU far outside of the clip, that shrinks in the plane; tiled as extraction tiles."""
    monkeypatch.setattr(TapCT, "build", lambda self: RateScores(self.patch_size, self.card.feature_dim))
    encoder: Any = tapct.load_encoder(name, "random")
    hu = torch.empty(14, 310, 260).uniform_(-3024.0, 3000.0, generator=torch.Generator().manual_seed(0))
    found = extract(encoder, hu, Grid.of(hu.shape, np.diag([2.5, 0.7, 0.8, 1.0])))
    expected = published_processor(hu, {"2d": 1, "2.5d": 1, "3d": 4}[name.rpartition("-")[2]])
    assert encoder.card.in_plane_filter == "linear"
    assert "inferred, not read" in encoder.card.reference
    seen = torch.cat([x if x.ndim == 5 else x[:, :, None] for x in encoder.network.seen])
    starts = {"2d": range(14), "2.5d": (0, 6, 8), "3d": (0, 4)}[name.rpartition("-")[2]]
    assert len(seen) == len(starts) == len(found.embeddings)
    depth = encoder.card.window_size[0]
    for window, start in zip(seen[:, 0], starts, strict=True):
        # Mean and deviation of the paper's Appendix B are those of the processor, rounded to seven digits.
        torch.testing.assert_close(window, expected[start : start + depth], atol=1e-5, rtol=1e-5)
    averaged: Any = tapct.load_encoder(name, "random", in_plane_filter="antialias")
    extract(averaged, hu, found.native_grid)
    assert (averaged.network.seen[0] - encoder.network.seen[0]).abs().mean() > 0.1


def test_our_padding_is_that_of_the_processor_once_it_is_clipped():
    """Below the clip every number is the same: bit by bit, also next to voxels that are not."""
    encoder = Small2D("random")
    windows = torch.full((2, 1, 1, 64, 64), -1008.0)
    windows[..., :40] = 55.0
    processors = torch.where(windows == -1008.0, -1024.0, windows)
    assert encoder.card.pad_hu == -1008.0
    for ours, theirs in zip(encoder(windows)[:2], encoder(processors)[:2], strict=True):
        assert torch.equal(ours, theirs)


def test_the_pages_that_are_known_are_named_and_the_licence_is_marked_as_somebody_elses_word():
    cards = {name: encoder_class(name).card for name in tapct.list_encoders() if name.startswith("tap-")}
    cards.pop("tap-t-3d")
    pages = {name: card.weights.repository for name, card in cards.items()}
    assert pages.pop("tap-s-2.5d") is pages.pop("tap-b-2.5d") is None
    assert pages == {name: f"huggingface.co/fomofo/{name.replace('tap-', 'tap-ct-')}" for name in pages}
    assert all("third party" in (card.weights.licence or "") for card in cards.values())


@pytest.mark.parametrize("name", ["curia", "intensity", "tap-t-3d"])
def test_all_others_that_resize_slices_average_them_as_before(name):
    card = encoder_class(name).card
    assert card.in_plane_size is not None
    assert card.in_plane_filter == "antialias"
