"""Peaks of score maps: planted Gaussians on any grid, plateaus, ties, and thinning out in mm."""

import numpy as np
import pytest

from tapct.metrics.froc import LIMIT
from tapct.probes.peaks import candidates
from tapct.volumes import Grid

TURNED = np.array([[0.2, -0.3, 0.93], [0.1, 0.95, 0.28], [-0.97, 0.04, 0.22]])
AFFINES = {
    "straight": np.diag([4.0, 4.0, 4.0]),
    "anisotropic": np.array([[0, 0, -8.0], [0, -8.0, 0], [1.5, 0, 0]]),
    "flipped": np.array([[0, 0, 6.0], [0, 6.0, 0], [-5.0, 0, 0]]),
    "oblique and anisotropic": np.linalg.qr(TURNED)[0] * [2.0, 5.0, 7.0],
}


def grid(kind: str, shape=(18, 14, 16)) -> Grid:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = AFFINES[kind], (-31.0, 77.0, -412.5)
    return Grid.of(shape, affine)


def centres_mm(patches: Grid) -> np.ndarray:
    """The place of every patch, one by one: (d, h, w, 3)."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in patches.shape), indexing="ij"), axis=-1)
    return np.array([patches.affine[:3, :3] @ i + patches.affine[:3, 3] for i in index.reshape(-1, 3)]).reshape(
        *patches.shape, 3
    )


@pytest.mark.parametrize("kind", AFFINES)
def test_a_gaussian_between_patches_is_found_where_it_is(kind):
    patches = grid(kind)
    index = np.array([[4.3, 9.61, 3.2], [12.45, 3.1, 12.8]])
    planted = index @ patches.affine[:3, :3].T + patches.affine[:3, 3]
    width = 1.1 * np.linalg.norm(patches.affine[:3, :3], axis=0)
    along = (centres_mm(patches)[:, :, :, None] - planted) @ (
        patches.affine[:3, :3] / np.linalg.norm(patches.affine[:3, :3], axis=0)
    )
    logarithm = (-0.5 * (along / width) ** 2).sum(axis=-1) + np.array([0.0, -0.5])
    found = candidates(logarithm.max(axis=-1), patches, apart_mm=5.0)
    assert found.places_mm[:2] == pytest.approx(planted, abs=1e-6)
    assert found.scores[0] > found.scores[1]


def test_a_patch_at_the_border_has_no_neighbour_to_move_by():
    patches, scores = grid("straight"), np.zeros((18, 14, 16))
    scores[0, 5, 5], scores[0, 5, 6] = 1.0, 0.5
    index = np.linalg.solve(patches.affine[:3, :3], candidates(scores, patches).places_mm[0] - patches.affine[:3, 3])
    assert index[:2] == pytest.approx([0, 5], abs=1e-9)
    assert 5 < index[2] < 5.5


def test_a_map_that_is_the_same_everywhere_has_the_middle_of_the_scan():
    patches = grid("oblique and anisotropic")
    found = candidates(np.full((10, 14, 16), 0.25), patches)  # the last eight rows are padding
    middle = patches.affine[:3, :3] @ [4.5, 6.5, 7.5] + patches.affine[:3, 3]
    assert found.places_mm == pytest.approx(middle[None])
    assert found.scores.tolist() == [0.25]


def test_a_plateau_counts_once_and_a_step_on_a_flank_not_at_all():
    scores = np.zeros((18, 14, 16))
    scores[8, 8, 8:11] = 2.0
    scores[3:6, 3, 3] = 1.0
    scores[3, 3, 4] = 1.5  # higher, next to one end of the step
    found = candidates(scores, grid("straight"), apart_mm=1.0)
    index = np.rint((found.places_mm - grid("straight").affine[:3, 3]) / 4)
    assert index[:2].tolist() == [[8, 8, 9], [3, 3, 4]]
    assert found.scores.tolist() == [2.0, 1.5]


def test_a_better_peak_takes_those_that_are_near_in_mm():
    patches = grid("anisotropic")  # 1.5 mm along the first axis, 8 mm along the others
    scores = np.zeros((18, 14, 16))
    scores[2, 5, 5], scores[8, 5, 5], scores[2, 5, 7] = 3.0, 2.0, 1.0
    assert candidates(scores, patches, apart_mm=8.9).scores[:3].tolist() == [3.0, 2.0, 1.0]
    assert candidates(scores, patches, apart_mm=9.5).scores[:2].tolist() == [3.0, 1.0]
    assert candidates(scores, patches, apart_mm=16.5).scores[:1].tolist() == [3.0]


def test_of_those_that_tie_for_the_last_place_none_is_taken():
    scores = np.zeros((18, 14, 16))
    scores[::3, ::3, ::3] = 1.0  # 180 peaks
    scores[0, 0, 0], scores[9, 6, 6] = 3.0, 2.0
    found = candidates(scores, grid("straight"), apart_mm=1.0)
    assert found.scores.tolist() == [3.0, 2.0]


def test_there_are_at_most_so_many_and_they_are_the_best():
    scores = np.random.default_rng(0).normal(size=(18, 14, 16))
    found = candidates(scores, grid("straight"), apart_mm=1.0)
    every = candidates(scores, grid("straight"), apart_mm=1.0, limit=10_000)
    assert len(found.scores) == LIMIT < len(every.scores)
    assert found.scores.tolist() == every.scores[:LIMIT].tolist()
    assert (np.diff(every.scores) <= 0).all()


def test_peaks_are_patches_that_no_neighbour_exceeds():
    scores = np.random.default_rng(1).normal(size=(9, 8, 7))
    patches = grid("straight", (9, 8, 7))
    found = candidates(scores, patches, apart_mm=0.1, limit=10_000)
    expected = [
        scores[z, y, x]
        for z, y, x in np.ndindex(9, 8, 7)
        if scores[z, y, x] == scores[max(0, z - 1) : z + 2, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].max()
    ]
    assert sorted(found.scores) == pytest.approx(sorted(expected))
