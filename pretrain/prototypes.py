"""The cross-entropy between teacher and student over 65,536 prototypes, without holding the logits of all tokens.

A TAP-B-3D micro-batch of 32 samples has 22,579 masked tokens: 1.5 billion logits a side, 24 GB with their
probabilities and gradients if they were held for the backward pass. Here the rows are taken in chunks, and
the gradients with respect to the bottleneck vectors and the prototypes are accumulated in the forward pass, so that
only one chunk of logits exists at a time. It is exact: the same sums in another order.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class CrossEntropy(NamedTuple):
    """A weighted sum of cross-entropies.

    Attributes:
        loss: Scalar, differentiable.
        teacher_entropy: Mean entropy of the teacher's distributions, in nats; scalar, no gradient.
    """

    loss: Tensor
    teacher_entropy: Tensor


class ChunkTerms(NamedTuple):
    """What one chunk of rows contributes: the summed loss, the summed entropy, the student's logit gradient."""

    loss: Tensor
    entropy: Tensor
    gradient: Tensor


def chunk_terms(
    student_logits: Tensor,
    teacher_logits: Tensor,
    centre: Tensor,
    weights: Tensor,
    inverse_temperatures: Tensor,
) -> ChunkTerms:
    """Computes loss, entropy and gradient of a chunk from its logits; element-wise, so worth compiling.

    Args:
        student_logits: Cosines with the student's prototypes, ``(R, P)``, float32 or better.
        teacher_logits: The same of the teacher.
        centre: The teacher's centre, ``(P,)``.
        weights: Weight of each row, ``(R,)``.
        inverse_temperatures: 1 / student temperature and 1 / teacher temperature, ``(2,)``.

    Returns:
        ``sum_r w_r H(p_r, q_r)``, ``sum_r H(p_r)`` and ``d loss / d student_logits``, where
        ``p = softmax((teacher - centre) / T_t)`` and ``q = softmax(student / T_s)``.
    """
    # Nothing in place: PyTorch 2.11 compiled these lines with mul_, sub_ and exp_ to a wrong loss (on a CPU).
    log_q = torch.log_softmax(student_logits * inverse_temperatures[0], dim=-1)
    log_p = torch.log_softmax((teacher_logits - centre) * inverse_temperatures[1], dim=-1)
    p = log_p.exp()
    loss = -(weights * (p * log_q).sum(-1)).sum()
    entropy = -(p * log_p).sum()
    return ChunkTerms(loss, entropy, (log_q.exp() - p) * (weights * inverse_temperatures[0]).unsqueeze(-1))


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
    terms: Callable[..., ChunkTerms] = chunk_terms,
) -> CrossEntropy:
    """Sums the cross-entropies of aligned rows, ``sum_r w_r H(p_r, q_r)``.

    Args:
        student: Bottleneck vectors of the student, ``(R, d)``; differentiable.
        student_prototypes: ``(P, d)``; differentiable.
        teacher: Bottleneck vectors of the teacher, ``(R, d)``: row r is the target of the student's row r.
        teacher_prototypes: ``(P, d)``.
        centre: Subtracted from the teacher's logits, ``(P,)``.
        weights: Weight of each row, ``(R,)``.
        student_temperature: ``T_s``.
        teacher_temperature: ``T_t``.
        chunk_rows: Rows whose logits exist at one time; None holds all and leaves the gradient to autograd,
            which is the plain form.
        matmul_dtype: Precision of the matrix products, such as bfloat16; None for that of the vectors. Logits,
            softmax and sums stay in the precision of the vectors.
        terms: `chunk_terms`, or the same compiled.

    Returns:
        The loss and the teacher's mean entropy; both 0 where there are no rows.
    """
    if chunk_rows is None:
        return _plain(
            student, student_prototypes, teacher, teacher_prototypes, centre, weights, student_temperature,
            teacher_temperature,
        )  # fmt: skip
    inverse = torch.stack(
        [student.new_full((), 1 / temperature) for temperature in (student_temperature, teacher_temperature)]
    )
    settings = (centre, weights, inverse, chunk_rows, matmul_dtype or student.dtype, terms)
    return CrossEntropy(*_Chunked.apply(student, student_prototypes, teacher, teacher_prototypes, *settings))


def sum_of_logits(vectors: Tensor, prototypes: Tensor, chunk_rows: int | None) -> Tensor:
    """Sums the logits of all rows, ``(P,)``, by computing them: the plain way to the centre."""
    total = prototypes.new_zeros(len(prototypes))
    for rows in vectors.split(chunk_rows or max(1, len(vectors))):
        total += (rows @ prototypes.t()).sum(0)
    return total


def _plain(
    student: Tensor, student_prototypes: Tensor, teacher: Tensor, teacher_prototypes: Tensor, centre: Tensor,
    weights: Tensor, student_temperature: float, teacher_temperature: float,
) -> CrossEntropy:  # fmt: skip
    """Holds all logits, in whatever precision autocast chooses for the products."""
    dtype = student.dtype
    with torch.no_grad():
        log_p = torch.log_softmax(((teacher @ teacher_prototypes.t()).to(dtype) - centre) / teacher_temperature, dim=-1)
    log_q = torch.log_softmax((student @ student_prototypes.t()).to(dtype) / student_temperature, dim=-1)
    loss = -(weights * (log_p.exp() * log_q).sum(-1)).sum()
    return CrossEntropy(loss, -(log_p.exp() * log_p).sum() / max(1, len(student)))


class _Chunked(torch.autograd.Function):
    """The loss with its gradient computed in the forward pass, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, student_prototypes: Tensor, teacher: Tensor, teacher_prototypes: Tensor,
        centre: Tensor, weights: Tensor, inverse: Tensor, chunk_rows: int, dtype: torch.dtype,
        terms: Callable[..., ChunkTerms],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        loss, entropy = student.new_zeros(()), student.new_zeros(())
        d_student, d_prototypes = torch.empty_like(student), torch.zeros_like(student_prototypes)
        columns, targets = student_prototypes.to(dtype), teacher_prototypes.to(dtype)
        with torch.autocast(student.device.type, enabled=False):
            for start in range(0, len(student), chunk_rows):
                rows = slice(start, start + chunk_rows)
                vectors = student[rows].to(dtype)
                chunk = terms(
                    _product(vectors, columns.t(), student.dtype),
                    _product(teacher[rows].to(dtype), targets.t(), student.dtype),
                    centre,
                    weights[rows],
                    inverse,
                )
                loss += chunk.loss
                entropy += chunk.entropy
                gradient = chunk.gradient.to(dtype)
                d_student[rows] = _product(gradient, columns, student.dtype)
                d_prototypes += _product(gradient.t(), vectors, student.dtype)
        ctx.save_for_backward(d_student, d_prototypes)
        entropy /= max(1, len(student))
        ctx.mark_non_differentiable(entropy)
        return loss, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        d_student, d_prototypes = ctx.saved_tensors
        return d_student * gradients[0], d_prototypes * gradients[0], *[None] * 8


def _product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Multiplies two matrices and returns the sums, which are in float32 or better, unrounded where it can.

    A cosine in bfloat16 is off by up to 0.002, which at a temperature of 0.04 moves a probability by 5 %.
    """
    if a.dtype != dtype and a.is_cuda:
        return torch.mm(a, b, out_dtype=dtype)
    if a.dtype != dtype and dtype == torch.float32:
        return torch.mm(a.float(), b.float())  # a CPU has no such product; the inputs are rounded all the same
    return torch.mm(a, b)
