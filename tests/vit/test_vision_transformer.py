"""Names, shapes, counts, initialisation, precision and errors of the vision transformer."""

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from tapct.vit import Tokens, VisionTransformer, vit_base, vit_small, vit_tiny
from tests.vit.helpers import noise, randomise

CONFIGURATIONS = {
    "2d": {"window_size": (224, 224), "patch_size": (16, 16)},
    "2.5d": {"window_size": (6, 224, 224), "patch_size": (1, 16, 16)},
    "3d": {"window_size": (12, 224, 224), "patch_size": (4, 8, 8)},
}


def small_3d(**options) -> VisionTransformer:
    settings = {
        "window_size": (4, 8, 12),
        "patch_size": (2, 2, 4),
        "embed_dim": 12,
        "depth": 2,
        "num_heads": 3,
    }
    return VisionTransformer(**(settings | options))


class TestParameters:
    def test_names_and_shapes_are_those_of_dinov2(self):
        model = small_3d(depth=1, num_register_tokens=3, in_channels=2)
        shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        assert shapes == {
            "cls_token": (1, 1, 12),
            "pos_embed": (1, 1 + 2 * 4 * 3, 12),
            "register_tokens": (1, 3, 12),
            "mask_token": (1, 12),
            "patch_embed.proj.weight": (12, 2, 2, 2, 4),
            "patch_embed.proj.bias": (12,),
            "blocks.0.norm1.weight": (12,),
            "blocks.0.norm1.bias": (12,),
            "blocks.0.attn.qkv.weight": (36, 12),
            "blocks.0.attn.qkv.bias": (36,),
            "blocks.0.attn.proj.weight": (12, 12),
            "blocks.0.attn.proj.bias": (12,),
            "blocks.0.ls1.gamma": (12,),
            "blocks.0.norm2.weight": (12,),
            "blocks.0.norm2.bias": (12,),
            "blocks.0.mlp.fc1.weight": (48, 12),
            "blocks.0.mlp.fc1.bias": (48,),
            "blocks.0.mlp.fc2.weight": (12, 48),
            "blocks.0.mlp.fc2.bias": (12,),
            "blocks.0.ls2.gamma": (12,),
            "norm.weight": (12,),
            "norm.bias": (12,),
        }
        assert set(model.state_dict()) == set(shapes), "a checkpoint holds parameters only"

    def test_without_registers_there_is_no_such_parameter(self):
        model = small_3d(num_register_tokens=0)
        assert "register_tokens" not in model.state_dict()
        tokens = model(noise(1, 1, 4, 8, 12))
        assert tokens.registers.shape == (1, 0, 12)
        assert tokens.patches.shape == (1, 24, 12)

    @pytest.mark.parametrize("configuration", CONFIGURATIONS)
    @pytest.mark.parametrize(
        ("build", "dim", "depth"), [(vit_tiny, 192, 12), (vit_small, 384, 12), (vit_base, 768, 12)]
    )
    def test_count_equals_the_closed_formula(self, build, dim, depth, configuration):
        sizes = CONFIGURATIONS[configuration]
        with torch.device("meta"):
            model = build(**sizes)
        patch_voxels = math.prod(sizes["patch_size"])
        patches = math.prod(sizes["window_size"]) // patch_voxels
        # Attention 4 C^2 + 4 C, MLP 8 C^2 + 5 C, two norms 4 C, two LayerScales 2 C.
        block = 12 * dim**2 + 15 * dim
        # Positions 1 + N, CLS 1, registers 4, mask token 1, patch bias 1, final norm 2: rows of C.
        outside = dim * (patch_voxels + patches + 10)
        assert sum(parameter.numel() for parameter in model.parameters()) == depth * block + outside

    @pytest.mark.parametrize(("build", "heads"), [(vit_tiny, 3), (vit_small, 6), (vit_base, 12)])
    def test_heads_of_the_presets_have_64_channels(self, build, heads):
        with torch.device("meta"):
            model = build(**CONFIGURATIONS["2d"])
        assert [block.attn.num_heads for block in model.blocks] == [heads] * 12
        assert model.embed_dim == 64 * heads

    def test_mlp_ratio_sets_the_hidden_channels(self):
        assert small_3d(mlp_ratio=2.5).blocks[1].mlp.fc1.weight.shape == (30, 12)

    def test_presets_pass_options_on(self):
        with torch.device("meta"):
            model = vit_small(**CONFIGURATIONS["3d"], num_register_tokens=7, drop_path_rate=0.1)
        assert model.register_tokens.shape == (1, 7, 384)
        assert model.drop_path_rate == 0.1


class TestInitialisation:
    def test_distributions_are_those_of_dinov2(self):
        torch.manual_seed(0)
        model = VisionTransformer(
            window_size=(32, 32),
            patch_size=(2, 2),
            embed_dim=96,
            depth=2,
            num_heads=3,
            num_register_tokens=16,
        )
        for name in (
            "pos_embed",
            "blocks.0.attn.qkv.weight",
            "blocks.1.attn.proj.weight",
            "blocks.1.mlp.fc1.weight",
        ):
            assert model.get_parameter(name).std().item() == pytest.approx(0.02, rel=0.05), name
        for name in ("cls_token", "register_tokens"):
            assert model.get_parameter(name).std().item() == pytest.approx(1e-6, rel=0.3), name
        assert not model.mask_token.any()
        for name, parameter in model.named_parameters():
            if name.endswith("bias") and "patch_embed" not in name:
                assert not parameter.any(), name
            if name.endswith("gamma"):
                assert (parameter == 1e-5).all(), name
            if "norm" in name and name.endswith("weight"):
                assert (parameter == 1).all(), name
        # PyTorch's own initialisation of a convolution: uniform within 1 / sqrt(fan in), here 4.
        for parameter in model.patch_embed.parameters():
            assert 0.4 < parameter.abs().max().item() <= 0.5
            assert parameter.std().item() == pytest.approx(0.5 / math.sqrt(3), rel=0.25)

    def test_seed_decides_every_weight(self):
        states = []
        for seed in (7, 7, 8):
            torch.manual_seed(seed)
            states.append(small_3d().state_dict())
        first, again, other = states
        assert all(torch.equal(first[name], again[name]) for name in first)
        for name in (
            "pos_embed",
            "cls_token",
            "register_tokens",
            "patch_embed.proj.weight",
            "blocks.1.mlp.fc2.weight",
        ):
            assert not torch.equal(first[name], other[name]), name


class TestTokens:
    def test_map_is_row_major_over_depth_height_width(self):
        grid = (2, 3, 4)
        patches = torch.arange(24.0).reshape(1, 24, 1).expand(2, 24, 5)
        tokens = Tokens(torch.zeros(2, 5), torch.zeros(2, 4, 5), patches, grid)
        assert tokens.map.shape == (2, 5, 2, 3, 4)
        for d, h, w in [(0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 2, 3)]:
            assert (tokens.map[:, :, d, h, w] == d * 12 + h * 4 + w).all()

    def test_each_patch_lands_at_its_place_in_the_map(self):
        model = small_3d().eval()
        randomise(model)
        with torch.no_grad():
            for block in model.blocks:  # without attention, a voxel reaches its own patch only
                block.ls1.gamma.zero_()
            volume = noise(1, 1, 4, 8, 12)
            changed = volume.clone()
            changed[0, 0, 2, 5, 9] += 1
            difference = (model(volume).map - model(changed).map).abs().sum(dim=(0, 1))
        assert difference.nonzero().tolist() == [[1, 2, 2]]

    @pytest.mark.parametrize("size", [(4, 8, 12), (2, 4, 4), (6, 4, 20)])
    def test_shapes_for_native_and_other_sizes(self, size):
        tokens = small_3d()(noise(2, 1, *size))
        grid = (size[0] // 2, size[1] // 2, size[2] // 4)
        assert tokens.grid == grid
        assert tokens.cls.shape == (2, 12)
        assert tokens.registers.shape == (2, 4, 12)
        assert tokens.patches.shape == (2, math.prod(grid), 12)
        assert tokens.map.shape == (2, 12, *grid)

    def test_samples_of_a_batch_do_not_see_each_other(self):
        model = small_3d().eval()
        randomise(model)
        batch = noise(3, 1, 4, 8, 12)
        together = model(batch)
        for index in range(3):
            alone = model(batch[index : index + 1])
            torch.testing.assert_close(alone.patches[0], together.patches[index])
            torch.testing.assert_close(alone.cls[0], together.cls[index])


class TestMasks:
    def test_masks_change_the_input_of_masked_patches_only(self):
        model = small_3d()
        randomise(model)
        volume, masks = noise(2, 1, 4, 8, 12), noise(2, 24) > 0.5
        plain, masked = model.embed(volume), model.embed(volume, masks)
        changed = (plain != masked).any(dim=-1)
        assert not changed[:, :5].any(), "CLS and registers"
        assert torch.equal(changed[:, 5:], masks)
        # A masked patch is the mask token at its position, whatever the volume holds there.
        expected = (model.mask_token + model.pos_embed[0, 1:]).expand(2, -1, -1)[masks]
        torch.testing.assert_close(masked[:, 5:][masks], expected)

    def test_no_mask_equals_an_empty_mask(self):
        model = small_3d().eval()
        randomise(model)
        volume = noise(2, 1, 4, 8, 12)
        for plain, masked in zip(
            model(volume)[:3], model(volume, torch.zeros(2, 24, dtype=torch.bool))[:3], strict=True
        ):
            assert torch.equal(plain, masked)

    def test_content_under_the_mask_is_invisible(self):
        model = small_3d().eval()
        randomise(model)
        masks = torch.zeros(1, 24, dtype=torch.bool)
        masks[0, 0] = True
        volume = noise(1, 1, 4, 8, 12)
        changed = volume.clone()
        changed[0, 0, :2, :2, :4] += 3
        for one, two in zip(model(volume, masks)[:3], model(changed, masks)[:3], strict=True):
            assert torch.equal(one, two)
        assert not torch.equal(model(volume).cls, model(changed).cls)


class TestPrecision:
    def test_every_parameter_gets_a_gradient(self):
        model = small_3d(drop_path_rate=0.25).train()
        randomise(model)
        tokens = model(noise(4, 1, 2, 6, 8), noise(4, 6) > 0)  # not the native grid: through the interpolation
        (tokens.cls.square().sum() + tokens.registers.square().sum() + (tokens.patches**3).sum()).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name

    def test_autocast_to_bfloat16_stays_near_float32(self):
        model = small_3d(drop_path_rate=0.5).train()
        randomise(model)
        volume, masks = noise(4, 1, 2, 4, 8), noise(4, 4) > 0

        def run():
            return model(volume, masks, generator=torch.Generator().manual_seed(3))

        full = run()
        with torch.autocast("cpu", torch.bfloat16):
            half = run()
        half.cls.float().sum().backward()
        for one, two in zip(full[:3], half[:3], strict=True):
            assert not torch.equal(one, two.float()), "autocast must be in effect"
            torch.testing.assert_close(two.float(), one, rtol=0.05, atol=0.05)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    def test_model_in_another_dtype_stays_in_it(self, dtype):
        model = small_3d(drop_path_rate=0.5).to(dtype).train()
        for size in [(4, 8, 12), (2, 4, 4)]:
            tokens = model(noise(4, 1, *size, dtype=dtype))
            assert {tokens.cls.dtype, tokens.registers.dtype, tokens.patches.dtype} == {dtype}

    def test_attention_weights_are_never_stored(self):
        class LargestTensor(TorchDispatchMode):
            numel = 0

            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                out = func(*args, **(kwargs or {}))
                for item in out if isinstance(out, tuple | list) else [out]:
                    if isinstance(item, torch.Tensor):
                        self.numel = max(self.numel, item.numel())
                return out

        model = VisionTransformer(window_size=(24, 24), patch_size=(1, 1), embed_dim=8, depth=1, num_heads=2)
        tokens = 1 + 4 + 24 * 24
        with torch.no_grad(), LargestTensor() as fused:
            model(noise(1, 1, 24, 24))
        assert fused.numel < tokens**2
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), LargestTensor() as naive:
            model(noise(1, 1, 24, 24))
        assert naive.numel >= 2 * tokens**2, "the watch must see what the fused kernel avoids"


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"window_size": (4, 8, 13)}, "window width 13 is not a positive multiple of the patch width 4"),
            ({"window_size": (3, 8, 12)}, "window depth 3 .* patch depth 2"),
            ({"window_size": (8, 12)}, "both have 2 or both have 3 axes"),
            ({"window_size": (4,), "patch_size": (2,)}, "both have 2 or both have 3 axes"),
            ({"num_heads": 5}, "embed_dim 12 is not a multiple of num_heads 5"),
            ({"drop_path_rate": 1.0}, "drop_path_rate must be in"),
            ({"drop_path_rate": -0.1}, "drop_path_rate must be in"),
        ],
    )
    def test_sizes_that_do_not_fit(self, options, message):
        with pytest.raises(ValueError, match=message):
            small_3d(**options)

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((1, 1, 3, 8, 12), "input depth 3 is not a positive multiple of the patch depth 2"),
            ((1, 1, 4, 7, 12), "input height 7 .* patch height 2"),
            ((1, 1, 4, 8, 10), "input width 10 .* patch width 4"),
            ((1, 1, 0, 8, 12), "input depth 0 "),
            ((1, 1, 8, 12), r"must have shape \(B, 1, D, H, W\), got \(1, 1, 8, 12\)"),
            ((1, 3, 4, 8, 12), r"must have shape \(B, 1, D, H, W\), got \(1, 3, 4, 8, 12\)"),
        ],
    )
    def test_inputs_that_the_model_cannot_take(self, shape, message):
        with pytest.raises(ValueError, match=message):
            small_3d()(torch.zeros(shape))

    def test_2d_axes_are_named_as_such(self):
        model = VisionTransformer(window_size=(8, 8), patch_size=(4, 4), embed_dim=4, depth=1, num_heads=1)
        with pytest.raises(ValueError, match="input height 6 "):
            model(torch.zeros(1, 1, 6, 8))
        with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
            model(torch.zeros(1, 1, 1, 8, 8))

    @pytest.mark.parametrize(
        "masks", [torch.zeros(2, 23, dtype=torch.bool), torch.zeros(2, 24), torch.zeros(1, 24).bool()]
    )
    def test_masks_of_another_shape_or_dtype(self, masks):
        with pytest.raises(ValueError, match=r"masks must be bool of shape \(2, 24\)"):
            small_3d()(torch.zeros(2, 1, 4, 8, 12), masks)
