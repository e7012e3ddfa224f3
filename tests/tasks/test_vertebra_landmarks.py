"""Centres of vertebrae from the masks of a small TotalSegmentator, against centroids taken with nibabel."""

import nibabel as nib
import numpy as np
import pytest

from tapct.errors import TapctError
from tapct.tasks import task_class
from tapct.tasks.vertebra_landmarks import LEAST_ML, VertebraLandmarks
from tapct.volumes import Findings
from tests.data import totalsegmentator
from tests.tasks.end_to_end import write_split


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    root = tmp_path_factory.mktemp("release")
    totalsegmentator.write(root / "totalsegmentator", slices=70, names=totalsegmentator.VERTEBRAE)
    write_split(root / "split.csv", test=list(totalsegmentator.FIRST))
    return root


@pytest.fixture
def dataset(release, tmp_path, monkeypatch):
    monkeypatch.setenv("TAPCT_CACHE", str(tmp_path / "cache"))
    return VertebraLandmarks(release / "totalsegmentator", "test", release / "split.csv")


def by_nibabel(path) -> tuple[np.ndarray, bool, float] | None:
    """The centroid of a mask in mm, whether it touches the border, and its volume in ml."""
    image = nib.load(path)
    where = np.argwhere(np.asanyarray(image.dataobj) > 0)
    if not len(where):
        return None
    touches = (where.min(axis=0) == 0).any() or (where.max(axis=0) == np.array(image.shape) - 1).any()
    ml = len(where) * abs(np.linalg.det(image.affine[:3, :3])) / 1000
    return image.affine[:3, :3] @ where.mean(axis=0) + image.affine[:3, 3], bool(touches), ml


@pytest.mark.parametrize("case", totalsegmentator.FIRST)
def test_centres_are_the_centroids_of_the_masks_also_on_a_sheared_grid(dataset, case):
    ct, target = dataset.read(case)
    found = Findings.of(target.numpy())
    expected = [one for path in dataset.target_paths(case) if (one := by_nibabel(path)) is not None]
    assert found.places_mm == pytest.approx(np.array([place for place, _, _ in expected]), abs=1e-6)
    assert found.excluded.tolist() == [cut or ml < LEAST_ML for _, cut, ml in expected]
    assert 0 < found.excluded.sum() < len(found)
    assert set(found.diameters_mm) == {20.0}
    assert found.inside(ct.grid).all()


def test_the_tolerance_is_an_option_that_the_record_names(release, dataset):
    case = dataset.cases[0]
    wide = VertebraLandmarks(release / "totalsegmentator", "test", release / "split.csv", tolerance_mm=15)
    assert wide.describe() == {"tolerance_mm": 15}
    assert set(wide.target(case)[:, 4].tolist()) == {30.0}
    assert wide.target(case)[:, 1:4].tolist() == dataset.target(case)[:, 1:4].tolist()
    with pytest.raises(TapctError, match="tolerance_mm must be a distance"):
        VertebraLandmarks(release / "totalsegmentator", "test", release / "split.csv", tolerance_mm=0)


def test_its_scans_are_those_of_the_other_tasks_of_the_release(release, dataset):
    case = dataset.cases[0]
    segmented = task_class("totalsegmentator")(release / "totalsegmentator", "test", release / "split.csv")
    assert dataset.scan_cache_key(case) == segmented.scan_cache_key(case)


def test_masks_are_read_once(dataset, monkeypatch):
    case = dataset.cases[0]
    first = dataset.target(case)
    monkeypatch.setattr(VertebraLandmarks, "_centres", lambda *_: pytest.fail("the masks were read again"))
    assert dataset.target(case).tolist() == first.tolist()


def test_a_mask_on_another_grid_than_its_scan_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPCT_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "totalsegmentator"
    totalsegmentator.write(root, slices=30, names=totalsegmentator.VERTEBRAE)
    split = write_split(tmp_path / "split.csv", test=["s0001"])
    path = root / "s0001" / "segmentations" / "vertebrae_L4.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj)[:, :, 1:], image.affine), path)
    with pytest.raises(TapctError, match=r"vertebra_landmarks, case s0001: .*does not lie on the grid of its scan"):
        VertebraLandmarks(root, "test", split).target("s0001")


def test_a_mask_that_is_missing_is_not_a_vertebra_that_is_not_there(tmp_path):
    root = tmp_path / "totalsegmentator"
    totalsegmentator.write(root, names=totalsegmentator.VERTEBRAE[1:])
    one = VertebraLandmarks(root, "test", write_split(tmp_path / "split.csv", test=["s0001"]))
    with pytest.raises(TapctError, match=r"such as .*vertebrae_S1\.nii"):
        one.validate()
