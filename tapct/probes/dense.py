"""The dense part of a segmentation probe: from logits on patches to voxels, slab by slab.

Logits live on the feature grid (one vector per patch); voxels only ever exist a slab of slices at a time,
so memory does not grow with the number of slices, and the loss and its gradient come out of the same
two sweeps.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from tapct.errors import TaskError
from tapct.volumes import LinearMap

SLAB_BYTES = {"cpu": 2**23, "cuda": 2**29}
"""Logits held at once: what stays in the cache of a core, or keeps a GPU busy. Beyond rounding, results do
not depend on it."""

SMOOTH = 1e-5
"""Added to numerator and denominator of the soft Dice, as `monai.losses.DiceLoss` does."""


def predict_labels(logits: torch.Tensor, to_voxels: LinearMap, slab: int | None = None) -> torch.Tensor:
    """Returns the most likely class of each voxel.

    Args:
        logits: (K, d, h, w) on the feature grid.
        to_voxels: Interpolation from the feature grid to the voxels.
        slab: Slices computed at a time; by default as many as `SLAB_BYTES` holds.

    Returns:
        (D, H, W) labels, uint8 (int16 from 257 classes on).
    """
    dtype = torch.uint8 if logits.shape[0] <= 256 else torch.int16
    slabs = [
        part(logits[:, patches]).argmax(0).to(dtype)
        for _, patches, part in to_voxels.slabs(slab or _slab(logits, to_voxels), logits)
    ]
    return torch.cat(slabs)


def dice_ce_loss(
    logits: torch.Tensor, target: torch.Tensor, to_voxels: LinearMap, slab: int | None = None, *, fused: bool = False
) -> torch.Tensor:
    """Returns Dice + cross-entropy of trilinearly upsampled logits, differentiable in the logits.

    Soft Dice over softmax probabilities without background (classes absent from the target included, so
    that predicting them costs), plus the mean cross-entropy over voxels: `monai.losses.DiceCELoss` with
    `softmax=True, to_onehot_y=True, include_background=False`, to which a test holds it.

    Args:
        logits: (K, d, h, w) on the feature grid.
        target: (D, H, W) integer labels in [0, K).
        to_voxels: Interpolation from the feature grid to the voxels.
        slab: Slices computed at a time; by default as many as `SLAB_BYTES` holds.
        fused: Whether a slab's voxels are gone over by Triton kernels (CUDA; fp32 or fp64 logits) instead of plain
            torch. Equal but for rounding. Not the default, for their speed has not been measured on a GPU.

    Raises:
        TaskError: If the fused loss is wanted and cannot be had, or its labels are not in [0, K).
    """
    slab = slab or _slab(logits, to_voxels)
    if not fused:
        return _DiceCE.apply(logits, target, to_voxels, slab, add_sums, gradient)
    require_fused(logits.device)
    from tapct.probes import dense_triton

    if logits.dtype not in (torch.float32, torch.float64):
        raise TaskError(f"the fused loss takes logits in fp32 or fp64, not {logits.dtype}; use fused=False")
    low, high = (int(value) for value in target.aminmax())
    if low < 0 or high >= logits.shape[0]:  # the kernels would pass over such voxels without a word
        raise TaskError(f"labels must lie in [0, {logits.shape[0]}), but they lie in [{low}, {high}]")
    return _DiceCE.apply(logits, target, to_voxels, slab, dense_triton.add_sums, dense_triton.gradient)


def require_fused(device: torch.device) -> None:
    """Makes sure that the fused loss can be computed on a device.

    Raises:
        TaskError: If it cannot: the device is no GPU, or Triton is not installed.
    """
    try:
        from tapct.probes.dense_triton import is_interpreted
    except ModuleNotFoundError as error:
        raise TaskError(
            "the fused loss needs Triton, which builds of torch for the CPU come without; install torch for CUDA, or "
            "leave the fused loss off"
        ) from error
    if device.type != "cuda" and not is_interpreted():
        raise TaskError(f"the fused loss runs on a CUDA device, not on {device.type!r}; leave it off there")


def add_sums(
    voxels: torch.Tensor,
    labels: torch.Tensor,
    cross_entropy: torch.Tensor,
    overlap: torch.Tensor,
    predicted: torch.Tensor,
    present: torch.Tensor,
) -> None:
    """Adds a slab's share to the sums that the loss is made of.

    Args:
        voxels: (K, n) logits.
        labels: (n,) integer labels.
        cross_entropy: () sum over voxels.
        overlap: (K,) probability of each class at its own voxels.
        predicted: (K,) probability at all voxels.
        present: (K,) number of its own voxels.
    """
    labels = labels.long()
    log_p = F.log_softmax(voxels, dim=0)
    own = log_p.gather(0, labels[None])[0]
    cross_entropy -= own.sum()
    overlap.index_add_(0, labels, own.exp())
    # Whole numbers, as float32 would lose count; `bincount` would wait for a GPU.
    present += torch.zeros(len(present), dtype=torch.int64, device=labels.device).scatter_add_(
        0, labels, torch.ones_like(labels)
    )
    predicted += log_p.exp_().sum(dim=1)


def gradient(
    voxels: torch.Tensor, labels: torch.Tensor, everywhere: torch.Tensor, inside: torch.Tensor, count: int
) -> torch.Tensor:
    """Returns the gradient of the loss with respect to a slab's logits, whose memory it may take.

    Args:
        voxels: (K, n) logits.
        labels: (n,) integer labels.
        everywhere: (K,) d(1 - dice)/dp at every voxel,
        inside: (K,) and what is added to it where the class is the label.
        count: Voxels of the whole volume, N.
    """
    labels = labels.long()[None]
    p = F.softmax(voxels, dim=0)
    own = p.gather(0, labels)
    own_weight = inside[labels]
    # Through the softmax: dL/dx_k = p_k (g_k - sum_c p_c g_c), plus (p_k - [k is the label]) / N.
    mean = everywhere @ p + own_weight[0] * own[0]
    g = p * (everywhere[:, None] - mean + 1 / count)
    return g.scatter_add_(0, labels, own * own_weight - 1 / count)


def _slab(logits: torch.Tensor, to_voxels: LinearMap) -> int:
    slice_bytes = logits.shape[0] * to_voxels.y.shape[0] * to_voxels.x.shape[0] * logits.element_size()
    return max(1, SLAB_BYTES.get(logits.device.type, SLAB_BYTES["cpu"]) // slice_bytes)


class _DiceCE(torch.autograd.Function):
    """Two sweeps over the slabs: the first gathers the sums of the loss, the second its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        target: torch.Tensor,
        to_voxels: LinearMap,
        slab: int,
        add_sums: Callable[..., None],
        gradient: Callable[..., torch.Tensor],
    ) -> torch.Tensor:
        classes, count = logits.shape[0], target.numel()
        slabs = list(to_voxels.slabs(slab, logits))
        cross_entropy = logits.new_zeros(())
        overlap, predicted, present = (logits.new_zeros(classes) for _ in range(3))
        for rows, patches, part in slabs:
            voxels, labels = part(logits[:, patches]).flatten(1), target[rows].flatten()
            add_sums(voxels, labels, cross_entropy, overlap, predicted, present)
        denominator = predicted + present + SMOOTH
        dice = (2 * overlap + SMOOTH) / denominator
        loss = cross_entropy / count + (1 - dice[1:]).mean()
        if ctx.needs_input_grad[0]:
            everywhere = dice / denominator / (classes - 1)
            inside = -2 / denominator / (classes - 1)
            everywhere[0] = inside[0] = 0
            whole = torch.zeros_like(logits)
            for rows, patches, part in slabs:
                voxels = part(logits[:, patches])
                g = gradient(voxels.flatten(1), target[rows].flatten(), everywhere, inside, count)
                whole[:, patches] += _transpose(part, g.view_as(voxels))
            ctx.save_for_backward(whole)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None, None]:
        (whole,) = ctx.saved_tensors
        return whole * upstream, None, None, None, None, None


def _transpose(part: LinearMap, voxels: torch.Tensor) -> torch.Tensor:
    """Applies the transposed map to (K, D, H, W): what each patch contributed to, gathered back."""
    return LinearMap(part.z.T, part.y.T, part.x.T)(voxels)
