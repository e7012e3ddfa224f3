"""The dense part of a segmentation probe: from logits on feature cells to voxels, slab by slab.

Logits live on the feature grid (one vector per cell); voxels only ever exist a slab of slices at a time,
so memory does not grow with the number of slices, and the loss and its gradient come out of the same
two sweeps.
"""

from typing import Any

import torch
import torch.nn.functional as F

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
    to_voxels = to_voxels.to(logits)
    dtype = torch.uint8 if logits.shape[0] <= 256 else torch.int16
    slabs = [
        part(logits[:, cells]).argmax(0).to(dtype)
        for _, cells, part in to_voxels.slabs(slab or _slab(logits, to_voxels))
    ]
    return torch.cat(slabs)


def dice_ce_loss(
    logits: torch.Tensor, target: torch.Tensor, to_voxels: LinearMap, slab: int | None = None
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
    """
    return _DiceCE.apply(logits, target, to_voxels, slab or _slab(logits, to_voxels))


def _slab(logits: torch.Tensor, to_voxels: LinearMap) -> int:
    slice_bytes = logits.shape[0] * to_voxels.y.shape[0] * to_voxels.x.shape[0] * logits.element_size()
    return max(1, SLAB_BYTES.get(logits.device.type, SLAB_BYTES["cpu"]) // slice_bytes)


class _DiceCE(torch.autograd.Function):
    """Two sweeps over the slabs: the first gathers the sums of the loss, the second its gradient."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, target: torch.Tensor, to_voxels: LinearMap, slab: int) -> torch.Tensor:
        classes = logits.shape[0]
        to_voxels = to_voxels.to(logits)
        overlap, predicted, present = (logits.new_zeros(classes) for _ in range(3))
        cross_entropy = logits.new_zeros(())
        for rows, cells, part in to_voxels.slabs(slab):
            labels = target[rows].flatten().long()
            log_p = F.log_softmax(part(logits[:, cells]).flatten(1), dim=0)
            own = log_p.gather(0, labels[None])[0]
            cross_entropy -= own.sum()
            overlap.index_add_(0, labels, own.exp())
            present += torch.bincount(labels, minlength=classes).to(logits)
            predicted += log_p.exp_().sum(dim=1)
        dice = (2 * overlap + SMOOTH) / (predicted + present + SMOOTH)
        loss = cross_entropy / target.numel() + (1 - dice[1:]).mean()
        if ctx.needs_input_grad[0]:
            denominator = predicted + present + SMOOTH
            # d(1 - dice_c)/dp_c at a voxel: `everywhere` at all voxels, plus `inside` where c is the label.
            everywhere = dice / denominator / (classes - 1)
            inside = -2 / denominator / (classes - 1)
            everywhere[0] = inside[0] = 0
            gradient = _gradient(logits, target, to_voxels, slab, everywhere, inside)
            ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None, None


def _gradient(
    logits: torch.Tensor,
    target: torch.Tensor,
    to_voxels: LinearMap,
    slab: int,
    everywhere: torch.Tensor,
    inside: torch.Tensor,
) -> torch.Tensor:
    """Returns the gradient of the loss with respect to `logits`."""
    gradient = torch.zeros_like(logits)
    for rows, cells, part in to_voxels.slabs(slab):
        labels = target[rows].flatten().long()[None]
        voxels = part(logits[:, cells])
        p = F.softmax(voxels.flatten(1), dim=0)
        own = p.gather(0, labels)
        own_weight = inside[labels]
        # Through the softmax: dL/dx_k = p_k (g_k - sum_c p_c g_c), plus (p_k - [k is the label]) / N.
        mean = everywhere @ p + own_weight[0] * own[0]
        g = p * (everywhere[:, None] - mean + 1 / target.numel())
        g.scatter_add_(0, labels, own * own_weight - 1 / target.numel())
        gradient[:, cells] += _transpose(part, g.view_as(voxels))
    return gradient


def _transpose(part: LinearMap, voxels: torch.Tensor) -> torch.Tensor:
    """Applies the transposed map to (K, D, H, W): what each cell contributed to, gathered back."""
    return LinearMap(part.z.T, part.y.T, part.x.T)(voxels)
