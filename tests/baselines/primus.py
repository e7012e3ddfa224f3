"""Primus recomputed from its formulas in float64 with numpy, and random weights for it in the published layout."""

import importlib
import itertools
import math

import numpy as np
import pytest
import torch

PATCH = 8


def authors_primus():
    """The authors' class, or a skip that says what to install."""
    timm = pytest.importorskip("timm", reason="the extra `parity` is not installed")
    if tuple(map(int, timm.__version__.split(".")[:3])) >= (1, 0, 23):
        pytest.skip(f"the extra `parity` is not installed: Primus is not built on timm {timm.__version__}")
    name = "dynamic_network_architectures.architectures.primus"
    pytest.importorskip("dynamic_network_architectures", reason="the extra `parity` is not installed")
    return importlib.import_module(name).Primus


def random_state(dim: int, depth: int, table=None, prefix="", seed=0) -> dict[str, torch.Tensor]:
    """Weights of the published names and shapes, none of them trivial."""
    g = torch.Generator().manual_seed(seed)
    hidden, state = dim * 8 // 3, {}

    def normal(name, *shape, std=0.05, mean=0.0):
        state[f"{prefix}{name}"] = torch.empty(shape).normal_(mean, std, generator=g)

    def linear(name, out, channels, *, bias=True):
        normal(f"{name}.weight", out, channels, std=1 / math.sqrt(channels))
        if bias:
            normal(f"{name}.bias", out, std=0.2)

    def norm(name, channels):
        normal(f"{name}.weight", channels, std=0.2, mean=1)
        normal(f"{name}.bias", channels, std=0.2)

    normal("down_projection.proj.weight", dim, 1, PATCH, PATCH, PATCH)
    normal("down_projection.proj.bias", dim)
    if table is not None:
        normal("eva.pos_embed", 1, math.prod(table), dim, std=0.5)
    for at in (f"eva.blocks.{i}" for i in range(depth)):
        for gamma in ("gamma_1", "gamma_2"):
            normal(f"{at}.{gamma}", dim, std=0.1, mean=0.4)
        for name, channels in (("norm1", dim), ("attn.norm", dim), ("norm2", dim), ("mlp.norm", hidden)):
            norm(f"{at}.{name}", channels)
        for name in ("q_proj", "k_proj", "v_proj", "proj"):
            linear(f"{at}.attn.{name}", dim, dim, bias=name != "k_proj")
        for name, out, channels in (("fc1_g", hidden, dim), ("fc1_x", hidden, dim), ("fc2", dim, hidden)):
            linear(f"{at}.mlp.{name}", out, channels)
    norm("eva.norm", dim)
    return state


def interpolated(table: np.ndarray, grid) -> np.ndarray:
    """(d, h, w, C) on another grid: linear along each axis, patches as intervals, the ends repeated."""
    for axis, size in enumerate(grid):
        have = table.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * have / size - 0.5, 0, have - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1 if i == axis else 1 for i in range(table.ndim)])
        high = np.minimum(low + 1, have - 1)
        table = np.take(table, low, axis) * (1 - share) + np.take(table, high, axis) * share
    return table


def recomputed(state, x: np.ndarray, heads: int, table=None, prefix="") -> np.ndarray:
    """The map (B, C, d, h, w) of normalised windows (B, D, H, W) along the network's axes."""
    w = {k.removeprefix(prefix): v.double().numpy() for k, v in state.items() if k.startswith(prefix)}
    batch, grid = x.shape[0], tuple(n // PATCH for n in x.shape[1:])
    patches = x.reshape(batch, grid[0], PATCH, grid[1], PATCH, grid[2], PATCH)
    tokens = np.einsum("bdphqwr,cpqr->bdhwc", patches, w["down_projection.proj.weight"][:, 0])
    tokens = (tokens + w["down_projection.proj.bias"]).reshape(batch, math.prod(grid), -1)
    dim = tokens.shape[-1]
    if table is not None:
        positions = interpolated(w["eva.pos_embed"].reshape(*table, dim), grid)
        tokens = tokens + positions.reshape(1, -1, dim)
    bands = dim // heads // 6

    def norm(y, name):
        centred = y - y.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(y, name):
        return y @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)

    def rotated(y):  # (B, heads, T, c)
        y = y.copy()
        for token, place in enumerate(itertools.product(*map(range, grid))):
            for axis, band in itertools.product(range(3), range(bands)):
                angle = place[axis] / 10_000 ** (band / bands)
                at = 2 * (axis * bands + band)
                a, b = y[:, :, token, at].copy(), y[:, :, token, at + 1].copy()
                y[:, :, token, at] = a * math.cos(angle) - b * math.sin(angle)
                y[:, :, token, at + 1] = b * math.cos(angle) + a * math.sin(angle)
        return y

    for at in (f"eva.blocks.{i}" for i in range(len({k.split(".")[2] for k in w if k.startswith("eva.blocks.")}))):
        normed = norm(tokens, f"{at}.norm1")
        q, k, v = (
            linear(normed, f"{at}.attn.{name}").reshape(batch, -1, heads, dim // heads).transpose(0, 2, 1, 3)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        mixed = attended(rotated(q), rotated(k), v).transpose(0, 2, 1, 3).reshape(batch, -1, dim)
        tokens = tokens + w[f"{at}.gamma_1"] * linear(norm(mixed, f"{at}.attn.norm"), f"{at}.attn.proj")
        normed = norm(tokens, f"{at}.norm2")
        gate, passed = linear(normed, f"{at}.mlp.fc1_g"), linear(normed, f"{at}.mlp.fc1_x")
        hidden = gate / (1 + np.exp(-gate)) * passed
        tokens = tokens + w[f"{at}.gamma_2"] * linear(norm(hidden, f"{at}.mlp.norm"), f"{at}.mlp.fc2")
    return norm(tokens, "eva.norm").reshape(batch, *grid, dim).transpose(0, 4, 1, 2, 3)


def attended(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Softmax attention of (..., T, c)."""
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def assert_near(actual: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
    """Compares to a share of the largest value."""
    assert tuple(actual.shape) == expected.shape
    assert np.abs(actual.double().numpy() - expected).max() < tolerance * np.abs(expected).max()
