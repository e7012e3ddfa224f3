"""Finding a lesion again in a later scan by its features (section 4.4 and Figure 2 of the paper)."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy import ndimage

from tapct._utils.files import write_atomically
from tapct.features import CaseFeatures
from tapct.viz import canvas
from tapct.viz.canvas import PictureError
from tapct.viz.feature_maps import EncodedScan, nearest_patch, similarity
from tapct.volumes import Grid, LabelMap

FIGURE_SLICES = 10
"""Slices of the lesion and of the matches that the figure shows at most: the paper's ten."""

LEAST_FIELD_MM = 120.0
"""What the figure shows of a small lesion's surroundings."""

_PANEL_INCHES = 1.9


@dataclass(frozen=True, kw_only=True)
class Match:
    """A patch of the follow-up scan that is like the lesion.

    Attributes:
        rank: From 1.
        patch: Its patch (z, y, x) on the feature grid.
        point_mm: Its centre (x, y, z) in RAS+ world millimetres.
        similarity: Cosine similarity to the lesion's mean embedding.
        hit: Whether its patch holds a voxel of the lesion in the follow-up; None without a mask of it.
        distance_mm: From its centre to the nearest voxel of that lesion, 0 inside; None without a mask.
    """

    rank: int
    patch: tuple[int, int, int]
    point_mm: tuple[float, float, float]
    similarity: float
    hit: bool | None
    distance_mm: float | None


def lesion_mask(labels: LabelMap, label: int | None) -> np.ndarray:
    """Returns (D, H, W) which voxels are the lesion: those of a label, or every one that is not background.

    Raises:
        PictureError: If there are none.
    """
    mask = labels.labels > 0 if label is None else labels.labels == label
    if not mask.any():
        there = [int(v) for v in np.unique(labels.labels)]
        what = "no voxel but background" if label is None else f"no voxel of label {label}; its labels are {there}"
        raise PictureError(f"{labels.source} has {what}")
    return mask


def votes(features: CaseFeatures, mask: np.ndarray) -> np.ndarray:
    """Returns (d, h, w) how many voxels of a mask (D, H, W) on the scan's grid lie in each patch."""
    native = features.native_grid
    voxels = np.argwhere(mask)
    patches = np.array(nearest_patch(features.feature_grid, voxels @ native.affine[:3, :3].T + native.affine[:3, 3]))
    found = np.zeros(tuple(features.feature_grid.shape), dtype=np.int64)
    np.add.at(found, tuple(patches.T), 1)
    return found


def lesion_embedding(features: CaseFeatures, mask: np.ndarray) -> torch.Tensor:
    """Returns (C,) the mean over the lesion's voxels of the feature of the patch that each lies in.

    A lesion smaller than a patch thus has the feature of that patch. Features are averaged as they are, not normalised.

    Args:
        features: Of the baseline scan.
        mask: (D, H, W) which voxels of the scan are the lesion.
    """
    weights = torch.from_numpy(votes(features, mask)).double()
    patches = weights > 0
    return (features.map[:, patches].double() @ weights[patches] / weights.sum()).float()


def retrieve(
    lesion: torch.Tensor,
    followup: EncodedScan,
    *,
    top_k: int = 5,
    apart_mm: float = 0.0,
    mask: np.ndarray | None = None,
) -> list[Match]:
    """Returns the patches of a scan that are most like a lesion.

    The paper takes the best k of all embeddings, which usually are neighbours. With `apart_mm`, a patch closer than
    that to a better one is passed over, and the k matches are k places.

    Args:
        lesion: (C,) its embedding.
        followup: The later scan; patches in padding are left out.
        top_k: How many.
        apart_mm: Least distance between the centres of matches.
        mask: (D, H, W) the lesion in the follow-up, to judge the matches by.

    Raises:
        PictureError: If `top_k` or `apart_mm` cannot be.
    """
    if top_k < 1 or apart_mm < 0:
        raise PictureError(f"--top-k must be 1 or more and --apart-mm 0 or more, not {top_k} and {apart_mm:g}")
    values, grid = similarity(followup, lesion), followup.features.feature_grid
    ranked = np.argsort(-np.nan_to_num(values, nan=-np.inf), axis=None, kind="stable")[: int(np.isfinite(values).sum())]
    hits = None if mask is None else votes(followup.features, mask) > 0
    points = np.zeros((0, 3))
    matches: list[Match] = []
    for position in ranked:
        patch = np.array(np.unravel_index(position, values.shape))
        point = grid.affine[:3, :3] @ patch + grid.affine[:3, 3]
        if apart_mm > 0 and (np.linalg.norm(points - point, axis=1) < apart_mm).any():
            continue
        points = np.vstack([points, point])
        z, y, x = (int(v) for v in patch)
        matches.append(
            Match(
                rank=len(matches) + 1,
                patch=(z, y, x),
                point_mm=(float(point[0]), float(point[1]), float(point[2])),
                similarity=float(values[z, y, x]),
                hit=None if hits is None else bool(hits[z, y, x]),
                distance_mm=None if mask is None else distance_mm(followup, mask, point),
            )
        )
        if len(matches) == top_k:
            break
    return matches


def distance_mm(scan: EncodedScan, mask: np.ndarray, point_mm: np.ndarray) -> float:
    """Returns how far a point (x, y, z) lies from the nearest voxel of a mask, by its centre; 0 in such a voxel."""
    voxel = np.rint(scan.ct.world_to_index(point_mm[None])[0]).astype(int)
    if (voxel >= 0).all() and (voxel < np.array(mask.shape)).all() and mask[tuple(voxel)]:
        return 0.0
    surface = mask & ~ndimage.binary_erosion(mask)
    return float(np.linalg.norm(scan.ct.index_to_world(np.argwhere(surface)) - point_mm, axis=1).min())


def to_csv(matches: Sequence[Match]) -> str:
    """Returns the matches as CSV; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", "x_ras_mm", "y_ras_mm", "z_ras_mm", "similarity", "hit", "distance_mm"])
    for match in matches:
        judged = ["" if match.hit is None else int(match.hit)]
        judged += ["" if match.distance_mm is None else f"{match.distance_mm:.2f}"]
        writer.writerow([match.rank, *(f"{v:.2f}" for v in match.point_mm), f"{match.similarity:.6f}", *judged])
    return text.getvalue()


def summary(matches: Sequence[Match]) -> dict[str, float | int | None]:
    """Returns the hit rate (share of the matches that hit), and the distance of the best and of the nearest match."""
    distances = [match.distance_mm for match in matches if match.distance_mm is not None]
    hits = [match.hit for match in matches if match.hit is not None]
    return {
        "matches": len(matches),
        "hit_rate": sum(hits) / len(hits) if hits else None,
        "first_distance_mm": distances[0] if distances else None,
        "nearest_distance_mm": min(distances) if distances else None,
    }


def write_csv(path: Path, matches: Sequence[Match]) -> None:
    """Writes the matches.

    Raises:
        PictureError: If it cannot be written.
    """
    try:
        write_atomically(path, to_csv(matches))
    except OSError as error:
        raise PictureError(f"cannot write {path}: {error.strerror or error}") from error


def draw_retrieval(
    path: Path,
    baseline: EncodedScan,
    lesion: np.ndarray,
    followup: EncodedScan,
    matches: Sequence[Match],
    similarities: np.ndarray,
    title: str,
    *,
    mask: np.ndarray | None = None,
    window: str = "soft-tissue",
) -> None:
    """Draws the lesion in the baseline, and below it its matches in the follow-up, as in the paper's Figure 2.

    The first row has slices through the lesion, cut to its surroundings. Below are the slices that hold matches
    (squares, brighter where more alike), each with the similarity of all its patches.

    Args:
        path: Where to write the PNG.
        baseline: The earlier scan.
        lesion: (D, H, W) the lesion in it.
        followup: The later scan.
        matches: The matches, best first.
        similarities: (d, h, w) of every patch, NaN in padding.
        title: Line at the top.
        mask: (D, H, W) the lesion in the follow-up, outlined if given.
        window: One of `canvas.WINDOWS_HU`.

    Raises:
        PictureError: If the picture cannot be written.
    """
    above, below = _lesion_slices(lesion), _match_slices(followup, matches)
    wide = max(len(above), 5) * _PANEL_INCHES
    across = len(below) if len(below) > 3 else 2 * len(below)  # few are drawn larger, side by side with their maps
    lower = 2 * len(below) / across * wide / across * canvas.proportion(followup.ct.grid)
    figure = Figure(figsize=(wide, _PANEL_INCHES + lower + 1.4), layout="constrained")
    parts = figure.subfigures(2, 1, height_ratios=(_PANEL_INCHES + 0.4, lower + 0.8), squeeze=False).ravel()
    _draw_lesion(parts[0].subplots(1, len(above), squeeze=False)[0], baseline, lesion, above, window)
    axes = parts[1].subplots(2 * len(below) // across, across, squeeze=False)
    pairs = axes.reshape(2, -1).T if len(axes) == 2 else axes.reshape(-1, 2)
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(float(np.nanpercentile(similarities, 1)), 1.0), "viridis")
    for z, (shown, mapped) in zip(below, pairs, strict=True):
        for axis in (shown, mapped):
            canvas.show_scan(axis, followup.ct.hu, followup.ct.grid, z, window)
            if mask is not None:
                _outline(axis, mask[z])
        settings: dict[str, Any] = {"cmap": scale.cmap, "norm": scale.norm, "alpha": 0.5}
        canvas.show_patches(mapped, similarities, followup.features.feature_grid, followup.ct.grid, z, **settings)
        here = [match for match in matches if _slice_of(followup, match) == z]
        for match in reversed(here):
            _square(shown, followup, match, scale.to_rgba(np.array([match.similarity]))[0])
        ranks = ", ".join(str(match.rank) for match in here)
        shown.set_title(f"follow-up, slice {z}: match {ranks}", fontsize=8)
    parts[1].colorbar(scale, ax=axes, label="cosine similarity", shrink=0.7)
    figure.suptitle(title, fontsize=10, parse_math=False)
    canvas.save(figure, path, dpi=130)


def _draw_lesion(axes: np.ndarray, scan: EncodedScan, lesion: np.ndarray, slices: Sequence[int], window: str) -> None:
    rows, columns = _field(lesion, scan.ct.spacing_mm)
    hu, shape = scan.ct.hu[:, rows, columns], lesion[:, rows, columns]
    for axis, z in zip(axes, slices, strict=True):
        canvas.show_scan(axis, hu, Grid.of(hu.shape, scan.ct.affine), z, window)
        _outline(axis, shape[z])
        axis.set_title(f"baseline, slice {z}", fontsize=8)


def _field(lesion: np.ndarray, spacing_mm: tuple[float, float, float]) -> tuple[slice, slice]:
    """Returns the rows and columns to show of a lesion: twice its size, and at least `LEAST_FIELD_MM`."""
    found = []
    for axis in (1, 2):
        where = np.flatnonzero(lesion.any(axis=tuple({0, 1, 2} - {axis})))
        reach = max(LEAST_FIELD_MM / spacing_mm[axis], 2 * (where[-1] - where[0])) / 2
        middle = (where[0] + where[-1]) / 2
        found.append(slice(max(0, int(middle - reach)), int(middle + reach) + 1))
    return found[0], found[1]


def _outline(axis: Axes, layer: np.ndarray) -> None:
    if layer.any():
        axis.contour(layer.astype(float), levels=[0.5], colors=canvas.OKABE_ITO[0], linewidths=0.8)


def _square(axis: Axes, scan: EncodedScan, match: Match, colour: np.ndarray) -> None:
    step = np.abs(np.diag(np.linalg.inv(scan.ct.affine) @ scan.features.feature_grid.affine))
    _, y, x = scan.ct.world_to_index(np.array([match.point_mm]))[0]
    corner = (x - step[2] / 2, y - step[1] / 2)
    axis.add_patch(Rectangle(corner, step[2], step[1], facecolor="none", edgecolor=tuple(colour), linewidth=1.5))


def _lesion_slices(lesion: np.ndarray) -> list[int]:
    found = np.flatnonzero(lesion.any(axis=(1, 2)))
    return [int(z) for z in found[np.unique(np.linspace(0, len(found) - 1, FIGURE_SLICES).round().astype(int))]]


def _slice_of(scan: EncodedScan, match: Match) -> int:
    z = scan.ct.world_to_index(np.array([match.point_mm]))[0, 0]
    return int(np.rint(z).clip(0, scan.ct.shape[0] - 1))


def _match_slices(scan: EncodedScan, matches: Sequence[Match]) -> list[int]:
    """Returns the slices of the best matches, in the order of the scan."""
    slices = list(dict.fromkeys(_slice_of(scan, match) for match in matches))
    return sorted(slices[:FIGURE_SLICES])
