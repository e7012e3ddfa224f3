"""Every loss against DINOv2's definitions, written out in float64; the chunked form against the naive one."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pretrain.ssl import losses
from pretrain.ssl.prototypes import chunk_terms, cross_entropy, sum_of_logits
from tests.vit.helpers import noise

R, D, P = 23, 8, 31
STUDENT_T, TEACHER_T = 0.1, 0.05


def unit(*shape: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(noise(*shape, seed=seed, dtype=torch.float64), dim=-1)


@pytest.fixture
def rows() -> dict[str, torch.Tensor]:
    return {
        "student": unit(R, D, seed=1).requires_grad_(),
        "student_prototypes": noise(P, D, seed=2, dtype=torch.float64).requires_grad_(),
        "teacher": unit(R, D, seed=3),
        "teacher_prototypes": noise(P, D, seed=4, dtype=torch.float64),
        "centre": noise(P, seed=5, dtype=torch.float64) * 0.1,
        "weights": noise(R, seed=6, dtype=torch.float64).abs(),
    }


def naive(student, student_prototypes, teacher, teacher_prototypes, centre, weights):
    """The formula, token by token."""
    total, entropy = 0.0, 0.0
    student_prototypes = student_prototypes / student_prototypes.square().sum(1, keepdim=True).sqrt()
    teacher_prototypes = teacher_prototypes / teacher_prototypes.square().sum(1, keepdim=True).sqrt()
    for r in range(len(student)):
        logits = (teacher_prototypes @ teacher[r] - centre) / TEACHER_T
        p = logits.exp() / logits.exp().sum()
        s = student_prototypes @ student[r] / STUDENT_T
        log_q = s - s.exp().sum().log()
        total = total - weights[r] * (p * log_q).sum()
        entropy = entropy - (p * p.log()).sum() / len(student)
    return total, entropy


def run(rows, chunk_rows, **options):
    options = {"student_temperature": STUDENT_T, "teacher_temperature": TEACHER_T, **options}
    return cross_entropy(*rows.values(), chunk_rows=chunk_rows, **options)


@pytest.mark.parametrize("chunk_rows", [None, 1, 5, 23, 100])
def test_values_and_gradients_equal_the_formula(rows, chunk_rows):
    expected, entropy = naive(**rows)
    inputs = (rows["student"], rows["student_prototypes"])
    wanted = torch.autograd.grad(3 * expected, inputs)
    loss, teacher_entropy = run(rows, chunk_rows)
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(teacher_entropy, entropy, rtol=1e-13, atol=0)
    assert not teacher_entropy.requires_grad
    for ours, theirs in zip(torch.autograd.grad(3 * loss, inputs), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("chunk_rows", [None, 1, 5, 100])
def test_lengths_that_count_are_part_of_the_formula(rows, chunk_rows):
    logits = {side: rows[side] @ rows[f"{side}_prototypes"].t() for side in ("student", "teacher")}
    p = torch.softmax((logits["teacher"] - rows["centre"]) / TEACHER_T, dim=-1)
    expected = -(rows["weights"][:, None] * p * torch.log_softmax(logits["student"] / STUDENT_T, dim=-1)).sum()
    inputs = (rows["student"], rows["student_prototypes"])
    loss, _ = run(rows, chunk_rows, lengths_count=True)
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0)
    wanted = torch.autograd.grad(expected, inputs)
    for ours, theirs in zip(torch.autograd.grad(loss, inputs), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


class Largest(TorchDispatchMode):
    """Records the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def test_logits_of_all_tokens_never_exist():
    tokens, prototypes, chunk = 64, 500, 8
    arguments = [unit(tokens, D, seed=1).requires_grad_(), unit(prototypes, D, seed=2).requires_grad_()]
    arguments += [unit(tokens, D, seed=3), unit(prototypes, D, seed=4), torch.zeros(prototypes), torch.ones(tokens)]
    largest = {}
    for chunk_rows in (None, chunk):
        with Largest() as seen:
            loss, _ = cross_entropy(
                *arguments, student_temperature=STUDENT_T, teacher_temperature=TEACHER_T, chunk_rows=chunk_rows
            )
            loss.backward()
        largest[chunk_rows] = seen.numel
    assert largest[chunk] <= chunk * prototypes
    assert largest[None] >= tokens * prototypes, "the plain form holds them, or this test sees nothing"


class Made(TorchDispatchMode):
    """Records what operations make tensors of a shape and precision."""

    def __init__(self, shape, dtype):
        super().__init__()
        self.wanted, self.names = (shape, dtype), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and (tuple(out.shape), out.dtype) == self.wanted:
            self.names.append(func.__name__.split(".")[0])
        return out


def test_no_buffer_is_made_that_the_products_do_not_use():
    """In bfloat16 products come in memory of their own, 1 GiB of float32 at the recipe's size."""
    prototypes, chunk = 50, 8
    arguments = [unit(16, D, seed=1), unit(prototypes, D, seed=2), unit(16, D, seed=3), unit(prototypes, D, seed=4)]
    arguments = [tensor.float() for tensor in arguments] + [torch.zeros(prototypes), torch.ones(16)]
    made = {}
    for dtype in (torch.float32, torch.bfloat16):
        with Made((chunk, prototypes), torch.float32) as made[dtype]:
            cross_entropy(
                *arguments, student_temperature=0.1, teacher_temperature=0.05, chunk_rows=chunk, matmul_dtype=dtype
            )
    assert made[torch.float32].names.count("new_empty") == 3, "two for the products, one for the gradient"
    assert "new_empty" not in made[torch.bfloat16].names


def test_no_rows_give_nothing(rows):
    empty = {name: value[:0] if name in {"student", "teacher", "weights"} else value for name, value in rows.items()}
    for chunk_rows in (None, 4):
        loss, entropy = run(empty, chunk_rows)
        assert (loss.item(), entropy.item()) == (0, 0)
        (gradient,) = torch.autograd.grad(loss, rows["student_prototypes"])
        assert not gradient.any()


def test_bfloat16_products_stay_close_and_everything_else_is_float32(rows):
    single = {name: value.detach().float() for name, value in rows.items()}
    for name in ("student", "student_prototypes"):
        single[name].requires_grad_()
    exact = run(single, 5)
    loss, entropy = run(single, 5, matmul_dtype=torch.bfloat16)
    assert loss.dtype == entropy.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.loss.item(), rel=0.01)
    inputs = (single["student"], single["student_prototypes"])
    for ours, theirs in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(exact.loss, inputs), strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.03 * theirs.norm()


def test_mean_bottleneck_vector_gives_the_mean_logits():
    vectors, prototypes = unit(R, D, seed=1), unit(P, D, seed=2)
    expected = torch.stack([prototypes @ vector for vector in vectors]).sum(0)
    torch.testing.assert_close(prototypes @ vectors.sum(0), expected, rtol=0, atol=1e-13)
    for chunk_rows in (None, 4):
        torch.testing.assert_close(sum_of_logits(vectors, prototypes, chunk_rows), expected, rtol=0, atol=1e-13)


@pytest.mark.slow
def test_compiled_terms_equal_the_plain_ones():
    arguments = [unit(R, P, seed=1), unit(R, P, seed=2), torch.ones(R).double()]
    arguments += [noise(P, seed=seed, dtype=torch.float64).abs() * 10 for seed in (3, 4, 5)]
    results = []
    for terms in (chunk_terms, torch.compile(chunk_terms)):
        gradient = torch.empty_like(arguments[0])
        results.append((*terms(gradient, *[value.clone() for value in arguments]), gradient))
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)


# The losses, with the plain formula of the row-wise cross-entropy between two matrices of logits.
def h(teacher_logits, student_logits):
    return -(torch.softmax(teacher_logits, -1) * torch.log_softmax(student_logits, -1)).sum(-1)


def identity_cross_entropy(student, teacher, weights):
    """Takes the rows for logits: the losses only pair and weigh rows."""
    return losses.CrossEntropy((weights * h(teacher, student)).sum(), torch.zeros(()))


B, LOCAL = 4, 3


def test_dino_terms_pair_each_view_with_the_others_and_share_a_divisor():
    student_local, student_global, teacher = (
        noise(views, B, P, seed=views, dtype=torch.float64) for views in (LOCAL, 2, 7)
    )
    teacher = teacher[:2]
    divisor = 2 + 2 * LOCAL
    local = sum(h(teacher[t], student_local[v]).mean() for t in range(2) for v in range(LOCAL)) / divisor
    both = (h(teacher[1], student_global[0]).mean() + h(teacher[0], student_global[1]).mean()) / divisor
    flat = [views.flatten(0, 1) for views in (student_local, student_global, teacher)]
    computed = losses.dino_local_loss(identity_cross_entropy, flat[0], flat[2])
    torch.testing.assert_close(computed.loss, local, rtol=1e-13, atol=0)
    computed = losses.dino_global_loss(identity_cross_entropy, flat[1], flat[2], LOCAL)
    torch.testing.assert_close(computed.loss, both, rtol=1e-13, atol=0)


def test_ibot_averages_within_images_then_over_all_images():
    student, teacher = (noise(5, 6, P, seed=seed, dtype=torch.float64) for seed in (1, 2))
    masks = torch.zeros(5, 6, dtype=torch.bool)
    masks[0, [1, 4]] = masks[3, [0, 2, 3, 4, 5]] = masks[4, 2] = True
    expected = sum(h(teacher[i][masks[i]], student[i][masks[i]]).mean() for i in (0, 3, 4)) / 5
    patches = masks.flatten().nonzero().squeeze(1)
    weights = losses.ibot_weights(masks, patches, torch.float64)
    rows = [tokens.flatten(0, 1)[patches] for tokens in (student, teacher)]
    torch.testing.assert_close(identity_cross_entropy(*rows, weights).loss, expected, rtol=1e-13, atol=0)


def brute_force_koleo(vectors):
    unit = [v / max(v.norm(), 1e-8) for v in vectors]
    total = 0.0
    for i, one in enumerate(unit):
        distances = [((one - other + 1e-8) ** 2).sum().sqrt() for j, other in enumerate(unit) if j != i]
        total = total - (min(distances) + 1e-8).log()
    return total / len(unit)


@pytest.mark.parametrize("samples", [2, 3, 7])
def test_koleo_equals_brute_force_with_gradient(samples):
    vectors = noise(samples, 5, dtype=torch.float64).requires_grad_()
    expected, computed = brute_force_koleo(vectors), losses.koleo_loss(vectors)
    torch.testing.assert_close(computed, expected, rtol=1e-13, atol=0)
    ours, theirs = (torch.autograd.grad(loss, vectors)[0] for loss in (computed, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(4))
def test_two_opposite_samples_are_each_other_s_neighbours(seed, dtype):
    """Whatever rounding makes of their cosine of -1; a sample that is its own neighbour has a loss of 18."""
    vector = noise(1, 50, seed=seed, dtype=dtype)
    loss = losses.koleo_loss(torch.cat((vector, -vector)))
    assert loss.item() == pytest.approx(-math.log(2), abs=1e-6)


def test_koleo_of_samples_that_all_point_apart_or_are_nearly_nothing():
    corners = torch.tensor([[1.0, 0, 0], [-0.5, 0.9, 0], [-0.5, -0.9, 0.1], [5e-9, 0, 0]]).double()
    for vectors in (corners[:3], corners):
        torch.testing.assert_close(losses.koleo_loss(vectors), brute_force_koleo(vectors), rtol=1e-13, atol=0)


def test_the_nearest_neighbour_is_found_in_float32_in_autocast():
    """The cosines of 0.9990 and 0.9986 are one number in bfloat16."""
    angles = torch.tensor([0.0, 0.0529, 0.0447 + math.pi, math.pi, -0.0447])
    vectors = torch.stack((angles.cos(), angles.sin()), dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = losses.koleo_loss(vectors)
    torch.testing.assert_close(loss.double(), brute_force_koleo(vectors.double()), rtol=1e-5, atol=0)


def test_koleo_of_one_sample_is_zero_with_zero_gradient():
    vectors = noise(1, 5).requires_grad_()
    loss = losses.koleo_loss(vectors)
    loss.backward()
    assert loss.item() == 0
    assert not vectors.grad.any()


def test_koleo_is_float32_in_autocast_and_finite_for_twins():
    vectors = noise(4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(losses.koleo_loss(vectors), losses.koleo_loss(vectors.double()).float())
    twins = vectors[[0, 0, 1, 1]].clone().requires_grad_()
    loss = losses.koleo_loss(twins)
    loss.backward()
    assert math.isfinite(loss.item())
    assert twins.grad.isfinite().all()
