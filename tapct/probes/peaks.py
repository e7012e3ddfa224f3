"""Candidates of a score map: its peaks, thinned out in mm, each placed between patches where the scores say it lies."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tapct.metrics.froc import LIMIT
from tapct.volumes import Grid

APART_MM = 10.0
"""Candidates nearer to each other than this are one. Neighbouring vertebrae are at least 15 mm apart."""

_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)


class CandidatePlaces(NamedTuple):
    """Places that may be what is looked for, the best first.

    Attributes:
        places_mm: (N, 3) float64 x, y, z in mm, RAS+.
        scores: (N,) float64.
    """

    places_mm: np.ndarray
    scores: np.ndarray


def candidates(scores: np.ndarray, patches: Grid, apart_mm: float = APART_MM, limit: int = LIMIT) -> CandidatePlaces:
    """Returns the peaks of a score map.

    A peak is a patch that none of its 26 neighbours exceeds, or a plateau of equal ones, which counts as its middle: a
    map that is the same everywhere has one, in the middle of the scan. A better peak takes those that are nearer than
    `apart_mm` with it. Of several that tie for the last place none is taken, so that no order decides.

    Args:
        scores: (d, h, w), finite.
        patches: Where the patches lie; it may have more of them, in the padding behind the scan.
        apart_mm: Least distance between two candidates.
        limit: Most candidates.
    """
    index, values = _peaks(scores)
    places = index @ patches.affine[:3, :3].T + patches.affine[:3, 3]
    order = np.lexsort((*index.T[::-1], -values))
    kept: list[int] = []
    for one in order:
        if len(kept) > limit:
            break
        if (np.linalg.norm(places[kept] - places[one], axis=1) >= apart_mm).all():
            kept.append(one)
    if len(kept) > limit:
        kept = [one for one in kept if values[one] > values[kept[limit]]]
    return CandidatePlaces(places[kept], values[kept])


def _peaks(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the (N, 3) places of all peaks in patches (z, y, x), and their (N,) scores."""
    scores = np.asarray(scores, dtype=np.float64)
    highest = ndimage.maximum_filter(scores, footprint=_NEIGHBOURS, mode="constant", cval=-np.inf)
    is_peak = scores == highest
    of, number = ndimage.label(is_peak, structure=_NEIGHBOURS)
    # A plateau on the flank of something higher is none, though some of its patches have no higher neighbour.
    flanks = np.where(is_peak, -np.inf, scores)
    beside = ndimage.maximum_filter(flanks, footprint=_NEIGHBOURS, mode="constant", cval=-np.inf)
    on_flank = np.bincount(of[is_peak & (beside == scores)], minlength=number + 1) > 0
    where = np.argwhere(is_peak)
    labels = of[is_peak]
    sizes = np.bincount(labels, minlength=number + 1)
    middle = np.stack([np.bincount(labels, axis, number + 1) for axis in where.T], axis=1)[1:] / sizes[1:, None]
    values = np.zeros(number + 1)
    values[labels] = scores[is_peak]
    single = sizes[1:] == 1
    middle[single] += _offsets(scores, middle[single].astype(int))
    return middle[~on_flank[1:]], values[1:][~on_flank[1:]]


def _offsets(scores: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Returns (N, 3) how far from each peak's patch the top of the parabola through it and its neighbours lies.

    Along each axis by itself, and at most half a patch, for no neighbour is higher; 0 at the border of the map, where a
    neighbour is lacking. Of a Gaussian in the logarithm of the score it is the very centre.
    """
    padded = np.pad(scores, 1, constant_values=np.nan)
    centre = padded[tuple((peaks + 1).T)]
    found = np.zeros(peaks.shape)
    for axis in range(3):
        before, after = (padded[tuple((peaks + 1 + side * np.eye(3, dtype=int)[axis]).T)] for side in (-1, 1))
        curvature = 2 * centre - before - after
        found[:, axis] = np.divide(after - before, 2 * curvature, out=np.zeros(len(peaks)), where=curvature > 0)
    return found
