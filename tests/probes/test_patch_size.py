"""The patch-size reference: against pooling and interpolation by torch, and in the record."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tapct.metrics import confusion_matrix, dice_per_class
from tapct.probes.patch_size import PatchSizes, patch_size_confusion
from tapct.probes.patches import class_shares
from tapct.records.record import PatchSize
from tapct.volumes import Grid
from tests.small import abdomen

NATIVE = Grid.of((12, 16, 20), np.diag([3.0, -1.0, -0.5, 1.0]))


@pytest.fixture(scope="module")
def labels() -> torch.Tensor:
    """Blobs of four classes, and a class (4) that is nowhere."""
    noise = torch.rand((1, 4, *NATIVE.shape), generator=torch.Generator().manual_seed(0))
    return F.avg_pool3d(noise, 5, 1, 2)[0].argmax(0).to(torch.uint8)


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 4, 4), (4, 8, 10), (1, 2, 5)])
def test_it_is_what_pooling_and_interpolation_by_torch_give(labels, stride):
    patches = NATIVE.patches(stride)
    shares = F.avg_pool3d(F.one_hot(labels.long(), 5).movedim(-1, 0)[None].double(), stride)
    assert torch.allclose(class_shares(labels, NATIVE, patches, 5), shares[0].float(), atol=1e-6)
    voxels = F.interpolate(shares, labels.shape, mode="trilinear", align_corners=False)[0]
    first, second = voxels.topk(2, dim=0).values
    open_ones = int((first - second < 1e-5).sum())  # two classes have the same share there: either may win
    ours, theirs = (
        patch_size_confusion(labels, NATIVE, patches, 5),
        confusion_matrix(voxels.argmax(0), labels.long(), 5),
    )
    assert (ours - theirs).abs().sum() <= 2 * open_ones
    assert open_ones < 0.1 * labels.numel()
    if stride == (1, 1, 1):
        assert torch.equal(ours, torch.diag(torch.diagonal(ours)))


def test_shares_are_of_the_box_also_where_it_cuts_voxels_or_leaves_the_scan(labels):
    """Patches of 2.5 voxels, the last ones half outside, one row wholly outside; brute force on a finer lattice."""
    step = np.diag([2.5, 2.5, 2.5, 1.0])
    step[:3, 3] = (2.5 - 1) / 2
    patches = Grid.of((6, 7, 8), NATIVE.affine @ step)
    shares = class_shares(labels, NATIVE, patches, 5)
    assert torch.allclose(shares.sum(0), torch.ones(tuple(patches.shape)), atol=1e-6)
    fine = labels.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)  # half voxels
    for patch in ((0, 0, 0), (3, 2, 5), (4, 6, 7), (2, 5, 1)):
        block = fine[tuple(slice(5 * i, 5 * i + 5) for i in patch)].long().flatten()
        expected = torch.bincount(block, minlength=5) / len(block)
        assert shares[(slice(None), *patch)].numpy() == pytest.approx(expected.numpy(), abs=1e-6)
    beyond = shares[:, 5, 0, 0]  # z from 12.5 on: the labels of the last slice
    nearest = torch.bincount(fine[-1, :5, :5].long().flatten(), minlength=5) / 25
    assert beyond.numpy() == pytest.approx(nearest.numpy(), abs=1e-6)


def test_larger_patches_hold_less_of_real_organs():
    ct, organs = abdomen((slice(None),) * 3)
    labels, classes = torch.from_numpy(organs.labels), int(organs.labels.max()) + 1
    dice = []
    for edge_mm in (3.0, 12.0, 48.0):
        confusion = patch_size_confusion(labels, ct.grid, ct.grid.respaced((edge_mm,) * 3), classes)
        dice.append(float(np.nanmean(dice_per_class(confusion.numpy())[1:])))
    assert dice[0] == pytest.approx(1, abs=1e-3)  # the scan's own voxels
    assert 0.6 < dice[1] < 0.9
    assert dice[2] < 0.3


def test_the_summary_is_of_median_sizes_and_of_means_over_the_reported_cases():
    whole, cut, sizes = (
        [[5, 0, 0, 0], [1, 3, 0, 0], [0] * 4, [0] * 4],
        [[5, 1, 0, 0], [0, 2, 0, 0], [0, 1, 1, 0], [0] * 4],
        PatchSizes(),
    )
    of_cases = {
        "a": ((3.0, 4.0, 5.0), whole),
        "b": ((1.0, 2.0, 9.0), cut),
        "c": ((2.0, 8.0, 7.0), whole),
        "d": ((9.0, 9.0, 9.0), cut),
    }
    for case, (size_mm, counts) in of_cases.items():
        sizes.add(case, size_mm, torch.tensor(counts))
    assert ("a" in sizes, "e" in sizes) == (True, False)
    found = sizes.summary(["a", "b", "c"], ("background", "liver", "spleen", "kidney"))
    assert (found.size_mm, found.cases) == ((2.0, 4.0, 7.0), 3)
    assert found.dice == pytest.approx((6 / 7 + 2 / 3 + 6 / 7) / 3)
    assert found.by_class == {
        "liver": pytest.approx((6 / 7 + 2 / 3 + 6 / 7) / 3),
        "spleen": pytest.approx(2 / 3),
        "kidney": None,
    }


def test_without_a_reference_the_summary_is_of_sizes_alone():
    sizes = PatchSizes()
    sizes.add("a", (1.0, 2.0, 3.0))
    assert sizes.summary(["a"], ("background", "liver")) == PatchSize(
        size_mm=(1, 2, 3), dice=None, by_class={}, cases=1
    )
