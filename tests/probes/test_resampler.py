"""The perceiver resampler next to its formula in float64, and patches merged next to a loop over their blocks."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import erf

from tapct.features import CaseFeatures
from tapct.features.channels import Channels, scan_patches
from tapct.probes.merged_patches import Merging, block_of, merged
from tapct.probes.resampler import WAVELENGTHS_MM, Resampler, of_places
from tapct.volumes import Grid, Size


def small(channels=5, tokens=3, size=4, **changes):
    torch.manual_seed(0)
    return Resampler(channels, tokens, size, **{"width": 8, "layers": 2, "heads": 2, "token_rms": 0.5, **changes})


def normed(x, weights, name):
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def formula(weights, patches, places, heads, layers):
    """Alayrac et al. 2022, figure 5 and listing 1, in NumPy, with places added to what the patches are."""
    waves = [
        wave(2 * math.pi * place / length)
        for place in places.T
        for length in WAVELENGTHS_MM
        for wave in (np.sin, np.cos)
    ]
    seen = (
        patches.T @ weights["patches.weight"].T
        + weights["patches.bias"]
        + np.array(waves).T @ weights["places.weight"].T
    )
    x = weights["queries"]
    for layer in (f"layers.{n}" for n in range(layers)):
        asked = normed(x, weights, f"{layer}.of_queries")
        both = np.concatenate([normed(seen, weights, f"{layer}.of_patches"), asked])
        query = asked @ weights[f"{layer}.query.weight"].T
        key, value = np.split(both @ weights[f"{layer}.key_value.weight"].T, 2, axis=1)
        of_heads = []
        for part in np.split(np.arange(query.shape[1]), heads):
            scores = query[:, part] @ key[:, part].T / math.sqrt(len(part))
            share = np.exp(scores - scores.max(axis=1, keepdims=True))
            of_heads.append(share / share.sum(axis=1, keepdims=True) @ value[:, part])
        x = x + np.concatenate(of_heads, axis=1) @ weights[f"{layer}.out.weight"].T
        hidden = normed(x, weights, f"{layer}.of_hidden") @ weights[f"{layer}.hidden.weight"].T
        x = x + (hidden * (1 + erf(hidden / math.sqrt(2))) / 2) @ weights[f"{layer}.back.weight"].T
    return normed(x, weights, "norm") @ weights["out.weight"].T + weights["out.bias"]


def test_the_tokens_are_those_of_the_formula():
    resampler = small().double()
    with torch.no_grad():
        for parameter in resampler.parameters():  # nothing at its start: no bias 0, no norm 1
            parameter.add_(0.3 * torch.randn_like(parameter))
    patches, places = torch.randn(5, 7, dtype=torch.float64), 200 * torch.randn(7, 3, dtype=torch.float64)
    weights = {name: tensor.numpy() for name, tensor in resampler.state_dict().items()}
    expected = formula(weights, patches.numpy(), places.numpy(), heads=2, layers=2)
    found = resampler(patches, places).detach().numpy()
    assert found.shape == (3, 4)
    assert found == pytest.approx(expected, rel=1e-9)


def test_tokens_depend_on_where_patches_lie_and_not_on_their_order():
    resampler, order = small(), torch.randperm(7)
    patches, places = torch.randn(5, 7), 100 * torch.randn(7, 3).double()
    found = resampler(patches, places)
    assert torch.allclose(resampler(patches[:, order], places[order]), found, atol=1e-6)
    assert not torch.allclose(resampler(patches, places[order]), found, atol=1e-3)


def test_they_start_as_large_as_a_language_models_own():
    for rms in (0.02, 1.0):
        tokens = small(channels=40, tokens=64, size=256, width=64, token_rms=rms)(torch.randn(40, 9), torch.zeros(9, 3))
        assert float(tokens.square().mean().sqrt()) == pytest.approx(rms, rel=0.1)


def test_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(ValueError, match="a width of 8 cannot be divided among 3 heads"):
        small(heads=3)


def test_no_two_patches_of_a_chest_have_one_place():
    step = np.arange(-160, 161, 40.0)
    places = torch.from_numpy(np.array(list(itertools.product(step, step, step))))
    apart = torch.cdist(of_places(places), of_places(places)) + 9 * torch.eye(len(places))
    assert apart.min() > 1


# -- Merged patches --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "spacing", "most", "block"),
    [
        ((4, 6, 6), (12.0, 8.0, 8.0), 144, (1, 1, 1)),
        ((4, 6, 6), (12.0, 8.0, 8.0), 143, (1, 2, 1)),  # the first of the shortest
        ((4, 6, 6), (12.0, 8.0, 8.0), 36, (1, 2, 2)),
        ((4, 6, 6), (12.0, 8.0, 8.0), 20, (2, 2, 2)),
        ((75, 64, 64), (4.0, 5.6, 5.6), 4096, (5, 4, 4)),
        ((1, 64, 64), (4.0, 5.6, 5.6), 16, (1, 16, 16)),  # one slice cannot be merged
        ((5, 3, 2), (1.0, 1.0, 1.0), 1, (5, 3, 2)),
    ],
)
def test_blocks_are_as_cubic_as_can_be_and_no_more_than_asked_for(shape, spacing, most, block):
    assert block_of(shape, spacing, most) == block
    assert math.prod(-(-n // b) for n, b in zip(shape, block, strict=True)) <= most


def test_a_merged_patch_is_the_mean_of_its_patches_and_lies_in_their_middle():
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(20, 6, 4, 4)).astype(np.float32)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * [8.0, 6.0, 5.0]
    affine[:3, 3] = 10, -20, 30
    voxels = affine @ np.diag([0.25, 0.25, 0.25, 1.0])  # of 4 x 4 x 4 a patch, which is centred on the first
    scan = Grid.of((20, 12, 13), voxels)  # one patch in the padding along z and y
    features = CaseFeatures(
        map=torch.from_numpy(patches),
        embeddings=torch.zeros(1, 20),
        native_grid=scan,
        encoder_grid=scan,
        feature_grid=Grid.of(patches.shape[1:], affine),
        padding=Size(4, 4, 3),
    )
    merging = Merging.of(features, 13)
    assert merging.block == (2, 2, 2)
    found = merged(scan_patches(features), merging.block)
    middle = voxels[:3, :3] @ [9.5, 5.5, 6.0] + voxels[:3, 3]
    expected, places = [], []
    for corner in itertools.product(range(0, 5, 2), range(0, 3, 2), range(0, 4, 2)):
        own = [slice(at, min(at + 2, n)) for at, n in zip(corner, (5, 3, 4), strict=True)]
        expected.append(patches[:, *own].reshape(20, -1).mean(axis=1))
        index = np.mean([list(one) for one in itertools.product(*(range(s.start, s.stop) for s in own))], axis=0)
        places.append(affine[:3, :3] @ index + affine[:3, 3] - middle)
    assert found.shape == (20, 3, 2, 2)
    assert found.flatten(1).T.numpy() == pytest.approx(np.array(expected), abs=1e-6)
    assert merging.places_mm(features).numpy() == pytest.approx(np.array(places), abs=1e-9)


def test_int8_steps_are_merged_as_values():
    steps = torch.randint(-100, 100, (3, 4, 4, 4), dtype=torch.int8)
    scale = torch.tensor([0.1, 1.0, 3.0])
    values = steps * scale[:, None, None, None]
    assert torch.allclose(merged(Channels(steps, scale), (2, 2, 2)), merged(Channels(values), (2, 2, 2)))
