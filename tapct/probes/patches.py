"""Patches and the voxels in them: what of a patch is of a class, and in which patches a mask lies."""

import numpy as np
import torch

from tapct.volumes import Grid, LinearMap, Mask


def class_shares(labels: torch.Tensor, native: Grid, patches: Grid, num_classes: int) -> torch.Tensor:
    """Returns (K, d, h, w) float32: the share of each class in the box of each patch.

    A patch's box is centred on the patch and as wide as patches are apart. What of it lies outside the scan is left
    out; a box wholly outside has the labels of the nearest border voxels.

    Args:
        labels: (D, H, W) integer labels.
        native: The grid of the labels.
        patches: The feature grid.
        num_classes: Number of classes, K.
    """
    axes = [_of_patches(where, size) for where, size in zip(patches.coordinates_in(native), native.shape, strict=True)]
    of_patches = LinearMap(*(m.to(labels.device, torch.float32) for m in axes))
    shares = torch.zeros((num_classes, *patches.shape), device=labels.device)
    for label in range(1, num_classes):
        shares[label] = _mapped(of_patches, labels == label, torch.float32)
    shares[0] = 1 - shares[1:].sum(dim=0)
    return shares


def mask_shares(mask: Mask, patches: Grid) -> torch.Tensor:
    """Returns (d, h, w) float64: the share of a mask's volume in the box of each patch; 1 in sum.

    A voxel in several boxes counts in each by what of it is there, one outside all of them in the nearest: a mask that
    holds a voxel is somewhere, however small it is.

    Args:
        mask: A mask that is not empty.
        patches: The feature grid, without the patches that must have nothing.
    """
    grid = mask.grid
    axes = [_of_voxels(where, size) for where, size in zip(patches.coordinates_in(grid), grid.shape, strict=True)]
    volume = _mapped(LinearMap(*axes), torch.from_numpy(mask.inside), torch.float64)
    return volume / volume.sum()


def _mapped(to_patches: LinearMap, inside: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Maps (D, H, W) booleans to patches, through the block that holds what is true: most structures are small."""
    spans = [_span(inside.any(dim=tuple(d for d in range(3) if d != axis))) for axis in range(3)]
    if spans[0].stop == 0:
        return torch.zeros(
            [len(m) for m in (to_patches.z, to_patches.y, to_patches.x)], dtype=dtype, device=inside.device
        )
    z, y, x = (m[:, span] for m, span in zip((to_patches.z, to_patches.y, to_patches.x), spans, strict=True))
    return LinearMap(z, y, x)(inside[spans[0], spans[1], spans[2]].to(dtype))


def _span(occupied: torch.Tensor) -> slice:
    """Returns the range from the first to the last true value of (n,); an empty one where there is none."""
    where = occupied.nonzero().flatten()
    return slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, 0)


def _of_patches(where: np.ndarray, size: int) -> torch.Tensor:
    """Returns (len(where), size): the share of each voxel in the box around each coordinate; rows sum to one."""
    return torch.from_numpy(_shares(_overlaps(where, size), _nearest(where, size)))


def _of_voxels(where: np.ndarray, size: int) -> torch.Tensor:
    """Returns (len(where), size): what of each voxel is in the box around each coordinate; columns sum to one."""
    nearest = np.abs(where[:, None] - np.arange(size)[None]).argmin(axis=0)
    return torch.from_numpy(_shares(_overlaps(where, size).T, nearest).T.copy())


def _overlaps(where: np.ndarray, size: int) -> np.ndarray:
    """Returns (len(where), size): the length of each of `size` voxels in the box around each coordinate, in voxels."""
    width = abs(float(where[1] - where[0])) if len(where) > 1 else float(size)
    low, high = (np.clip(where + side * width / 2, -0.5, size - 0.5)[:, None] for side in (-1, 1))
    voxels = np.arange(size)[None]
    return np.clip(np.minimum(high, voxels + 0.5) - np.maximum(low, voxels - 0.5), 0, None)


def _shares(overlaps: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """Returns overlaps with rows that sum to one; a row without any has its nearest column alone."""
    overlaps = overlaps.copy()
    outside = overlaps.sum(axis=1) < 1e-9
    overlaps[outside] = np.eye(overlaps.shape[1])[nearest[outside]]
    return overlaps / overlaps.sum(axis=1, keepdims=True)


def _nearest(where: np.ndarray, size: int) -> np.ndarray:
    return np.clip(np.rint(where), 0, size - 1).astype(int)
