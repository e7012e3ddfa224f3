"""A page in which a click on a scan shows how alike every patch is to the clicked one."""

import base64
import io
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import jinja2
import matplotlib as mpl
import numpy as np
import torch
from PIL import Image

from tapct._utils.files import write_atomically
from tapct.viz import canvas
from tapct.viz.canvas import PictureError
from tapct.viz.feature_maps import EncodedScan

LAYERS = 64
"""Layers of patches that go into a page at most, evenly spread: with them it stays within a few megabytes."""

DIRECTIONS = 48
"""Principal directions that features are kept in."""

_PIXELS = 384
_PAIRS = 20_000


@dataclass(frozen=True, eq=False)
class Packed:
    """Unit features in few directions and eight bits, whose dot products are nearly the cosines.

    Attributes:
        codes: (patches, directions) int8.
        scales: (directions,) what a code of 1 stands for.
        error: The largest error of a cosine among random pairs of patches.
    """

    codes: np.ndarray
    scales: np.ndarray
    error: float

    @classmethod
    def of(cls, features: torch.Tensor) -> "Packed":
        """Packs features (patches, C).

        Directions are those of the features as they are, not centred: the cosine is not, either.
        """
        unit = torch.nn.functional.normalize(features.double(), dim=1)
        _, vectors = torch.linalg.eigh(unit.T @ unit)
        kept = (unit @ vectors.flip(1)[:, :DIRECTIONS]).numpy()
        scales = np.abs(kept).max(axis=0).clip(1e-12) / 127
        codes = np.rint(kept / scales).astype(np.int8)
        one, other = np.random.default_rng(0).integers(len(codes), size=(2, _PAIRS))
        found = ((codes[one] * scales) * (codes[other] * scales)).sum(axis=1)
        error = np.abs(found - (unit[one] * unit[other]).sum(dim=1).numpy()).max()
        return cls(codes, scales, float(error))


def write_explorer(path: Path, scan: EncodedScan, title: str, window: str = "soft-tissue") -> None:
    """Writes the page: one file, which needs no network.

    Args:
        path: Where to write.
        scan: The scan and its features.
        title: Heading.
        window: One of `canvas.WINDOWS_HU`.

    Raises:
        PictureError: If the page cannot be written.
    """
    inside = np.flatnonzero(scan.inside().any(axis=(1, 2)))
    layers = inside[np.unique(np.linspace(0, len(inside) - 1, LAYERS).round().astype(int))]
    grid = scan.features.feature_grid
    packed = Packed.of(scan.features.map[:, torch.from_numpy(layers)].flatten(1).T)
    (_, *_), (top, bottom), (left, right) = canvas.patch_edges(grid, scan.ct.grid)
    _, height, width = scan.ct.shape
    slices = np.rint(grid.coordinates_in(scan.ct.grid)[0][layers]).astype(int).clip(0, scan.ct.shape[0] - 1)
    content = {
        "layers": layers.tolist(),
        "slices": slices.tolist(),
        "cells": [len(layers), grid.shape.y, grid.shape.x],
        "directions": packed.codes.shape[1],
        "scales": packed.scales.tolist(),
        "codes": base64.b64encode(packed.codes.tobytes()).decode(),
        # Where the patches lie in the picture, as shares of its width and height; voxel 0 begins half a voxel before
        # it.
        "extent": [(left + 0.5) / width, (top + 0.5) / height, (right + 0.5) / width, (bottom + 0.5) / height],
        "affine": grid.affine.tolist(),
        "proportion": canvas.proportion(scan.ct.grid),
        "colours": (mpl.colormaps["viridis"](np.linspace(0, 1, 64))[:, :3] * 255).round().astype(int).tolist(),
        "pictures": [_picture(scan.ct.hu[z], window, canvas.proportion(scan.ct.grid)) for z in slices],
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((files("tapct.viz") / "templates" / "explorer.html").read_text("utf-8"))
    left_out = len(inside) - len(layers)
    page = template.render(
        title=title, scan=scan.name, error=f"{packed.error:.3f}", left_out=left_out, content=json.dumps(content)
    )
    try:
        write_atomically(path, page)
    except OSError as error:
        raise PictureError(f"cannot write {path}: {error.strerror or error}") from error


def _picture(hu: np.ndarray, window: str, proportion: float) -> str:
    """Returns a slice (H, W) as a JPEG in base64, in true proportions and within `_PIXELS`."""
    low, high = canvas.window_hu(window)
    grey = ((hu - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)
    width = round(_PIXELS / max(1.0, proportion))
    image = Image.fromarray(grey).resize((width, max(1, round(width * proportion))), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
