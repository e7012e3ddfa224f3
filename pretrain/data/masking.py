"""Block masks over the patches of the global crops (iBOT), in 2D and in 3D.

As DINOv2: half of the crops are masked, each to its own ratio, the ratios spread evenly over their range; a mask grows
block by block until it has the wanted number of patches. In 3D (TAP-CT, section 3.1) a block has a height-depth aspect
ratio next to height-width, so blocks tend to cubes.

A crop is only a few patches deep (3 of 28x28), so a cube of hundreds of patches does not fit. The depth is then the
whole of the crop's, and the plane takes what is left: **the number of patches is kept, not the height-depth ratio**.
Generators that insist on the ratio, or on blocks less deep than the crop, find hardly any block that fits, and fill up
with single patches at random, which are easily guessed from their neighbours.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from pretrain.config import MaskingConfig
from tapct._utils.transfer import send


def block_masks(num_crops: int, grid: Sequence[int], config: MaskingConfig, generator: torch.Generator) -> torch.Tensor:
    """Draws the masks of a micro-batch.

    The number of masked patches of all crops together depends on `num_crops`, `grid` and `config` alone, so that the
    student's and the heads' shapes never change.

    Args:
        num_crops: Global crops of the micro-batch.
        grid: Patches of a crop, ([d,] h, w).
        config: Probability, ratio and shape of blocks.
        generator: Of random numbers.

    Returns:
        (num_crops, N) bool, True where masked; N in the order of the patch tokens, row-major.
    """
    shape = (1,) * (3 - len(grid)) + tuple(grid)
    rng = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator)))
    masks = np.zeros((num_crops, *shape), dtype=bool)
    counts = masked_counts(num_crops, math.prod(grid), config, rng)
    for crop, count in zip(rng.permutation(num_crops), counts, strict=False):
        _fill(masks[crop], count, config, rng)
    return torch.from_numpy(masks).flatten(1)


def masked_patches(masks: torch.Tensor, count: int | None = None) -> torch.Tensor:
    """Finds the masked patches.

    Args:
        masks: bool ``(I, N)``.
        count: Their number, if it is known: without it, a GPU must be waited for.

    Returns:
        Their ascending indices into the ``I N`` patches, ``(M,)``.
    """
    flat = masks.flatten()
    found = flat.nonzero() if count is None else torch.nonzero_static(flat, size=count)
    return found.squeeze(1)


def draw_computed(masks: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draws the patches that the student computes: all that are masked, and others up to a number.

    Args:
        masks: (I, N) bool, on any device.
        count: Patches of each crop; at least as many as are masked in one.
        generator: Of random numbers, on the CPU; always as many are drawn.

    Returns:
        (I, count) int64, ascending in each crop, on the device of the masks.
    """
    order = send(torch.rand(masks.shape, generator=generator), masks.device)
    # Below 1 are the masked ones, from 1 on the others. Ties of random numbers go by place, on every device.
    chosen = (order + (~masks).to(order.dtype)).argsort(dim=1, stable=True)[:, :count]
    return chosen.sort(dim=1).values


def masked_counts(num_crops: int, num_patches: int, config: MaskingConfig, rng: np.random.Generator) -> list[int]:
    """Draws how many patches are masked in each masked crop of a micro-batch.

    The range of the ratio is cut into as many strata as there are masked crops, and each draws from its own (DINOv2).
    Opposite strata move by the same amount against each other, which leaves each as it was and makes the sum constant.

    Args:
        num_crops: Global crops of the micro-batch.
        num_patches: Patches of a crop.
        config: Probability and ratio.
        rng: Of random numbers.

    Returns:
        One number for each masked crop: `int(num_crops * probability)` of them.
    """
    masked = int(num_crops * config.probability)
    low, high = config.ratio
    stratum = (high - low) / max(masked, 1)
    middles = low + stratum * (np.arange(masked) + 0.5)
    shifts = np.zeros(masked)
    shifts[: masked // 2] = rng.uniform(-0.5, 0.5, masked // 2) * stratum
    counts = np.rint((middles + shifts) * num_patches)
    # The upper of each pair moves by what the lower did, rounding included: the sum is exact.
    pairs = np.rint((middles + middles[::-1]) * num_patches)
    counts[masked - masked // 2 :] = (pairs - counts[::-1])[masked - masked // 2 :]
    return [int(count) for count in counts.clip(0, num_patches)]


def _fill(mask: np.ndarray, count: int, config: MaskingConfig, rng: np.random.Generator) -> None:
    """Masks exactly `count` patches of one crop, block by block."""
    missing = count
    while missing > 0:
        size = _block_size(mask.shape, missing, config, rng)
        corner = [int(rng.integers(n - m + 1)) for n, m in zip(mask.shape, size, strict=True)]
        where = tuple(slice(a, a + m) for a, m in zip(corner, size, strict=True))
        block = mask[where]
        new = np.argwhere(~block)[:missing]  # the last block is cut off where the count is reached
        block[tuple(new.T)] = True
        missing -= len(new)


def _block_size(
    grid: Sequence[int], missing: int, config: MaskingConfig, rng: np.random.Generator
) -> tuple[int, int, int]:
    """Draws depth, height and width of a block: a volume, then its two aspect ratios."""
    volume = rng.uniform(min(config.min_patches, missing), max(config.min_patches, missing))
    height_by_width = math.exp(rng.uniform(*np.log(config.aspect_hw)))
    height_by_depth = math.exp(rng.uniform(*np.log(config.aspect_hd)))
    height = (volume * height_by_width * height_by_depth) ** (1 / 3)
    depth = min(max(round(height / height_by_depth), 1), grid[0])
    area = volume / depth
    rows = min(max(round(math.sqrt(area * height_by_width)), 1), grid[1])
    columns = min(max(round(area / rows), 1), grid[2])
    return depth, rows, columns
