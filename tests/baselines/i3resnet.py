"""An inflated ResNet-152 recomputed from its state dict, and random weights for it."""

import nibabel
import numpy as np
import pytest
import torch
from torch.nn.functional import conv3d, max_pool3d

BLOCKS = (3, 8, 36, 3)
DEPTHS = [pytest.param((1, 2, 2, 3), id="shallow"), pytest.param(BLOCKS, id="whole", marks=pytest.mark.thorough)]


def random_state(blocks=BLOCKS, seed=0) -> dict[str, torch.Tensor]:
    """Weights and running statistics of the published names and shapes, none of them trivial."""
    g = torch.Generator().manual_seed(seed)
    state = {}

    def conv(name, out, channels, *kernel):
        scale = (2 / (channels * np.prod(kernel))) ** 0.5
        state[f"{name}.weight"] = torch.empty(out, channels, *kernel).normal_(0, scale, generator=g)

    def norm(name, channels, gain=1.0):
        state[f"{name}.weight"] = gain * torch.empty(channels).uniform_(0.5, 1.5, generator=g)
        state[f"{name}.bias"] = torch.empty(channels).normal_(0, 0.1, generator=g)
        state[f"{name}.running_mean"] = torch.empty(channels).normal_(0, 0.1, generator=g)
        state[f"{name}.running_var"] = torch.empty(channels).uniform_(0.5, 1.5, generator=g)
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    conv("conv1", 64, 3, 3, 7, 7)
    norm("bn1", 64)
    channels = 64
    for stage, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True), start=1):
        for block in range(count):
            at = f"layer{stage}.{block}"
            conv(f"{at}.conv1", width, channels, 1, 1, 1)
            norm(f"{at}.bn1", width)
            conv(f"{at}.conv2", width, width, 3, 3, 3)
            norm(f"{at}.bn2", width)
            conv(f"{at}.conv3", 4 * width, width, 1, 1, 1)
            norm(f"{at}.bn3", 4 * width, gain=0.3)  # keeps the sum of 50 residuals small
            if block == 0:
                conv(f"{at}.downsample.0", 4 * width, channels, 1, 1, 1)
                norm(f"{at}.downsample.1", 4 * width)
            channels = 4 * width
    return state


def recomputed(state: dict[str, torch.Tensor], x: torch.Tensor, blocks=BLOCKS) -> torch.Tensor:
    """The last map of (B, 1, z, x, y) in float64, from the formulas."""

    def conv(name, y, stride=1, padding=0):
        return conv3d(y, state[f"{name}.weight"].double(), stride=stride, padding=padding)

    def norm(name, y):
        weight, bias, mean, var = (
            state[f"{name}.{field}"].double()[:, None, None, None]
            for field in ("weight", "bias", "running_mean", "running_var")
        )
        return (y - mean) / (var + 1e-5) ** 0.5 * weight + bias

    x = torch.cat([x.double()] * 3, dim=1)
    x = norm("bn1", conv("conv1", x, stride=(1, 2, 2), padding=(1, 3, 3))).clamp(min=0)
    x = max_pool3d(x, kernel_size=3, stride=2, padding=1)
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            at = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = norm(f"{at}.bn1", conv(f"{at}.conv1", x)).clamp(min=0)
            y = norm(f"{at}.bn2", conv(f"{at}.conv2", y, stride=stride, padding=1)).clamp(min=0)
            y = norm(f"{at}.bn3", conv(f"{at}.conv3", y))
            if block == 0:
                x = norm(f"{at}.downsample.1", conv(f"{at}.downsample.0", x, stride=stride))
            x = (x + y).clamp(min=0)
    return x


def upstream(
    state: dict[str, torch.Tensor], spl_hu: torch.Tensor, low: float, high: float, blocks=BLOCKS
) -> torch.Tensor:
    """What upstream's pipeline makes of a window (B, 1, D, H, W): MONAI's RAS array, permuted; the map turned back."""
    maps = []
    for window in spl_hu[:, 0].double().numpy():
        ras = turned(window, "SPL", "RAS")  # (x, y, z)
        scaled = (np.clip(ras, low, high) - low) / (high - low)
        zxy = recomputed(state, torch.from_numpy(scaled.transpose(2, 0, 1).copy())[None, None], blocks)[0]
        maps.append(np.stack([turned(channel, "RAS", "SPL") for channel in zxy.permute(0, 2, 3, 1).numpy()]))
    return torch.from_numpy(np.stack(maps))


def turned(array: np.ndarray, start: str, end: str) -> np.ndarray:
    """Turns an array by nibabel's own transform."""
    codes = [nibabel.orientations.axcodes2ornt(tuple(axes)) for axes in (start, end)]
    return nibabel.orientations.apply_orientation(array, nibabel.orientations.ornt_transform(*codes))


def assert_near(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Compares to a share of the largest value."""
    assert actual.shape == expected.shape
    assert (actual.double() - expected.double()).abs().max() < tolerance * expected.abs().max()


def windows(*shape: int, seed: int = 0) -> torch.Tensor:
    """HU that go beyond every range of clipping, with structure that no flip or swap of axes leaves as it was."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.empty(shape[0], 1, *(n // 8 for n in shape[2:])).uniform_(-1400, 1400, generator=g)
    return coarse.repeat_interleave(8, 2).repeat_interleave(8, 3).repeat_interleave(8, 4)
