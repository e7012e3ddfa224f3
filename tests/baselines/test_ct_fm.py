"""CT-FM against a recomputation in double precision, from the names and shapes of the published file."""

import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from monai.networks.nets import SegResNetDS
from monai.networks.nets.segresnet_ds import SegResEncoder

from baselines.ct_fm import CTFM
from tapct.errors import EncoderError, WeightsError
from tests.baselines.golden import assert_close, light, uninitialised

BLOCKS = (1, 2, 2, 4, 4)


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of a `model.safetensors` of project-lighter/ct_fm_feature_extractor."""
    shapes: dict[str, tuple[int, ...]] = {"conv_init.weight": (32, 1, 3, 3, 3)}
    for level, blocks in enumerate(BLOCKS):
        width = 32 * 2**level
        for block in range(blocks):
            for i in (1, 2):
                at = f"layers.{level}.blocks.{block}"
                for name in ("weight", "bias", "running_mean", "running_var"):
                    shapes[f"{at}.norm{i}.{name}"] = (width,)
                shapes[f"{at}.norm{i}.num_batches_tracked"] = ()
                shapes[f"{at}.conv{i}.weight"] = (width, width, 3, 3, 3)
        if level < 4:
            shapes[f"layers.{level}.downsample.weight"] = (2 * width, width, 3, 3, 3)
    return shapes


def random_state(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in published_shapes().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(225_000)
        elif name.endswith(("norm1.weight", "norm2.weight", "running_var")):
            state[name] = torch.empty(shape).uniform_(0.5, 1.5, generator=generator)
        else:
            scale = (3 / (np.prod(shape[1:]) if len(shape) > 1 else 12)) ** 0.5
            state[name] = torch.empty(shape).uniform_(-scale, scale, generator=generator)
    return state


def reference(state: dict[str, torch.Tensor], hu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The authors' pipeline on arrays (z, y, x) in SPL: the last map and its mean, in double precision."""
    x = torch.from_numpy((np.clip(hu.astype(np.float64), -1024, 2048) + 1024) / 3072)[:, None]

    def conv(x, name, stride=1):
        return F.conv3d(x, state[f"{name}.weight"].double(), stride=stride, padding=1)

    def norm_relu(x, name):
        part = {k: state[f"{name}.{k}"].double()[:, None, None, None] for k in ("weight", "bias")}
        mean, var = (state[f"{name}.running_{k}"].double()[:, None, None, None] for k in ("mean", "var"))
        return ((x - mean) / (var + 1e-5).sqrt() * part["weight"] + part["bias"]).clamp_min(0)

    x = conv(x, "conv_init")
    for level, blocks in enumerate(BLOCKS):
        for block in range(blocks):
            at = f"layers.{level}.blocks.{block}"
            x = x + conv(norm_relu(conv(norm_relu(x, f"{at}.norm1"), f"{at}.conv1"), f"{at}.norm2"), f"{at}.conv2")
        if level < 4:
            x = conv(x, f"layers.{level}.downsample", stride=2)
    return x.numpy(), x.mean((2, 3, 4)).numpy()


def as_upstream_sees_it(spl: np.ndarray) -> np.ndarray:
    """A scan stored as NIfTI in (x, y, z) RAS, brought to SPL by nibabel as MONAI's Orientation does."""
    image = nibabel.Nifti1Image(np.ascontiguousarray(spl[:, ::-1, ::-1].transpose(2, 1, 0)), np.eye(4))
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt("SPL")
    )
    return np.asarray(image.as_reoriented(turn).dataobj)


def scan(*shape: int, seed: int = 1) -> np.ndarray:
    """HU beyond both ends of the clip."""
    return np.random.default_rng(seed).uniform(-1800, 2600, shape).astype(np.float32)


Uninitialised = uninitialised(CTFM)


@pytest.fixture(scope="module")
def state():
    return random_state()


@pytest.fixture(scope="module")
def encoder(state):
    with tempfile.TemporaryDirectory() as folder:  # the published layout; removed, since it is large
        safetensors.torch.save_file(state, Path(folder) / "model.safetensors")
        return Uninitialised(folder)


def test_map_and_embedding_are_those_of_the_authors_pipeline(encoder, state):
    window = scan(32, 16, 16)
    both = np.stack([window, window[::-1, ::-1, ::-1]])  # flipped too, so that no turn can hide
    features = encoder(torch.from_numpy(both)[:, None])
    expected, pooled = reference(state, np.stack([as_upstream_sees_it(w) for w in both]))
    assert expected.shape == (2, 512, 2, 1, 1)
    assert_close(features.map, expected)
    assert_close(features.embedding, pooled)
    assert features.cls is None


def test_the_card_tells_the_truth(encoder):
    card = encoder.card
    assert card.num_params == sum(p.numel() for p in encoder.parameters()) == 77_760_992
    assert (card.window_size, card.feature_stride) == ((32, 128, 128), (16, 16, 16))
    assert (card.spacing_mm, card.pad_hu, card.in_plane_size) == ((3.0, 1.0, 1.0), -1024.0, None)
    assert (card.feature_dim, card.embedding_dim, card.has_cls) == (512, 512, False)


def test_the_authors_window_of_24_slices_can_be_called_but_not_tiled(encoder):
    assert encoder.supports((24, 128, 128))  # what it gives: the next test
    with pytest.raises(EncoderError, match="multiple of its stride"):
        encoder(torch.from_numpy(scan(1, 1, 24, 32, 32)))
    with pytest.raises(EncoderError, match="not a multiple"):
        CTFM("random", window_size=(24, 128, 128))


@pytest.mark.parametrize(("slices", "patches"), [(24, [0, 16]), (32, [0, 16]), (48, [0, 16, 32])])
def test_patch_i_sits_on_slice_16_i_whatever_the_window(slices, patches):
    """Why windows of 24 cannot be set side by side: see the module. Convolutions that only pass the centre on."""
    network = SegResEncoder(init_filters=2, blocks_down=BLOCKS).requires_grad_(False).eval()
    for name, parameter in network.named_parameters():
        if ".norm" not in name:
            parameter.zero_()
        if name == "conv_init.weight" or "downsample" in name:
            parameter[0, 0, 1, 1, 1] = 1
    ramp = torch.arange(slices, dtype=torch.float32)[:, None, None].expand(-1, 32, 48)
    assert network(ramp[None, None])[-1][0, 0, :, 1, 1].tolist() == patches
    across = torch.arange(48, dtype=torch.float32).expand(slices, 32, -1)
    assert network(across[None, None])[-1][0, 0, 0, 0].tolist() == [0, 16, 32]


def segresnet_layout(state):
    """ct_fm_segresnet: the whole of MONAI's SegResNetDS, whose decoder does not belong to the encoder."""
    with torch.device("meta"):
        decoder = SegResNetDS(init_filters=32, blocks_down=BLOCKS, out_channels=118, dsdepth=4).up_layers.state_dict()
    return {f"encoder.{k}": v for k, v in state.items()} | {
        f"up_layers.{k}": torch.zeros(v.shape) for k, v in decoder.items()
    }


def lightning_layout(state, prefix):
    head = {"layers.0.weight": (256, 512), "layers.0.bias": (256,), "layers.2.weight": (128, 256)}
    keys = {f"{prefix}backbone.{k}": v for k, v in state.items()}
    keys |= {f"{prefix}projection_head.{k}": torch.zeros(shape) for k, shape in head.items()}
    return {"epoch": 449, "global_step": 225_000, "state_dict": keys, "optimizer_states": [{"state": {}}]}


@pytest.mark.parametrize(
    "layout",
    [
        lambda state: state,
        segresnet_layout,
        lambda state: lightning_layout(state, "model._orig_mod."),
        lambda state: lightning_layout(state, "model."),
        lambda state: lightning_layout(state, ""),
    ],
    ids=["flat", "segresnet", "lightning-compiled", "lightning", "lightning-bare"],
)
def test_every_published_layout_loads_the_same_weights(state, layout, tmp_path):
    state = light(state)
    path = tmp_path / "weights.torch"
    torch.save(layout(state), path)
    loaded = Uninitialised(path).network.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[k], v) for k, v in state.items())


def refusal(tmp_path, state) -> str:
    path = tmp_path / "weights.torch"
    torch.save(light(state), path)
    with pytest.raises(WeightsError) as error:
        Uninitialised(path)
    return str(error.value)


def test_missing_and_unexpected_keys_are_refused(state, tmp_path):
    missing = {k: v for k, v in state.items() if k != "layers.4.blocks.3.conv2.weight"}
    assert "1 missing: layers.4.blocks.3.conv2.weight" in refusal(tmp_path, missing)
    assert "1 unexpected: head.weight" in refusal(tmp_path, state | {"head.weight": torch.zeros(1)})
    other = {f"image_encoder.encoder.{k}": v for k, v in state.items()}  # VISTA3D's prefix
    assert "unexpected: image_encoder.encoder.conv_init.weight" in refusal(tmp_path, other)


def test_a_file_of_instance_norm_is_refused(state, tmp_path):
    """Silent upstream: without its running statistics the file fits a network of affine instance norm."""
    bare = {k: v for k, v in state.items() if "running_" not in k and "num_batches" not in k}
    assert "missing: layers.0.blocks.0.norm1.running_mean" in refusal(tmp_path, bare)


def test_norms_use_the_statistics_of_training(encoder):
    """Instance norm would hardly see the contrast of a window, and batch statistics would see its neighbours."""
    window = torch.from_numpy(scan(1, 1, 16, 16, 32))
    alone = encoder(window).map
    beside = encoder(torch.cat([window, window / 3, torch.full_like(window, -1000)])).map
    torch.testing.assert_close(beside[:1], alone, rtol=1e-5, atol=1e-4)
    means = [m.running_mean for m in encoder.network.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    assert len(means) == 2 * sum(BLOCKS)


def test_hu_are_clipped_at_both_ends_and_windows_left_as_they_were(encoder):
    window = torch.from_numpy(scan(1, 1, 16, 16, 16))
    before = window.clone()
    features = encoder(window)
    assert torch.equal(window, before)
    assert torch.equal(features.map, encoder(window.clamp(-1024, 2048)).map)
    assert not torch.equal(features.map, encoder(window.clamp(-1000, 2048)).map)
    assert not torch.equal(features.map, encoder(window.clamp(-1024, 2000)).map)
