"""The 2D model against the Dinov2WithRegisters of `transformers`, with the same weights."""

import pytest
import torch
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from tapct.vit import VisionTransformer
from tests.vit.helpers import noise, randomise

DIM, HEADS, REGISTERS = 24, 3, 4


def build_pair(channels: int, depth: int = 3) -> tuple[VisionTransformer, Dinov2WithRegistersModel]:
    """Builds both models, every weight of ordinary size and equal."""
    ours = VisionTransformer(
        window_size=(32, 32),
        patch_size=(4, 4),
        embed_dim=DIM,
        depth=depth,
        num_heads=HEADS,
        in_channels=channels,
    ).eval()
    randomise(ours)
    config = Dinov2WithRegistersConfig(
        image_size=32,
        patch_size=4,
        num_channels=channels,
        hidden_size=DIM,
        num_hidden_layers=depth,
        num_attention_heads=HEADS,
        num_register_tokens=REGISTERS,
        layer_norm_eps=1e-6,
    )
    theirs = Dinov2WithRegistersModel(config).eval()
    theirs.load_state_dict(dict(their_weights(ours, depth)), strict=True)
    return ours, theirs


def their_weights(ours: VisionTransformer, depth: int):
    """Yields our weights under the names that `transformers` 5 gives them."""
    weights = ours.state_dict()
    yield "embeddings.cls_token", weights["cls_token"]
    yield "embeddings.mask_token", weights["mask_token"]
    yield "embeddings.register_tokens", weights["register_tokens"]
    yield "embeddings.position_embeddings", weights["pos_embed"]
    for kind in ("weight", "bias"):
        yield f"embeddings.patch_embeddings.projection.{kind}", weights[f"patch_embed.proj.{kind}"]
        yield f"layernorm.{kind}", weights[f"norm.{kind}"]
        for n in range(depth):
            qkv = weights[f"blocks.{n}.attn.qkv.{kind}"].chunk(3)
            for name, part in zip("qkv", qkv, strict=True):
                yield f"encoder.layer.{n}.attention.{name}_proj.{kind}", part
            yield f"encoder.layer.{n}.attention.o_proj.{kind}", weights[f"blocks.{n}.attn.proj.{kind}"]
            for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                yield f"encoder.layer.{n}.{name}.{kind}", weights[f"blocks.{n}.{name}.{kind}"]
    for n in range(depth):
        for m in (1, 2):
            yield f"encoder.layer.{n}.layer_scale{m}.lambda1", weights[f"blocks.{n}.ls{m}.gamma"]


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("size", [(32, 32), (20, 20), (48, 24), (16, 64)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_all_tokens_equal_those_of_transformers(channels, size, masked):
    ours, theirs = build_pair(channels)
    images = noise(2, channels, *size)
    masks = noise(2, size[0] * size[1] // 16, seed=2) > 0.5 if masked else None
    with torch.no_grad():
        tokens = ours(images, masks)
        expected = theirs(images, bool_masked_pos=masks).last_hidden_state
    assert expected.std() > 0.5, "a comparison of noughts would prove nothing"
    first_patch = 1 + REGISTERS
    torch.testing.assert_close(tokens.cls, expected[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens.registers, expected[:, 1:first_patch], rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens.patches, expected[:, first_patch:], rtol=0, atol=1e-5)
