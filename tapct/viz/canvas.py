"""Slices of a scan as radiologists look at them: window, orientation, true proportions, a scale bar in centimetres."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from tapct._utils.files import write_atomically
from tapct.encoders.axes import OPPOSITE
from tapct.errors import TapctError, nearest
from tapct.volumes import Grid


class PictureError(TapctError, ValueError):
    """A picture was asked for that cannot be drawn."""


WINDOWS_HU = {
    "soft-tissue": (-160.0, 240.0),
    "lung": (-1350.0, 150.0),
    "bone": (-500.0, 1300.0),
    "liver": (-45.0, 105.0),
}
"""The usual windows, lowest and highest HU: width 400 at level 40, 1500 at -600, 1800 at 400, 150 at 30
(radiopaedia.org/articles/windowing-ct)."""

# Okabe and Ito's colours, which the colour-blind can tell apart (jfly.uni-koeln.de/color); black is left out.
OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")

_SCALE_CM = (10.0, 5.0, 2.0, 1.0, 0.5)
_OUTLINE = [withStroke(linewidth=2, foreground="black")]


class View(NamedTuple):
    """A way to cut a scan.

    Attributes:
        across: Axis (of z, y, x) that the slice lies across.
        rows: Axis along the rows of the picture.
        columns: Axis along its columns.
        upward: Whether rows are drawn from the bottom up.
        letters: What lies at the left, the right, the top and the bottom of the picture.
    """

    across: int
    rows: int
    columns: int
    upward: bool
    letters: tuple[str, str, str, str]

    @property
    def origin(self) -> Literal["lower", "upper"]:
        """Where the first row is drawn, in matplotlib's words."""
        return "lower" if self.upward else "upper"

    def on(self, grows: str) -> "View":
        """Returns the same cut of a scan whose axes grow otherwise than S, P and L: with the letters that are true."""
        right, down = grows[self.columns], grows[self.rows]
        top, bottom = (down, OPPOSITE[down]) if self.upward else (OPPOSITE[down], down)
        return self._replace(letters=(OPPOSITE[right], right, top, bottom))


# Index grows towards superior, posterior, left: the patient's right comes out on the left, anterior at the top.
AXIAL = View(0, 1, 2, False, ("R", "L", "A", "P"))
CORONAL = View(1, 0, 2, True, ("R", "L", "S", "I"))
SAGITTAL = View(2, 0, 1, True, ("A", "P", "S", "I"))


def window_hu(name: str) -> tuple[float, float]:
    """Returns the lowest and the highest HU of a window.

    Raises:
        PictureError: If there is none of that name.
    """
    if name not in WINDOWS_HU:
        raise PictureError(f"there is no window '{name}'. {nearest(name, WINDOWS_HU)}")
    return WINDOWS_HU[name]


def proportion(grid: Grid, view: View = AXIAL) -> float:
    """Returns height over width of a slice, in millimetres."""
    spacing, shape = grid.spacing_mm, grid.shape
    return (shape[view.rows] * spacing[view.rows]) / (shape[view.columns] * spacing[view.columns])


def show_scan(axes: Axes, hu: np.ndarray, grid: Grid, index: int, window: str, view: View = AXIAL) -> None:
    """Draws a slice of a scan, with what lies on each side, and a scale bar.

    Args:
        axes: Where to draw.
        hu: (D, H, W) scan in SPL order.
        grid: Its grid.
        index: Slice along `view.across`.
        window: One of `WINDOWS_HU`.
        view: Which way it is cut.
    """
    spacing = grid.spacing_mm
    show_slice(axes, np.take(hu, index, view.across), (spacing[view.rows], spacing[view.columns]), window, view)


def show_slice(
    axes: Axes,
    hu: np.ndarray,
    spacing_mm: tuple[float, float],
    window: str | tuple[float, float],
    view: View = AXIAL,
    bar: bool = True,
) -> None:
    """Draws a slice (rows, columns) that is all there is of its scan, as `show_scan` does.

    Args:
        axes: Where to draw.
        hu: (rows, columns) values.
        spacing_mm: Distance between rows, and between columns.
        window: One of `WINDOWS_HU`, or the values that are black and white.
        view: Which way it is cut.
        bar: Whether it gets a scale bar.
    """
    low, high = window_hu(window) if isinstance(window, str) else window
    aspect = spacing_mm[0] / spacing_mm[1]
    axes.imshow(hu, cmap="gray", vmin=low, vmax=high, aspect=aspect, origin=view.origin)
    axes.autoscale(False)  # what is drawn over it must not widen it
    axes.set_xticks([])
    axes.set_yticks([])
    left, right, top, bottom = view.letters
    for x, letter, side in ((0.02, left, "left"), (0.98, right, "right")):
        axes.text(x, 0.5, letter, transform=axes.transAxes, ha=side, va="center", **_label(9))
    for y, letter, side in ((0.98, top, "top"), (0.02, bottom, "bottom")):
        axes.text(0.5, y, letter, transform=axes.transAxes, ha="center", va=side, **_label(9))
    if bar:
        _scale_bar(axes, hu.shape[1], spacing_mm[1])


def show_labels(axes: Axes, labels: np.ndarray, index: int, colours: np.ndarray, view: View = AXIAL) -> None:
    """Draws the labels (D, H, W) of a slice over its scan, in `colours` (classes, 4) RGBA by label."""
    image = colours[np.take(labels, index, view.across)]
    axes.imshow(image, aspect=axes.get_aspect(), interpolation="nearest", origin=view.origin)


def show_patches(
    axes: Axes, values: np.ndarray, patches: Grid, scan: Grid, index: int, view: View = AXIAL, **settings: Any
) -> mpl.image.AxesImage:
    """Draws the layer of patches that a slice of the scan lies in, each patch where it is and as large as it is.

    Args:
        axes: Where the slice was drawn.
        values: (d, h, w) numbers or (d, h, w, 3 or 4) colours of the patches.
        patches: Their grid.
        scan: The grid of the scan.
        index: Slice of the scan along `view.across`.
        view: Which way it is cut.
        settings: Of `imshow`, such as its colour map.

    Returns:
        What a colour bar needs.
    """
    centres = scan.coordinates_in(patches)[view.across]
    layer = int(np.clip(np.rint(centres[index]), 0, patches.shape[view.across] - 1))
    (top, bottom), (left, right) = (patch_edges(patches, scan)[axis] for axis in (view.rows, view.columns))
    extent = (left, right, top, bottom) if view.upward else (left, right, bottom, top)
    return axes.imshow(
        np.take(values, layer, view.across),
        extent=extent,
        origin=view.origin,
        interpolation="nearest",
        aspect=axes.get_aspect(),
        **settings,
    )


def palette(classes: int) -> np.ndarray:
    """Returns (classes, 4) RGBA, background transparent.

    Up to seven classes get colours that the colour-blind can tell apart, more get hues far apart for neighbours.
    """
    if classes - 1 <= len(OKABE_ITO):
        colours = np.array([(0, 0, 0, 0), *(mpl.colors.to_rgba(c) for c in OKABE_ITO[: classes - 1])])
    else:
        colours = mpl.colormaps["hsv"]((np.arange(classes) * 0.618034) % 1)
    colours[:, 3] = 0.55
    colours[0] = 0
    return colours


def legend(
    figure: Figure, names: Sequence[str], colours: np.ndarray, loc: Any = "outside lower center", columns: int = 6
) -> None:
    """Puts a legend of classes under a figure; "outside" needs its constrained layout."""
    if not names:
        return
    figure.legend(
        handles=[Patch(color=colour[:3], label=name) for name, colour in zip(names, colours, strict=True)],
        loc=loc,
        ncols=min(columns, len(names)),
        frameon=False,
        fontsize=8,
    )


def png_path(text: str) -> Path:
    """Returns where a picture is to be written, checked before any work.

    Raises:
        PictureError: If it is not a PNG, its folder is not there, or it cannot be written there.
    """
    path = Path(text).expanduser()
    if path.suffix.lower() != ".png":
        raise PictureError(f"a picture is written as PNG: name a file that ends in .png, not {text}")
    if not path.parent.is_dir():
        raise PictureError(f"cannot write {text}: there is no folder {path.parent}. Make it first")
    if path.is_dir():
        raise PictureError(f"cannot write {text}: it is a folder")
    if not os.access(path.parent, os.W_OK):
        raise PictureError(f"cannot write {text}: nothing may be written in {path.parent}")
    return path


def png(figure: Figure, dpi: int = 110) -> bytes:
    """Returns a figure as a PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Writes a figure as a PNG, atomically; see `png`.

    Raises:
        PictureError: If it cannot be written.
    """
    try:
        write_atomically(path, png(figure, dpi))
    except OSError as error:
        raise PictureError(f"cannot write {path}: {error.strerror or error}") from error


def _label(size: int) -> dict[str, Any]:
    return {"color": "white", "fontsize": size, "path_effects": _OUTLINE}


def _scale_bar(axes: Axes, width: int, spacing_mm: float) -> None:
    """Draws the longest round length that takes at most a third of the picture, at its lower left."""
    width_cm = width * spacing_mm / 10
    length_cm = next((cm for cm in _SCALE_CM if cm <= width_cm / 3), _SCALE_CM[-1])
    left, right = 0.05, 0.05 + length_cm / width_cm
    axes.plot([left, right], [0.05] * 2, color="white", lw=2, transform=axes.transAxes, path_effects=_OUTLINE)
    axes.text(left, 0.085, f"{length_cm:g} cm", transform=axes.transAxes, va="center", **_label(7))


def patch_edges(patches: Grid, scan: Grid) -> list[tuple[float, float]]:
    """Returns, axis by axis, where the patches begin and end, in units of the scan's voxels."""
    step = np.abs(np.diag(np.linalg.inv(scan.affine) @ patches.affine))[:3]
    where = patches.coordinates_in(scan)
    return [(float(c[0] - s / 2), float(c[-1] + s / 2)) for c, s in zip(where, step, strict=True)]
