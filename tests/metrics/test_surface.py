import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy.spatial.distance import cdist

from tapct.metrics import NativeSurface, surface_metrics
from tapct.metrics.surface import surface_points
from tests.small import abdomen

SPACING_MM = (2.5, 0.7, 0.8)


def affine(spacing_mm=SPACING_MM) -> np.ndarray:
    """SPL axes at this spacing, somewhere in the world."""
    matrix = np.array([[0, 0, -1.0, 103.7], [0, -1.0, 0, -11.1], [1.0, 0, 0, 1500.3], [0, 0, 0, 1.0]])
    matrix[:3, :3] *= spacing_mm
    return matrix


def monai(prediction, reference, classes, spacing_mm, tolerance_mm):
    """MONAI on the whole volume, all classes one-hot."""
    one_hot = [torch.nn.functional.one_hot(t.long(), classes).movedim(-1, 0)[None] for t in (prediction, reference)]
    nsd = compute_surface_dice(*one_hot, [tolerance_mm] * (classes - 1), spacing=spacing_mm)
    return nsd[0].numpy(), compute_hausdorff_distance(*one_hot, percentile=95, spacing=spacing_mm)[0].numpy()


def blobs(seed: int, shape=(12, 30, 28), classes: int = 4) -> torch.Tensor:
    """Labels in lumps, cut off by all six faces of the volume."""
    coarse = torch.randint(0, classes, (3, 5, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    z, y, x = (torch.arange(n) * c // n for n, c in zip(shape, coarse.shape, strict=True))
    return coarse[z][:, y][:, :, x]


@pytest.mark.parametrize("tolerance_mm", [0.0, 0.7, 2.0, 5.0])
def test_numbers_equal_monai_on_the_whole_volume_up_to_the_border_of_the_scan(tolerance_mm):
    prediction, reference = blobs(0), blobs(1)
    ours = surface_metrics(prediction, reference, 4, affine(), tolerance_mm)
    nsd, hd95_mm = monai(prediction, reference, 4, SPACING_MM, tolerance_mm)
    np.testing.assert_allclose(ours.nsd[1:], nsd, rtol=1e-6)
    np.testing.assert_allclose(ours.hd95_mm[1:], hd95_mm, rtol=1e-6)
    assert math.isnan(ours.nsd[0])
    assert math.isnan(ours.hd95_mm[0])


@pytest.mark.parametrize("border", [0, 1, 5])
def test_numbers_equal_monai_for_real_organs_at_and_away_from_the_border(border):
    """Within the box of a class nothing is lost, whether or not it touches the border of the scan."""
    _, organs = abdomen((slice(60, 70), slice(None), slice(None)))
    reference = torch.from_numpy(organs.labels)
    prediction = reference.roll((1, 3), dims=(0, 2))
    pad = (border,) * 6
    prediction, reference = (torch.nn.functional.pad(t, pad) for t in (prediction, reference))
    ours = surface_metrics(prediction, reference, 12, affine((3.0, 3.0, 3.0)), 3.0)
    nsd, hd95_mm = monai(prediction, reference, 12, (3.0, 3.0, 3.0), 3.0)
    present = torch.bincount(reference.flatten(), minlength=12)[1:].numpy() > 0
    assert present.sum() > 5
    np.testing.assert_allclose(ours.nsd[1:][present], nsd[present], rtol=1e-6)
    np.testing.assert_allclose(ours.hd95_mm[1:][present], hd95_mm[present], rtol=1e-6)


def test_where_the_scan_cuts_an_organ_the_cut_is_surface():
    """As in MONAI and in DeepMind's surface-distance: what is outside the scan is outside the organ."""
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[:3, 1:, 1:] = True
    points = surface_points(mask, np.eye(4))
    assert len(points) == 27 - 1, "of 3 x 3 x 3 voxels at three faces of the scan, only the middle one is inside"
    assert [1, 2, 2] not in points.tolist()


def test_a_class_that_is_missing_has_no_distance_and_no_agreement():
    reference = torch.zeros(4, 8, 8, dtype=torch.uint8)
    prediction = reference.clone()
    reference[1:3, 1:3, 1:3] = 1  # missed
    prediction[1:3, 4:6, 4:6] = 2  # invented; 3 is in neither
    reference[0, 7], prediction[0, 7] = 4, 4
    metrics = surface_metrics(prediction, reference, 5, affine(), 2.0)
    np.testing.assert_array_equal(metrics.nsd, [math.nan, 0, 0, math.nan, 1])
    np.testing.assert_array_equal(metrics.hd95_mm, [math.nan, math.nan, math.nan, math.nan, 0])
    _, theirs = monai(prediction, reference, 5, SPACING_MM, 2.0)
    assert not np.isfinite(theirs[:2]).any(), "what is not to be taken over from MONAI"


def test_the_last_class_may_be_in_one_of_the_two_only():
    reference = torch.zeros(4, 8, 8, dtype=torch.uint8)
    reference[1, 2:4, 2:4] = 2
    for pair in ((torch.zeros_like(reference), reference), (reference, torch.zeros_like(reference))):
        metrics = surface_metrics(*pair, 3, affine(), 2.0)
        np.testing.assert_array_equal(metrics.nsd, [math.nan, math.nan, 0])
        assert np.isnan(metrics.hd95_mm).all()


def test_a_tilted_gantry_does_not_bend_the_millimetres():
    """A sheared grid: MONAI knows spacings only. Checked with all pairs of points in the world."""
    upright = affine((1.0, 0.7, 0.8))
    sheared = upright.copy()
    sheared[:3, 0] += np.array([0, 1.1, 0])  # each slice lies 1.1 mm further back
    prediction, reference = blobs(2, (12, 24, 24), 2), blobs(3, (12, 24, 24), 2)
    points = []
    for labels in (prediction, reference):
        padded = np.pad(labels.numpy() == 1, 1)
        index = np.argwhere(padded)
        outside = [~padded[tuple((index + step).T)] for step in (*np.eye(3, dtype=int), *-np.eye(3, dtype=int))]
        index = index[np.any(outside, axis=0)] - 1
        points.append(np.c_[index, np.ones(len(index))] @ sheared.T)
    distances = cdist(*points)
    one, other = distances.min(1), distances.min(0)
    metrics = surface_metrics(prediction, reference, 2, sheared, 2.0)
    assert metrics.hd95_mm[1] == pytest.approx(max(np.percentile(one, 95), np.percentile(other, 95)))
    assert metrics.nsd[1] == pytest.approx(np.mean(np.r_[one, other] <= 2.0))
    assert metrics.hd95_mm[1] != pytest.approx(surface_metrics(prediction, reference, 2, upright, 2.0).hd95_mm[1])


def test_a_distance_of_the_tolerance_is_within_it_on_a_turned_patient():
    """The affine of a turned patient gives 1.9999999999999998 or 2.0000000000000004 mm for 2 mm."""
    turn = np.array([[math.cos(0.3), -math.sin(0.3), 0], [math.sin(0.3), math.cos(0.3), 0], [0, 0, 1]])
    turned = affine((0.1, 0.1, 0.1))
    turned[:3, :3] = turn @ turned[:3, :3]
    reference = torch.zeros(3, 60, 60, dtype=torch.uint8)
    reference[1, 10:40, 10] = 1
    prediction = reference.roll(20, dims=2)
    assert surface_metrics(prediction, reference, 2, turned, 2.0).nsd[1] == 1
    assert surface_metrics(prediction, reference, 2, turned, 1.99).nsd[1] == 0


@pytest.mark.parametrize(
    ("prediction", "tolerance_mm", "message"),
    [
        (torch.zeros(2, 3, 4), 2.0, "not a pair"),
        (torch.full((2, 3, 3), 3, dtype=torch.uint8), 2.0, r"\[0, 3\)"),
        (torch.tensor([[[0, -1, 2]] * 3] * 2, dtype=torch.int16), 2.0, r"\[0, 3\)"),
        (torch.tensor([[[0, 1, 3]] * 3] * 2, dtype=torch.int16), 2.0, r"\[0, 3\)"),
        (torch.zeros(3, 3, dtype=torch.uint8), 2.0, "not a pair"),
        (torch.zeros(2, 3, 3, dtype=torch.uint8), -1.0, "a distance in mm"),
        (torch.zeros(2, 3, 3, dtype=torch.uint8), math.inf, "a distance in mm"),
        (torch.zeros(2, 3, 3, dtype=torch.uint8), math.nan, "a distance in mm"),
    ],
)
def test_what_is_no_case_is_refused(prediction, tolerance_mm, message):
    valid = torch.zeros(2, 3, 3, dtype=torch.uint8)
    for pair in ((prediction, valid), (valid, prediction)):
        with pytest.raises(ValueError, match=message):
            surface_metrics(*pair, 3, affine(), tolerance_mm)


def test_the_torchmetric_means_over_cases_and_counts_what_has_no_distance():
    nan = math.nan
    metric = NativeSurface()
    for nsd, hd95_mm in (([nan, 0.5, 0.0, nan], [nan, 4.0, nan, nan]), ([nan, 1.0, 0.5, 0.0], [nan, 1.0, 2.0, nan])):
        metric.update(nsd_native=torch.tensor(nsd), hd95_mm_native=torch.tensor(hd95_mm))
    values = {name: float(value) for name, value in metric.compute().items()}
    assert values == pytest.approx(
        {
            "nsd_native": (0.25 + 0.5) / 2,
            "nsd_native_class_mean": (0.75 + 0.25 + 0) / 3,
            "hd95_mm_native": (4.0 + 1.5) / 2,
            "hd95_mm_native_class_mean": (2.5 + 2.0) / 2,
            "hd95_mm_native_one_sided": 2,
        }
    )


def test_what_was_not_measured_is_not_reported():
    metric = NativeSurface()
    metric.update(nsd_native=None, hd95_mm_native=None)
    assert metric.compute() == {}


def test_what_is_undefined_is_not_reported():
    metric, nan = NativeSurface(), math.nan
    metric.update(nsd_native=torch.tensor([nan, 0.0, nan]), hd95_mm_native=torch.tensor([nan, nan, nan]))
    values = {name: float(value) for name, value in metric.compute().items()}
    assert values == {"nsd_native": 0, "nsd_native_class_mean": 0, "hd95_mm_native_one_sided": 1}
