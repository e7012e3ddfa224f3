"""Distances between surfaces in millimetres: NSD at a tolerance, and HD95.

The definitions are MONAI's, to whose numbers a test holds these (`compute_surface_dice` without sub-voxels,
`compute_hausdorff_distance` with `percentile=95`):

* The surface of a class is its voxels with one of six neighbours outside the class. What lies outside the
  scan is outside the class: where an organ is cut off by the scan, the cut counts as surface, in prediction
  and reference alike.
* NSD is the share of the voxels of both surfaces that lie within the tolerance of the other surface.
* HD95 is the larger of the two 95th percentiles, of prediction to reference and of reference to prediction.

Undefined numbers are NaN, where MONAI gives a mixture of 0, NaN and infinity. A class absent from both
reference and prediction has neither NSD nor HD95. A class in one of them only has NSD 0, and no HD95: there
is not a distance to nothing.

MONAI's own functions take a one-hot volume of all classes and find each surface twice. Here a class costs
its bounding box: what is outside the box is outside the class, as what is outside the scan, so the box
needs no margin. Distances go through the affine, so they are true millimetres on a tilted gantry as well.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import KDTree


@dataclass(frozen=True)
class SurfaceMetrics:
    """Surface metrics of one case.

    Attributes:
        nsd: (K,) normalised surface Dice by class, NaN for the background and where undefined.
        hd95_mm: (K,) 95th percentile of the Hausdorff distance, NaN for the background and where undefined.
    """

    nsd: np.ndarray
    hd95_mm: np.ndarray


def surface_metrics(
    prediction: torch.Tensor,
    reference: torch.Tensor,
    num_classes: int,
    affine: np.ndarray,
    tolerance_mm: float,
) -> SurfaceMetrics:
    """Returns NSD and HD95 of every class of a case.

    Args:
        prediction: (D, H, W) integer labels in [0, num_classes).
        reference: (D, H, W) integer labels in [0, num_classes).
        num_classes: Number of classes with background.
        affine: (4, 4) homogeneous voxel index (z, y, x, 1) to world millimetres.
        tolerance_mm: Largest distance at which a voxel of a surface still agrees with the other.

    Raises:
        ValueError: If the shapes differ, a label is out of range, or the tolerance is not a distance.
    """
    if prediction.shape != reference.shape or prediction.ndim != 3:
        shapes = f"{tuple(prediction.shape)} and {tuple(reference.shape)}"
        raise ValueError(f"prediction and reference, {shapes}, are not a pair of volumes")
    if not 0 <= tolerance_mm < np.inf:
        raise ValueError(f"the tolerance must be a distance in mm, not {tolerance_mm}")
    volumes = [np.asarray(labels.cpu()) for labels in (prediction, reference)]
    if any(int(v.min()) < 0 or int(v.max()) >= num_classes for v in volumes):
        raise ValueError(f"labels must lie in [0, {num_classes})")
    boxes = [ndimage.find_objects(v, max_label=num_classes - 1) for v in volumes]
    nsd, hd95_mm = np.full(num_classes, np.nan), np.full(num_classes, np.nan)
    for label, (predicted, present) in enumerate(zip(*boxes, strict=True), start=1):
        if predicted is None and present is None:
            continue
        if predicted is None or present is None:
            nsd[label] = 0.0
            continue
        box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(predicted, present, strict=True))
        ours, theirs = (surface_points(v[box] == label, affine) for v in volumes)
        distances = _distances(ours, theirs), _distances(theirs, ours)
        nsd[label] = np.mean(np.concatenate(distances) <= np.float32(tolerance_mm))
        hd95_mm[label] = max(np.percentile(d, 95) for d in distances)
    return SurfaceMetrics(nsd, hd95_mm)


def surface_points(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Returns the (N, 3) places in mm of the surface voxels of a (D, H, W) mask, from its first voxel."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        along, kept = np.moveaxis(mask, axis, 0), np.moveaxis(inner, axis, 0)
        kept[1:] &= along[:-1]
        kept[:-1] &= along[1:]
        kept[[0, -1]] = False
    return np.argwhere(mask & ~inner) @ np.asarray(affine, dtype=np.float64)[:3, :3].T


def _distances(points: np.ndarray, surface: np.ndarray) -> np.ndarray:
    """Returns the (N,) distance of each point to the nearest point of a surface, in mm.

    In float32, as MONAI's: a distance of the tolerance itself is within it, whatever the last digits of the
    affine.
    """
    nearest, _ = KDTree(surface, leafsize=32).query(points, workers=torch.get_num_threads())
    return nearest.astype(np.float32)
