"""From a scan to the features of its windows, on one grid."""

import itertools
import math
from dataclasses import dataclass

import torch

from tapct.encoders import Encoder, EncoderCard
from tapct.volumes import Grid, Size, Stitcher, WindowPlan, resample_image

WINDOWS_PER_BATCH = 8
"""Windows encoded at once. Results do not depend on it beyond rounding."""


@dataclass(frozen=True)
class CaseFeatures:
    """Features of one scan, and the grids that lead back to its voxels.

    Attributes:
        map: (C, d, h, w) feature map over the padded scan.
        embeddings: (N, E) embeddings of the windows, in the order of `WindowPlan.origins`.
        native_grid: The scan as it is on disk.
        encoder_grid: The scan as the encoder saw it, without padding.
        feature_grid: The cells of `map`; they reach into the padding where there is some.
        padding: Voxels of air that were added along (z, y, x) to fill the last window and cell.
    """

    map: torch.Tensor
    embeddings: torch.Tensor
    native_grid: Grid
    encoder_grid: Grid
    feature_grid: Grid
    padding: Size

    @property
    def nbytes(self) -> int:
        """Bytes that the features take."""
        return sum(t.numel() * t.element_size() for t in (self.map, self.embeddings))


def encoder_grid(native: Grid, card: EncoderCard) -> Grid:
    """Returns the grid that an encoder wants a scan on: its spacing, then its in-plane size."""
    grid = native if card.spacing_mm is None else native.respaced(card.spacing_mm)
    if card.in_plane_size is not None:
        grid = grid.resized((grid.shape.z, card.in_plane_size, card.in_plane_size))
    return grid


def fitted_window(encoder: Encoder, shape: Size) -> tuple[int, int, int]:
    """Returns the smallest window over a whole image that the network takes, up to the card's own size.

    A nodule's crop of 50 mm is 33 voxels across at 1.5 mm; in a window of 128 nearly all would be air, and a
    pooled embedding would be of that air. Where the network takes the image as it is (FMCiB its authors' 50
    voxels, no multiple of the stride), that is the window.

    Args:
        encoder: The encoder.
        shape: Voxels of the image on the encoder's grid.
    """
    card = encoder.card
    whole = (shape.z, shape.y, shape.x)
    if all(n <= w for n, w in zip(whole, card.window_size, strict=True)) and encoder.accepts(whole):
        return whole
    sizes = [
        range(min(w, math.ceil(n / s) * s), w + 1, s)
        for n, w, s in zip(shape, card.window_size, card.feature_stride, strict=True)
    ]
    fitting = [(d, h, w) for d, h, w in itertools.product(*sizes) if encoder.accepts((d, h, w))]
    return min(fitting, key=math.prod, default=card.window_size)


def extract(
    encoder: Encoder,
    hu: torch.Tensor,
    native: Grid,
    *,
    overlap: float = 0.0,
    fit_windows: bool = False,
    batch: int = WINDOWS_PER_BATCH,
) -> CaseFeatures:
    """Encodes a whole scan by sliding window.

    Args:
        encoder: The frozen encoder, on the device of `hu`.
        hu: (D, H, W) float32 Hounsfield units in SPL order.
        native: The grid of `hu`.
        overlap: Share of overlap between windows; see `WindowPlan`.
        fit_windows: Whether windows shrink to an image that is smaller than they are; see `fitted_window`.
        batch: Windows encoded at once.
    """
    card = encoder.card
    grid = encoder_grid(native, card)
    image = resample_image(hu, native, grid)
    window = fitted_window(encoder, grid.shape) if fit_windows else card.window_size
    if window == grid.shape:
        whole = encoder(image[None, None])
        feature_map, embeddings, padding = whole.map[0], whole.embedding, Size(0, 0, 0)
    else:
        plan = WindowPlan.of(grid.shape, window, card.feature_stride, overlap)
        feature_map, embeddings = _encode_windows(encoder, plan, plan.pad(image, card.pad_hu), batch)
        padding = plan.padding
    covered = Size(*(n * s for n, s in zip(feature_map.shape[1:], card.feature_stride, strict=True)))
    return CaseFeatures(
        map=feature_map,
        embeddings=embeddings,
        native_grid=native,
        encoder_grid=grid,
        feature_grid=grid.padded(covered).cells(card.feature_stride, encoder.feature_centre()),
        padding=padding,
    )


def _encode_windows(
    encoder: Encoder, plan: WindowPlan, image: torch.Tensor, batch: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the map (C, d, h, w) of a padded image and the embeddings (N, E) of its windows."""
    stitcher, embeddings = Stitcher(plan), []
    for start in range(0, len(plan.origins), batch):
        origins = plan.origins[start : start + batch]
        features = encoder(torch.stack([plan.window_at(image, o) for o in origins])[:, None])
        embeddings.append(features.embedding)
        for origin, feature_map in zip(origins, features.map, strict=True):
            stitcher.add(origin, feature_map)
    return stitcher.result(), torch.cat(embeddings)
