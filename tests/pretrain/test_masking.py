import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from pretrain.config import MaskingConfig
from pretrain.counters import Stream, generator
from pretrain.masking import block_masks

CONFIG = MaskingConfig()
GRIDS = [(3, 28, 28), (6, 14, 14), (12, 14, 14), (14, 14), (2, 8, 8)]


def draw(num_crops, grid, seed=0, config=CONFIG):
    return block_masks(num_crops, grid, config, generator(seed, 0, 0, Stream.MASKS))


def share_in_blocks(masks, grid, block):
    """Share of the masked patches that lie in some fully masked cuboid of this size."""
    inside = total = 0
    for mask in masks.reshape(-1, *grid).numpy():
        inside += int(ndimage.binary_opening(mask, np.ones(block)).sum())
        total += int(mask.sum())
    return inside / total


def test_masked_patches_of_the_real_grid_lie_in_blocks():
    masks = draw(128, (3, 28, 28))
    assert share_in_blocks(masks, (3, 28, 28), (1, 2, 2)) >= 0.9
    assert share_in_blocks(masks, (3, 28, 28), (3, 3, 3)) >= 0.75
    # The measure tells blocks from patches that are masked one by one.
    shuffled = torch.stack(
        [row[torch.randperm(row.numel(), generator=torch.Generator().manual_seed(0))] for row in masks]
    )
    assert share_in_blocks(shuffled, (3, 28, 28), (1, 2, 2)) < 0.6


@pytest.mark.parametrize("grid", GRIDS)
def test_half_of_the_crops_are_masked_by_a_tenth_to_a_half(grid):
    masks = draw(64, grid)
    assert masks.shape == (64, math.prod(grid))
    assert masks.dtype == torch.bool
    ratios = masks.float().mean(1)
    masked = ratios[ratios > 0]
    assert len(masked) == 32
    rounding = 1 / math.prod(grid)
    assert masked.min() >= 0.1 - rounding
    assert masked.max() <= 0.5 + rounding
    # One in each of the 32 strata of the range.
    strata = ((masked.sort().values - 0.1) / 0.4 * 32).double()
    assert (strata >= torch.arange(32) - 80 * rounding).all()
    assert (strata <= torch.arange(1, 33) + 80 * rounding).all()


@pytest.mark.parametrize("num_crops", [2, 6, 8, 64])
def test_the_number_of_masked_patches_is_always_the_same(num_crops):
    totals = {int(draw(num_crops, (3, 28, 28), seed).sum()) for seed in range(20)}
    assert len(totals) == 1
    assert totals.pop() / (num_crops // 2 * 2352) == pytest.approx(0.3, abs=1e-3)


def test_ratios_are_uniform_and_any_crop_may_be_masked():
    drawn = torch.stack([draw(8, (3, 28, 28), seed).float().mean(1) for seed in range(150)])
    ratios = drawn[drawn > 0].numpy()
    assert stats.kstest(ratios, stats.uniform(0.1, 0.4).cdf).pvalue > 0.01
    often = (drawn > 0).sum(0).numpy()
    assert stats.chisquare(often).pvalue > 0.01


def test_every_patch_of_a_layer_is_masked_about_as_often_in_depth():
    often = torch.stack([draw(64, (3, 28, 28), seed).float().mean(0) for seed in range(8)]).mean(0).reshape(3, 28, 28)
    depth = often.mean((1, 2))
    assert depth.max() / depth.min() < 1.15
    assert often.min() > 0


def test_neighbouring_counters_mask_differently_and_the_same_ones_alike():
    masks = [
        block_masks(4, (3, 28, 28), CONFIG, generator(seed, step, index, Stream.MASKS))
        for seed, step, index in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0))
    ]
    assert torch.equal(masks[0], masks[4])
    assert all(not torch.equal(masks[0], other) for other in masks[1:4])


def test_no_crop_is_masked_at_probability_zero_and_all_patches_can_be():
    assert not draw(8, (3, 4, 4), config=MaskingConfig(probability=0.0)).any()
    assert draw(8, (3, 4, 4), config=MaskingConfig(probability=1.0, ratio=(1.0, 1.0))).all()
