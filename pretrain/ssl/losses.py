"""DINO, iBOT and KoLeo as in DINOv2 (Oquab et al., 2024), on bottleneck vectors instead of logits.

The row-wise cross-entropy is handed in (`CrossEntropyOf`), bound to a pair of heads, a centre and temperatures.
Tensors of crops are view-major: all samples of view 0 first.

What the values mean. A student that guesses uniformly among P prototypes has a DINO loss of ln P (11.1 at
65,536; 16/18 of it in the local part, 2/18 in the global) and an iBOT loss of ln P / 2, for the images without a
mask count in its divisor. A fresh run starts below that, because the teacher gives every crop the same few
prototypes; once the centre has taken that away the DINO loss rises to nearly ln P, with the teacher's entropy, and
then falls as crops come apart. So a loss that rises in the first hundreds of steps is healthy, one that stays at
ln P for thousands is collapse, and the total is no measure of progress between runs. KoLeo, summed over two
views, starts near 20 to 30, where all CLS tokens nearly coincide, and falls to about 0.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from pretrain.ssl.prototypes import CrossEntropy

CrossEntropyOf = Callable[[Tensor, Tensor, Tensor], CrossEntropy]
"""Maps student rows ``(R, d)``, teacher rows ``(R, d)`` and weights ``(R,)`` to their cross-entropy."""


def num_dino_terms(num_local: int) -> int:
    """Counts the pairs of a student view and another teacher view, of two global and some local views.

    Both parts of the DINO loss are divided by this number, 2 + 2 x 8 = 18 in the recipe.
    """
    return 2 + 2 * num_local


def dino_local_loss(cross_entropy: CrossEntropyOf, student: Tensor, teacher: Tensor) -> CrossEntropy:
    """Compares every local view with both global views of its sample.

    Args:
        cross_entropy: The row-wise loss.
        student: Bottleneck vectors of the local views' CLS tokens, ``(V b, d)``.
        teacher: Those of the two global views, ``(2 b, d)``.
    """
    samples = len(teacher) // 2
    num_local = len(student) // samples
    first, second = (view.repeat(num_local, 1) for view in teacher.split(samples))
    rows = torch.cat((student, student))
    weights = student.new_full((len(rows),), 1 / (samples * num_dino_terms(num_local)))
    return cross_entropy(rows, torch.cat((first, second)), weights)


def dino_global_loss(cross_entropy: CrossEntropyOf, student: Tensor, teacher: Tensor, num_local: int) -> CrossEntropy:
    """Compares each global view with the other one of its sample.

    Args:
        cross_entropy: The row-wise loss.
        student: Bottleneck vectors of the global views' CLS tokens, ``(2 b, d)``.
        teacher: Those of the same views, ``(2 b, d)``.
        num_local: Local views a sample; they share the divisor.
    """
    samples = len(teacher) // 2
    weights = student.new_full((len(student),), 1 / (samples * num_dino_terms(num_local)))
    return cross_entropy(student, teacher.roll(samples, 0), weights)


def ibot_weights(masks: Tensor, patches: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Weighs the masked patches so that each masked image counts the same.

    The sum is divided by all images, masked or not, as in DINOv2: with half of them masked, the loss is half
    the mean over the masked ones.

    Args:
        masks: bool ``(I, N)``, the masked patches of ``I`` images.
        patches: Their ascending indices into the ``I N`` patches, ``(M,)``.
        dtype: Of the result.

    Returns:
        ``1 / (masked patches of the image x I)`` for each masked patch, ``(M,)``.
    """
    counts = masks.sum(1).clamp(min=1)
    return 1 / (counts[patches // masks.shape[1]].to(dtype) * len(masks))


def koleo_loss(cls: Tensor) -> Tensor:
    """Pushes each vector away from its nearest neighbour: the mean of ``-ln(distance + 1e-8)``.

    Args:
        cls: CLS tokens of one view, before the head, ``(b, C)``, in any precision; computed in float32 or better.

    Returns:
        Scalar; 0 for a single sample, which has no neighbour.
    """
    with torch.autocast(cls.device.type, enabled=False):
        unit = cls.to(torch.promote_types(cls.dtype, torch.float32))
        if len(cls) < 2:
            return unit.sum() * 0
        unit = functional.normalize(unit, dim=-1, eps=1e-8)
        with torch.no_grad():
            # Below every cosine: at -1, two opposite samples may each be their own neighbour, by a tie or by rounding.
            nearest = (unit @ unit.t()).fill_diagonal_(-2).argmax(dim=1)
        distances = functional.pairwise_distance(unit, unit[nearest], p=2, eps=1e-8)
        return -(distances + 1e-8).log().mean()
