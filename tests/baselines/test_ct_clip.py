"""CT-CLIP against a recomputation in double precision, formula by formula, at 120 voxels in the plane for 480."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baselines.ct_clip import CTCLIP
from tapct.errors import EncoderError, WeightsError
from tests.baselines.golden import assert_close, light, uninitialised

IN_PLANE = 120  # 6 x 6 patches
SIZE = (20, IN_PLANE, IN_PLANE)


class Small(CTCLIP):
    in_plane = IN_PLANE


def published_shapes(in_plane: int = 480) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the file, but for the encoder of reports, of which one stands for all."""
    at = "visual_transformer"
    shapes: dict[str, tuple[int, ...]] = {
        "temperature": (),
        "text_transformer.embeddings.word_embeddings.weight": (4, 768),
        "to_text_latent.weight": (512, 768),
        "to_text_latent_extra.weight": (512, 768),
        "to_visual_latent.weight": (512, (in_plane // 20) ** 2 * 512),
        "to_visual_latent_extra.weight": (512, 4),
        f"{at}.spatial_rel_pos_bias.net.0.0.weight": (512, 2),
        f"{at}.spatial_rel_pos_bias.net.0.0.bias": (512,),
        f"{at}.spatial_rel_pos_bias.net.1.0.weight": (512, 512),
        f"{at}.spatial_rel_pos_bias.net.1.0.bias": (512,),
        f"{at}.spatial_rel_pos_bias.net.2.weight": (8, 512),
        f"{at}.spatial_rel_pos_bias.net.2.bias": (8,),
        f"{at}.vq._codebook.initted": (1,),
        f"{at}.vq._codebook.cluster_size": (1, 8192),
        f"{at}.vq._codebook.embed": (1, 8192, 512),
    }
    for name, voxels in (("to_patch_emb_first_frame", 400), ("to_patch_emb", 4000)):
        for i, shape in ((1, (voxels,)), (2, (512, voxels)), (3, (512,))):
            shapes |= {f"{at}.{name}.{i}.weight": shape, f"{at}.{name}.{i}.bias": shape[:1]}
    for name, voxels in (("to_pixels_first_frame", 400), ("to_pixels", 4000)):
        shapes |= {f"{at}.{name}.0.weight": (voxels, 512), f"{at}.{name}.0.bias": (voxels,)}
    for kind in ("spatial", "temporal"):
        shapes |= {f"{at}.enc_{kind}_transformer.norm_out.{n}": (512,) for n in ("gamma", "beta")}
        for layer in range(4):
            to = f"{at}.enc_{kind}_transformer.layers.{layer}"
            shapes |= {f"{to}.0.dsconv.weight": (512, 1, 3, 3, 3), f"{to}.0.dsconv.bias": (512,)}
            shapes |= {f"{to}.1.{norm}.{n}": (512,) for norm in ("norm", "context_norm") for n in ("gamma", "beta")}
            shapes |= {f"{to}.1.null_kv": (8, 0, 32), f"{to}.1.q_scale": (32,), f"{to}.1.k_scale": (32,)}
            shapes |= {f"{to}.1.to_q.weight": (256, 512), f"{to}.1.to_kv.weight": (512, 512)}
            shapes |= {f"{to}.1.to_out.weight": (512, 256)}
            shapes |= {f"{to}.3.0.weight": (512,), f"{to}.3.0.bias": (512,)}
            shapes |= {f"{to}.3.1.weight": (2730, 512), f"{to}.3.4.weight": (512, 1365)}
    return shapes


def random_state(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in published_shapes(IN_PLANE).items():
        if name.endswith(("gamma", "_scale")) or (len(shape) == 1 and name.endswith("weight")):
            state[name] = torch.empty(shape).uniform_(0.5, 1.5, generator=generator)
        elif len(shape) > 1 and not name.endswith(("embed", "cluster_size")):
            scale = (3 / max(1, math.prod(shape[1:]))) ** 0.5
            state[name] = torch.empty(shape).uniform_(-scale, scale, generator=generator)
        else:
            state[name] = torch.empty(shape).uniform_(-0.5, 0.5, generator=generator)
    return state


class Reference:
    """CTCLIP's image encoder in double precision."""

    def __init__(self, state: dict[str, torch.Tensor], scrambled: bool = True) -> None:
        self.state, self.scrambled = {key: value.double() for key, value in state.items()}, scrambled

    def of(self, name: str) -> torch.Tensor:
        return self.state[f"visual_transformer.{name}"]

    def norm(self, x, weight, bias):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return x * self.of(weight) + self.of(bias)

    def tokens(self, volume: np.ndarray) -> torch.Tensor:
        """(t, h, w, 512), before they are quantised, of a volume (z, x, y) in -1..1."""
        z, x, y = volume.shape
        t, h, w = z // 10, x // 20, y // 20
        patches = torch.from_numpy(volume.reshape(t, 10, h, 20, w, 20).transpose(0, 2, 4, 1, 3, 5).reshape(t, h, w, -1))
        tokens = self.norm(patches, "to_patch_emb.1.weight", "to_patch_emb.1.bias")
        tokens = tokens @ self.of("to_patch_emb.2.weight").T + self.of("to_patch_emb.2.bias")
        tokens = self.norm(tokens, "to_patch_emb.3.weight", "to_patch_emb.3.bias")
        tokens = self.transformer(tokens.reshape(t, h * w, 512), "enc_spatial_transformer", (t, h, w), self.bias(h, w))
        by_column = tokens.reshape(t, h * w, 512).transpose(0, 1)
        tokens = self.transformer(by_column, "enc_temporal_transformer", (t, h, w), None)
        return tokens.transpose(0, 1).reshape(t, h, w, 512)

    def bias(self, h, w):
        places = [(i, j) for i in range(h) for j in range(w)]
        offsets = torch.tensor([[[a - c, b - d] for c, d in places] for a, b in places]).double()
        x = offsets.sign() * (offsets.abs() + 1).log()
        for layer in (0, 1):
            at = f"spatial_rel_pos_bias.net.{layer}.0"
            x = x @ self.of(f"{at}.weight").T + self.of(f"{at}.bias")
            x = torch.where(x < 0, 0.1 * x, x)
        x = x @ self.of("spatial_rel_pos_bias.net.2.weight").T + self.of("spatial_rel_pos_bias.net.2.bias")
        return x.permute(2, 0, 1)

    def transformer(self, x, name, grid, bias):
        for layer in range(4):
            at = f"{name}.layers.{layer}"
            x = self.position(x, f"{at}.0.dsconv", grid) + x
            x = self.attention(x, f"{at}.1", bias) + x
            hidden = self.norm(x, f"{at}.3.0.weight", f"{at}.3.0.bias") @ self.of(f"{at}.3.1.weight").T
            value, gate = hidden[..., :1365], hidden[..., 1365:]
            gelu = gate * 0.5 * (1 + torch.erf(gate / 2**0.5))
            x = (value * gelu) @ self.of(f"{at}.3.4.weight").T + x
        return self.norm(x, f"{name}.norm_out.gamma", f"{name}.norm_out.beta")

    def position(self, x, at, grid):
        """Of the tokens as if they came as (t, h, w), which those of the temporal transformer do not."""
        fixed = not self.scrambled and at.startswith("enc_temporal")
        volume = (x.transpose(0, 1) if fixed else x).reshape(*grid, 512)
        t, h, w = grid
        padded = torch.zeros(t + 2, h + 2, w + 2, 512, dtype=torch.float64)
        padded[2:, 1:-1, 1:-1] = volume
        out = self.of(f"{at}.bias") + sum(
            padded[i : i + t, j : j + h, k : k + w] * self.of(f"{at}.weight")[:, 0, i, j, k]
            for i in range(3)
            for j in range(3)
            for k in range(3)
        )
        return out.reshape(t, h * w, 512).transpose(0, 1) if fixed else out.reshape(x.shape)

    def attention(self, x, at, bias):
        q = self.norm(x, f"{at}.norm.gamma", f"{at}.norm.beta") @ self.of(f"{at}.to_q.weight").T
        k, v = (x @ self.of(f"{at}.to_kv.weight").T).chunk(2, -1)
        q, k, v = (part.reshape(*x.shape[:2], 8, 32).transpose(1, 2) for part in (q, k, v))
        q = q / q.norm(dim=-1, keepdim=True) * self.of(f"{at}.q_scale")
        k = k / k.norm(dim=-1, keepdim=True) * self.of(f"{at}.k_scale")
        similar = 8 * q @ k.transpose(-2, -1) + (0 if bias is None else bias)
        return (similar.softmax(-1) @ v).transpose(1, 2).reshape(*x.shape[:2], 256) @ self.of(f"{at}.to_out.weight").T

    def codes(self, tokens):
        embed = self.of("vq._codebook.embed")[0]
        cosines = F.normalize(tokens, dim=-1) @ F.normalize(embed, dim=-1).T
        best = cosines.topk(2, dim=-1).values
        assert (best[..., 0] - best[..., 1]).min() > 1e-6, "no tie that rounding could decide"
        return embed[cosines.argmax(-1)]

    def embedding(self, codes):
        latent = self.state["to_visual_latent.weight"] @ codes.mean(0).flatten()
        return latent / latent.norm()


def scans() -> torch.Tensor:
    """A scan with a gradient along every axis, far beyond the range on both sides, and the same the other way round."""
    noise = torch.randn(1, 1, *SIZE, generator=torch.Generator().manual_seed(1)) * 300
    z, y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SIZE), indexing="ij")
    values = noise + 400 * z + 700 * y + 1500 * x
    assert values.min() < -2000 < 2000 < values.max()
    return torch.cat([values, values.flip(2, 3, 4)])


def prepared(scan: torch.Tensor) -> np.ndarray:
    """HU -1000..1000 to -1..1, (z, x, y) towards superior, left, posterior."""
    return (np.clip(scan[0].double().numpy(), -1000.0, 1000.0) / 1000.0).transpose(0, 2, 1)


def turned_back(features: torch.Tensor) -> np.ndarray:
    """(t, x, y, 512) to (512, z, y, x)."""
    return features.numpy().transpose(3, 0, 2, 1)


@pytest.fixture(scope="module")
def state():
    return random_state()


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("ct-clip") / "CT-CLIP_v2.pt"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def expected(state) -> list[torch.Tensor]:
    return [Reference(state).tokens(prepared(scan)) for scan in scans()]


def test_tokens_and_embedding_are_those_of_the_formulas_for_a_scan_and_the_same_the_other_way_round(
    file, state, expected
):
    found = uninitialised(Small)(file, features="tokens")(scans())
    for i, tokens in enumerate(expected):
        assert_close(found.map[i], turned_back(tokens))
        assert_close(found.embedding[i], Reference(state).embedding(Reference(state).codes(tokens)).numpy())
    # A network that could not tell the two scans apart would prove nothing.
    assert (found.map[1].flip(1, 2, 3) - found.map[0]).abs().max() > 0.1


def test_the_map_is_of_whole_codes_as_they_are_in_the_codebook(file, state, expected):
    found = uninitialised(Small)(file)(scans())
    for i, tokens in enumerate(expected):
        codes = Reference(state).codes(tokens)
        assert np.array_equal(found.map[i].double().numpy(), turned_back(codes))
        assert len(codes.flatten(0, 2).unique(dim=0)) > 5
    assert found.map.shape == (2, 512, 2, 6, 6)
    assert found.cls is None
    torch.testing.assert_close(found.embedding.norm(dim=-1), torch.ones(2))


def test_the_temporal_convolution_sees_scrambled_tokens_as_upstream(state, expected):
    """Trap: put right, every token is another one; so the test above tells the two apart."""
    fixed = Reference(state, scrambled=False).tokens(prepared(scans()[0]))
    assert torch.dist(fixed, expected[0]) > 0.1 * expected[0].norm()


def test_codes_are_chosen_in_full_precision_unless_another_is_asked_for():
    given = [Small("random", deferred=True, precision=precision) for precision in ("auto", "fp32", "bf16")]
    assert [encoder.precision_on("cuda") for encoder in given] == ["fp32", "fp32", "bf16"]
    assert [encoder.precision_on("cpu") for encoder in given] == ["fp32", "fp32", "bf16"]


def test_a_call_changes_no_code_and_no_window_another(file):
    encoder = uninitialised(Small)(file)
    before = encoder.describe()["weights_sha256"]
    encoder.train()
    both = encoder(scans())
    torch.testing.assert_close(encoder(scans()[1:]).embedding, both.embedding[1:], rtol=1e-4, atol=1e-5)
    assert encoder.describe()["weights_sha256"] == before


@pytest.mark.parametrize("size", [(10, 120, 100), (15, 120, 120), (10, 480, 480), (20, 240, 120)])
def test_windows_that_the_projection_has_no_weights_for_are_refused(size):
    encoder = Small("random", deferred=True)
    assert not encoder.supports(size)
    with pytest.raises(EncoderError, match="in the plane it must be 120 x 120, its slices a multiple of 10"):
        encoder(torch.zeros(1, 1, *size))


def test_the_published_layout_is_that_of_the_whole_network_and_the_card_tells_the_truth():
    shapes = published_shapes()
    assert len([key for key in shapes if key.startswith("visual_transformer.")]) == 157
    buffers = ("beta", "initted", "cluster_size", "embed")
    theirs = {key: shape for key, shape in shapes.items() if key.startswith("visual_transformer.")}
    assert sum(math.prod(s) for key, s in theirs.items() if not key.endswith(buffers)) == 25_890_200
    encoder = CTCLIP("random", deferred=True)
    with torch.device("meta"):
        network = encoder.build()
        converted = encoder._convert({key: torch.empty(shape) for key, shape in shapes.items()})
    assert {k: t.shape for k, t in converted.items()} == {k: t.shape for k, t in network.state_dict().items()}
    card = encoder.card
    assert card.num_params == sum(p.numel() for p in network.parameters()) == 23_421_768 + 512 * 294_912
    assert (card.window_size, card.spacing_mm, card.feature_stride) == (
        (240, 480, 480),
        (1.5, 0.75, 0.75),
        (10, 20, 20),
    )
    assert (card.feature_dim, card.embedding_dim, card.pad_hu, card.in_plane_filter) == (512, 512, -1000.0, "linear")
    assert encoder.feature_centre() == (4.5, 9.5, 9.5)
    assert encoder.supports((240, 480, 480))
    assert (card.weights.gated, card.pretraining_data) == (True, ("CT-RATE",))
    with pytest.raises(EncoderError, match="features must be 'codes' or 'tokens'"):
        CTCLIP("random", deferred=True, features="pixels")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("visual_transformer.vq._codebook.embed"), "1 missing: visual_transformer.vq._codebook.embed"),
        (lambda s: s.update({"visual_transformer.dec.weight": torch.ones(1)}), "1 unexpected: visual_transformer.dec"),
        (lambda s: s.update({"to_visual_latent_more.weight": torch.ones(1)}), "1 unexpected: to_visual_latent_more"),
        (
            lambda s: s.update(
                {"visual_transformer.enc_temporal_transformer.layers.3.1.null_kv": torch.ones(8, 4, 32)}
            ),
            r"\(8, 4, 32\) instead of \(8, 0, 32\)",
        ),
    ],
)
def test_loading_is_strict(state, tmp_path, change, message):
    bad = light(state)
    change(bad)
    torch.save(bad, tmp_path / "bad.pt")
    with pytest.raises(WeightsError, match=message):
        uninitialised(Small)(tmp_path / "bad.pt")
