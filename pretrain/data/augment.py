"""Intensity augmentation of crops, batched on the device: gamma in place of colour jitter, and Gaussian blur.

The TAP-CT paper (section 3.2) names both and gives no ranges; those of the config say where they come from. What is
drawn is drawn on the CPU, so a crop is augmented alike on every device.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pretrain.config import CropsConfig
from pretrain.data.crops import send

BLUR_RADIUS = 4
"""Pixels: DINOv2 blurs with a kernel of 9."""


@dataclass(frozen=True, eq=False)
class Augmentation:
    """What is done to each crop of a batch, on the CPU.

    Attributes:
        gamma: (B,) float64 exponents; 1 leaves a crop as it is.
        sigma: (B,) float64 standard deviations of the blur in pixels; 0 leaves a crop as it is.
    """

    gamma: torch.Tensor
    sigma: torch.Tensor


def draw_augmentation(blur_chance: torch.Tensor, config: CropsConfig, generator: torch.Generator) -> Augmentation:
    """Draws what is done to each crop.

    Args:
        blur_chance: (B,) chance that a crop is blurred.
        config: Ranges, and the chance of the gamma adjustment.
        generator: Of random numbers.

    Returns:
        The augmentation of B crops.
    """
    uniform = torch.rand(4, len(blur_chance), dtype=torch.float64, generator=generator)
    gamma = config.gamma[0] + uniform[0] * (config.gamma[1] - config.gamma[0])
    sigma = config.blur_sigma[0] + uniform[1] * (config.blur_sigma[1] - config.blur_sigma[0])
    return Augmentation(
        torch.where(uniform[2] < config.gamma_probability, gamma, 1.0),
        torch.where(uniform[3] < blur_chance, sigma, 0.0),
    )


def augment(crops: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
    """Adjusts and blurs crops.

    Args:
        crops: (B, D, H, W) float32 in [0, 1]: the clip range of the HU.
        augmentation: Of these crops.

    Returns:
        (B, D, H, W) float32 in [0, 1].
    """
    adjusted = crops ** _column(augmentation.gamma, crops)
    # Which crops are blurred is known on the CPU, so the device is not waited for.
    chosen = augmentation.sigma.nonzero().flatten()
    if not len(chosen):
        return adjusted
    where = send(chosen, crops.device)
    return adjusted.index_copy(0, where, _blur(adjusted[where], augmentation.sigma[chosen]))


def _blur(crops: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur in the plane, with mirrored borders; a kernel of 9 (less in crops smaller than 5 pixels)."""
    for axis in (-1, -2):
        radius = min(BLUR_RADIUS, crops.shape[axis] - 1)
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
        weights = torch.softmax(-0.5 * (offsets / sigma[:, None]) ** 2, dim=1)
        pad = (radius, radius, 0, 0) if axis == -1 else (0, 0, radius, radius)
        padded = F.pad(crops, pad, mode="reflect")
        length = crops.shape[axis]
        # Nine scaled shifts: a convolution with another kernel for every crop is slower in all of PyTorch's backends.
        crops = torch.zeros_like(crops)
        for tap in range(2 * radius + 1):
            crops.addcmul_(padded.narrow(axis, tap, length), _column(weights[:, tap], padded))
    return crops


def _column(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(B,) on the CPU to (B, 1, 1, 1) next to the crops."""
    return send(values.to(like.dtype), like.device)[:, None, None, None]
