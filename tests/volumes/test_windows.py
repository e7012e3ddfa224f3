import math

import pytest
import torch
import torch.nn.functional as F

from tapct.errors import VolumeError
from tapct.volumes import Stitcher, WindowPlan


def test_a_scan_of_300_slices_gives_the_papers_58800_patches():
    """Section 4.5: TAP-B-3D on (300, 224, 224)."""
    plan = WindowPlan.of((300, 224, 224), (12, 224, 224), (4, 8, 8))
    assert math.prod(plan.feature_shape) == 58_800
    assert len(plan.origins) == 25
    assert plan.padding == (0, 0, 0)


@pytest.mark.parametrize("shape", [(5, 40, 40), (12, 32, 32), (13, 50, 61), (37, 33, 97)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
def test_windows_cover_the_scan_and_start_on_the_feature_lattice(shape, overlap):
    plan = WindowPlan.of(shape, (12, 32, 32), (4, 8, 8), overlap)
    covered = torch.zeros(tuple(plan.padded_shape), dtype=torch.bool)
    for origin in plan.origins:
        assert all(o % s == 0 for o, s in zip(origin, plan.stride, strict=True))
        window = plan.window_at(covered, origin)
        assert window.shape == (12, 32, 32)
        window[:] = True
    assert covered.all()
    assert len(set(plan.origins)) == len(plan.origins)
    assert all(p >= n for p, n in zip(plan.padded_shape, shape, strict=True)), "a scan is never cut"
    assert all(p < max(s, w - n + 1) for p, s, w, n in zip(plan.padding, plan.stride, plan.window, shape, strict=True))


@pytest.mark.parametrize("shape", [(7, 40, 40), (12, 32, 32), (26, 60, 60)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 2 / 3])
def test_stitched_features_of_a_local_encoder_equal_those_of_the_whole_scan(shape, overlap):
    """eva's and MONAI's sliding window gets this wrong, silently, when the step is not a multiple of the stride."""
    scan = torch.randn(shape, dtype=torch.float64)
    plan = WindowPlan.of(shape, (12, 32, 32), (4, 8, 8), overlap)
    padded = plan.pad(scan, -1.0)
    assert torch.equal(padded[tuple(slice(n) for n in shape)], scan)
    stitcher = Stitcher(plan)
    for origin in plan.origins:
        stitcher.add(origin, F.avg_pool3d(plan.window_at(padded, origin)[None], (4, 8, 8)))
    torch.testing.assert_close(stitcher.result(), F.avg_pool3d(padded[None], (4, 8, 8)))


def test_overlapping_windows_average():
    plan = WindowPlan.of((12, 8, 8), (8, 8, 8), (4, 8, 8))
    assert plan.starts[0] == (0, 4)
    stitcher = Stitcher(plan)
    stitcher.add((0, 0, 0), torch.full((1, 2, 1, 1), 1.0))
    stitcher.add((4, 0, 0), torch.full((1, 2, 1, 1), 3.0))
    for _ in range(2):  # the second time as the first
        assert stitcher.result().flatten().tolist() == [1.0, 2.0, 3.0]


def test_a_thin_scan_is_padded_at_the_high_end_with_the_given_value():
    plan = WindowPlan.of((3, 8, 8), (8, 8, 8), (4, 8, 8))
    padded = plan.pad(torch.zeros(3, 8, 8), -1000.0)
    assert plan.padding == (5, 0, 0)
    assert (padded[:3] == 0).all()
    assert (padded[3:] == -1000).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_padding_is_at_the_high_end_of_the_axis_that_needs_it(axis):
    shape = [8, 8, 8]
    shape[axis] = 5
    plan = WindowPlan.of(shape, (8, 8, 8), (4, 8, 8))
    padded = plan.pad(torch.zeros(shape), -1000.0).movedim(axis, 0)
    assert padded.shape == (8, 8, 8)
    assert (padded[:5] == 0).all()
    assert (padded[5:] == -1000).all()


@pytest.mark.parametrize("overlap", [-0.25, 1.0, 1.5, math.nan])
def test_an_overlap_that_is_no_share_is_refused(overlap):
    with pytest.raises(VolumeError, match="overlap must be in"):
        WindowPlan.of((30, 32, 32), (12, 32, 32), (4, 8, 8), overlap)


@pytest.mark.parametrize("window", [(10, 32, 32), (2, 32, 32)])
def test_a_window_that_is_no_multiple_of_the_stride_is_refused(window):
    with pytest.raises(VolumeError, match="multiple of the feature stride"):
        WindowPlan.of((30, 32, 32), window, (4, 8, 8))


def test_missing_windows_and_maps_of_another_size_are_refused():
    plan = WindowPlan.of((16, 8, 8), (8, 8, 8), (4, 8, 8))
    stitcher = Stitcher(plan)
    stitcher.add((0, 0, 0), torch.zeros(1, 2, 1, 1))
    with pytest.raises(VolumeError, match="never added"):
        stitcher.result()
    with pytest.raises(VolumeError, match="feature map has"):
        stitcher.add((8, 0, 0), torch.zeros(1, 3, 1, 1))
