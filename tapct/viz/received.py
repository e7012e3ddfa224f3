"""Slices of a shipped scan as a network receives them, with letters that are true."""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

from tapct.encoders import Encoder
from tapct.encoders.received import Orientation, in_spl, orientation_of, received
from tapct.features.extract import NamedScan, glimpse
from tapct.tasks.quickstart import Quickstart
from tapct.viz import canvas
from tapct.viz.canvas import AXIAL, CORONAL, SAGITTAL, View
from tapct.volumes import Volume, read_ct

SHIPPED_SCAN = Quickstart.shipped_root / "abdomen" / "ct.nii.gz"
"""An abdomen of TotalSegmentator's, Apache-2.0."""

_HEIGHTS = (0.25, 0.5, 0.75)
_SHOWN = (0.5, 99.5)
_WIDTH, _TALLEST, _MARGIN, _TITLE = 11.0, 4.2, 0.15, 0.35


@dataclass(frozen=True, eq=False)
class Received:
    """What a network receives of a scan.

    Attributes:
        images: (N, D, H, W), in SPL order: one window of a 3D network, three slices of a 2D one.
        shape: Of the tensor, as it was received.
        same_channels: Whether all its channels are the same.
        spacing_mm: Between voxels, (z, y, x).
        orientation: As it was found, None where it cannot be.
    """

    images: np.ndarray
    shape: tuple[int, ...]
    same_channels: bool
    spacing_mm: tuple[float, float, float]
    orientation: Orientation | None


def received_of(encoder: Encoder, ct: Volume) -> Received | None:
    """Returns what the network of an encoder receives of the middle of a scan; None where it is never called.

    Raises:
        EncoderError: If the scan cannot be encoded, or what is received is no batch of images.
    """
    heights = _HEIGHTS if encoder.card.window_size[0] == 1 else (0.5,)
    seen = glimpse(encoder, NamedScan(ct.source, torch.from_numpy(ct.hu), ct.grid), heights)
    found = received(encoder, seen.windows_hu, seen.statistics)
    if found is None:
        return None
    return Received(
        images=in_spl(encoder, found).numpy(),
        shape=tuple(found.shape),
        same_channels=bool((found == found[:, :1]).all()),
        spacing_mm=seen.spacing_mm,
        orientation=orientation_of(encoder, seen.windows_hu[:1], found[:1]),
    )


def shipped_scan() -> Volume:
    """Returns the scan that sheets show."""
    return read_ct(SHIPPED_SCAN)


def draw_received(found: Received) -> bytes:
    """Returns three slices as a PNG: three planes of a window, or three axial slices; in true proportions."""
    planes = list(_planes(found))
    low, high = np.percentile(found.images, _SHOWN)
    window = (float(low), float(high)) if low < high else (float(low) - 1, float(low) + 1)
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
        canvas.show_slice(axes, image, spacing, window, view, bar=view is AXIAL)
        axes.set_title(title, fontsize=9)
        left += wide * scale + _MARGIN
    return canvas.png(figure)


def shown_values(found: Received) -> str:
    """Returns in words how large the received values are, and which are black and white."""
    low, high = np.percentile(found.images, _SHOWN)
    return (
        f"Values from {found.images.min():.4g} to {found.images.max():.4g}, mean {found.images.mean():.3g}; "
        f"black is {low:.4g}, white {high:.4g} (0.5 and 99.5 %)."
    )


def _planes(found: Received) -> list[tuple[str, np.ndarray, tuple[float, float], View]]:
    """Returns title, slice, spacing and view of what is drawn."""
    z, y, x = found.spacing_mm
    if found.images.shape[1] == 1:
        return [
            (f"axial, {share:.0%} of the height", image[0], (y, x), AXIAL)
            for share, image in zip(_HEIGHTS, found.images, strict=True)
        ]
    window = found.images[0]
    views = ((AXIAL, "axial", (y, x)), (CORONAL, "coronal", (z, x)), (SAGITTAL, "sagittal", (z, y)))
    return [
        (
            f"{name}, {window.shape[view.across] // 2 + 1} of {window.shape[view.across]}",
            np.take(window, window.shape[view.across] // 2, view.across),
            spacing,
            view,
        )
        for view, name, spacing in views
    ]
