"""What the tests of the vision transformer share."""

import torch
from torch import nn


def randomise(module: nn.Module, seed: int = 0, std: float = 0.3) -> None:
    """Gives every parameter values of ordinary size, so that no term of the network is negligible.

    A fresh DINOv2 model hides mistakes: LayerScale is 1e-5, the biases and the mask token are zero, and the
    CLS token and the registers nearly so.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * std
            is_gain = "norm" in name and name.endswith("weight")
            parameter.copy_(noise + 1 if is_gain else noise)


def noise(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Draws standard normal numbers that depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
