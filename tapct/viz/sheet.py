"""A sheet of cases in three planes, to see at a glance whether they are what a task says: sides, spacing, labels."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from tapct.tasks.checks import CaseCheck
from tapct.tasks.look import Look, Plane
from tapct.viz import canvas
from tapct.viz.canvas import AXIAL, CORONAL, SAGITTAL

VIEWS = (AXIAL, CORONAL, SAGITTAL)

_WIDTH = 11.0
_MARGIN = 0.3
_GAP = 0.12
_TALLEST = 3.6
_LINE = 0.2
_LEGEND_COLUMNS = 7
_LETTERS = 150
_COLOURS = {"wrong": "#C0392B", "odd": "#B9770E"}
_POINT_MM = 12.0


@dataclass(frozen=True, eq=False)
class SheetRow:
    """A case on the sheet.

    Attributes:
        name: The case, and what else its title says.
        look: The case.
        wrong: What is wrong with it, in red.
        odd: What is odd about it, in amber.
    """

    name: str
    look: Look
    wrong: str = ""
    odd: str = ""

    @property
    def remarks(self) -> list[tuple[str, str]]:
        """The lines under its title, each with its colour."""
        said = ((self.wrong, _COLOURS["wrong"]), (self.odd, _COLOURS["odd"]))
        return [(line, colour) for text, colour in said for line in textwrap.wrap(text, _LETTERS)]


def draw_sheet(path: Path, rows: Sequence[SheetRow], classes: Sequence[str], title: str, window: str) -> None:
    """Draws cases in three planes, each in true proportions, and writes them as a PNG.

    Args:
        path: Where to write the picture.
        rows: The cases.
        classes: Names by label, background first.
        title: Line at the top.
        window: One of `canvas.WINDOWS_HU`.

    Raises:
        PictureError: If the window is unknown, or the picture cannot be written.
    """
    colours = canvas.palette(len(classes))
    labelled = [plane.labels for row in rows for plane in row.look.planes if plane.labels is not None]
    shown = sorted({int(label) for labels in labelled for label in np.unique(labels)} - {0})
    inches = [_inches_per_mm(row.look) for row in rows]
    heights = [_row_height(row, scale) for row, scale in zip(rows, inches, strict=True)]
    legend_lines = -(-len(shown) // _LEGEND_COLUMNS)
    height = 0.55 + sum(heights) + _LINE * legend_lines + _MARGIN
    figure = Figure(figsize=(_WIDTH, height))
    figure.text(_MARGIN / _WIDTH, 1 - 0.3 / height, title, fontsize=12, weight="bold", va="center", parse_math=False)
    top = height - 0.55
    for row, scale, tall in zip(rows, inches, heights, strict=True):
        _draw_row(figure, row, top, scale, colours, window)
        top -= tall
    canvas.legend(figure, [classes[i] for i in shown], colours[shown], "lower center", _LEGEND_COLUMNS)
    canvas.save(figure, path, dpi=130)


def draw_checks(path: Path, checks: Sequence[CaseCheck]) -> None:
    """Draws cases of a task as they were found; see `draw_sheet`.

    Args:
        path: Where to write the picture.
        checks: Cases of one task that were looked at.
    """
    first = checks[0].of.dataset
    is_dense = first.spec.of_kind.dense
    title = f"{first.spec.display_name}: {len(checks)} cases as their headers place them"
    draw_sheet(
        path,
        [_row(check) for check in checks if check.look is not None],
        first.classes if is_dense else ["background"],
        f"{title}, {first.window} window",
        first.window,
    )


def _row(check: CaseCheck) -> SheetRow:
    dataset, case = check.of
    assert check.look is not None
    voxels = " x ".join(str(n) for n in reversed(check.look.shape))
    mm = " x ".join(f"{edge:.3g}" for edge in reversed(check.look.spacing_mm))
    answers = f"   {', '.join(sorted(dataset.strata(case)))}" if not dataset.spec.of_kind.dense else ""
    name = f"{case}   {dataset.split}   {voxels} voxels of {mm} mm{answers}"
    return SheetRow(name, check.look, check.orientation.wrong, check.orientation.odd)


def _size_mm(plane: Plane) -> tuple[float, float]:
    """Returns width and height."""
    rows, columns = plane.hu.shape
    return columns * plane.spacing_mm[1], rows * plane.spacing_mm[0]


def _inches_per_mm(look: Look) -> float:
    """Returns the one scale of a case's three planes at which they fit side by side."""
    sizes = [_size_mm(plane) for plane in look.planes]
    room = _WIDTH - 2 * _MARGIN - _GAP * (len(sizes) - 1)
    return min(room / sum(width for width, _ in sizes), _TALLEST / max(height for _, height in sizes))


def _tallest(look: Look, scale: float) -> float:
    return max(_size_mm(plane)[1] for plane in look.planes) * scale


def _row_height(row: SheetRow, scale: float) -> float:
    return _LINE * (1 + len(row.remarks)) + 0.1 + _tallest(row.look, scale) + 0.2


def _draw_row(figure: Figure, row: SheetRow, top: float, scale: float, colours: np.ndarray, window: str) -> None:
    """Draws a case under a title; `top` is where it begins, in inches from the bottom of the figure."""
    width, height = figure.get_size_inches()
    lines = [(row.name, "black"), *row.remarks]
    for number, (text, colour) in enumerate(lines):
        weight = "bold" if number == 0 else "normal"
        at = (_MARGIN / width, (top - _LINE * (number + 0.5)) / height)
        figure.text(*at, text, fontsize=9, color=colour, weight=weight, va="center", parse_math=False)
    top -= _LINE * len(lines) + 0.1
    left, middle = _MARGIN, top - _tallest(row.look, scale) / 2
    for plane, view in zip(row.look.planes, VIEWS, strict=True):
        wide, tall = (mm * scale for mm in _size_mm(plane))
        axes = figure.add_axes((left / width, (middle - tall / 2) / height, wide / width, tall / height))
        canvas.show_slice(axes, plane.hu, plane.spacing_mm, window, view, bar=view is AXIAL)
        if plane.labels is not None:
            image = _outlined(plane.labels, colours)
            axes.imshow(image, aspect=axes.get_aspect(), interpolation="nearest", origin=view.origin)
        if plane.point is not None:
            y, x = plane.point
            size = [2 * _POINT_MM / mm for mm in plane.spacing_mm]
            axes.add_patch(Ellipse((x, y), size[1], size[0], fill=False, color=canvas.OKABE_ITO[0], lw=1.2))
        left += wide + _GAP


def _outlined(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Returns labels as a picture: faint inside, so that the scan shows through, and strong at their borders."""
    around = np.pad(labels, 1, mode="edge")
    neighbours = around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]
    border = np.any([other != labels for other in neighbours], axis=0)
    image = colours[labels]
    image[..., 3] = np.where(labels > 0, np.where(border, 0.95, 0.35), 0)
    return image
