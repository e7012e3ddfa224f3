"""Finding a lesion again: in a scan that was moved and turned by a known transform, and what is said of the matches."""

import csv
import io
import math

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from tapct.viz import retrieval
from tapct.viz.canvas import PictureError
from tapct.viz.feature_maps import EncodedScan, similarity
from tapct.viz.retrieval import draw_retrieval, lesion_embedding, lesion_mask, retrieve
from tapct.volumes import LabelMap, Volume, read_ct, read_labels
from tests.small import abdomen
from tests.viz.encoders import Surroundings, encoded

SLAB = (slice(40, 90), slice(None), slice(None))


def turned(degrees: float, shift_mm: tuple[float, float, float]) -> np.ndarray:
    """(4, 4) a turn about the body axis through the origin, then a shift, in RAS+ world millimetres."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    transform = np.eye(4)
    transform[:2, :2] = [[cos, -sin], [sin, cos]]
    transform[:3, 3] = shift_mm
    return transform


def apply(transform: np.ndarray, points_mm: np.ndarray) -> np.ndarray:
    return points_mm @ transform[:3, :3].T + transform[:3, 3]


def moved(ct: Volume, transform: np.ndarray) -> Volume:
    """The scan of a patient who lies elsewhere and turned, on the same grid: resampled by scipy."""
    back = np.linalg.inv(ct.affine) @ np.linalg.inv(transform) @ ct.affine
    hu = ndimage.affine_transform(ct.hu, back[:3, :3], back[:3, 3], order=1, cval=-1000.0)
    return Volume(hu.astype(np.float32), ct.affine, "moved")


def centre_mm(ct: Volume, mask: np.ndarray) -> np.ndarray:
    return ct.index_to_world(np.argwhere(mask)).mean(axis=0)


@pytest.fixture(scope="module")
def case() -> tuple[EncodedScan, np.ndarray]:
    """A slab of the abdomen, and as its lesion a ball of 9 mm at the edge of the liver."""
    ct, organs = abdomen(SLAB)
    liver = organs.labels == 2
    edge = np.argwhere(liver & ~ndimage.binary_erosion(liver))
    centre = edge[len(edge) // 2]
    distance = np.linalg.norm((np.stack(np.indices(ct.shape), -1) - centre) * ct.spacing_mm, axis=-1)
    return encoded(ct, Surroundings("random")), distance <= 9


@pytest.fixture(scope="module")
def followup_mask(case) -> np.ndarray:
    ct, organs = case[0].ct, abdomen(SLAB)[1]
    assert organs.shape == ct.shape
    return organs.labels == 2


def test_the_embedding_is_the_mean_over_voxels_of_the_patch_that_each_lies_in(case):
    scan, mask = case
    grid = scan.features.feature_grid
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)
    centres = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    voxels = np.argwhere(mask)
    distances, patches = cKDTree(centres).query(scan.ct.index_to_world(voxels), k=2)
    clear = distances[:, 1] - distances[:, 0] > 1e-3  # and not on the border of two patches
    mask, nearest = np.zeros_like(mask), patches[clear, 0]
    mask[tuple(voxels[clear].T)] = True
    features = scan.features.map.double().numpy()
    expected = np.mean([features[(slice(None), *index[patch])] for patch in nearest], axis=0)
    assert lesion_embedding(scan.features, mask).numpy() == pytest.approx(expected, rel=1e-5)


def test_a_lesion_of_one_voxel_has_the_feature_of_its_patch(case):
    scan, _ = case
    mask = np.zeros(scan.ct.shape, dtype=bool)
    mask[20, 50, 60] = True
    patch = scan.patch_at(scan.ct.index_to_world(np.array([[20, 50, 60]]))[0])
    assert torch.equal(lesion_embedding(scan.features, mask), scan.features.map[(slice(None), *patch)])


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR"])
def test_the_same_voxels_elsewhere_in_the_world_are_found_where_they_are(case, axes, tmp_path):
    """An oblique scanner and another storage order: (world - origin) / spacing would give a wrong place."""
    scan, mask = case
    transform = turned(17, (40, -25, 12.5))
    image = nib.Nifti1Image(scan.ct.hu, transform @ scan.ct.affine)
    codes = nib.orientations.axcodes2ornt(axes)
    image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), codes))
    nib.save(image, tmp_path / "ct.nii.gz")
    there = encoded(read_ct(tmp_path / "ct.nii.gz"), Surroundings("random"))
    (match,) = retrieve(lesion_embedding(scan.features, mask), there, top_k=1)
    (same,) = retrieve(lesion_embedding(scan.features, mask), scan, top_k=1)
    assert match.point_mm == pytest.approx(apply(transform, np.array(same.point_mm)), abs=0.05)
    assert match.similarity == pytest.approx(same.similarity, abs=1e-3)


def test_a_lesion_in_a_moved_and_turned_patient_is_found_within_a_patch(case):
    scan, mask = case
    transform = turned(8, (11, -7, 5))
    followup = encoded(moved(scan.ct, transform), Surroundings("random"))
    assert_found(scan, mask, followup, transform)


def assert_found(baseline: EncodedScan, mask: np.ndarray, followup: EncodedScan, transform: np.ndarray) -> None:
    """The best match is no further from where the lesion's centre went than the diagonal of a patch."""
    (match,) = retrieve(lesion_embedding(baseline.features, mask), followup, top_k=1)
    expected = apply(transform, centre_mm(baseline.ct, mask))
    assert np.linalg.norm(match.point_mm - expected) <= np.linalg.norm(followup.features.feature_grid.spacing_mm)


def test_matches_are_the_most_similar_patches_and_keep_apart_if_asked(case):
    scan, mask = case
    lesion = lesion_embedding(scan.features, mask)
    values = similarity(scan, lesion)
    best = retrieve(lesion, scan, top_k=6)
    assert [m.similarity for m in best] == pytest.approx(np.sort(values[~np.isnan(values)])[::-1][:6].tolist())
    assert [values[m.patch] for m in best] == [m.similarity for m in best]
    apart = retrieve(lesion, scan, top_k=6, apart_mm=40)
    distances = cdist(*[[m.point_mm for m in apart]] * 2)[np.triu_indices(6, 1)]
    assert distances.min() >= 40
    assert apart[0] == best[0]
    everything = retrieve(lesion, scan, top_k=10**6)
    assert len(everything) == scan.inside().sum()


def test_no_match_is_in_padding():
    ct, _ = abdomen((slice(40, 50), slice(None), slice(None)))
    scan = encoded(ct)
    air = scan.features.map[:, -1, 0, 0]  # what padding looks like
    for match in retrieve(air, scan, top_k=50):
        voxel = ct.world_to_index(np.array([match.point_mm]))[0]
        assert (voxel > -0.5).all()
        assert (voxel < np.array(ct.shape) - 0.5).all()


def test_hits_and_distances_are_those_of_a_brute_force_search(case, followup_mask):
    scan, mask = case
    matches = retrieve(lesion_embedding(scan.features, mask), scan, top_k=40, apart_mm=20, mask=followup_mask)
    voxels = scan.ct.index_to_world(np.argwhere(followup_mask))
    to_patches = np.linalg.inv(scan.features.feature_grid.affine)
    lesion_patches = {tuple(c) for c in np.rint(apply(to_patches, voxels)).astype(int)}
    assert {m.hit for m in matches} == {True, False}
    for match in matches:
        nearest = cdist([match.point_mm], voxels).min()
        inside = followup_mask[tuple(np.rint(scan.ct.world_to_index(np.array([match.point_mm]))[0]).astype(int))]
        assert match.distance_mm == pytest.approx(0 if inside else nearest)
        assert match.hit == (match.patch in lesion_patches)
    found = retrieval.summary(matches)
    assert found["hit_rate"] == pytest.approx(np.mean([m.hit for m in matches]))
    assert found["first_distance_mm"] == matches[0].distance_mm
    assert found["nearest_distance_mm"] == min(m.distance_mm for m in matches)


def test_the_csv_has_what_was_found_and_leaves_empty_what_is_not_known(case, followup_mask):
    scan, mask = case
    for judged in (None, followup_mask):
        matches = retrieve(lesion_embedding(scan.features, mask), scan, top_k=3, mask=judged)
        rows = list(csv.DictReader(io.StringIO(retrieval.to_csv(matches))))
        for row, match in zip(rows, matches, strict=True):
            assert [float(row[f"{axis}_ras_mm"]) for axis in "xyz"] == pytest.approx(match.point_mm, abs=0.006)
            assert float(row["similarity"]) == pytest.approx(match.similarity, abs=1e-6)
            assert row["hit"] == ("" if judged is None else str(int(match.hit)))
            assert (row["distance_mm"] == "") == (judged is None)
    assert retrieval.summary(retrieve(lesion_embedding(scan.features, mask), scan))["hit_rate"] is None


def test_masks_without_the_lesion_are_refused():
    ct, organs = abdomen((slice(80, 90), slice(None), slice(None)))
    assert lesion_mask(organs, None).sum() == (organs.labels > 0).sum()
    assert lesion_mask(organs, 2).sum() == (organs.labels == 2).sum()
    with pytest.raises(PictureError, match=r"no voxel of label 200; its labels are \[0, "):
        lesion_mask(organs, 200)
    with pytest.raises(PictureError, match="no voxel but background"):
        lesion_mask(LabelMap(np.zeros(ct.shape, dtype=np.uint8), ct.affine, "empty.nii.gz"), None)


def test_the_picture_shows_lesion_and_matches(case, followup_mask, tmp_path):
    scan, mask = case
    lesion = lesion_embedding(scan.features, mask)
    matches = retrieve(lesion, scan, top_k=3, apart_mm=30)
    values = similarity(scan, lesion)
    path = tmp_path / "x.png"
    draw_retrieval(path, scan, mask, scan, matches, values, "$t$", mask=followup_mask, window="lung")
    image = matplotlib.image.imread(path)[..., :3]
    assert (np.ptp(image, axis=2) > 0.2).mean() > 0.02


def test_a_real_nodule_is_found_again_in_the_turned_chest(shared_data):
    ct = read_ct(shared_data / "lidc" / "LIDC-IDRI-0314_2mm.nii.gz")
    mask = read_labels(shared_data / "lidc" / "LIDC-IDRI-0314_2mm_nodule.nii.gz", ct).labels > 0
    transform = turned(6, (9, 5, -8))
    baseline, followup = (encoded(one, Surroundings("random")) for one in (ct, moved(ct, transform)))
    assert_found(baseline, mask, followup, transform)


MORE = [pytest.param(patient, marks=pytest.mark.thorough) for patient in ("002", "008", "012", "024")]


@pytest.mark.parametrize("patient", ["019", "025", *MORE])
def test_real_tumours_are_hit_in_the_turned_patient(patient, shared_data):
    ct = read_ct(shared_data / "sts" / f"STS_{patient}" / "CT.nii.gz")
    mask = read_labels(shared_data / "sts" / f"STS_{patient}" / "SEG_ct.nii.gz", ct).labels > 0
    transform = turned(6, (9, 5, -8))
    later = moved(Volume(mask * np.float32(2000) - 1000, ct.affine, "mask"), transform).hu > 0
    baseline, followup = (encoded(one, Surroundings("random")) for one in (ct, moved(ct, transform)))
    matches = retrieve(lesion_embedding(baseline.features, mask), followup, mask=later)
    assert retrieval.summary(matches)["hit_rate"] == 1
    assert matches[0].distance_mm == 0
