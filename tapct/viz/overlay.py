"""Pictures of a segmentation: truth and predictions side by side on the scan, as in the paper's Figure 4."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tapct.viz import canvas
from tapct.volumes import Grid

PANEL_INCHES = 3.0


def draw_overlay(
    path: Path,
    hu: np.ndarray,
    grid: Grid,
    truth: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    classes: Sequence[str],
    title: str,
    *,
    notice: str | None = None,
    slices: int = 3,
    window: str = "soft-tissue",
) -> None:
    """Draws axial slices with the true labels and those of each model, and writes them as a PNG.

    Slices are those that cut the true foreground into equal parts by volume. The patient's right is on the left,
    anterior at the top, as radiologists look at it.

    Args:
        path: Where to write the picture; folders are made.
        hu: (D, H, W) scan in SPL order.
        grid: Its grid.
        truth: (D, H, W) labels.
        predictions: (D, H, W) labels by the name above their column.
        classes: Names by label, background first.
        title: Line at the top.
        notice: Second line, such as that this is a demonstration.
        slices: How many slices.
        window: One of `canvas.WINDOWS_HU`.

    Raises:
        PictureError: If the window is unknown, or the picture cannot be written.
    """
    shown, colours = foreground_slices(truth, slices), canvas.palette(len(classes))
    columns = {"scan": None, "reference": truth, **predictions}
    size = (PANEL_INCHES * len(columns), PANEL_INCHES * canvas.proportion(grid) * len(shown) + 1.2)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(shown), len(columns), squeeze=False)
    for row, z in zip(axes, shown, strict=True):
        for axis, labels in zip(row, columns.values(), strict=True):
            canvas.show_scan(axis, hu, grid, z, window)
            if labels is not None:
                canvas.show_labels(axis, labels, z, colours)
        row[0].set_ylabel(f"slice {z}")
    for axis, name in zip(axes[0], columns, strict=True):
        axis.set_title(name, fontsize=10, parse_math=False)
    present = sorted({int(v) for labels in (truth, *predictions.values()) for v in np.unique(labels[shown])} - {0})
    canvas.legend(figure, [classes[i] for i in present], colours[present])
    text = title if notice is None else f"{title}\n{notice}"
    figure.suptitle(text, fontsize=10, wrap=True, parse_math=False)
    canvas.save(figure, path)


def foreground_slices(truth: np.ndarray, count: int) -> list[int]:
    """Returns the slices at which equal parts of the foreground lie below, the highest first."""
    volume = np.cumsum((truth > 0).sum(axis=(1, 2)))
    if volume[-1] == 0:
        return [truth.shape[0] // 2]
    parts = (np.arange(count) + 0.5) / count * volume[-1]
    return sorted({int(z) for z in np.searchsorted(volume, parts)}, reverse=True)
