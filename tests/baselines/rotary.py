"""The vision transformer of FlexiCT and SPECTRE recomputed from its formulas in double precision, with numpy."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import erf

Round = Callable[[np.ndarray], np.ndarray]


class Kind(NamedTuple):
    """What tells the two networks apart.

    Attributes:
        heads: Attention heads.
        special: Tokens before the patches.
        eps: Epsilon of the norms.
        rounded: What each step of the rotation is rounded to.
    """

    heads: int
    special: int
    eps: float
    rounded: Round


def exact(x: np.ndarray) -> np.ndarray:
    return x


def bfloat16(x: np.ndarray) -> np.ndarray:
    return torch.from_numpy(np.asarray(x, dtype=np.float64)).to(torch.bfloat16).double().numpy()


def random_state(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights of these names and shapes, none of them trivial; norms and scales lie around 1 and 0.3."""
    g = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        matrix = len(shape) > 1 and "token" not in name
        std = (1.5 / math.prod(shape[1:])) ** 0.5 if matrix else 0.2
        mean = 0.3 if name.endswith("gamma") else 1.0 if "norm" in name and name.endswith("weight") else 0.0
        state[name] = torch.empty(shape).normal_(mean, std, generator=g)
    return state


def rotated(y: np.ndarray, grid: tuple[int, ...], periods: np.ndarray, kind: Kind) -> np.ndarray:
    """Turns the patches' channels (B, heads, T, c): channel a with channel a + c / 2, token by token."""
    r, half = kind.rounded, y.shape[-1] // 2
    y = r(y).copy()
    for token, place in enumerate(np.ndindex(grid), start=kind.special):
        coordinates = [r(r(2 * r(r(i + 0.5) / n)) - 1) for i, n in zip(place, grid, strict=True)]
        angles = np.concatenate([r(r(2 * math.pi * c) / periods) for c in coordinates])
        cos, sin = r(np.cos(angles)), r(np.sin(angles))
        a, b = y[:, :, token, :half].copy(), y[:, :, token, half:].copy()
        y[:, :, token, :half] = r(r(a * cos) + r(-b * sin))
        y[:, :, token, half:] = r(r(b * cos) + r(a * sin))
    return y


def recomputed(
    state: dict[str, torch.Tensor], x: np.ndarray, kind: Kind, *, patch: str, periods: str
) -> tuple[np.ndarray, np.ndarray]:
    """Class token (B, C) and map (B, C, ...) of normalised windows (B, ...) along the network's own axes.

    Args:
        state: The published names; q, k and v joined (`attn.qkv`) or in two (`attn.q`, `attn.kv`), with bias or none.
        x: The windows.
        kind: Of network.
        patch: Name of the patch embedding.
        periods: Name of the periods.
    """
    w = {key: value.double().numpy() for key, value in state.items()}
    depth = 1 + max(int(key.split(".")[1]) for key in w if key.startswith("blocks."))
    kernel = w[f"{patch}.weight"][:, 0]
    dim, size, batch = len(kernel), kernel.shape[1:], len(x)
    grid = tuple(n // p for n, p in zip(x.shape[1:], size, strict=True))
    patches = x.reshape(batch, grid[0], size[0], grid[1], size[1], grid[2], size[2]).transpose(0, 1, 3, 5, 2, 4, 6)
    patches = patches.reshape(batch, math.prod(grid), -1) @ kernel.reshape(dim, -1).T + w[f"{patch}.bias"]
    special = [w[name] for name in ("cls_token", "storage_tokens") if name in w]
    tokens = np.concatenate([np.concatenate(special, axis=1).repeat(batch, axis=0), patches], axis=1)

    def layer_norm(y, name):
        centred = y - y.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + kind.eps)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(y, name):
        return y @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    for i in range(depth):
        at = f"blocks.{i}"
        y = layer_norm(tokens, f"{at}.norm1")
        parts = ["qkv"] if f"{at}.attn.qkv.weight" in w else ["q", "kv"]
        qkv = np.concatenate([linear(y, f"{at}.attn.{part}") for part in parts], axis=-1)
        q, k, v = qkv.reshape(batch, -1, 3, kind.heads, dim // kind.heads).transpose(2, 0, 3, 1, 4)
        q, k = (rotated(z, grid, w[periods], kind) for z in (q, k))
        scores = q @ k.swapaxes(2, 3) / math.sqrt(dim / kind.heads)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True)) @ v
        mixed = mixed.transpose(0, 2, 1, 3).reshape(batch, -1, dim)
        tokens = tokens + linear(mixed, f"{at}.attn.proj") * w[f"{at}.ls1.gamma"]
        hidden = linear(layer_norm(tokens, f"{at}.norm2"), f"{at}.mlp.fc1")
        hidden = hidden * (1 + erf(hidden / math.sqrt(2))) / 2
        tokens = tokens + linear(hidden, f"{at}.mlp.fc2") * w[f"{at}.ls2.gamma"]
    tokens = layer_norm(tokens, "norm")
    return tokens[:, 0], tokens[:, kind.special :].reshape(batch, *grid, dim).transpose(0, 4, 1, 2, 3)


def assert_near(actual: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
    assert tuple(actual.shape) == expected.shape
    assert np.abs(actual.double().numpy() - expected).max() < tolerance * np.abs(expected).max()


def windows(*shape: int, seed: int = 0) -> torch.Tensor:
    """HU far beyond the range of clipping."""
    return torch.empty(shape).uniform_(-2700, 2700, generator=torch.Generator().manual_seed(seed))
