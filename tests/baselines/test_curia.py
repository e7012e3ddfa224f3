"""Curia against a recomputation in double precision and against transformers' own loading of the published folder."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from transformers import AutoModel

from baselines.curia import Curia
from tapct.errors import EncoderError, WeightsError
from tests.baselines.golden import assert_close, light, uninitialised

# The published config.json, as raidium-med/curia's save_model.py writes it.
CONFIG = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "mlp_ratio": 4,
    "layer_norm_eps": 1e-6,
    "image_size": 512,
    "patch_size": 16,
    "num_channels": 1,
    "use_swiglu_ffn": True,
    "use_mask_token": True,
}


def published_shapes() -> dict[str, tuple[int, ...]]:
    """The 223 names and shapes of the file, in the names of transformers 4."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, 768),
        "embeddings.mask_token": (1, 768),
        "embeddings.position_embeddings": (1, 1 + 32 * 32, 768),
        "embeddings.patch_embeddings.projection.weight": (768, 1, 16, 16),
        "embeddings.patch_embeddings.projection.bias": (768,),
        "layernorm.weight": (768,),
        "layernorm.bias": (768,),
    }
    linears = {f"attention.attention.{n}": (768, 768) for n in ("query", "key", "value")}
    linears |= {"attention.output.dense": (768, 768), "mlp.weights_in": (4096, 768), "mlp.weights_out": (768, 2048)}
    for layer in range(12):
        at = f"encoder.layer.{layer}"
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[f"{at}.{name}"] = (768,)
        for name in ("layer_scale1.lambda1", "layer_scale2.lambda1"):
            shapes[f"{at}.{name}"] = (768,)
        for name, shape in linears.items():
            shapes |= {f"{at}.{name}.weight": shape, f"{at}.{name}.bias": shape[:1]}
    return shapes


def random_state(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in published_shapes().items():
        if name.endswith("lambda1") or ("norm" in name and name.endswith("weight")):
            state[name] = torch.empty(shape).uniform_(0.5, 1.5, generator=generator)
        else:
            matrix = name.endswith("weight") and "norm" not in name
            scale = (3 / np.prod(shape[1:])) ** 0.5 if matrix else 0.5
            state[name] = torch.empty(shape).uniform_(-scale, scale, generator=generator)
    return state


def reference(state: dict[str, torch.Tensor], pixels: np.ndarray, depth: int = 12) -> np.ndarray:
    """DINOv2's ViT on one normalised slice: its tokens (1 + patches, 768), in double precision."""

    def of(name):
        return state[name].double()

    def linear(x, name):
        return x @ of(f"{name}.weight").T + of(f"{name}.bias")

    def norm(x, name):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        return x * of(f"{name}.weight") + of(f"{name}.bias")

    rows, columns = (n // 16 for n in pixels.shape)
    patches = torch.from_numpy(pixels).double().reshape(rows, 16, columns, 16).transpose(1, 2).reshape(-1, 256)
    projection = "embeddings.patch_embeddings.projection"
    x = patches @ of(f"{projection}.weight").reshape(768, 256).T + of(f"{projection}.bias")
    positions = of("embeddings.position_embeddings")[0]
    learned = positions[1:].reshape(1, 32, 32, 768).permute(0, 3, 1, 2)
    if (rows, columns) != (32, 32):
        learned = F.interpolate(learned, size=(rows, columns), mode="bicubic", align_corners=False)
    x = torch.cat([of("embeddings.cls_token")[0] + positions[:1], x + learned[0].flatten(1).T])
    for layer in range(depth):
        at = f"encoder.layer.{layer}"
        y = norm(x, f"{at}.norm1")
        q, k, v = (
            linear(y, f"{at}.attention.attention.{n}").reshape(-1, 12, 64).transpose(0, 1)
            for n in ("query", "key", "value")
        )
        y = ((q @ k.transpose(1, 2) / 8).softmax(-1) @ v).transpose(0, 1).reshape(-1, 768)
        x = x + linear(y, f"{at}.attention.output.dense") * of(f"{at}.layer_scale1.lambda1")
        gate, up = linear(norm(x, f"{at}.norm2"), f"{at}.mlp.weights_in").chunk(2, -1)
        y = linear(gate * gate.sigmoid() * up, f"{at}.mlp.weights_out")
        x = x + y * of(f"{at}.layer_scale2.lambda1")
    return norm(x, "layernorm").numpy()


def z_score(hu: np.ndarray) -> np.ndarray:
    """The published processor on one slice: centred, divided by the unbiased standard deviation."""
    hu = hu.astype(np.float64)
    return (hu - hu.mean()) / hu.std(ddof=1)


def as_upstream_sees_it(spl: np.ndarray) -> np.ndarray:
    """A scan stored in another orientation, brought to LPS and read as an array by ITK as extract_feat_LP.py does."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(spl[::-1, ::-1, ::-1]))  # index towards I, A, R
    image.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, -1])
    return sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS"))


def scan(*shape: int, seed: int = 1) -> np.ndarray:
    """HU that reach below air, so that a clip would show."""
    return np.random.default_rng(seed).uniform(-2000, 1500, shape).astype(np.float32)


def encode(encoder, slices: np.ndarray):
    return encoder(torch.from_numpy(np.ascontiguousarray(slices))[:, None, None])


Uninitialised = uninitialised(Curia)


@pytest.fixture(scope="module")
def state():
    return random_state()


@pytest.fixture(scope="module")
def published(state):
    """The folder of the hub; removed at the end, since it is large."""
    with tempfile.TemporaryDirectory() as folder:
        safetensors.torch.save_file(state, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG))
        yield Path(folder)


@pytest.fixture(scope="module")
def encoder(published):
    return Uninitialised(published)


@pytest.mark.parametrize("step", [1, -1], ids=["as it is", "flipped"])
def test_map_and_cls_are_those_of_the_authors_pipeline(encoder, state, step):
    volume = scan(2, 32, 48)[::step, ::step, ::step].copy()
    features = encode(encoder, volume)
    assert torch.equal(features.cls, features.embedding)
    for i, pixels in enumerate(as_upstream_sees_it(volume)):
        tokens = reference(state, z_score(pixels))
        assert tokens.shape == (1 + 2 * 3, 768)  # no registers
        assert_close(features.cls[i], tokens[0])
        assert_close(features.map[i], tokens[1:].T.reshape(768, 1, 2, 3))


def test_at_512_pixels_the_positions_are_used_as_they_are(encoder, state):
    """One block deep, to be quick; depth is tested above."""
    pixels = scan(512, 512)
    blocks = encoder.network.encoder.layer
    encoder.network.encoder.layer = blocks[:1]
    try:
        features = encode(encoder, pixels[None])
    finally:
        encoder.network.encoder.layer = blocks
    tokens = reference(state, z_score(pixels), depth=1)
    assert_close(features.map[0], tokens[1:].T.reshape(768, 1, 32, 32))
    assert_close(features.cls[0], tokens[0])


def test_the_folder_loads_as_transformers_itself_loads_it(encoder, published):
    """Trap: under transformers 5 only `from_pretrained` knows the names of the file."""
    model, report = AutoModel.from_pretrained(published, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    theirs, ours = model.eval().state_dict(), encoder.network.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[k], v) for k, v in ours.items())
    pixels = scan(3, 64, 32)
    with torch.no_grad():
        out = model(pixel_values=torch.from_numpy(np.stack([z_score(p) for p in pixels])).float()[:, None])
    features = encode(encoder, pixels)
    torch.testing.assert_close(features.cls, out.last_hidden_state[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(features.cls, out.pooler_output, rtol=1e-5, atol=1e-5)
    patches = out.last_hidden_state[:, 1:].reshape(3, 1, 4, 2, 768).permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(features.map, patches, rtol=1e-5, atol=1e-5)


def test_the_file_in_the_folder_loads_as_the_folder_does(encoder, published):
    by_file = Uninitialised(published / "model.safetensors")
    assert by_file.describe()["weights_sha256"] == encoder.describe()["weights_sha256"]


def test_the_card_tells_the_truth(encoder):
    card = encoder.card
    assert card.num_params == sum(p.numel() for p in encoder.parameters()) == 86_072_832
    assert (card.window_size, card.feature_stride) == ((1, 512, 512), (1, 16, 16))
    assert (card.in_plane_size, card.spacing_mm) == (512, None)
    assert (card.feature_dim, card.embedding_dim, card.has_cls) == (768, 768, True)
    with pytest.raises(EncoderError, match="D = 1"):
        encoder(torch.from_numpy(scan(1, 1, 2, 32, 32)))


def test_each_slice_is_normalised_by_itself(encoder):
    """Trap: the first processor used one mean and deviation for all slices that it was given together."""
    slices = scan(2, 32, 32)
    stretched = np.stack([slices[0], slices[1] * 0.25 + 300])
    before, after = encode(encoder, slices), encode(encoder, stretched)
    torch.testing.assert_close(after.map, before.map, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(encode(encoder, slices[1:]).cls, before.cls[1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("hu", [-1000.0, -1024.0, -86.8086, 37.3])
def test_a_constant_slice_is_centred_and_not_divided_by_zero(encoder, state, hu):
    tokens = reference(state, np.zeros((32, 32)))
    features = encode(encoder, np.full((1, 32, 32), hu, dtype=np.float32))
    assert_close(features.cls[0], tokens[0])


def test_hu_below_air_are_kept(encoder):
    """Trap: `clip_below_air` is off by default, and what the published processor has is not known."""
    pixels = scan(1, 32, 32)
    assert (encode(encoder, pixels.clip(min=-1000)).cls - encode(encoder, pixels).cls).abs().max() > 1e-2


def refusal(tmp_path, state) -> str:
    path = tmp_path / "weights.torch"
    torch.save(light(state), path)
    with pytest.raises(WeightsError) as error:
        Uninitialised(path)
    return str(error.value)


def test_missing_and_unexpected_keys_are_refused(state, tmp_path):
    gone = "encoder.layer.11.attention.attention.key.bias"
    report = refusal(tmp_path, {k: v for k, v in state.items() if k != gone})
    assert "1 missing: encoder.layer.11.attention.k_proj.bias" in report
    assert "1 unexpected: classifier.weight" in refusal(tmp_path, state | {"classifier.weight": torch.zeros(1)})
    registers = state | {"embeddings.register_tokens": torch.zeros(1, 4, 768)}
    assert "1 unexpected: embeddings.register_tokens" in refusal(tmp_path, registers)


def test_the_variant_with_an_mlp_is_refused(state, tmp_path):
    """Trap: it has 86,060,544 parameters, so nothing but its names tells it apart."""
    mlp = {k: v for k, v in state.items() if ".mlp." not in k}
    for layer in range(12):
        at = f"encoder.layer.{layer}.mlp"
        mlp |= {f"{at}.fc1.weight": torch.zeros(3072, 768), f"{at}.fc1.bias": torch.zeros(3072)}
        mlp |= {f"{at}.fc2.weight": torch.zeros(768, 3072), f"{at}.fc2.bias": torch.zeros(768)}
    assert sum(v.numel() for v in mlp.values()) == 86_060_544
    report = refusal(tmp_path, mlp)
    assert "72 missing: encoder.layer.0.mlp.gate_proj.weight" in report
    assert "48 unexpected: encoder.layer.0.mlp.fc1.weight" in report


def test_a_file_of_another_window_is_refused(state, tmp_path):
    small = state | {"embeddings.position_embeddings": torch.zeros(1, 1 + 14 * 14, 768)}
    assert "(1, 197, 768) instead of (1, 1025, 768)" in refusal(tmp_path, small)
