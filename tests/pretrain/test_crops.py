import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torchvision.transforms import v2

from pretrain.config import CropsConfig
from pretrain.data.augment import Augmentation, augment, draw_augmentation
from pretrain.data.counters import Stream, generator
from pretrain.data.crops import cut_crops, plan_crops
from tapct.volumes import read_ct
from tapct.volumes.geometry import Grid
from tapct.volumes.resample import resample_image
from tests.conftest import QUICKSTART

PAPER = CropsConfig(global_size=(12, 224, 224), local_size=(12, 96, 96))


def plans(number, shape=(300, 512, 512), foreground=(0, 300), slab=24, config=PAPER):
    return [plan_crops(shape, foreground, slab, config, generator(0, n, 0, Stream.CROPS)) for n in range(number)]


def boxes_of(number, **kwargs):
    return np.stack([plan.boxes for plan in plans(number, **kwargs)])


@pytest.fixture(scope="module")
def chest():
    return torch.from_numpy(read_ct(QUICKSTART / "chest" / "ct_dicom").hu)


EVEN = (3 / 4, 4 / 3)


@pytest.mark.parametrize(
    ("shape", "scale", "ratio"),
    [
        ((512, 512), (0.32, 1.0), EVEN),
        ((512, 512), (0.05, 0.32), EVEN),
        pytest.param((90, 512), (0.3, 1.0), EVEN, marks=pytest.mark.thorough),  # most fit in none of ten tries
        pytest.param((512, 90), (0.3, 1.0), EVEN, marks=pytest.mark.thorough),
        ((400, 512), (0.05, 0.9), (1.2, 2.0)),  # wider than high: the two are not to be mistaken
    ],
)
def test_the_plane_is_cut_as_torchvision_cuts_it(shape, scale, ratio):
    config = PAPER.model_copy(update={"local_scale": scale, "num_local": 20, "aspect_ratio": ratio})
    ours = boxes_of(150, shape=(40, *shape), foreground=(0, 40), config=config)[:, 2:].reshape(-1, 6)
    torch.manual_seed(0)
    image = torch.empty(1, *shape)
    transform = v2.RandomResizedCrop(96, scale=scale, ratio=ratio)
    drawn = [transform.make_params([image]) for _ in range(len(ours))]
    theirs = np.array([[d["top"], d["left"], d["height"], d["width"]] for d in drawn])
    for column, reference in zip(ours[:, [1, 2, 4, 5]].T, theirs.T, strict=True):
        assert stats.ks_2samp(column, reference).pvalue > 1e-3
    area = (ours[:, 4] * ours[:, 5], theirs[:, 2] * theirs[:, 3])
    assert stats.ks_2samp(*area).pvalue > 1e-3


def test_area_and_aspect_ratio_of_local_crops_follow_their_closed_forms():
    boxes = boxes_of(300)[:, 2:].reshape(-1, 6)
    area = boxes[:, 4] * boxes[:, 5] / 512**2
    assert stats.kstest(area, stats.uniform(0.05, 0.27).cdf).pvalue > 0.01  # always fits: uniform
    ratio = np.log(boxes[:, 5] / boxes[:, 4])
    assert stats.kstest(ratio, stats.uniform(np.log(3 / 4), 2 * np.log(4 / 3)).cdf).pvalue > 0.01  # log-uniform


def test_ten_tries_in_vain_give_the_largest_central_crop():
    boxes = boxes_of(
        5, shape=(12, 40, 400), foreground=(0, 12), config=PAPER.model_copy(update={"global_scale": (0.9, 1.0)})
    )
    height, width = 40, round(40 * 4 / 3)
    assert (boxes[:, :2, [1, 2, 4, 5]] == [0, (400 - width) // 2, height, width]).all()


@pytest.mark.parametrize(
    ("plane", "area", "ratio", "size", "is_central"),
    [
        ((300, 400), 0.25, 1.0, (173, 173), False),  # 173.2
        ((300, 400), 0.2, 2.0, (110, 219), False),  # 109.5 and 219.1
        ((300, 400), 0.2, 0.5, (219, 110), False),
        ((300, 450), 1.0, 1.5, (300, 450), True),  # as large as the plane, which fits
        ((10, 10), 0.01, 1.0, (1, 1), False),  # as small as a pixel
        ((10, 10), 0.001, 1.0, (10, 10), True),  # smaller than one: fits in no try, and so the largest
        ((300, 400), 1.0, 1.0, (300, 300), True),  # larger than the plane: the largest of that ratio, in the middle
        ((300, 400), 1.0, 3.0, (133, 400), True),
        ((400, 101), 0.9, 1.0, (101, 101), True),
        ((101, 400), 0.9, 1.0, (101, 101), True),
    ],
)
def test_a_crop_has_the_area_and_the_width_over_height_asked_for_or_is_central(plane, area, ratio, size, is_central):
    config = PAPER.model_copy(update={"global_scale": (area, area), "aspect_ratio": (ratio, ratio)})
    boxes = boxes_of(20, shape=(12, *plane), foreground=(0, 12), config=config)[:, :2].reshape(-1, 6)
    assert (boxes[:, 4:] == size).all()
    assert (boxes[:, 1:3] == (np.array(plane) - size) // 2).all() == is_central


def test_there_are_ten_tries():
    """At an area of 0.9 of a square, a ratio fits if its logarithm is within 0.1: one in 28 of these ranges."""
    config = PAPER.model_copy(update={"local_scale": (0.9, 0.9), "aspect_ratio": (1 / 20, 20.0), "num_local": 20})
    boxes = boxes_of(300, shape=(12, 512, 512), foreground=(0, 12), config=config)[:, 2:].reshape(-1, 6)
    one_fits = math.log(512.5**2 / (0.9 * 512**2)) / math.log(20)
    in_vain = int((boxes[:, 4:] == 512).all(1).sum())
    assert stats.binomtest(in_vain, len(boxes), (1 - one_fits) ** 10).pvalue > 0.01


@pytest.mark.parametrize(("plane", "size"), [((400, 101), (128, 101)), ((103, 400), (103, 137))])
def test_the_largest_central_crop_has_the_allowed_ratio_nearest_to_the_plane_s(plane, size):
    """101 / 0.79 = 127.8 and 103 x 1.33 = 137.0."""
    config = PAPER.model_copy(update={"global_scale": (0.9, 0.9), "aspect_ratio": (0.79, 1.33)})
    boxes = boxes_of(5, shape=(12, *plane), foreground=(0, 12), config=config)[:, :2].reshape(-1, 6)
    assert (boxes[:, 4:] == size).all()
    assert (boxes[:, 1:3] == (np.array(plane) - size) // 2).all()


def test_a_plane_whose_ratio_is_allowed_is_taken_whole_where_nothing_fits():
    config = PAPER.model_copy(update={"global_scale": (1.0, 1.0), "aspect_ratio": (1.0, 100.0)})
    boxes = boxes_of(20, shape=(12, 300, 320), foreground=(0, 12), config=config)[:, :2].reshape(-1, 6)
    assert (boxes[:, 1:3] == 0).all()
    assert (boxes[:, 4:] == (300, 320)).all()


@pytest.mark.parametrize(
    ("foreground", "starts"),
    [
        ((10, 25), range(10, 14)),  # 12 slices in 15
        ((10, 22), range(10, 11)),
        ((10, 19), range(7, 11)),  # the body is thinner than the slab, which then holds all of it
        ((0, 9), range(1)),
        ((27, 30), range(18, 19)),
        ((0, 30), range(19)),
    ],
)
def test_every_place_of_a_slab_comes_as_often(foreground, starts):
    boxes = boxes_of(600, shape=(30, 64, 64), foreground=foreground, slab=12)
    assert (boxes[..., 0] == boxes[:, :1, 0]).all()
    often = np.bincount(boxes[:, 0, 0], minlength=30)
    assert set(np.flatnonzero(often)) == set(starts)
    assert len(starts) == 1 or stats.chisquare(often[list(starts)]).pvalue > 0.01


@pytest.mark.parametrize(("axis", "room"), [(1, 3), (2, 4)])
def test_every_place_in_the_plane_comes_as_often(axis, room):
    config = PAPER.model_copy(update={"global_scale": (0.25, 0.25), "aspect_ratio": (1.0, 1.0), "num_local": 0})
    shape = [12, 8, 8]
    shape[axis], other = 5 + room, {1: 2, 2: 1}[axis]
    shape[other] = 100 // shape[axis]
    boxes = boxes_of(400, shape=tuple(shape), foreground=(0, 12), config=config)[:, :2].reshape(-1, 6)
    edge = boxes[0, axis + 3]
    often = np.bincount(boxes[:, axis])
    assert len(often) == shape[axis] - edge + 1
    assert stats.chisquare(often).pvalue > 0.01


def test_depth_is_a_fixed_number_of_slices_uniform_in_a_slab_uniform_in_the_body():
    all_plans = plans(800, foreground=(50, 250))
    boxes = np.stack([plan.boxes for plan in all_plans])
    assert (boxes[..., 3] == 12).all()
    first, last = boxes[..., 0].min(1), (boxes[..., 0] + boxes[..., 3]).max(1)
    assert (last - first).max() == 24
    assert first.min() >= 50
    assert last.max() <= 250
    # In the slab of 24, 13 first slices are possible; ten draws leave the extremes out with a chance that is known.
    offsets = boxes[:, 0, 0] - boxes[:, 1, 0]  # triangular between two of them
    assert offsets.std() == pytest.approx(np.sqrt(2 * (13**2 - 1) / 12), rel=0.06)
    assert (
        stats.kstest(boxes[:, 0, 0] + np.random.default_rng(0).random(800), _sum_of_uniforms(50, 177, 13)).pvalue > 0.01
    )


def _sum_of_uniforms(start, slabs, places):
    """CDF of the first slice of a crop: its slab's and its own, both uniform, made continuous within a slice."""
    chances = np.convolve(np.full(slabs, 1 / slabs), np.full(places, 1 / places))
    edges = np.concatenate(([0], chances.cumsum()))
    return lambda x: np.interp(x, start + np.arange(len(edges)), edges)


@pytest.mark.parametrize(
    ("depth", "foreground", "first", "last"),
    [
        (12, (0, 12), 0, 12),  # as thin as can be
        (20, (0, 20), 0, 20),  # thinner than the slab: all of it
        (100, (40, 50), 26, 64),  # the body is thinner than the slab, which holds all of it
        (100, (0, 5), 0, 24),
        (100, (97, 100), 76, 100),
    ],
)
def test_slabs_of_thin_scans_and_bodies(depth, foreground, first, last):
    boxes = boxes_of(100, shape=(depth, 64, 64), foreground=foreground)
    assert boxes[..., 0].min() >= first
    assert (boxes[..., 0] + 12).max() <= last


def test_local_crops_may_be_thinner_and_2d_crops_have_one_slice():
    thinner = boxes_of(20, config=PAPER.model_copy(update={"local_size": (6, 96, 96)}))
    assert (thinner[:, :2, 3] == 12).all()
    assert (thinner[:, 2:, 3] == 6).all()
    flat = boxes_of(20, slab=1, config=CropsConfig(global_size=(224, 224), local_size=(96, 96)))
    assert (flat[..., 3] == 1).all()
    assert (flat[..., 0] == flat[:, :1, 0]).all()


def test_the_slab_is_what_the_crops_touch_and_no_more():
    for plan in plans(20):
        touched = np.zeros((300, 512, 512), dtype=bool)
        for z, y, x, d, h, w in plan.boxes:
            touched[z : z + d, y : y + h, x : x + w] = True
        for axis in range(3):
            hit = np.flatnonzero(touched.any(axis=tuple({0, 1, 2} - {axis})))
            assert (hit[0], hit[-1] + 1) == (plan.slab[axis], plan.slab[axis] + plan.slab[axis + 3])


def test_a_plan_is_its_generator_s_alone_and_takes_as_many_numbers_whatever_it_plans():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    one, two = (plan_crops((300, 512, 512), (0, 300), 24, PAPER, generator(0, 5, 0, Stream.CROPS)) for _ in range(2))
    assert torch.equal(torch.rand(3), expected), "the numbers of everyone else continue as they were"
    assert np.array_equal(one.boxes, two.boxes)
    assert np.array_equal(one.flips, two.flips)
    assert one.flips.shape == (10, 3)
    states = []
    for shape in ((300, 512, 512), (12, 40, 400)):  # what fits at once, and what never does
        numbers = generator(0, 5, 0, Stream.CROPS)
        plan_crops(shape, (0, shape[0]), 24, PAPER, numbers)
        states.append(numbers.get_state())
    assert torch.equal(*states)


def test_what_is_drawn_of_a_sample_is_drawn_apart():
    """Slab, flips, places and sizes of a view say nothing of each other, nor of those of another view."""
    config = PAPER.model_copy(update={"flip_probability": (0.5, 0.5, 0.5), "num_local": 2})
    drawn = plans(1500, shape=(2000, 512, 512), foreground=(0, 2000), config=config)
    boxes, flips = (np.stack([getattr(plan, name) for plan in drawn]).astype(float) for name in ("boxes", "flips"))
    slab = boxes[..., 0].min(1)
    room = np.array([512, 512]) - boxes[..., 4:]
    columns = [slab]
    for view in range(4):
        places = (boxes[:, view, 1:3] / np.maximum(room[:, view], 1)).T
        columns += [boxes[:, view, 0] - boxes[:, :, 0].mean(1), *flips[:, view].T, *places]
        columns += [boxes[:, view, 4] * boxes[:, view, 5], boxes[:, view, 5] / boxes[:, view, 4]]
    correlation = np.corrcoef(columns)
    depth = [1 + 8 * view for view in range(4)]  # of a view against the others' mean: related by design
    correlation[np.ix_(depth, depth)] = 0
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 5 / np.sqrt(1500)


def _cut(slabs, boxes, flips, size, antialias=True):
    return cut_crops(slabs, torch.tensor(boxes), torch.tensor(flips), size, antialias=antialias)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(
    "size", [pytest.param((12, 224, 224), marks=pytest.mark.thorough), (12, 96, 96), (6, 96, 96), (12, 7, 301)]
)
def test_crops_are_those_of_torchvision_slice_by_slice(chest, size, antialias):
    boxes = [(3, 0, 0, size[0], 512, 512), (0, 100, 37, size[0], 300, 250), (8, 460, 470, size[0], 52, 42)]
    crops = _cut(chest.to(torch.int16).expand(3, -1, -1, -1), boxes, [(False,) * 3] * 3, size, antialias)
    for crop, (z, y, x, d, h, w) in zip(crops, boxes, strict=True):
        part = chest[z : z + d].double()
        expected = v2.functional.resized_crop(part, y, x, h, w, list(size[-2:]), antialias=antialias)
        torch.testing.assert_close(crop.double(), expected, atol=0.01, rtol=0)


def test_crops_are_those_of_grid_sample_with_a_slab_of_their_own(chest):
    z, y, x, d, h, w = 4, 50, 61, 12, 333, 201
    part = chest[z : z + d, y : y + h, x : x + w].double()
    grid = F.affine_grid(torch.eye(2, 3, dtype=torch.float64)[None], (1, d, 96, 96), align_corners=False)
    expected = F.grid_sample(part[None], grid, padding_mode="border", align_corners=False)[0]
    crop = _cut(chest[None], [(z, y, x, d, h, w)], [(False,) * 3], (12, 96, 96), antialias=False)[0]
    torch.testing.assert_close(crop.double(), expected, atol=0.01, rtol=0)


def test_an_encoder_is_trained_on_what_the_benchmark_feeds_it(chest):
    """The resizing of scans and the averaged crop of a whole slice are the same numbers."""
    expected = F.interpolate(chest[None, :12].double(), (224, 224), mode="bilinear", antialias=True)[0]
    crop = _cut(chest[None], [(0, 0, 0, 12, 512, 512)], [(False,) * 3], (12, 224, 224))[0]
    torch.testing.assert_close(crop.double(), expected, atol=0.01, rtol=0)
    straight = Grid((12, 512, 512), np.diag([3.0, 1.0, 1.0, 1.0]))
    ours = resample_image(chest[:12].double(), straight, straight.resized((12, 224, 224)))
    torch.testing.assert_close(crop.double(), ours, atol=0.01, rtol=0)


def test_averaging_leaves_the_noise_that_a_triangle_leaves():
    """Of white noise, the root of the sum of the squared weights in y times that in x: 5.8 of 20 HU; else 13."""
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 20, (1, 12, 512, 512)))
    box, flip = [(0, 0, 0, 12, 512, 512)], [(False,) * 3]
    left = {averaged: float(_cut(noise, box, flip, (12, 224, 224), averaged).std()) for averaged in (True, False)}
    eye = torch.eye(512, dtype=torch.float64)[None, None]
    weights = F.interpolate(eye, (224, 512), mode="bilinear", antialias=True)[0, 0]
    expected = 20 * float(weights.square().sum(1).mean())
    assert left[True] == pytest.approx(expected, rel=0.01)
    assert left[True] == pytest.approx(5.8, abs=0.1)
    assert left[False] == pytest.approx(13.2, abs=0.3)


def test_a_zone_plate_loses_the_rings_that_the_crop_cannot_show():
    """Rings finer than two pixels of the crop come out grey; without averaging they fold into rings that never were."""
    y, x = torch.meshgrid(*[torch.arange(512, dtype=torch.float64) - 255.5] * 2, indexing="ij")
    radius = torch.hypot(y, x)
    plate = 1000 * torch.cos(torch.pi * radius**2 / 512)  # radius / 512 cycles a voxel: half a cycle at the border
    too_fine = (radius > 512 * 0.35) & (radius < 250)  # over 0.8 cycles a pixel of 224
    fine = F.interpolate(too_fine[None, None].double(), (224, 224))[0, 0] > 0
    box, flip = [(0, 0, 0, 1, 512, 512)], [(False,) * 3]
    crops = {a: _cut(plate[None, None], box, flip, (224, 224), a)[0, 0] for a in (True, False)}
    ideal = torch.fft.fftshift(torch.fft.fft2(plate))[144:368, 144:368] * (224 / 512) ** 2
    ideal = torch.fft.ifft2(torch.fft.ifftshift(ideal)).real
    left = {name: float(crop[fine].square().mean().sqrt()) for name, crop in {**crops, "ideal": ideal}.items()}
    assert left["ideal"] < 30
    assert left[True] < 0.1 * left[False]
    assert left[False] > 200


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("plane", [(1, 1), (1, 40), (2, 2)])
def test_a_plane_of_a_pixel_or_two_is_stretched_like_any_other(plane, antialias):
    slab = torch.arange(12.0 * plane[0] * plane[1]).reshape(1, 12, *plane) - 1000
    crop = _cut(slab, [(0, 0, 0, 12, *plane)], [(False,) * 3], (12, 7, 9), antialias)
    expected = F.interpolate(slab.double(), size=(7, 9), mode="bilinear", align_corners=False, antialias=antialias)
    torch.testing.assert_close(crop.double(), expected, atol=1e-2, rtol=0)


def test_flips_mirror_the_crop(chest):
    box = (2, 30, 40, 12, 400, 300)
    plain = _cut(chest[None], [box], [(False,) * 3], (12, 64, 64))
    for axis in range(3):
        flip = [tuple(a == axis for a in range(3))]
        mirrored = _cut(chest[None], [box], flip, (12, 64, 64))
        torch.testing.assert_close(mirrored, plain.flip(axis + 1), atol=1e-3, rtol=0)


def test_flips_come_as_often_as_asked():
    config = PAPER.model_copy(update={"flip_probability": (0.0, 1.0, 0.5)})
    flips = np.stack([plan.flips for plan in plans(100, config=config)])
    assert not flips[..., 0].any()
    assert flips[..., 1].all()
    assert stats.binomtest(int(flips[..., 2].sum()), flips[..., 2].size).pvalue > 0.01


def test_crops_of_padded_slabs_never_see_the_padding(chest):
    slabs = torch.full((2, 30, 600, 600), 30_000, dtype=torch.int16)
    slabs[0, :20, :512, :512] = chest.to(torch.int16)
    slabs[1, :20, :512, :512] = chest.to(torch.int16)
    crops = _cut(slabs, [(8, 0, 0, 12, 512, 512), (8, 312, 312, 12, 200, 200)], [(False,) * 3] * 2, (12, 224, 224))
    assert crops.max() <= chest.max()


def test_blur_is_that_of_torchvision(chest):
    crops = ((chest[None, :12, ::4, ::4] + 1008) / 1830).clamp(0, 1).repeat(3, 1, 1, 1)
    sigma = torch.tensor([0.1, 0.0, 1.7], dtype=torch.float64)
    blurred = augment(crops, Augmentation(torch.ones(3, dtype=torch.float64), sigma))
    for crop, result, s in zip(crops, blurred, sigma, strict=True):
        expected = v2.functional.gaussian_blur(crop.double(), 9, float(s)) if s else crop.double()
        torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=0)


def test_gamma_is_a_power_of_the_clip_range():
    crops = torch.linspace(0, 1, 24).reshape(2, 1, 3, 4)
    gamma = torch.tensor([0.7, 1.5], dtype=torch.float64)
    adjusted = augment(crops, Augmentation(gamma, torch.zeros(2, dtype=torch.float64)))
    torch.testing.assert_close(adjusted.double(), crops.double() ** gamma[:, None, None, None], atol=1e-6, rtol=0)


def test_augmentation_is_drawn_from_its_ranges_as_often_as_asked():
    chance = torch.tensor([1.0, 0.1, 0.5]).repeat_interleave(2000)
    drawn = draw_augmentation(chance, PAPER, generator(0, 0, 0, Stream.AUGMENT))
    changed = drawn.gamma != 1
    assert stats.binomtest(int(changed.sum()), 6000, 0.8).pvalue > 0.01
    assert stats.kstest(drawn.gamma[changed], stats.uniform(0.7, 0.8).cdf).pvalue > 0.01
    for part, p in zip(drawn.sigma.split(2000), (1.0, 0.1, 0.5), strict=True):
        assert stats.binomtest(int((part > 0).sum()), 2000, p).pvalue > 0.01
    blurred = drawn.sigma[drawn.sigma > 0]
    assert stats.kstest(blurred, stats.uniform(0.1, 1.9).cdf).pvalue > 0.01
