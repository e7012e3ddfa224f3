"""Pictures of a segmentation: truth and prediction side by side on the scan."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

WINDOW_HU = (-160.0, 240.0)
"""The usual soft-tissue window: level 40, width 400."""


def draw_overlay(
    path: Path,
    hu: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    classes: Sequence[str],
    spacing_mm: tuple[float, float, float],
    title: str,
    notice: str | None = None,
    slices: int = 3,
) -> None:
    """Draws axial slices with the true and the predicted labels, and writes them as a PNG.

    Slices are those that cut the foreground into equal parts by volume. The patient's right is on the
    left, anterior at the top, as radiologists look at it.

    Args:
        path: Where to write the picture; folders are made.
        hu: (D, H, W) scan in SPL order.
        truth: (D, H, W) labels.
        prediction: (D, H, W) labels.
        classes: Names by label, background first.
        spacing_mm: (z, y, x).
        title: Line at the top.
        notice: Second line, such as that this is a demonstration.
        slices: How many slices.
    """
    shown = _slices(truth, slices)
    colours = _colours(len(classes))
    figure = Figure(figsize=(3 * 3.2, 3.2 * len(shown) + 1.2), layout="constrained")
    axes = figure.subplots(len(shown), 3, squeeze=False)
    for row, z in zip(axes, shown, strict=True):
        for axis, labels in zip(row, (None, truth, prediction), strict=True):
            axis.imshow(hu[z], cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], aspect=spacing_mm[1] / spacing_mm[2])
            if labels is not None:
                axis.imshow(colours[labels[z]], aspect=spacing_mm[1] / spacing_mm[2], interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(f"slice {z}")
        _annotate(row[0], hu.shape[2], spacing_mm[2])
    for axis, name in zip(axes[0], ("scan", "reference", "prediction"), strict=True):
        axis.set_title(name, fontsize=10)
    present = sorted(set(np.unique(truth[shown])) | set(np.unique(prediction[shown])) - {0})
    figure.legend(
        handles=[Patch(color=colours[i][:3], label=classes[i]) for i in present if i],
        loc="outside lower center",
        ncols=min(6, max(1, len(present))),
        frameon=False,
        fontsize=8,
    )
    figure.suptitle(title if notice is None else f"{title}\n{notice}", fontsize=10, wrap=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _slices(truth: np.ndarray, count: int) -> list[int]:
    """Returns the slices at which equal parts of the foreground lie below."""
    volume = np.cumsum((truth > 0).sum(axis=(1, 2)))
    if volume[-1] == 0:
        return [truth.shape[0] // 2]
    parts = (np.arange(count) + 0.5) / count * volume[-1]
    return sorted({int(z) for z in np.searchsorted(volume, parts)}, reverse=True)


def _colours(classes: int) -> np.ndarray:
    """Returns (classes, 4) RGBA, background transparent, hues far apart for neighbouring labels."""
    hues = (np.arange(classes) * 0.618034) % 1
    palette = mpl.colormaps["hsv"](hues)
    palette[:, 3] = 0.55
    palette[0] = 0
    return palette


def _annotate(axis: "mpl.axes.Axes", width: int, spacing_mm: float) -> None:
    axis.text(0.02, 0.5, "R", color="white", transform=axis.transAxes, va="center", fontsize=9)
    axis.text(0.98, 0.5, "L", color="white", transform=axis.transAxes, va="center", ha="right", fontsize=9)
    bar = 50 / spacing_mm
    axis.plot([width * 0.06, width * 0.06 + bar], [axis.get_ylim()[0] * 0.95] * 2, color="white", lw=2)
    axis.text(width * 0.06, axis.get_ylim()[0] * 0.92, "5 cm", color="white", fontsize=7)
