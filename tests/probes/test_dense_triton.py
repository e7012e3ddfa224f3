"""The fused dense loss: run by Triton's interpreter on the CPU (in a process of its own, which the variable that turns
it on does not leave), on the GPU where there is one, and compiled for GPUs that are not there."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss

from tapct.errors import TaskError
from tapct.probes.dense import dice_ce_loss
from tapct.volumes import Grid, LinearMap

triton = pytest.importorskip("triton", reason="Triton is not installed; builds of torch for the CPU come without")

PATCHES, STRIDE, VOXELS = (2, 2, 3), (4, 8, 8), (7, 15, 23)
GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))


def case(classes, dtype=torch.float32, label_dtype=torch.uint8, patches=PATCHES, voxels=VOXELS):
    """Logits, and labels on the voxels below them: an odd number, so that the last tile is not full."""
    generator = torch.Generator().manual_seed(0)
    padded = Grid.of([c * s for c, s in zip(patches, STRIDE, strict=True)], torch.eye(4).numpy())
    logits = 3 * torch.randn(classes, *patches, dtype=dtype, generator=generator)
    target = torch.randint(classes, voxels, generator=generator).to(label_dtype)
    return logits, target, LinearMap.between(padded.patches(STRIDE), Grid.of(voxels, padded.affine))


def naive(logits, target):
    """Returns MONAI's loss of voxel-sized logits in fp64, and its gradient."""
    logits = logits.double().requires_grad_()
    size = [c * s for c, s in zip(logits.shape[1:], STRIDE, strict=True)]
    d, h, w = target.shape
    upsampled = F.interpolate(logits[None], size=size, mode="trilinear", align_corners=False)[..., :d, :h, :w]
    loss = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False)(upsampled, target.long()[None, None])
    loss.backward()
    return loss.detach(), logits.grad


def run(device, logits, target, to_voxels, slab=None, programs=5):
    """Returns the fused loss and its gradient, with few programs, so that each goes over several tiles."""
    from tapct.probes import dense_triton

    logits = logits.to(device).requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense_triton, "PROGRAMS", programs)
        loss = dice_ce_loss(logits, target.to(device), to_voxels, slab, fused=True)
    loss.backward()
    return loss.detach().cpu(), logits.grad.cpu()


@pytest.fixture(scope="module", params=["interpreter", pytest.param("cuda", marks=GPU)])
def fused(request):
    if request.param == "cuda":
        yield lambda *args: run("cuda", *args)
        return
    # Not forked: once this process has computed a gradient, a fork of it cannot.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")  # Triton looks when it is imported
            patch.setenv("OMP_NUM_THREADS", "1")
            pool.submit(os.getpid).result()
        yield lambda *args: pool.submit(run, "cpu", *args).result()


@pytest.mark.parametrize("slab", [3, None])
@pytest.mark.parametrize("classes", [2, 5, pytest.param(49, marks=pytest.mark.thorough)])  # 201 below
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_fused_loss_and_gradient_equal_monai(fused, classes, slab, dtype, tolerance):
    logits, target, to_voxels = case(classes, dtype)
    if classes > 2:
        target[target == classes - 1] = 0  # a class that is absent
    loss, gradient = fused(logits, target, to_voxels, slab)
    expected, expected_gradient = naive(logits, target)
    assert loss.dtype == gradient.dtype == dtype
    torch.testing.assert_close(loss.double(), expected, atol=0, rtol=tolerance)
    largest = float(expected_gradient.abs().max())
    torch.testing.assert_close(gradient.double(), expected_gradient, atol=tolerance * largest, rtol=0)


@pytest.mark.parametrize("label_dtype", [torch.uint8, torch.int16, torch.int64])
def test_labels_of_any_integer_type_count(fused, label_dtype):
    """Class 200 is beyond int8."""
    logits, target, to_voxels = case(201, torch.float64, label_dtype, (1, 1, 2), (3, 7, 13))
    target[0] = 200
    loss, gradient = fused(logits, target, to_voxels)
    expected, expected_gradient = naive(logits, target)
    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-10, rtol=0)


def test_the_same_numbers_twice_to_the_bit(fused):
    first, second = fused(*case(5)), fused(*case(5))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_a_head_that_diverged_has_no_finite_loss(fused):
    logits, target, to_voxels = case(5)
    logits[1, 0, 0, 0] = torch.nan
    assert fused(logits, target, to_voxels)[0].isnan()


@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_that_is_no_class_is_an_error(fused, label):
    logits, target, to_voxels = case(5, label_dtype=torch.int16)
    target[3, 2, 1] = label
    with pytest.raises(TaskError, match=r"labels must lie in \[0, 5\)"):
        fused(logits, target, to_voxels)


def test_half_precision_is_refused(fused):
    with pytest.raises(TaskError, match="fp32 or fp64"):
        fused(*case(5, torch.bfloat16))


@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.thorough), 90])
@pytest.mark.parametrize("dtype", ["fp32", pytest.param("fp64", marks=pytest.mark.thorough)])
def test_kernels_compile_for_a_gpu(monkeypatch, tmp_path, capability, dtype):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from tapct.probes import dense_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    sizes = {"classes": "i32", "n": "i32"}
    tensors = {"voxels": f"*{dtype}", "labels": "*u8"}
    kernels = {
        dense_triton._sums_kernel: {**tensors, "partial": f"*{dtype}", **sizes, "programs": "i32"},
        dense_triton._gradient_kernel: {
            **tensors, "everywhere": f"*{dtype}", "inside": f"*{dtype}", **sizes, "count": "i32"
        },
    }  # fmt: skip
    for kernel, arguments in kernels.items():
        signature = {**arguments, "ROWS": "constexpr", "COLUMNS": "constexpr"}
        for constant in ({}, dict.fromkeys(list(arguments)[-2:], 1)):  # Triton makes a constant of a 1
            source = ASTSource(
                kernel, {**signature, **dict.fromkeys(constant, "constexpr")}, {"ROWS": 64, "COLUMNS": 32, **constant}
            )
            target = GPUTarget("cuda", capability, 32)
            assert triton.compile(source, target=target, options={"num_warps": dense_triton.WARPS}).asm["cubin"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_plain_numbers_where_every_program_has_several_tiles():
    logits, target, to_voxels = case(49, patches=(16, 16, 16), voxels=(63, 127, 125))
    loss, gradient = run("cuda", logits, target, to_voxels, None, 1024)
    plain = logits.cuda().requires_grad_()
    expected = dice_ce_loss(plain, target.cuda(), to_voxels)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach().cpu(), atol=0, rtol=1e-5)
    largest = float(plain.grad.abs().max())
    torch.testing.assert_close(gradient, plain.grad.cpu(), atol=1e-5 * largest, rtol=0)
