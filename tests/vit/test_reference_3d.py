"""The 3D model against a second computation in float64, written out here from the formulas."""

import math

import pytest
import torch

from tapct.vit import VisionTransformer
from tests.vit.helpers import noise, randomise

WINDOW, PATCH, GRID = (4, 6, 16), (2, 2, 4), (2, 3, 4)
DIM, HEADS, DEPTH, REGISTERS = 12, 3, 2, 4


def build(dtype: torch.dtype = torch.float32) -> VisionTransformer:
    model = VisionTransformer(window_size=WINDOW, patch_size=PATCH, embed_dim=DIM, depth=DEPTH, num_heads=HEADS).to(
        dtype
    )
    randomise(model)
    return model.eval()


def reference_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight + bias


def reference_attention(x, w, prefix):
    batch, length, dim = x.shape
    q, k, v = (
        (torch.einsum("btc,oc->bto", x, weight) + bias).reshape(batch, length, HEADS, dim // HEADS)
        for weight, bias in zip(w[f"{prefix}.qkv.weight"].chunk(3), w[f"{prefix}.qkv.bias"].chunk(3), strict=True)
    )
    scores = torch.einsum("bqhe,bkhe->bhqk", q, k) / math.sqrt(dim // HEADS)
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    mixed = torch.einsum("bhqk,bkhe->bqhe", weights, v).reshape(batch, length, dim)
    return torch.einsum("btc,oc->bto", mixed, w[f"{prefix}.proj.weight"]) + w[f"{prefix}.proj.bias"]


def reference_mlp(x, w, prefix):
    hidden = torch.einsum("btc,oc->bto", x, w[f"{prefix}.fc1.weight"]) + w[f"{prefix}.fc1.bias"]
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return torch.einsum("btc,oc->bto", hidden, w[f"{prefix}.fc2.weight"]) + w[f"{prefix}.fc2.bias"]


def reference_tokens(w, volume, masks):
    """All tokens ``(B, 1 + R + N, C)`` for a volume of the native size."""
    cubes = volume
    for axis, size in enumerate(PATCH):
        cubes = cubes.unfold(2 + axis, size, size)
    x = torch.einsum("bcdhwijk,ocijk->bdhwo", cubes, w["patch_embed.proj.weight"]) + w["patch_embed.proj.bias"]
    x = x.reshape(len(volume), math.prod(GRID), DIM)
    x = torch.where(masks[..., None], w["mask_token"][0], x) + w["pos_embed"][:, 1:]
    cls = (w["cls_token"] + w["pos_embed"][:, :1]).expand(len(volume), 1, DIM)
    x = torch.cat([cls, w["register_tokens"].expand(len(volume), REGISTERS, DIM), x], dim=1)
    for n in range(DEPTH):
        normed = reference_norm(x, w[f"blocks.{n}.norm1.weight"], w[f"blocks.{n}.norm1.bias"])
        x = x + w[f"blocks.{n}.ls1.gamma"] * reference_attention(normed, w, f"blocks.{n}.attn")
        normed = reference_norm(x, w[f"blocks.{n}.norm2.weight"], w[f"blocks.{n}.norm2.bias"])
        x = x + w[f"blocks.{n}.ls2.gamma"] * reference_mlp(normed, w, f"blocks.{n}.mlp")
    return reference_norm(x, w["norm.weight"], w["norm.bias"])


def linear_weights(stored: int, wanted: int) -> torch.Tensor:
    """The matrix ``(wanted, stored)`` of linear interpolation between patch centres, held at the ends."""
    matrix = torch.zeros(wanted, stored, dtype=torch.float64)
    for row in range(wanted):
        place = min(max((row + 0.5) * stored / wanted - 0.5, 0), stored - 1)
        low = min(int(place), stored - 2)
        matrix[row, low], matrix[row, low + 1] = low + 1 - place, place - low
    return matrix


def test_tokens_equal_the_second_computation():
    model = build(torch.float64)
    volume = noise(2, 1, *WINDOW, dtype=torch.float64)
    masks = noise(2, math.prod(GRID), seed=2) > 0.5
    with torch.no_grad():
        tokens = model(volume, masks)
    expected = reference_tokens(model.state_dict(), volume, masks)
    assert expected.std() > 0.5, "a comparison of noughts would prove nothing"
    assert tokens.grid == GRID
    torch.testing.assert_close(tokens.cls, expected[:, 0], rtol=0, atol=1e-10)
    torch.testing.assert_close(tokens.registers, expected[:, 1 : 1 + REGISTERS], rtol=0, atol=1e-10)
    torch.testing.assert_close(tokens.patches, expected[:, 1 + REGISTERS :], rtol=0, atol=1e-10)


def positions_of(model: VisionTransformer, size: tuple[int, ...]) -> torch.Tensor:
    """What the model adds to the patches of an input of that size, ``(N, C)``."""
    with torch.no_grad():
        for parameter in model.patch_embed.parameters():
            parameter.zero_()
        return model.embed(torch.zeros(1, 1, *size, dtype=model.pos_embed.dtype))[0, 1 + model.num_register_tokens :]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("window", "patch"), [(WINDOW, PATCH), ((8, 12), (2, 2))], ids=["3d", "2d"])
def test_native_positions_are_the_stored_bits(window, patch, dtype):
    model = VisionTransformer(window_size=window, patch_size=patch, embed_dim=8, depth=1, num_heads=2)
    model = model.to(dtype)
    randomise(model)  # in float64: bits that a detour through float32 would lose
    assert torch.equal(positions_of(model, window), model.pos_embed[0, 1:])


# The last grid has as many patches as the native one, in another arrangement.
@pytest.mark.parametrize("grid", [(2, 2, 2), (1, 5, 4), (4, 6, 8), (4, 2, 3)], ids=str)
def test_other_grids_interpolate_trilinearly_between_centres(grid):
    model = build()
    stored = model.pos_embed[0, 1:].detach().double().reshape(*GRID, DIM)
    matrices = [linear_weights(n, m) for n, m in zip(GRID, grid, strict=True)]
    expected = torch.einsum("dhwc,xd,yh,zw->xyzc", stored, *matrices).reshape(-1, DIM)
    size = tuple(n * p for n, p in zip(grid, PATCH, strict=True))
    torch.testing.assert_close(positions_of(model, size).double(), expected, rtol=0, atol=1e-6)


def test_cls_and_registers_are_the_same_on_every_grid():
    model = build()
    small, native = model.embed(torch.zeros(1, 1, 2, 4, 8)), model.embed(torch.zeros(1, 1, *WINDOW))
    assert torch.equal(small[:, :5], native[:, :5])
    assert torch.equal(native[:, :1], model.cls_token + model.pos_embed[:, :1])
    assert torch.equal(native[:, 1:5], model.register_tokens)


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_one_slice_in_flat_patches_equals_the_2d_model(masked):
    options = {"embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS}
    flat = VisionTransformer(window_size=(8, 12), patch_size=(4, 4), **options).double().eval()
    deep = VisionTransformer(window_size=(1, 8, 12), patch_size=(1, 4, 4), **options).double().eval()
    randomise(flat)
    weights = flat.state_dict()
    weights["patch_embed.proj.weight"] = weights["patch_embed.proj.weight"].unsqueeze(2)
    deep.load_state_dict(weights, strict=True)
    images = noise(2, 1, 8, 12, dtype=torch.float64)
    masks = noise(2, 6, seed=2) > 0 if masked else None
    with torch.no_grad():
        one, two = flat(images, masks), deep(images.unsqueeze(2), masks)
    assert two.grid == (1, *one.grid)
    torch.testing.assert_close(one.map.unsqueeze(2), two.map, rtol=0, atol=1e-12)
    torch.testing.assert_close(one.cls, two.cls, rtol=0, atol=1e-12)
    torch.testing.assert_close(one.registers, two.registers, rtol=0, atol=1e-12)
