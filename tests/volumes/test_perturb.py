"""Perturbations against plain formulas and PyTorch's own resampling, on a real scan."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tapct.errors import TaskError
from tapct.volumes import Volume
from tapct.volumes.perturb import PERTURBATIONS, Contrast, FieldOfView, Noise, Shift, ThickSlices, perturbation
from tests.small import abdomen


@pytest.fixture(scope="module")
def ct() -> Volume:
    """The abdomen with a corner that was not measured, as scanners mark it."""
    scan, _ = abdomen((slice(30, 61), slice(None), slice(None)))
    hu = np.maximum(scan.hu, -1024)
    hu[:, :5, :5] = -3024
    return Volume(hu, scan.affine, scan.source)


def measured(ct: Volume) -> np.ndarray:
    return ct.hu >= -1024


def test_noise_is_white_gaussian_and_always_the_same(ct):
    noise = Noise(30.0)(ct, "case").hu - ct.hu
    inside = measured(ct) & (ct.hu > -800)  # air is cut off at the end of the scale
    assert noise[inside].mean() == pytest.approx(0, abs=4 * 30 / np.sqrt(inside.sum()))
    assert noise[inside].std() == pytest.approx(30, rel=0.01)
    for axis in range(3):
        both = noise[tuple(slice(1, None) if a == axis else slice(None) for a in range(3))]
        before = noise[tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))]
        assert abs(np.corrcoef(both.ravel(), before.ravel())[0, 1]) < 0.02
    assert np.array_equal(Noise(30.0)(ct, "case").hu, Noise(30.0)(ct, "case").hu)
    stronger = Noise(100.0)(ct, "case").hu - ct.hu
    np.testing.assert_allclose(stronger[ct.hu > -400], noise[ct.hu > -400] * 100 / 30, atol=1e-2)
    other = Noise(30.0)(ct, "other").hu - ct.hu
    assert abs(np.corrcoef(other[inside], noise[inside])[0, 1]) < 0.02


def test_shift_and_contrast_are_their_formulas(ct):
    inside = measured(ct)
    v = ct.hu.astype(np.float64)
    for by in (-50.0, 50.0):
        np.testing.assert_allclose(Shift(by)(ct, "").hu[inside], np.maximum(v + by, -1024)[inside], atol=1e-3)
    for gain in (0.7, 1.4):
        expected = np.where(v > 40, 40 + gain * (v - 40), v)
        np.testing.assert_allclose(Contrast(gain)(ct, "").hu[inside], expected[inside], atol=1e-3)


@pytest.mark.parametrize("factor", [2.0, 4.0])
def test_thick_slices_are_pytorchs_antialiased_slices_interpolated_back(ct, factor):
    v = torch.from_numpy(np.maximum(ct.hu, -1024)).double().flatten(1)[None, None]  # (1, 1, D, H W)
    few = round(v.shape[2] / factor)
    thick = F.interpolate(v, (few, v.shape[3]), mode="bilinear", antialias=True, align_corners=False)
    expected = F.interpolate(thick, tuple(v.shape[2:]), mode="bilinear", align_corners=False)[0, 0].reshape(ct.shape)
    found = ThickSlices(factor)(ct, "").hu
    np.testing.assert_allclose(found[measured(ct)], expected.numpy()[measured(ct)], atol=0.01)
    assert np.abs(np.diff(found, axis=0)).mean() < 0.8 * np.abs(np.diff(ct.hu, axis=0)).mean()


def test_a_cut_field_of_view_leaves_the_middle_and_air_round_it(ct):
    box = FieldOfView((0.5, 0.7, 1.0))
    found = box(ct, "").hu
    d, h, _ = ct.shape
    kept_d, kept_h = round(0.5 * d), round(0.7 * h)
    inside = np.zeros(ct.shape, dtype=bool)
    inside[(d - kept_d) // 2 :][:kept_d, (h - kept_h) // 2 :][:, :kept_h] = True
    assert np.array_equal(found[inside], ct.hu[inside])
    assert (found[~inside] == -1024).all()
    labels = np.random.default_rng(0).integers(1, 9, ct.shape).astype(np.uint8)
    cut = box.labels(labels)
    assert cut.dtype == np.uint8
    assert np.array_equal(cut, np.where(inside, labels, 0))


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_grid_stays_the_scan_changes_and_what_was_not_measured_stays_so(name, ct):
    before = ct.hu.copy()
    found = perturbation(name)(ct, "case")
    assert np.array_equal(ct.hu, before)
    assert (found.shape, found.source, found.hu.dtype) == (ct.shape, ct.source, np.float32)
    assert np.array_equal(found.affine, ct.affine)
    assert np.isfinite(found.hu).all()
    assert not np.array_equal(found.hu, ct.hu)
    assert (found.hu[measured(ct)] >= -1024).all()
    if not PERTURBATIONS[name].changes_labels:
        assert (found.hu[~measured(ct)] == -3024).all()
        labels = np.ones((2, 2, 2), dtype=np.uint8)
        assert perturbation(name).labels(labels) is labels


def test_no_two_perturbations_share_an_identity():
    found = {json.dumps(p.identity(), sort_keys=True) for p in PERTURBATIONS.values()}
    assert len(found) == len(PERTURBATIONS)
    for p in PERTURBATIONS.values():
        assert json.loads(json.dumps(p.describe()))["kind"] == p.kind
        assert p.identity().keys() == {*p.describe(), "code"}


def test_an_unknown_perturbation_names_the_nearest():
    with pytest.raises(TaskError, match=r"no perturbation 'noise-30'\. Did you mean 'noise-30hu'"):
        perturbation("noise-30")
