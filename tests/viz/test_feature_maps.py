import matplotlib.image
import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from tapct.viz.canvas import PictureError
from tapct.viz.feature_maps import Basis, EncodedScan, draw_pca, draw_similarity, similarity
from tests.small import CubicMillimetres, abdomen
from tests.viz.encoders import encoded

SLAB = (slice(40, 72), slice(None), slice(None))


@pytest.fixture(scope="module")
def scans() -> list[EncodedScan]:
    lower, upper = (abdomen((slice(start, start + 32), slice(None), slice(None)))[0] for start in (20, 60))
    return [encoded(lower), encoded(upper)]


def test_the_basis_is_that_of_scikit_learn_on_the_patches_of_all_scans(scans):
    basis = Basis.of(scans)
    patches = np.concatenate([s.features.map[:, torch.from_numpy(s.body())].T.double().numpy() for s in scans])
    expected = PCA(3, svd_solver="full").fit(patches)
    assert basis.explained == pytest.approx(expected.explained_variance_ratio_.tolist())
    alike = np.abs((basis.directions.numpy() * expected.components_).sum(axis=1))
    assert alike == pytest.approx(1, abs=1e-5)
    assert basis.mean.numpy() == pytest.approx(expected.mean_, rel=1e-4)


def test_one_feature_has_one_colour_in_every_scan_and_order(scans):
    basis, turned = Basis.of(scans), Basis.of(scans[::-1])
    assert np.allclose(basis.colours(scans[0]), turned.colours(scans[0]), atol=1e-4)
    assert not np.allclose(Basis.of(scans[:1]).colours(scans[0]), basis.colours(scans[0]), atol=0.05)


def test_the_body_is_the_patient_without_the_air_around(scans):
    ct, organs = abdomen(SLAB)
    scan = encoded(ct)
    body = scan.body()
    organ_voxels = ct.index_to_world(np.argwhere(organs.labels > 0))
    assert np.mean([body[patch] for patch in _patches(scan, organ_voxels)]) > 0.98
    corner = _patches(scan, ct.index_to_world(np.array([[0, 0, 0], [31, 0, 0]])))
    assert not any(body[patch] for patch in corner)


def _patches(scan, world):
    affine = np.linalg.inv(scan.features.feature_grid.affine)
    found = np.rint(world @ affine[:3, :3].T + affine[:3, 3]).astype(int)
    return [tuple(c) for c in found.clip(0, np.array(scan.features.feature_grid.shape) - 1)]


def test_the_patch_at_a_point_is_the_one_whose_centre_is_nearest(scans):
    scan = scans[0]
    grid = scan.features.feature_grid
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)
    centres = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    for point in scan.ct.index_to_world(np.random.default_rng(0).uniform(0, np.array(scan.ct.shape) - 1, (20, 3))):
        assert scan.patch_at(point) == tuple(index[np.linalg.norm(centres - point, axis=1).argmin()])


def test_a_point_outside_is_refused_with_the_reach_of_the_scan(scans):
    point = scans[0].ct.index_to_world(np.array([[16, 50, 60]]))[0] + [1000, 0, 0]
    with pytest.raises(PictureError, match=r"lies outside .* x -?\d+ to -?\d+, y .* RAS"):
        scans[0].patch_at(point)


def test_similarity_is_the_cosine_and_undefined_in_padding():
    ct, _ = abdomen((slice(40, 50), slice(None), slice(None)))  # 30 mm: 15 slices of 2 mm, padded to a window of 32
    scan = encoded(ct)
    values = similarity(scan, scan.features.map[:, 1, 10, 12])
    assert values[1, 10, 12] == pytest.approx(1)
    features = scan.features.map.double().numpy()
    a, b = features[:, 1, 10, 12], features[:, 2, 5, 9]
    assert values[2, 5, 9] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)
    assert scan.features.padding.z > 0
    assert np.isnan(values[-1]).all()
    assert not np.isnan(values[0]).any()


def test_pictures_of_features_are_written(scans, tmp_path):
    draw_pca(tmp_path / "pca.png", scans, "$title$")
    point = scans[0].ct.index_to_world(np.array([[10, 50, 40]]))[0]
    crosses = draw_similarity(tmp_path / "at.png", scans, point, "title", "bone")
    assert crosses[0] == pytest.approx(point)
    values = similarity(scans[1], scans[0].features.map[(slice(None), *scans[0].patch_at(point))])
    assert values[scans[1].patch_at(crosses[1])] == np.nanmax(values)
    pca = matplotlib.image.imread(tmp_path / "pca.png")[..., :3]
    assert (np.ptp(pca, axis=2) > 0.2).mean() > 0.05


def test_features_that_cannot_be_coloured_are_refused():
    ct, _ = abdomen(SLAB)
    with pytest.raises(PictureError, match="1 channels"):
        Basis.of([encoded(ct, CubicMillimetres("random"))])
    scan = encoded(ct)
    constant = scan.features.map.new_ones(scan.features.map.shape)
    with pytest.raises(PictureError, match="same everywhere"):
        Basis.of([EncodedScan(ct, type(scan.features)(**{**vars(scan.features), "map": constant}))])
