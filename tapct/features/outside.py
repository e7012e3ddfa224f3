"""Features as decoders and heads outside this project take them."""

import math
from typing import Literal

import numpy as np
import torch

from tapct.features.cases import StoredFeatures
from tapct.features.channels import scan_patches
from tapct.features.extract import CaseFeatures
from tapct.volumes import Grid, LinearMap

OutputName = Literal["embedding", "windows", "patches"]
"""What is said of a scan. "embedding": the mean of the embeddings of its windows, (E,). "windows": a bag of these, (N,
E), class tokens where the encoder has some. "patches": a bag of the features of all patches that do not lie in the
padding, (N, C)."""


def said_of(features: CaseFeatures | StoredFeatures, output: OutputName) -> torch.Tensor:
    """Returns the embedding or the bag of a scan, float32."""
    if output == "embedding":
        return features.embeddings.double().mean(dim=0).float()
    return (features.embeddings if output == "windows" else scan_patches(features).whole().T).float()


def over_image(feature_map: torch.Tensor, feature_grid: Grid, image: Grid) -> torch.Tensor:
    """Returns a map whose patches divide the field of view of an image evenly.

    Whoever upsamples a map to the size of its image (`torch.nn.functional.interpolate`, a transposed convolution) takes
    its first and last patch for the image's borders. The patches that an encoder gives reach into the padding of the
    last window, and those of strided convolutions are centred elsewhere: upsampled as they are, they would be stretched
    and shifted against the image, by up to a patch and more.

    Args:
        feature_map: (..., C, d, h, w) as it was stitched.
        feature_grid: Its patches.
        image: The image, on any grid with parallel axes.

    Returns:
        (..., C, d', h', w'). Where the patches divide the image already, the very values of the map, without those
        patches that lie in the padding; else interpolated linearly between its patches.
    """
    extents = np.array(image.shape) * np.array(image.spacing_mm)
    # The nudge keeps rounding from adding a patch.
    shape = [max(1, math.ceil(mm / patch - 1e-4)) for mm, patch in zip(extents, feature_grid.spacing_mm, strict=True)]
    target = image.resized(shape)
    where = target.coordinates_in(feature_grid)
    patches = feature_map.shape[-3:]
    if all(n <= m and np.allclose(at, np.arange(n), atol=1e-3) for at, n, m in zip(where, shape, patches, strict=True)):
        d, h, w = shape
        return feature_map[..., :d, :h, :w]
    return LinearMap.between(feature_grid, target)(feature_map)
