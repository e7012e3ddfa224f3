"""TAP-CT against other people's code: transformers' tokens, and remote code of the published layout."""

import json

import pytest
import safetensors.torch
import torch
from torch import nn
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from tapct import vit
from tapct.encoders.remote_code import RemoteTapS3D
from tapct.encoders.tap_ct import TapCT
from tapct.errors import EncoderError, WeightsError
from tests.small import small_card


class Small2D(TapCT):
    card = small_card(name="small-2d", window_size=(1, 64, 64), feature_stride=(1, 16, 16))
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
