"""Multi-crop on CT: where the crops of a sample lie, and how they are cut out of its slab on the device.

A crop is torchvision's `RandomResizedCrop` in the axial plane: an area, an aspect ratio, a place; ten tries, then the
largest central crop. In depth it is a fixed number of slices, never resized (TAP-CT, section 3.1), so a crop of a scan
with thick slices covers more millimetres, which is an augmentation.

Where the slices lie, the paper only hints at: they are "extracted by sampling around the corners of this area in the
depth dimension" (A.1). Here a sample is one **slab** of neighbouring slices, anywhere in the body, and each of its ten
crops draws its own first slice in the slab, as it draws its own corner in the plane. A slab as deep as the crops makes
all crops show the same slices; the deeper it is, the less they share, and the more has to be read.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pretrain.config import CropsConfig
from pretrain.data.store import Box
from tapct._utils.transfer import send

TRIES = 10
"""Of `torchvision.transforms.RandomResizedCrop`."""


@dataclass(frozen=True, eq=False)
class CropPlan:
    """The crops of one sample.

    Attributes:
        boxes: (V, 6) int64, one `Box` a view, in voxels of the volume: the global crops, then the local ones.
        flips: (V, 3) bool, mirrored along (z, y, x).
    """

    boxes: np.ndarray
    flips: np.ndarray

    @property
    def slab(self) -> Box:
        """The smallest block that holds all crops."""
        first = self.boxes[:, :3].min(axis=0)
        last = (self.boxes[:, :3] + self.boxes[:, 3:]).max(axis=0)
        return Box(*first.tolist(), *(last - first).tolist())


def plan_crops(
    shape: Sequence[int],
    foreground_slices: tuple[int, int],
    slab_slices: int,
    config: CropsConfig,
    generator: torch.Generator,
) -> CropPlan:
    """Draws where the crops of a sample lie.

    Args:
        shape: Voxels of the volume (z, y, x), at least as deep as the crops.
        foreground_slices: First slice that shows body, and the one after the last.
        slab_slices: Slices of the slab in which all crops lie.
        config: Sizes, scales and chances.
        generator: Of random numbers; always as many are drawn.

    Returns:
        The plan.
    """
    num_views = config.num_global + config.num_local
    # One row a view: flips, place (z, y, x), then area and aspect ratio of every try.
    uniform = torch.rand(num_views + 1, 6 + 2 * TRIES, dtype=torch.float64, generator=generator).numpy()
    slab_depth = min(slab_slices, shape[0])
    slab_start = _slab_start(shape[0], slab_depth, foreground_slices, uniform[-1, 0])
    boxes = np.empty((num_views, 6), dtype=np.int64)
    for view, row in enumerate(uniform[:-1]):
        is_global = view < config.num_global
        depth = crop_depth(config.global_size if is_global else config.local_size)
        scale = config.global_scale if is_global else config.local_scale
        height, width, central = _plane(shape[1], shape[2], scale, config.aspect_ratio, row[6:].reshape(TRIES, 2))
        space = np.array([slab_depth - depth, shape[1] - height, shape[2] - width])
        corner = (row[3:6] * (space + 1)).astype(np.int64)
        if central:
            corner[1:] = space[1:] // 2
        boxes[view] = (slab_start + corner[0], corner[1], corner[2], depth, height, width)
    return CropPlan(boxes, uniform[:-1, :3] < np.array(config.flip_probability))


def crop_depth(size: Sequence[int]) -> int:
    """Returns the slices of a crop of this size, ([D,] H, W)."""
    return size[0] if len(size) == 3 else 1


def cut_crops(
    slabs_hu: torch.Tensor, boxes: torch.Tensor, flips: torch.Tensor, size: Sequence[int], *, antialias: bool
) -> torch.Tensor:
    """Cuts one crop out of every slab and resizes it in the plane, all in one pass.

    Bilinear, corners not aligned, and nothing from outside the crop: the same numbers as
    `torchvision.transforms.v2.functional.resized_crop` slice by slice. With antialiasing an axis that shrinks is
    averaged over the triangle that the benchmark averages scans with (`tapct.volumes.resample`), Pillow's and
    PyTorch's. Without, a pixel is made of the two voxels next to its centre however many it stands for, and noise
    stays: 20 HU of it on 512 x 512 pixels are 13 in a crop of 224, against 6 in what the benchmark feeds an encoder
    that averages.

    Args:
        slabs_hu: (b, D, H, W) of any type; smaller slabs padded at the high end with anything finite.
        boxes: (b, 6) int64, one `Box` a slab, in voxels of the slab, on the CPU.
        flips: (b, 3) bool, on the CPU.
        size: Of the crop, ([D,] H, W).
        antialias: Whether what shrinks is averaged.

    Returns:
        (b, D, H, W) float32; D = 1 for a size of two axes.
    """
    device = slabs_hu.device
    planes = torch.arange(crop_depth(size)).expand(len(boxes), -1)
    planes = torch.where(flips[:, :1], planes.flip(1), planes) + boxes[:, :1]
    samples = torch.arange(len(boxes))
    (rows, of_rows), (columns, of_columns) = (
        _axis(boxes[:, axis], boxes[:, 3 + axis], flips[:, axis], size[axis - 3], slabs_hu.shape[1 + axis], antialias)
        for axis in (1, 2)
    )
    inside = (samples[:, None, None, None], planes[:, :, None, None], rows[:, None, :, None], columns[:, None, None, :])
    stacks = slabs_hu[tuple(send(index, device) for index in inside)].float()
    count, depth, height, width = stacks.shape
    # Depth joins the axis that is not summed over, so that each is one batched product without copies of the weights.
    stacks = torch.bmm(stacks.reshape(count, depth * height, width), _weights(of_columns, width, device).mT)
    stacks = stacks.reshape(count, depth, height, -1).transpose(1, 2).reshape(count, height, -1)
    crops = torch.bmm(_weights(of_rows, height, device), stacks)
    return crops.reshape(count, size[-2], depth, size[-1]).transpose(1, 2).contiguous()


@dataclass(frozen=True, eq=False)
class _Triangles:
    """Along one axis, of which voxels of its box each pixel of a crop is made.

    Attributes:
        centre: (b, size) float64, in voxels of the box.
        half_base: (b,) float64; 1 is linear interpolation.
        length: (b,) int64 voxels of the box.
    """

    centre: torch.Tensor
    half_base: torch.Tensor
    length: torch.Tensor


def _axis(
    first: torch.Tensor, length: torch.Tensor, flip: torch.Tensor, size: int, available: int, antialias: bool
) -> tuple[torch.Tensor, _Triangles]:
    """(b, n): voxels of the slab along one axis, as many as the longest box has, and what pixels are made of."""
    voxels = first[:, None] + torch.arange(int(length.max()))
    shrinks = length.double() / size
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * shrinks[:, None] - 0.5
    half_base = shrinks.clamp(min=1) if antialias else torch.ones_like(shrinks)
    return voxels.clamp(max=available - 1), _Triangles(
        torch.where(flip[:, None], centre.flip(1), centre), half_base, length
    )


def _weights(of: _Triangles, voxels: int, device: torch.device) -> torch.Tensor:
    """(b, size, voxels) float32 on the device: triangles, cut at the faces of the box; each sums to one."""
    centre, half_base, length = (send(t, device) for t in (of.centre, of.half_base, of.length))
    at = torch.arange(voxels, device=device)
    weights = (1 - (at - centre[..., None]).abs() / half_base[:, None, None]).clamp(min=0)
    weights *= (at < length[:, None])[:, None]
    return (weights / weights.sum(-1, keepdim=True)).float()


def _slab_start(depth: int, slab_depth: int, foreground: tuple[int, int], uniform: float) -> int:
    """First slice of the slab: inside the body where it fits; else so that it holds all of the body."""
    first, last = foreground[0], foreground[1] - slab_depth
    low, high = max(min(first, last), 0), min(max(first, last), depth - slab_depth)
    return low + int(uniform * (high - low + 1))


def _plane(
    height: int, width: int, scale: tuple[float, float], aspect_ratio: tuple[float, float], uniform: np.ndarray
) -> tuple[int, int, bool]:
    """Height and width of a crop, and whether it is the central one that follows ten tries in vain.

    Args:
        height: Of the plane.
        width: Of the plane.
        scale: Range of the crop's area over the plane's.
        aspect_ratio: Range of the crop's width over its height.
        uniform: (TRIES, 2) in [0, 1).
    """
    low, high = (math.log(ratio) for ratio in aspect_ratio)
    for for_area, for_ratio in uniform:
        area = (scale[0] + for_area * (scale[1] - scale[0])) * height * width
        ratio = math.exp(low + for_ratio * (high - low))
        rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            return rows, columns, False
    if width / height < aspect_ratio[0]:
        return min(height, round(width / aspect_ratio[0])), width, True
    if width / height > aspect_ratio[1]:
        return height, min(width, round(height * aspect_ratio[1])), True
    return height, width, True
