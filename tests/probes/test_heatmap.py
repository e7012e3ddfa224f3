"""Targets of patches against Gaussians computed cell by cell in the world, and the focal loss against its formula."""

import numpy as np
import pytest
import torch

from tapct.probes.heatmap import Heatmap, focal_loss, heatmap, stamps
from tapct.probes.peaks import candidates
from tapct.volumes import Findings, Grid
from tests.probes.test_peaks import AFFINES, centres_mm, grid


def findings(patches: Grid, *rows) -> Findings:
    """Findings at patch indices: (class, (z, y, x), diameter_mm, excluded)."""
    return Findings.of(
        [[label, *(patches.affine[:3, :3] @ at + patches.affine[:3, 3]), size, out] for label, at, size, out in rows]
    )


def of_patches(found: Findings, patches: Grid, classes: int) -> Heatmap:
    return heatmap(stamps(found, patches), patches.shape, classes)


@pytest.mark.parametrize("kind", AFFINES)
@pytest.mark.parametrize("diameter_mm", [3.0, 40.0])
def test_is_the_gaussian_of_each_patches_place_in_the_world(kind, diameter_mm):
    patches = grid(kind)
    found = of_patches(findings(patches, (0, (8.3, 6.6, 7.9), diameter_mm, 0)), patches, 1)
    step = patches.affine[:3, :3]
    spread = (diameter_mm / 4) ** 2 * np.eye(3) + step @ step.T / 4
    apart = centres_mm(patches) - (step @ [8.3, 6.6, 7.9] + patches.affine[:3, 3])
    squared = np.einsum("...i,ij,...j->...", apart, np.linalg.inv(spread), apart)
    expected = np.exp(-(squared - squared.min()) / 2)
    assert found.target[0].numpy() == pytest.approx(expected, abs=5e-4)
    assert float(found.target.max()) == 1
    assert found.findings == 1
    assert found.counted.all()


@pytest.mark.parametrize("kind", AFFINES)
def test_what_a_perfect_head_says_is_found_where_it_is(kind):
    """Sub-patch places come back through the peaks of the targets' logarithm, whatever the patches are."""
    patches = grid(kind)
    at = (7.3, 5.6, 8.45)
    wanted = findings(patches, (0, at, 6.0, 0))
    found = candidates(np.log(of_patches(wanted, patches, 1).target[0].numpy() + 1e-30), patches)
    step = np.linalg.norm(patches.affine[:3, :3], axis=0)
    assert np.linalg.norm(found.places_mm[0] - wanted.places_mm[0]) < 0.02 * step.max()


def test_overlapping_findings_have_the_higher_value_and_classes_their_own_map():
    patches = grid("straight")
    one, other = (0, (8, 6, 7), 12.0, 0), (0, (8, 6, 9), 12.0, 0)
    both = of_patches(findings(patches, one, other), patches, 2).target
    alone = [of_patches(findings(patches, of), patches, 2).target for of in (one, other)]
    assert torch.equal(both, torch.maximum(*alone))
    assert not both[1].any()
    assert torch.equal(of_patches(findings(patches, (1, *one[1:])), patches, 2).target[1], alone[0][0])


def test_patches_of_an_excluded_finding_are_not_counted_unless_a_finding_lies_there():
    patches = grid("straight")
    excluded, finding = (0, (8, 6, 7), 16.0, 1), (0, (8, 6, 8), 16.0, 0)
    alone = of_patches(findings(patches, excluded), patches, 1)
    apart = np.linalg.norm(centres_mm(patches) - (patches.affine[:3, :3] @ [8, 6, 7] + patches.affine[:3, 3]), axis=-1)
    assert not alone.target.any()
    assert alone.findings == 0
    assert not alone.counted[0][torch.from_numpy(apart < 8)].any()
    assert alone.counted[0][torch.from_numpy(apart > 13)].all()
    both = of_patches(findings(patches, finding, excluded), patches, 1)
    assert both.counted[0, 8, 6, 8]
    assert not both.counted[0, 8, 6, 5]
    assert both.findings == 1


def test_the_loss_is_its_formula_over_the_patches_that_count():
    generator = torch.Generator().manual_seed(0)
    patches = grid("anisotropic")
    of = of_patches(
        findings(patches, (0, (8, 6, 7), 16.0, 0), (0, (2, 2, 2), 5.0, 0), (0, (14, 9, 9), 9.0, 1)), patches, 1
    )
    logits = torch.randn((1, *patches.shape), generator=generator, dtype=torch.float64) * 3
    p, y = 1 / (1 + np.exp(-logits.numpy())), of.target.numpy()
    each = -(np.abs(y - p) ** 2) * ((1 - y) * np.log(1 - p) + y * np.log(p))
    double = of._replace(target=of.target.double())
    assert float(focal_loss(logits, double)) == pytest.approx(each[of.counted.numpy()].sum() / 2)


def test_the_loss_of_a_scan_without_findings_is_that_of_its_false_alarms():
    patches = grid("straight")
    of = of_patches(Findings.of([]), patches, 1)
    quiet, loud = (focal_loss(torch.full((1, *patches.shape), value), of) for value in (-6.0, 0.0))
    assert 0 < float(quiet) < 0.1 < float(loud)


def test_the_loss_is_least_where_scores_are_the_targets():
    patches = grid("straight")
    of = of_patches(findings(patches, (0, (8.4, 6.2, 7.7), 16.0, 0)), patches, 1)
    logits = torch.logit(of.target.clamp(1e-6, 1 - 1e-6)).requires_grad_()
    loss = focal_loss(logits, of)
    (slope,) = torch.autograd.grad(loss, logits)
    assert float(slope.abs().max()) < 1e-4
    for move in (-1.0, 1.0):
        assert float(focal_loss(logits.detach() + move, of)) > float(loss)
