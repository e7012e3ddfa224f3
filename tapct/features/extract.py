"""From a scan to the features of its windows, on one grid."""

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


def extract(
    encoder: Encoder, hu: torch.Tensor, native: Grid, *, overlap: float = 0.0, batch: int = WINDOWS_PER_BATCH
) -> CaseFeatures:
    """Encodes a whole scan by sliding window.

    Args:
        encoder: The frozen encoder, on the device of `hu`.
        hu: (D, H, W) float32 Hounsfield units in SPL order.
        native: The grid of `hu`.
        overlap: Share of overlap between windows; see `WindowPlan`.
        batch: Windows encoded at once.
    """
    card = encoder.card
    grid = encoder_grid(native, card)
    plan = WindowPlan.of(grid.shape, card.window_size, card.feature_stride, overlap)
    image = plan.pad(resample_image(hu, native, grid), card.pad_hu)
    stitcher, embeddings = Stitcher(plan), []
    for start in range(0, len(plan.origins), batch):
        origins = plan.origins[start : start + batch]
        features = encoder(torch.stack([plan.window_at(image, o) for o in origins])[:, None])
        embeddings.append(features.embedding)
        for origin, feature_map in zip(origins, features.map, strict=True):
            stitcher.add(origin, feature_map)
    return CaseFeatures(
        map=stitcher.result(),
        embeddings=torch.cat(embeddings),
        native_grid=native,
        encoder_grid=grid,
        feature_grid=grid.padded(plan.padded_shape).cells(card.feature_stride, encoder.feature_centre()),
        padding=plan.padding,
    )
