import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from pretrain.config import MaskingConfig
from pretrain.data.counters import Stream, generator
from pretrain.data.masking import block_masks, masked_counts, masked_patches

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


def test_masked_patches_are_found_in_order_whether_or_not_their_number_is_known():
    masks = torch.tensor([[False, True, True], [True, False, False]])
    assert masked_patches(masks).tolist() == masked_patches(masks, 3).tolist() == [1, 2, 3]


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
    assert not draw(8, (3, 4, 4), config=MaskingConfig(ratio=(0.0, 0.0))).any()
    assert draw(8, (3, 4, 4), config=MaskingConfig(probability=1.0, ratio=(1.0, 1.0))).all()


# --- one block a crop: what is asked for is what lies there ---


def one_block(grid, count, hw=(1.0, 1.0), hd=(1.0, 1.0), crops=1, seed=0):
    """(crops, *grid) masks whose first block has exactly `count` patches but for rounding."""
    share = count / math.prod(grid)
    config = MaskingConfig(probability=1.0, ratio=(share, share), aspect_hw=hw, aspect_hd=hd, min_patches=count)
    masks = draw(crops, grid, seed, config).reshape(crops, *grid).numpy()
    assert (masks.reshape(crops, -1).sum(1) == count).all()
    return masks


def box(mask):
    """First voxel and size of the box around a mask."""
    at = np.argwhere(mask)
    return at.min(0).tolist(), (at.max(0) - at.min(0) + 1).tolist()


@pytest.mark.parametrize(
    ("grid", "size", "hw", "hd"),
    [
        ((14, 14), [8, 2], 4.0, 1.0),
        ((14, 14), [2, 8], 0.25, 1.0),
        ((14, 14), [4, 4], 1.0, 1.0),
        ((9, 16, 16), [2, 4, 8], 0.5, 2.0),
        ((9, 16, 16), [8, 4, 2], 2.0, 0.5),
        ((9, 16, 16), [2, 8, 4], 2.0, 4.0),
        ((9, 16, 16), [4, 4, 4], 1.0, 1.0),
        ((3, 14, 14), [3, 6, 6], 1.0, 1.0),  # a cube of 108 is deeper than the crop: the plane takes the rest
        ((3, 14, 14), [3, 12, 3], 4.0, 1.0),  # and keeps height against width
        ((2, 4, 30), [2, 4, 10], 1.0, 1.0),  # and where height does not fit, width takes the rest
        ((9, 16, 16), [1, 2, 32 // 4], 0.25, 4.0),
        ((9, 16, 16), [1, 1, 1], 1.0, 1.0),
        ((5, 5), [1, 4], 0.25, 1.0),
        ((5, 5), [4, 1], 4.0, 1.0),
        ((5, 5), [1, 1], 4.0, 1.0),  # of two by half a patch, one
        ((5, 5), [1, 1], 0.2, 1.0),
    ],
)
def test_a_block_has_the_depth_height_and_width_of_its_ratios(grid, size, hw, hd):
    for mask in one_block(grid, math.prod(size), (hw, hw), (hd, hd), crops=4):
        assert box(mask)[1] == size, "one block, and no patch elsewhere"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_blocks_lie_anywhere_in_the_crop_as_often(axis):
    masks = one_block((6, 7, 8), 4 * 4 * 4, crops=600)
    first = np.array([box(mask)[0] for mask in masks])
    places = np.bincount(first[:, axis], minlength=[6, 7, 8][axis] - 3)
    assert len(places) == [6, 7, 8][axis] - 3, "from the first to the last place where it fits"
    assert stats.chisquare(places).pvalue > 0.01


@pytest.mark.parametrize("ratios", ["hw", "hd"])
def test_ratios_of_blocks_are_log_uniform(ratios):
    """As often twice as high as wide as the other way round; uniform ratios would be tall four times in five."""
    masks = one_block((32, 32, 32), 1000, **{ratios: (1 / 4, 4.0)}, crops=200)
    sizes = np.array([box(ndimage.binary_opening(mask, np.ones((2, 2, 2))))[1] for mask in masks])
    log_ratio = np.log(sizes[:, 1] / sizes[:, {"hw": 2, "hd": 0}[ratios]]) / math.log(4)
    assert stats.kstest(log_ratio, stats.uniform(-1, 2).cdf).statistic < 0.12  # whole patches, so not quite
    fixed = np.log(sizes[:, 1] / sizes[:, {"hw": 0, "hd": 2}[ratios]])
    assert abs(np.median(fixed)) < 0.1


def largest_square(mask):
    """Edge of the largest square of masked patches."""
    sums = np.pad(mask.astype(int).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    for edge in range(min(mask.shape), 0, -1):
        if (sums[edge:, edge:] - sums[:-edge, edge:] - sums[edge:, :-edge] + sums[:-edge, :-edge]).max() == edge**2:
            return edge
    return 0


def test_a_block_has_any_size_from_the_least_up_to_what_is_still_to_be_masked():
    """The largest square in a mask of 100 patches, made of squares of 4 to 100 patches that rarely touch."""
    share = 100 / 60**2
    config = MaskingConfig(probability=1.0, ratio=(share, share), aspect_hw=(1, 1), aspect_hd=(1, 1))
    masks = draw(400, (60, 60), config=config).reshape(400, 60, 60).numpy()
    edges = np.array([largest_square(mask) for mask in masks])
    rng = np.random.default_rng(0)
    expected = []
    for _ in range(2000):
        missing, largest = 100, 0
        while missing > 0:
            edge = round(math.sqrt(rng.uniform(min(4, missing), max(4, missing))))
            largest = max(largest, min(edge, math.isqrt(missing)))
            missing -= edge**2
        expected.append(largest)
    shares = [np.bincount(found, minlength=11) / len(found) for found in (edges, np.array(expected))]
    assert np.abs(np.cumsum(shares[0]) - np.cumsum(shares[1])).max() < 0.08


@pytest.mark.parametrize("count", [1, 2, 3])
def test_less_than_a_block_is_masked_where_less_is_asked_for(count):
    share = count / 48
    for seed in range(20):
        masks = draw(4, (3, 4, 4), seed, MaskingConfig(probability=1.0, ratio=(share, share)))
        assert (masks.sum(1) == count).all()


# --- how many patches ---


@pytest.mark.parametrize("masked", [1, 2, 5, 8])
@pytest.mark.parametrize("ratio", [(0.1, 0.5), (0.0, 1.0), (0.3, 0.3)])
def test_counts_fill_strata_of_the_range_and_opposite_ones_move_against_each_other(masked, ratio):
    patches, (low, high) = 10_000, ratio
    counts = np.array(
        [
            masked_counts(masked, patches, MaskingConfig(probability=1.0, ratio=ratio), np.random.default_rng(seed))
            for seed in range(200)
        ]
    )
    edges = np.linspace(low, high, masked + 1) * patches
    assert counts.shape == (200, masked)
    assert (counts >= np.floor(edges[:-1])).all()
    assert (counts <= np.ceil(edges[1:])).all()
    assert (counts + counts[:, ::-1] == round((low + high) * patches)).all()
    if masked > 1 and high > low:
        within = (counts - edges[:-1]) / np.diff(edges)
        assert stats.kstest(within[:, 0], "uniform").pvalue > 0.01
        assert np.ptp(within[:, -1]) > 0.9
    if masked > 3 and high > low:
        assert abs(np.corrcoef(within[:, 0], within[:, 1])[0, 1]) < 0.2, "each pair has a shift of its own"


@pytest.mark.parametrize(("crops", "probability", "masked"), [(5, 0.5, 2), (6, 0.75, 4), (8, 1.0, 8), (1, 0.5, 0)])
def test_as_many_crops_are_masked_as_the_probability_says(crops, probability, masked):
    masks = draw(crops, (3, 8, 8), config=MaskingConfig(probability=probability))
    assert int(masks.any(1).sum()) == masked


def test_every_crop_has_small_and_large_masks_alike():
    """Were the counts handed out in order, the first crop would always see most."""
    drawn = np.stack([draw(4, (6, 8), seed).sum(1).numpy() for seed in range(300)])
    means = [column[column > 0].mean() / 48 for column in drawn.T]
    assert np.allclose(means, 0.3, atol=0.035)


def test_no_two_micro_batches_of_many_are_masked_alike():
    """The generator's numbers reach the masks in full: with 125 seeds, many of these would coincide."""
    drawn = {draw(4, (6, 14, 14), seed).numpy().tobytes() for seed in range(400)}
    assert len(drawn) == 400
