"""What of a mask lies in which patch: against the mean over its voxels, and on a finer lattice."""

import numpy as np
import pytest
import torch

from tapct.features import CaseFeatures
from tapct.probes.adaptors import pooled
from tapct.probes.patches import mask_shares
from tapct.volumes import Grid, Mask, Size

NATIVE = Grid.of((12, 16, 20), np.diag([3.0, -1.0, -0.5, 1.0])[[2, 1, 0, 3]])


def blob() -> Mask:
    """A blob that touches a border."""
    z, y, x = np.ogrid[:12, :16, :20]
    return Mask((z - 4) ** 2 / 9 + (y - 13) ** 2 / 16 + (x - 7) ** 2 / 25 < 1, NATIVE)


def features_on(patches: Grid, seen: Grid = NATIVE) -> CaseFeatures:
    values = torch.randn((5, *patches.shape), generator=torch.Generator().manual_seed(0))
    return CaseFeatures(values, torch.zeros(1, 5), NATIVE, seen, patches, Size(0, 0, 0))


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 4, 4), (3, 8, 10), (12, 16, 20)])
def test_features_are_averaged_over_the_voxels_of_the_mask(stride):
    features = features_on(NATIVE.patches(stride))
    mask = blob()
    of_voxels = features.map.double().numpy().repeat(stride[0], 1).repeat(stride[1], 2).repeat(stride[2], 3)
    assert pooled(features, "mask", mask).numpy() == pytest.approx(of_voxels[:, mask.inside].mean(axis=1), rel=1e-12)


def test_a_voxel_between_patches_counts_in_each_by_what_of_it_is_there():
    """Patches of 2.5 voxels, the last row half outside the scan; by brute force on tenths of voxels."""
    step = np.diag([2.5, 2.5, 2.5, 1.0])
    step[:3, 3] = (2.5 - 1) / 2
    patches, mask = Grid.of((5, 7, 8), NATIVE.affine @ step), blob()
    tenths = [np.arange(n).repeat(10) for n in NATIVE.shape]
    of_patch = [(np.arange(10 * n) // 25) for n in NATIVE.shape]
    expected = np.zeros(patches.shape)
    for z, y, x in np.argwhere(mask.inside):
        counts = [
            np.bincount(c[t == i], minlength=n)
            for c, t, i, n in zip(of_patch, tenths, (z, y, x), patches.shape, strict=True)
        ]
        expected += np.einsum("z,y,x->zyx", *counts)
    found = mask_shares(mask, patches)
    assert found.numpy() == pytest.approx(expected / expected.sum(), abs=1e-12)
    assert float(found.sum()) == pytest.approx(1)


@pytest.mark.parametrize("index", [(11, 15, 19), (0, 0, 0), (5, 8, 10)])
def test_a_mask_of_one_voxel_has_its_patch_also_beyond_the_last_box(index):
    """Patches centred on the first voxel of their stride: the last half stride of a scan is in no box."""
    patches = NATIVE.patches((4, 8, 10), (0.0, 0.0, 0.0))
    inside = np.zeros(NATIVE.shape, bool)
    inside[index] = True
    shares = mask_shares(Mask(inside, NATIVE), patches)
    assert float(shares.sum()) == pytest.approx(1)
    largest = np.unravel_index(int(shares.argmax()), shares.shape)
    nearest = [int(np.clip(np.rint(i / s), 0, n - 1)) for i, s, n in zip(index, (4, 8, 10), patches.shape, strict=True)]
    assert list(largest) == nearest


def test_no_patch_of_the_padding_is_pooled():
    """A mask at the border of a scan whose last patch is centred in the padding."""
    patches = NATIVE.padded((12, 16, 28)).patches((4, 8, 14))  # the second patch along x is centred on voxel 20.5 of 20
    features = features_on(patches)
    inside = np.zeros(NATIVE.shape, bool)
    inside[:, :, 16:] = True
    expected = features.map[:, :, :, 0].double().mean(dim=(1, 2))
    assert pooled(features, "mask", Mask(inside, NATIVE)).numpy() == pytest.approx(expected.numpy(), rel=1e-12)


def test_a_sphere_is_pooled_as_its_voxels_are_however_coarse_the_scan():
    """Patches of 2 x 2 x 2.5 mm, finer than the slices that they come from."""
    fine = Grid.of((180, 160, 100), np.diag([0.2, -0.1, -0.1, 1.0])[[2, 1, 0, 3]])
    patches = NATIVE.respaced((2.5, 2.0, 2.0)).patches((1, 1, 1))
    centre_mm = (NATIVE.affine @ [5.2, 8.1, 10.3, 1])[:3]
    where = np.stack(np.meshgrid(*map(np.arange, fine.shape), indexing="ij"), -1) @ fine.affine[:3, :3].T
    inside = np.linalg.norm(where + fine.affine[:3, 3] - centre_mm, axis=-1) <= 3.0
    expected = mask_shares(Mask(inside, fine), patches)
    found = mask_shares(Mask.sphere(centre_mm, 6.0, NATIVE), patches)
    assert float((found - expected).abs().max()) < 0.01 * float(expected.max())
