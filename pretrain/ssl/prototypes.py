"""The cross-entropy between teacher and student over 65,536 prototypes, without holding the logits of all tokens.

A TAP-B-3D micro-batch of 32 samples has 22,579 masked tokens: 1.5 billion logits a side, 24 GB with their
probabilities and gradients if they were held for the backward pass. Here the rows are taken in chunks, and
the gradients with respect to the bottleneck vectors and the prototypes are accumulated in the forward pass, so that
only one chunk of logits exists at a time. It is exact: the same sums in another order.

Prototypes are handed in as they are trained, vectors of any length of which only the direction counts. Their lengths
divide the logits, so that no second matrix of their size (67 MB) is made, and one, their gradient, is held for the
backward pass. (Where their lengths are trained, too, they count, and that second matrix is made.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pretrain.ssl.heads import unit


class CrossEntropy(NamedTuple):
    """A weighted sum of cross-entropies.

    Attributes:
        loss: Scalar, differentiable.
        teacher_entropy: Mean entropy of the teacher's distributions, in nats; scalar, no gradient.
    """

    loss: Tensor
    teacher_entropy: Tensor


class ChunkTerms(NamedTuple):
    """What one chunk of rows contributes: the summed loss, the summed entropy."""

    loss: Tensor
    entropy: Tensor


def chunk_terms(
    gradient: Tensor,
    student: Tensor,
    teacher: Tensor,
    weights: Tensor,
    student_scale: Tensor,
    teacher_scale: Tensor,
    shift: Tensor,
) -> ChunkTerms:
    """Computes loss, entropy and gradient of a chunk from its products; element-wise, so worth compiling.

    Args:
        gradient: ``(R, P)``; receives ``d loss / d student``, in its own precision.
        student: Products of the student's vectors and prototypes, ``(R, P)``, float32 or better.
        teacher: The same of the teacher.
        weights: Weight of each row, ``(R,)``.
        student_scale: What makes a product a logit: 1 / (length of the prototype x temperature), ``(P,)``.
        teacher_scale: The same of the teacher.
        shift: The teacher's centre / its temperature, ``(P,)``.

    Returns:
        ``sum_r w_r H(p_r, q_r)`` and ``sum_r H(p_r)``, where ``p = softmax(teacher x scale - shift)`` and
        ``q = softmax(student x scale)``.
    """
    # Nothing else in place: PyTorch 2.11 compiled such lines with mul_, sub_ and exp_ to a wrong loss (on a CPU).
    # One exponential an element, where two log-softmaxes and their exponentials would take two.
    s, t = student * student_scale, teacher * teacher_scale - shift
    s, t = s - s.amax(-1, keepdim=True), t - t.amax(-1, keepdim=True)
    exp_s, exp_t = s.exp(), t.exp()
    sum_s, sum_t = exp_s.sum(-1, keepdim=True), exp_t.sum(-1, keepdim=True)
    cross = sum_s.log() - (exp_t * s).sum(-1, keepdim=True) / sum_t
    entropy = sum_t.log() - (exp_t * t).sum(-1, keepdim=True) / sum_t
    weights = weights.unsqueeze(-1)
    gradient.copy_((exp_s / sum_s - exp_t / sum_t) * (weights * student_scale))
    return ChunkTerms((weights * cross).sum(), entropy.sum())


def cross_entropy(
    student: Tensor,
    student_prototypes: Tensor,
    teacher: Tensor,
    teacher_prototypes: Tensor,
    centre: Tensor,
    weights: Tensor,
    *,
    student_temperature: float,
    teacher_temperature: float,
    chunk_rows: int | None,
    matmul_dtype: torch.dtype | None = None,
    lengths_count: bool = False,
    terms: Callable[..., ChunkTerms] = chunk_terms,
) -> CrossEntropy:
    """Sums the cross-entropies of aligned rows, ``sum_r w_r H(p_r, q_r)``.

    Args:
        student: Bottleneck vectors of the student, ``(R, d)``; differentiable.
        student_prototypes: ``(P, d)``, not yet of length 1; differentiable.
        teacher: Bottleneck vectors of the teacher, ``(R, d)``: row r is the target of the student's row r.
        teacher_prototypes: ``(P, d)``, not yet of length 1.
        centre: Subtracted from the teacher's logits, ``(P,)``.
        weights: Weight of each row, ``(R,)``.
        student_temperature: ``T_s``.
        teacher_temperature: ``T_t``.
        chunk_rows: Rows whose logits exist at one time; None holds all and leaves the gradient to autograd,
            which is the plain form.
        matmul_dtype: Precision of the matrix products, such as bfloat16; None for that of the vectors. Logits,
            softmax and sums stay in the precision of the vectors.
        lengths_count: Whether logits are products with the prototypes as they are; else with their directions.
        terms: `chunk_terms`, or the same compiled.

    Returns:
        The loss and the teacher's mean entropy; both 0 where there are no rows.
    """
    if chunk_rows is None:
        return _unfused(
            student, student_prototypes, teacher, teacher_prototypes, centre, weights, student_temperature,
            teacher_temperature, lengths_count,
        )  # fmt: skip
    temperatures = (student_temperature, teacher_temperature)
    settings = (centre, weights, temperatures, chunk_rows, matmul_dtype or student.dtype, lengths_count, terms)
    return CrossEntropy(*_Chunked.apply(student, student_prototypes, teacher, teacher_prototypes, *settings))


def sum_of_logits(vectors: Tensor, prototypes: Tensor, chunk_rows: int | None) -> Tensor:
    """Sums the logits of all rows, ``(P,)``, by computing them: the plain way to the centre."""
    total = prototypes.new_zeros(len(prototypes))
    for rows in vectors.split(chunk_rows or max(1, len(vectors))):
        total += (rows @ prototypes.t()).sum(0)
    return total


def _unfused(
    student: Tensor, student_prototypes: Tensor, teacher: Tensor, teacher_prototypes: Tensor, centre: Tensor,
    weights: Tensor, student_temperature: float, teacher_temperature: float, lengths_count: bool,
) -> CrossEntropy:  # fmt: skip
    """Holds all logits, in whatever precision autocast chooses for the products."""
    dtype = student.dtype
    if not lengths_count:
        student_prototypes, teacher_prototypes = unit(student_prototypes), unit(teacher_prototypes)
    with torch.no_grad():
        teacher_logits = (teacher @ teacher_prototypes.t()).to(dtype)
        log_p = torch.log_softmax((teacher_logits - centre) / teacher_temperature, dim=-1)
    log_q = torch.log_softmax((student @ student_prototypes.t()).to(dtype) / student_temperature, dim=-1)
    loss = -(weights * (log_p.exp() * log_q).sum(-1)).sum()
    return CrossEntropy(loss, -(log_p.exp() * log_p).sum() / max(1, len(student)))


class _Chunked(torch.autograd.Function):
    """The loss with its gradient computed in the forward pass, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, student_prototypes: Tensor, teacher: Tensor, teacher_prototypes: Tensor,
        centre: Tensor, weights: Tensor, temperatures: tuple[float, float], chunk_rows: int, dtype: torch.dtype,
        lengths_count: bool, terms: Callable[..., ChunkTerms],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        columns, targets = student_prototypes.to(dtype), teacher_prototypes.to(dtype)
        vectors_of = (student_prototypes, teacher_prototypes)
        lengths, teacher_lengths = (_ones(v) if lengths_count else _lengths(v) for v in vectors_of)
        scales = (1 / (lengths * temperatures[0]), 1 / (teacher_lengths * temperatures[1]), centre / temperatures[1])
        loss, entropy = student.new_zeros(()), student.new_zeros(())
        d_student, d_prototypes = torch.empty_like(student), torch.zeros_like(student_prototypes)
        with torch.autocast(student.device.type, enabled=False):
            size = (min(chunk_rows, len(student)), len(columns))
            gradients = student.new_empty(size, dtype=dtype)
            # Products of another precision come in memory of their own.
            buffers = [student.new_empty(size) if dtype == student.dtype else None for _ in range(2)]
            for start in range(0, len(student), chunk_rows):
                rows = slice(start, start + chunk_rows)
                vectors = student[rows].to(dtype)
                gradient = gradients[: len(vectors)]
                chunk = terms(
                    gradient,
                    _product(vectors, columns.t(), student.dtype, buffers[0]),
                    _product(teacher[rows].to(dtype), targets.t(), student.dtype, buffers[1]),
                    weights[rows],
                    *scales,
                )
                loss += chunk.loss
                entropy += chunk.entropy
                d_student[rows] = _product(gradient, columns, student.dtype)
                if dtype == student.dtype:
                    d_prototypes.addmm_(gradient.t(), vectors)
                else:
                    d_prototypes += _product(gradient.t(), vectors, student.dtype)
        if not lengths_count:
            _keep_lengths_(d_prototypes, student_prototypes, lengths)
        ctx.save_for_backward(d_student, d_prototypes)
        entropy /= max(1, len(student))
        ctx.mark_non_differentiable(entropy)
        return loss, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        d_student, d_prototypes = ctx.saved_tensors
        # In place: nothing goes backward twice.
        return d_student * gradients[0], d_prototypes.mul_(gradients[0]), *[None] * 9


def _lengths(vectors: Tensor) -> Tensor:
    """Returns the lengths of the rows, as `unit` divides by them."""
    return torch.linalg.vector_norm(vectors, dim=-1).clamp(min=1e-12)


def _ones(vectors: Tensor) -> Tensor:
    return vectors.new_ones(len(vectors))


def _keep_lengths_(gradient: Tensor, vectors: Tensor, lengths: Tensor) -> None:
    """Takes from a gradient, in place, what lies along the vectors: the loss does not depend on their lengths."""
    # In pieces, so that the products are small.
    for rows, directions, length in zip(*(x.split(8192) for x in (gradient, vectors, lengths)), strict=True):
        along = (rows * directions).sum(-1) / length.square()
        rows.addcmul_(directions, along.unsqueeze(-1), value=-1)


def _product(a: Tensor, b: Tensor, dtype: torch.dtype, buffer: Tensor | None = None) -> Tensor:
    """Multiplies two matrices and returns the sums, which are in float32 or better, unrounded where it can.

    Into the first rows of the buffer, if there is one and if the precisions agree: a CPU takes longer to find new
    memory than to fill it.

    A cosine in bfloat16 is off by up to 0.002, which at a temperature of 0.04 moves a probability by 5 %.
    """
    if a.dtype != dtype and a.is_cuda:
        return torch.mm(a, b, out_dtype=dtype)
    if a.dtype != dtype and dtype == torch.float32:
        return torch.mm(a.float(), b.float())  # a CPU has no such product; the inputs are rounded all the same
    return torch.mm(a, b, out=None if buffer is None else buffer[: len(a)])
