import sys

import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from tapct.errors import TaskError
from tapct.features import extract
from tapct.probes.dense import dice_ce_loss, predict_labels
from tapct.volumes import Grid, LinearMap, resample_labels
from tests.small import abdomen, small_encoder

PATCHES, STRIDE = (4, 3, 5), (4, 8, 8)


def case(voxels=None, classes=6, dtype=torch.float64):
    """Logits on 4x3x5 patches, and labels on the voxels below them (of which the last ones may be padding)."""
    generator = torch.Generator().manual_seed(0)
    padded = Grid.of([c * s for c, s in zip(PATCHES, STRIDE, strict=True)], torch.eye(4).numpy())
    voxels = padded if voxels is None else Grid.of(voxels, padded.affine)
    logits = 3 * torch.randn(classes, *PATCHES, dtype=dtype, generator=generator)
    target = torch.randint(0, classes - 1, tuple(voxels.shape), generator=generator)  # the last class is absent
    return logits, target, LinearMap.between(padded.patches(STRIDE), voxels)


@pytest.mark.parametrize("slab", [1, 3, 16, 100, None])
@pytest.mark.parametrize("voxels", [None, (13, 24, 33)])
def test_loss_and_gradient_equal_monai_on_naively_upsampled_logits(slab, voxels):
    logits, target, to_voxels = case(voxels)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    size = [c * s for c, s in zip(PATCHES, STRIDE, strict=True)]
    upsampled = F.interpolate(theirs[None], size=size, mode="trilinear", align_corners=False)
    d, h, w = target.shape
    monai = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False)
    reference = monai(upsampled[..., :d, :h, :w], target[None, None])
    loss = dice_ce_loss(ours, target, to_voxels, slab)
    (2.5 * loss).backward()
    (2.5 * reference).backward()
    torch.testing.assert_close(loss, reference, atol=1e-10, rtol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-10, rtol=0)


def test_the_gradient_is_that_of_the_loss():
    logits, target, to_voxels = case(classes=3)
    assert torch.autograd.gradcheck(lambda x: dice_ce_loss(x, target, to_voxels, 5), logits.requires_grad_())


@pytest.mark.parametrize("slab", [1, 5, None])
def test_predictions_equal_the_argmax_of_naively_upsampled_logits(slab):
    logits, _, to_voxels = case()
    upsampled = F.interpolate(logits[None], scale_factor=STRIDE, mode="trilinear", align_corners=False)[0]
    assert torch.equal(predict_labels(logits, to_voxels, slab), upsampled.argmax(0).to(torch.uint8))


def test_a_device_is_never_asked_for_a_value():
    """Tensors without values stand for those of a GPU: whatever needs one, as to know a size, is an error."""
    logits, target, to_voxels = case()
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        logits, target = fake.from_tensor(logits).requires_grad_(), fake.from_tensor(target)
        with pytest.raises(DataDependentOutputException):
            target.max().item()
        dice_ce_loss(logits, target, to_voxels, 3).backward()
        assert logits.grad.shape == logits.shape
        assert predict_labels(logits.detach(), to_voxels, 3).shape == target.shape


def test_no_gradient_is_computed_where_none_is_wanted():
    logits, target, to_voxels = case()
    assert not dice_ce_loss(logits, target, to_voxels).requires_grad


def test_the_fused_loss_is_refused_on_a_cpu():
    with pytest.raises(TaskError, match="fused loss"):
        dice_ce_loss(*case(), fused=True)


def test_the_fused_loss_without_triton_says_what_is_missing(monkeypatch):
    monkeypatch.delitem(sys.modules, "tapct.probes.dense_triton", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(TaskError, match="needs Triton"):
        dice_ce_loss(*case(), fused=True)


def test_a_probe_overfits_one_case():
    """Enough steps on one real case bring training Dice well above its start."""
    ct, labels = abdomen((slice(84, 100), slice(None), slice(None)))
    features = extract(small_encoder(), torch.from_numpy(ct.hu), ct.grid)
    target = resample_labels(torch.from_numpy(labels.labels), features.native_grid, features.encoder_grid)
    to_voxels = LinearMap.between(features.feature_grid, features.encoder_grid)
    torch.manual_seed(0)
    head = torch.nn.Conv3d(48, 12, 1)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.02)

    def liver_dice() -> float:
        predicted = predict_labels(head(features.map), to_voxels)
        both = ((predicted == 2) & (target == 2)).sum()
        return float(2 * both / ((predicted == 2).sum() + (target == 2).sum()))

    before = liver_dice()
    for _ in range(80):
        optimizer.zero_grad()
        dice_ce_loss(head(features.map), target, to_voxels).backward()
        optimizer.step()
    assert before < 0.3
    assert liver_dice() > before + 0.4
