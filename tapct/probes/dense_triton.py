"""Fused GPU kernels for the dense loss: what `tapct.probes.dense` does with a slab of voxels, in one pass each.

Plain torch goes over a slab's (classes, voxels) several times; here the sums of the loss are one read, and its gradient
one read and one write, in place. No atomics: the same input gives the same bits. fp32 and fp64.

Not run on a GPU yet: held to MONAI by Triton's interpreter, and compiled for CUDA, by tests.
"""

import torch
import triton
import triton.language as tl

TILE = 2048
"""Elements (classes x voxels) that a program holds at a time, 8 a thread: few enough to leave registers for a second
program on the multiprocessor. More from 129 classes on, see `_tile_shape`."""

WARPS = 8

PROGRAMS = 1024
"""Programs that share a slab's sums: a few for each multiprocessor of a large GPU. A constant, so that the order of
summation is the same on all of them."""


def is_interpreted() -> bool:
    """Returns whether Triton interprets kernels on the CPU (TRITON_INTERPRET=1), as tests do."""
    return not isinstance(_sums_kernel, triton.JITFunction)  # triton.knobs is younger than the oldest that is supported


def add_sums(
    voxels: torch.Tensor,
    labels: torch.Tensor,
    cross_entropy: torch.Tensor,
    overlap: torch.Tensor,
    predicted: torch.Tensor,
    present: torch.Tensor,
) -> None:
    """Adds a slab's share to the sums of the loss; see `tapct.probes.dense.add_sums`."""
    voxels, labels = voxels.contiguous(), labels.contiguous()
    classes, n = voxels.shape
    rows, columns = _tile_shape(classes)
    programs = min(PROGRAMS, triton.cdiv(n, columns))
    partial = voxels.new_empty(programs, 4, classes)
    with torch.cuda.device_of(voxels):
        _sums_kernel[(programs,)](voxels, labels, partial, classes, n, programs, rows, columns, num_warps=WARPS)
    sums = partial.sum(dim=0)
    cross_entropy += sums[0].sum()
    overlap += sums[1]
    predicted += sums[2]
    present += sums[3]


def gradient(
    voxels: torch.Tensor, labels: torch.Tensor, everywhere: torch.Tensor, inside: torch.Tensor, count: int
) -> torch.Tensor:
    """Returns the gradient with respect to a slab's logits, in their place; see `tapct.probes.dense.gradient`."""
    voxels, labels = voxels.contiguous(), labels.contiguous()
    classes, n = voxels.shape
    rows, columns = _tile_shape(classes)
    with torch.cuda.device_of(voxels):
        _gradient_kernel[(triton.cdiv(n, columns),)](
            voxels, labels, everywhere, inside, classes, n, count, rows, columns, num_warps=WARPS
        )
    return voxels


def _tile_shape(classes: int) -> tuple[int, int]:
    """Returns the (classes, voxels) of a tile, powers of two; a class's voxels fill at least two memory sectors."""
    rows = triton.next_power_of_2(classes)
    return rows, max(16, min(1024, TILE // rows))


@triton.jit
def _load(
    voxels: tl.tensor,
    labels: tl.tensor,
    start: tl.tensor,
    classes: tl.tensor,
    n: tl.tensor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Loads a tile: its offsets, which of it exists, logits (-inf beyond the classes), where the label is."""
    row = tl.arange(0, ROWS)[:, None]
    column = start + tl.arange(0, COLUMNS)[None, :]
    offset = row.to(tl.int64) * n + column
    exists = (row < classes) & (column < n)
    # Voxels beyond the slab are 0, not -inf, so that their softmax is no NaN.
    x = tl.where(row < classes, tl.load(voxels + offset, mask=exists, other=0.0), float("-inf"))
    label = tl.load(labels + column, mask=column < n, other=0).to(tl.int32)
    return offset, exists, x, exists & (row == label)


@triton.jit
def _sums_kernel(
    voxels: tl.tensor,
    labels: tl.tensor,
    partial: tl.tensor,
    classes: tl.tensor,
    n: tl.tensor,
    programs: tl.tensor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Writes (4, classes) of `partial` per program: cross-entropy, overlap, predicted, present."""
    program = tl.program_id(0)
    start = program.to(tl.int64) * COLUMNS
    # Whole tiles are summed, and over voxels once at the end; this also keeps fp32 sums short.
    cross_entropy = tl.zeros((ROWS, COLUMNS), partial.dtype.element_ty)
    overlap = tl.zeros((ROWS, COLUMNS), partial.dtype.element_ty)
    predicted = tl.zeros((ROWS, COLUMNS), partial.dtype.element_ty)
    present = tl.zeros((ROWS, COLUMNS), partial.dtype.element_ty)
    while start < n:
        _, exists, x, is_label = _load(voxels, labels, start, classes, n, ROWS, COLUMNS)
        x -= tl.max(x, axis=0)[None, :]
        e = tl.exp(x)
        total = tl.sum(e, axis=0)[None, :]
        p = e / total
        cross_entropy += tl.where(is_label, tl.log(total) - x, 0.0)
        overlap += tl.where(is_label, p, 0.0)
        predicted += tl.where(exists, p, 0.0)
        present += tl.where(is_label, 1.0, 0.0)
        start += programs * COLUMNS
    row = tl.arange(0, ROWS)
    out = partial + program * 4 * classes + row
    tl.store(out, tl.sum(cross_entropy, axis=1), mask=row < classes)
    tl.store(out + classes, tl.sum(overlap, axis=1), mask=row < classes)
    tl.store(out + 2 * classes, tl.sum(predicted, axis=1), mask=row < classes)
    tl.store(out + 3 * classes, tl.sum(present, axis=1), mask=row < classes)


@triton.jit
def _gradient_kernel(
    voxels: tl.tensor,
    labels: tl.tensor,
    everywhere: tl.tensor,
    inside: tl.tensor,
    classes: tl.tensor,
    n: tl.tensor,
    count: tl.tensor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Overwrites logits with the gradient of the loss, through the softmax."""
    start = tl.program_id(0).to(tl.int64) * COLUMNS
    offset, exists, x, is_label = _load(voxels, labels, start, classes, n, ROWS, COLUMNS)
    e = tl.exp(x - tl.max(x, axis=0)[None, :])
    p = e / tl.sum(e, axis=0)[None, :]
    row = tl.arange(0, ROWS)[:, None]
    # d(1 - dice)/dp, then dL/dx_k = p_k (g_k - sum_c p_c g_c) + (p_k - [k is the label]) / count.
    g = tl.load(everywhere + row, mask=row < classes, other=0.0)
    g = g + tl.where(is_label, tl.load(inside + row, mask=row < classes, other=0.0), 0.0)
    mean = tl.sum(p * g, axis=0)[None, :]
    out = p * (g - mean) + (p - tl.where(is_label, 1.0, 0.0)) / count
    tl.store(voxels + offset, out, mask=exists)
