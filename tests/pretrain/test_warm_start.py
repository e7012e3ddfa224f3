"""What a run begins with: a 2D DINOv2 of either layout gives in 3D what it gave; other files are refused by name."""

import json

import pytest
import safetensors.torch
import torch
from torch.nn import functional
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

import tapct
from pretrain import export
from pretrain.errors import PretrainError
from pretrain.observe.monitor import read_events
from pretrain.ssl.model import Pretrainer
from pretrain.training.warm_start import resized_kernel, warm_start
from tapct.vit import VisionTransformer
from tests.pretrain.runs import checkpoint, differing, run_here
from tests.pretrain.tiny import tiny_config
from tests.vit.helpers import noise, randomise

SIZES = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 3, "layer_norm_eps": 1e-6}
ONE = ("--run.micro_batches=1",)


def dinov2(folder, *, registers: int = 0, image: int = 32, patch: int = 8, **sizes):
    """A 2D DINOv2 as `transformers` saves it."""
    sizes = SIZES | sizes | {"image_size": image, "patch_size": patch}
    if registers:
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=registers, **sizes))
    else:
        model = Dinov2Model(Dinov2Config(**sizes))
    randomise(model.eval(), std=0.2)
    model.save_pretrained(folder)
    return model


def hub(path, **options) -> VisionTransformer:
    """A 2D DINOv2 as torch.hub has it."""
    sizes = {"embed_dim": 96, "depth": 4, "num_heads": 3, "in_channels": 3}
    model = VisionTransformer(window_size=(32, 32), patch_size=(8, 8), **sizes, **options).eval()
    randomise(model, std=0.2)
    torch.save(model.state_dict(), path)
    return model


def begun(path, *more: str) -> tuple[Pretrainer, str]:
    config = tiny_config(f"init.from={path}", *more)
    model = Pretrainer(config)
    start = warm_start(model, config)
    return model, str(start)


def as_volume(images: torch.Tensor, depth: int) -> torch.Tensor:
    """Grey images (B, H, W) as volumes that are constant in depth."""
    return images[:, None, None].expand(-1, 1, depth, -1, -1)


@pytest.mark.parametrize("registers", [0, 4])
def test_a_constant_volume_gives_what_transformers_gives_in_2d(tmp_path, registers):
    theirs = dinov2(tmp_path, registers=registers)
    model, said = begun(tmp_path, f"model.num_register_tokens={registers}")
    assert "transformers" in said
    assert "3 input channels summed; patch (8, 8) to (4, 8, 8); positions (4, 4) to (1, 4, 4)" in said
    images = noise(2, 32, 32)
    for network in (model.student, model.teacher):
        tokens = network.backbone.eval()(as_volume(images, 4))
        expected = theirs(images[:, None].expand(-1, 3, -1, -1)).last_hidden_state
        assert expected.std() > 0.5
        torch.testing.assert_close(tokens.cls, expected[:, 0], rtol=0, atol=1e-5)
        torch.testing.assert_close(tokens.patches, expected[:, 1 + registers :], rtol=0, atol=1e-5)


def test_every_layer_of_a_deeper_window_begins_as_the_slice_does(tmp_path):
    theirs = dinov2(tmp_path)
    window = ("crops.global_size=[12, 32, 32]", "data.slab_slices=12", "model.num_register_tokens=0")
    model, _ = begun(tmp_path, *window)
    images = noise(2, 32, 32)
    tokens = model.student.backbone.embed(as_volume(images, 12))
    expected = theirs.embeddings(images[:, None].expand(-1, 3, -1, -1))
    torch.testing.assert_close(tokens[:, 0], expected[:, 0], rtol=0, atol=1e-6)
    for layer in tokens[:, 1:].unflatten(1, (3, 16)).unbind(1):
        torch.testing.assert_close(layer, expected[:, 1:], rtol=0, atol=1e-5)


def test_positions_are_interpolated_as_transformers_does(tmp_path):
    theirs = dinov2(tmp_path, registers=4, image=64)
    model, said = begun(tmp_path)
    assert "positions (8, 8) to (1, 4, 4)" in said
    images = noise(2, 32, 32)
    tokens = model.teacher.backbone(as_volume(images, 4))
    expected = theirs(images[:, None].expand(-1, 3, -1, -1)).last_hidden_state
    torch.testing.assert_close(tokens.patches, expected[:, 5:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("registers", [0, 4])
def test_torch_hubs_layout_gives_the_same_and_fresh_registers_are_said(tmp_path, registers):
    theirs = hub(tmp_path / "hub.pth", num_register_tokens=registers)
    model, said = begun(tmp_path / "hub.pth", f"model.num_register_tokens={registers}")
    assert "torch.hub" in said
    images = noise(2, 32, 32)
    tokens, expected = model.teacher.backbone(as_volume(images, 4)), theirs(images[:, None].expand(-1, 3, -1, -1))
    torch.testing.assert_close(tokens.patches, expected.patches, rtol=0, atol=1e-5)
    assert ("register_tokens fresh" in begun(tmp_path / "hub.pth")[1]) == (registers == 0)


@pytest.mark.parametrize(("old", "new"), [((4, 6), (8, 6)), ((4, 6), (3, 8, 12)), ((2, 4, 4), (4, 7, 9))])
def test_a_kernel_gives_on_enlarged_patches_what_it_gave(old, new):
    kernel, patches = (noise(5, 2, *old, seed=seed, dtype=torch.float64) for seed in (1, 2))
    full = patches if len(old) == len(new) else patches.unsqueeze(2)
    mode = "trilinear" if len(new) == 3 else "bilinear"
    enlarged = functional.interpolate(full, size=new, mode=mode, align_corners=False)
    ours = resized_kernel(kernel, new)
    assert ours.shape == (5, 2, *new)
    expected = torch.einsum("k...,b...->kb", kernel, patches)
    torch.testing.assert_close(torch.einsum("k...,b...->kb", ours.double(), enlarged), expected, rtol=0, atol=1e-5)


def test_dinov2s_own_patches_become_those_of_the_recipe(tmp_path):
    """14 x 14 pixels to 4 x 8 x 8 voxels: what is constant over a patch embeds as it did."""
    theirs = dinov2(tmp_path, image=56, patch=14)
    model, said = begun(tmp_path, "model.num_register_tokens=0")
    assert "patch (14, 14) to (4, 8, 8)" in said
    ours = model.student.backbone.patch_embed(torch.ones(1, 1, 4, 8, 8))
    expected = theirs.embeddings.patch_embeddings(torch.ones(1, 3, 14, 14))
    assert functional.cosine_similarity(ours.flatten(), expected.flatten(), dim=0) > 0.99


def test_an_own_encoder_is_begun_with_told_and_not_needed_again(store, tmp_path):
    first, exported, second = tmp_path / "first", tmp_path / "exported", tmp_path / "second"
    assert run_here(store, first, *ONE, "--run.stop_at=1") == 0
    assert export.main([str(first), "-o", str(exported)]) == 0
    begins = f"--init.from={exported}"
    assert run_here(store, second, begins, *ONE, "--run.stop_at=1") == 0
    (told,) = (event for event in read_events(second) if event["event"] == "init")
    assert told["layout"] == "pretrain.export"
    assert told["brought"] == []
    weights = {n: t for n, t in checkpoint(first, 1)["model"].items() if n.startswith("teacher.backbone.")}
    model, _ = begun(exported)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in weights.items())

    (exported / "model.safetensors").unlink()
    assert run_here(store, second, begins, *ONE, "--run.stop_at=2") == 0
    assert checkpoint(second, 2)["init"]["sha256"] == told["sha256"]
    assert export.main([str(second), "-o", str(tmp_path / "out")]) == 0
    for file in ("card.json", "README.md"):
        said = (tmp_path / "out" / file).read_text(encoding="utf-8")
        assert f"exported/model.safetensors (pretrain.export, sha256 {told['sha256'][:12]})" in said
        assert str(tmp_path) not in said


def test_an_own_2d_encoder_grows_a_depth(store, tmp_path):
    flat = ("--model.patch_size=[8, 8]", "--crops.global_size=[32, 32]", "--crops.local_size=[16, 16]")
    assert run_here(store, tmp_path / "flat", *flat, *ONE, "--run.stop_at=1") == 0
    assert export.main([str(tmp_path / "flat"), "-o", str(tmp_path / "out")]) == 0
    model, said = begun(tmp_path / "out")
    assert said.endswith("patch (8, 8) to (4, 8, 8); positions (4, 4) to (1, 4, 4)")
    theirs = tapct.load_encoder(str(tmp_path / "out")).network
    images = noise(2, 32, 32)
    tokens, expected = model.teacher.backbone(as_volume(images, 4)), theirs(images[:, None])
    torch.testing.assert_close(tokens.patches, expected.patches, rtol=0, atol=1e-5)
    folder = tmp_path / "deep"
    folder.mkdir()
    sizes = {"window_size": [4, 32, 32], "patch_size": [4, 8, 8], "num_heads": 3}
    (folder / "config.json").write_text(json.dumps({"architecture": sizes}), encoding="utf-8")
    safetensors.torch.save_file(model.teacher.backbone.state_dict(), folder / "model.safetensors")
    with pytest.raises(PretrainError, match="is a 3D network, and the run is 2D"):
        begun(folder, *(option.removeprefix("--") for option in flat))


def plain_state() -> dict[str, torch.Tensor]:
    sizes = {"embed_dim": 96, "depth": 4, "num_heads": 3, "in_channels": 3}
    return VisionTransformer(window_size=(32, 32), patch_size=(8, 8), **sizes).state_dict()


def renamed(old: str, new: str) -> dict[str, torch.Tensor]:
    return {name.replace(old, new, 1): tensor for name, tensor in plain_state().items()}


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (lambda: {"student": plain_state(), "optimizer": {}}, "a checkpoint of DINOv2's training"),
        (lambda: {"model": renamed("", "student.backbone.")}, "a checkpoint of pretrain: export it"),
        (lambda: renamed("blocks.", "blocks.0."), "blocks are saved in chunks"),
        (lambda: plain_state() | {"rope_embed.periods": torch.zeros(4)}, "DINOv3"),
        (lambda: renamed("mlp.fc1", "mlp.w12"), "SwiGLU"),
        (lambda: {f"dinov2.{name}": tensor for name, tensor in plain_state().items()}, "inside another network"),
        (lambda: {"conv1.weight": torch.zeros(2)}, r"of a layout that is not known \(its names: conv1.weight"),
        (lambda: {n: t for n, t in plain_state().items() if ".ls" not in n}, r"8 missing: blocks.0.ls1.gamma"),
        (lambda: plain_state() | {"head.weight": torch.zeros(2, 96)}, r"1 unexpected: head.weight"),
        (lambda: plain_state() | {"pos_embed": torch.zeros(1, 16, 96)}, "not those of a square image"),
        (
            lambda: {n: t for n, t in plain_state().items() if "blocks.3" not in n},
            "96 wide with 3 blocks, and the run's",
        ),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, state, says):
    torch.save(state(), tmp_path / "other.pth")
    with pytest.raises(PretrainError, match=says):
        begun(tmp_path / "other.pth")


def test_code_in_a_file_is_not_run_and_other_heads_are_refused(tmp_path):
    torch.save(Pretrainer, tmp_path / "code.pth")
    with pytest.raises(PretrainError, match="hold pickled objects, which are refused"):
        begun(tmp_path / "code.pth")
    with pytest.raises(PretrainError, match="there is no file"):
        begun(tmp_path / "none")
    dinov2(tmp_path / "heads", num_attention_heads=4)
    with pytest.raises(PretrainError, match="4 blocks of 4 heads, and the run's model is 96 wide"):
        begun(tmp_path / "heads")


def test_without_it_all_is_fresh():
    config = tiny_config()
    model, plain = Pretrainer(config), Pretrainer(config)
    assert warm_start(model, config) is None
    assert differing({"model": model.state_dict()}, {"model": plain.state_dict()}) == []
    with pytest.raises(PretrainError, match=r"unknown key init.frm. Did you mean 'from'"):
        tiny_config("init.frm=x")
