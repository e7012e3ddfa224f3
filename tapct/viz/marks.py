"""Pictures of a detector: findings as circles and candidates as crosses, in three planes through some findings."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tapct.viz import canvas
from tapct.volumes import Findings, Grid

PANEL_INCHES = 3.0
BEST = 10
"""Candidates that are drawn, the best."""
NEAR_MM = 5.0
"""Candidates within this distance of a plane are drawn in it."""

FINDING, EXCLUDED, CANDIDATE = (canvas.OKABE_ITO[place] for place in (2, 6, 0))
_CIRCLE = np.linspace(0, 2 * np.pi, 49)


def draw_marks(
    path: Path,
    hu: np.ndarray,
    grid: Grid,
    findings: Findings,
    candidates_mm: np.ndarray,
    title: str,
    *,
    notice: str | None = None,
    rows: int = 3,
    window: str = "soft-tissue",
) -> None:
    """Draws a scan through some of its findings, with what is to be found and what was, and writes it as a PNG.

    Args:
        path: Where to write the picture; folders are made.
        hu: (D, H, W) scan in SPL order.
        grid: Its grid.
        findings: What is to be found.
        candidates_mm: (N, 3) places of candidates, x, y, z in mm (RAS+), the best first.
        title: Line at the top.
        notice: Second line, such as that this is a demonstration.
        rows: How many findings; of a scan without any, the best candidate, or the middle.
        window: One of `canvas.WINDOWS_HU`.

    Raises:
        PictureError: If the window is unknown, or the picture cannot be written.
    """
    points, marks = findings.index_in(grid), _index(candidates_mm[:BEST], grid)
    through = _chosen(points[~findings.excluded], marks, grid, rows)
    views = (canvas.AXIAL, canvas.CORONAL, canvas.SAGITTAL)
    heights = [PANEL_INCHES * max(canvas.proportion(grid, view) for view in views)] * len(through)
    figure = Figure(figsize=(PANEL_INCHES * len(views), sum(heights) + 1.2), layout="constrained")
    axes = figure.subplots(len(through), len(views), squeeze=False)
    for row, place in zip(axes, through, strict=True):
        for axis, view in zip(row, views, strict=True):
            index = int(np.clip(np.rint(place[view.across]), 0, grid.shape[view.across] - 1))
            canvas.show_scan(axis, hu, grid, index, window, view)
            for point, radius, out in zip(points, findings.diameters_mm / 2, findings.excluded, strict=True):
                _circle(axis, point, radius, index, grid, view, EXCLUDED if out else FINDING)
            for number, mark in enumerate(marks, start=1):
                _cross(axis, mark, number, index, grid, view)
    names = {"finding": FINDING, "counts neither way": EXCLUDED, "candidate, by rank": CANDIDATE}
    figure.legend(
        handles=[
            Line2D(
                [], [], color=colour, marker="x" if colour == CANDIDATE else "o", fillstyle="none", ls="", label=name
            )
            for name, colour in names.items()
        ],
        loc="outside lower center",
        ncols=len(names),
        frameon=False,
        fontsize=8,
    )
    text = title if notice is None else f"{title}\n{notice}"
    figure.suptitle(text, fontsize=10, wrap=True, parse_math=False)
    canvas.save(figure, path)


def _chosen(points: np.ndarray, marks: np.ndarray, grid: Grid, rows: int) -> np.ndarray:
    """Returns the places to draw through, the highest first: findings as far apart along the body as may be."""
    if not len(points):
        return marks[:1] if len(marks) else (np.array([grid.shape]) - 1) / 2
    ordered = points[np.argsort(-points[:, 0], kind="stable")]
    return ordered[np.unique(np.linspace(0, len(ordered) - 1, rows).round().astype(int))]


def _circle(
    axes: Axes, point: np.ndarray, radius_mm: float, index: int, grid: Grid, view: canvas.View, colour: str
) -> None:
    """Draws where a plane cuts a sphere."""
    spacing = grid.spacing_mm
    beside_mm = (point[view.across] - index) * spacing[view.across]
    if abs(beside_mm) >= max(radius_mm, spacing[view.across] / 2):
        return
    within_mm = np.sqrt(max(radius_mm**2 - beside_mm**2, (radius_mm / 2) ** 2))  # thick slices: never a dot
    x = point[view.columns] + within_mm / spacing[view.columns] * np.cos(_CIRCLE)
    y = point[view.rows] + within_mm / spacing[view.rows] * np.sin(_CIRCLE)
    axes.plot(x, y, color=colour, linewidth=1.2)


def _cross(axes: Axes, mark: np.ndarray, number: int, index: int, grid: Grid, view: canvas.View) -> None:
    if abs(mark[view.across] - index) * grid.spacing_mm[view.across] > NEAR_MM:
        return
    x, y = mark[view.columns], mark[view.rows]
    axes.plot([x], [y], marker="x", markersize=5, color=CANDIDATE, linestyle="")
    axes.annotate(str(number), (x, y), (4, 4), textcoords="offset points", color=CANDIDATE, fontsize=7)


def _index(places_mm: np.ndarray | Sequence[Sequence[float]], grid: Grid) -> np.ndarray:
    offsets = np.asarray(places_mm, dtype=np.float64).reshape(-1, 3) - grid.affine[:3, 3]
    return np.linalg.solve(grid.affine[:3, :3], offsets.T).T
