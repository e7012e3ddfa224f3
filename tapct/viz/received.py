"""Slices of a shipped scan as a network receives them, with letters that are true."""

import io
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from tapct.features.received import HEIGHTS, Received, received_of
from tapct.tasks.quickstart import shipped_scan
from tapct.viz import canvas
from tapct.viz.canvas import AXIAL, CORONAL, SAGITTAL, View

__all__ = ["SlicePicture", "draw_received", "pictures", "received_of", "shipped_scan", "shown_values"]

_SHOWN = (0.5, 99.5)
_WIDTH, _TALLEST, _MARGIN, _TITLE = 11.0, 4.2, 0.15, 0.35
_PIXELS, _QUALITY = 224, 60


class SlicePicture(NamedTuple):
    """A slice as a small picture.

    Attributes:
        title: Which slice it is.
        webp: The picture, in WebP.
        width_mm: How wide what it shows is.
        height_mm: How high.
        letters: What lies at its left, its right, its top and its bottom.
    """

    title: str
    webp: bytes
    width_mm: float
    height_mm: float
    letters: tuple[str, str, str, str]


def pictures(found: Received) -> list[SlicePicture]:
    """Returns the slices of `draw_received` one by one, some kilobytes each."""
    low, high = _window(found)
    made = []
    for title, image, (row_mm, column_mm), view in _planes(found):
        rows, columns = image.shape
        grey = np.clip((image - low) / (high - low), 0, 1)[:: -1 if view.upward else 1]
        picture = Image.fromarray(np.rint(255 * grey).astype(np.uint8))
        width, height = columns * column_mm, rows * row_mm
        scale = min(1.0, _PIXELS / max(rows, columns))
        small = (max(1, round(columns * scale)), max(1, round(rows * scale)))
        written = io.BytesIO()
        picture.resize(small, Image.Resampling.LANCZOS).save(written, "webp", quality=_QUALITY, method=6)
        made.append(SlicePicture(title, written.getvalue(), width, height, view.letters))
    return made


def draw_received(found: Received, whose: str = "") -> bytes:
    """Returns three slices as a PNG: three planes of a window, or three axial slices; in true proportions.

    Args:
        found: What was received.
        whose: What the title of each slice begins with.
    """
    planes, window = _planes(found), _window(found)
    sizes = [(s.shape[1] * mm[1], s.shape[0] * mm[0]) for _, s, mm, _ in planes]
    room = _WIDTH - _MARGIN * (len(planes) + 1)
    scale = min(room / sum(width for width, _ in sizes), _TALLEST / max(height for _, height in sizes))
    tallest = max(height for _, height in sizes) * scale
    height = tallest + _TITLE + 2 * _MARGIN
    figure = Figure(figsize=(_WIDTH, height))
    left = _MARGIN + (room - scale * sum(width for width, _ in sizes)) / 2
    for (title, image, spacing, view), (wide, tall) in zip(planes, sizes, strict=True):
        bottom = _MARGIN + (tallest - tall * scale) / 2
        axes = figure.add_axes((left / _WIDTH, bottom / height, wide * scale / _WIDTH, tall * scale / height))
        canvas.show_slice(axes, image, spacing, window, view, bar=view.across == AXIAL.across)
        axes.set_title(f"{whose}{title}", fontsize=9)
        left += wide * scale + _MARGIN
    return canvas.png(figure)


def shown_values(found: Received) -> str:
    """Returns in words how large the received values are, and which are black and white."""
    low, high = _window(found)
    return (
        f"Values from {found.images.min():.4g} to {found.images.max():.4g}, mean {found.images.mean():.3g}; "
        f"black is {low:.4g}, white {high:.4g} (0.5 and 99.5 %)."
    )


def _window(found: Received) -> tuple[float, float]:
    """Returns the values that are black and white."""
    low, high = map(float, np.percentile(found.images, _SHOWN))
    return (low, high) if low < high else (low - 1, low + 1)


def _planes(found: Received) -> list[tuple[str, np.ndarray, tuple[float, float], View]]:
    """Returns title, slice, spacing and view of what is drawn."""
    z, y, x = found.spacing_mm
    if found.images.shape[1] == 1:
        return [
            (f"axial, {share:.0%} of the height", image[0], (y, x), AXIAL.on(found.grows))
            for share, image in zip(HEIGHTS, found.images, strict=True)
        ]
    window = found.images[0]
    views = ((AXIAL, "axial", (y, x)), (CORONAL, "coronal", (z, x)), (SAGITTAL, "sagittal", (z, y)))
    return [
        (
            f"{name}, {window.shape[view.across] // 2 + 1} of {window.shape[view.across]}",
            np.take(window, window.shape[view.across] // 2, view.across),
            spacing,
            view.on(found.grows),
        )
        for view, name, spacing in views
    ]
