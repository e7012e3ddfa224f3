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
import torch.nn.functional as F

from pretrain.config import CropsConfig
from pretrain.store import Box

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


def cut_crops(slabs_hu: torch.Tensor, boxes: torch.Tensor, flips: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Cuts one crop out of every slab and resizes it in the plane, all in one pass.

    Bilinear, corners not aligned, no antialiasing, and nothing from outside the crop: the same numbers as
    `torchvision.transforms.v2.functional.resized_crop(antialias=False)` slice by slice, and the same interpolation as
    the encoders' own resizing of scans.

    Args:
        slabs_hu: (b, D, H, W) of any type; smaller slabs padded at the high end with anything.
        boxes: (b, 6) int64, one `Box` a slab, in voxels of the slab, on the CPU.
        flips: (b, 3) bool, on the CPU.
        size: Of the crop, ([D,] H, W).

    Returns:
        (b, D, H, W) float32; D = 1 for a size of two axes.
    """
    device = slabs_hu.device
    planes = torch.arange(crop_depth(size)).expand(len(boxes), -1)
    planes = torch.where(flips[:, :1], planes.flip(1), planes) + boxes[:, :1]
    samples = torch.arange(len(boxes))[:, None]
    stacks = slabs_hu[send(samples, device), send(planes, device)].float()
    grid = torch.empty(len(boxes), size[-2], size[-1], 2, device=device)
    rows = _source(boxes[:, 1], boxes[:, 4], flips[:, 1], size[-2])
    columns = _source(boxes[:, 2], boxes[:, 5], flips[:, 2], size[-1])
    # In the units of grid_sample: -1 and 1 are the centres of the first and the last voxel.
    height, width = (max(length - 1, 1) for length in slabs_hu.shape[-2:])
    grid[..., 0] = send(2 * columns / width - 1, device)[:, None, :]
    grid[..., 1] = send(2 * rows / height - 1, device)[:, :, None]
    return F.grid_sample(stacks, grid, mode="bilinear", padding_mode="border", align_corners=True)


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Moves a small tensor from the CPU to a device without waiting for it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _source(first: torch.Tensor, length: torch.Tensor, flip: torch.Tensor, size: int) -> torch.Tensor:
    """(b, size): where along an axis each pixel of a crop is read, in voxels of the slab."""
    pixel = torch.arange(size, dtype=torch.float64)
    inside = (pixel + 0.5) * length[:, None] / size - 0.5
    inside = torch.minimum(inside.clamp(min=0), (length - 1)[:, None].double())
    return first[:, None] + torch.where(flip[:, None], inside.flip(1), inside)


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
