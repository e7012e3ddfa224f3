"""Age, sex and organ volumes of TotalSegmentator: the real table, and a tiny tree of the release."""

import csv
import math
import shutil

import nibabel as nib
import numpy as np
import pytest

from tapct.errors import TapctError, TaskError
from tapct.tasks import SPLITS, SplitTable
from tapct.tasks.totalsegmentator_age import TotalSegmentatorAge
from tapct.tasks.totalsegmentator_organ_volume import TotalSegmentatorOrganVolume
from tapct.tasks.totalsegmentator_sex import TotalSegmentatorSex
from tests.data import totalsegmentator as release
from tests.data.slabs import edited
from tests.small import Small3D
from tests.tasks.end_to_end import CONFIGS, run, write_split
from tests.tasks.shipped import SPLITS as SHIPPED
from tests.tasks.shipped import reference

Age, Sex, Volume = TotalSegmentatorAge, TotalSegmentatorSex, TotalSegmentatorOrganVolume


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "totalsegmentator"
    release.write_patients(folder)
    return folder


@pytest.fixture
def root(written, tmp_path):
    """A copy of the release of which something can be spoilt."""
    return shutil.copytree(written, tmp_path / "totalsegmentator")


@pytest.fixture
def split(tmp_path):
    return write_split(
        tmp_path / "split.csv", train=["s0001", "s0002", "s0004"], val=["s0011"], test=["s0013", "s0029", "s0235"]
    )


def real_rows():
    path = reference() / "labels" / "totalsegmentator_v201_meta.csv"
    return path, list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines(), delimiter=";"))


@pytest.mark.parametrize(("task", "column", "counts"), [(Age, "age", (1082, 57, 88)), (Sex, "gender", (1081, 57, 88))])
def test_every_row_of_the_real_table_has_an_answer_or_is_left_out_by_name(tmp_path, task, column, counts):
    path, rows = real_rows()
    (tmp_path / "meta.csv").write_bytes(path.read_bytes())
    without = {row["image_id"] for row in rows if not row[column]}
    assert task.split_counts() == counts
    expected = {"f": 1, "m": 0}
    for part in SPLITS:
        dataset = task(tmp_path, part)
        assert set(dataset.excluded) == without
        for row in rows:
            if row["split"] == part and row[column]:
                answer = expected[row[column]] if column == "gender" else float(row[column])
                assert dataset.target(row["image_id"]).tolist() == [answer]
        assert {*dataset.cases} == {row["image_id"] for row in rows if row["split"] == part} - without


def test_the_tasks_share_the_folder_and_the_official_split():
    table = SplitTable.read(SHIPPED / "totalsegmentator.csv")
    for task in (Age, Sex, Volume):
        assert task.spec.folder == "totalsegmentator"
        assert task.shipped_split().cases["val"] == table.cases["val"]
    assert Volume.split_counts() == (1082, 57, 89)


@pytest.mark.parametrize("top", ["", "Totalsegmentator_dataset_v201"])
def test_age_and_sex_need_the_scans_and_the_table_alone(written, tmp_path, split, top):
    shutil.copytree(written, tmp_path / "tree" / top)
    for folder in (tmp_path / "tree" / top).glob("s*/segmentations"):
        for mask in folder.iterdir():
            mask.unlink()
    for task, column in ((Age, 0), (Sex, 1)):
        dataset = task(tmp_path / "tree", "test", split)
        dataset.validate()
        for index, case in enumerate(dataset.cases):
            given = release.PATIENTS[case][column]
            assert dataset[index][1].tolist() == [float(given) if task is Age else int(given == "f")]


BAD = {
    "no row": (lambda text: text.replace("s0013", "s9999"), "no row with the image_id s0013"),
    "no age": (lambda text: text.replace("s0013;55.00", "s0013;"), "there is no age"),
    "nan": (lambda text: text.replace("s0013;55.00", "s0013;nan"), "age is 'nan', which is not a number"),
    "a comma": (lambda text: text.replace("s0013;55.00", "s0013;55,00"), "decimal comma"),
    "negative": (lambda text: text.replace("s0013;55.00", "s0013;-55.00"), "between 0 and 120"),
    "months": (lambda text: text.replace("s0013;55.00", "s0013;660"), "another unit"),
    "twice": (lambda text: text + "s0013;56.00;f;I;ct;train;s;s;120;u;u\n", "s0013 twice"),
    "commas": (lambda text: text.replace(";", ","), "separated by semicolons"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_age_is_refused_by_name(root, split, bad):
    change, message = BAD[bad]
    edited(root / "meta.csv", change)
    with pytest.raises(TapctError, match=f"{message}"):
        Age(root, "test", split).read("s0013")


def test_a_sex_that_is_neither_f_nor_m_is_refused(root, split):
    edited(root / "meta.csv", lambda text: text.replace("s0013;55.00;f", "s0013;55.00;female"))
    with pytest.raises(TaskError, match="gender is 'female'"):
        Sex(root, "test", split).target("s0013")


def test_volumes_are_voxels_times_their_size(root, split):
    for part in SPLITS:
        dataset = Volume(root, part, split)
        dataset.validate()
        for index, case in enumerate(dataset.cases):
            _, target, _ = dataset[index]
            ml = release.volume_ml(case)
            expected = np.array([ml, ml, 2 * ml, ml, ml])
            expected[{"s0002": [1], "s0011": [4]}.get(case, [])] = math.nan
            assert target.numpy() == pytest.approx(expected, nan_ok=True)


def test_what_is_not_whole_in_the_scan_has_no_volume_and_a_reason(root, split):
    assert Volume(root, "train", split).missing("s0002") == (
        "spleen (ml) is missing: the mask of spleen is empty: it is outside of the scan, or was removed.",
    )
    (cut,) = Volume(root, "val", split).missing("s0011")
    assert cut.startswith("heart (ml) is missing: the mask of heart touches the border of the scan")
    assert Volume(root, "test", split).missing("s0013") == ()


def test_real_masks_are_counted_as_nibabel_counts_them(tmp_path):
    root = reference().parent / "data" / "totalsegmentator"
    if not root.is_dir():
        pytest.skip("../shared/data is not here")
    dataset = Volume(root, "train", write_split(tmp_path / "split.csv", train=["s9001", "s9004"]))

    def counted(case: str, *names: str) -> float:
        images = [nib.load(root / case / "segmentations" / f"{name}.nii.gz") for name in names]
        voxels = [np.count_nonzero(image.dataobj) * abs(np.linalg.det(image.affine[:3, :3])) for image in images]
        return sum(voxels) / 1000

    none = math.nan  # cut, or not in the scan
    abdomen = [none, none, counted("s9001", "kidney_left", "kidney_right"), counted("s9001", "pancreas"), none]
    assert dataset.target("s9001").numpy() == pytest.approx(abdomen, nan_ok=True)
    thorax = [none, none, none, none, counted("s9004", "heart")]
    assert dataset.target("s9004").numpy() == pytest.approx(thorax, nan_ok=True)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("end", [0, -1])
def test_each_of_the_six_faces_cuts(root, split, axis, end):
    path = root / "s0013" / "segmentations" / "liver.nii.gz"
    image = nib.load(path)
    mask = np.asanyarray(image.dataobj).copy()
    mask[tuple(end if axis == a else slice(5, 8) for a in range(3))] = 1
    nib.save(nib.Nifti1Image(mask, image.affine), path)
    assert np.isnan(Volume(root, "test", split).target("s0013")[0])


def test_one_kidney_that_is_missing_leaves_no_volume_of_both(root, split):
    path = root / "s0013" / "segmentations" / "kidney_left.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, dtype=np.uint8), image.affine), path)
    assert np.isnan(Volume(root, "test", split).target("s0013")[2])


def test_a_sheared_scan_has_the_volume_of_its_voxels(root, split):
    folder = root / "s0013"
    for path in [folder / "ct.nii.gz", *(folder / "segmentations").iterdir()]:
        image = nib.load(path)
        affine = image.affine.copy()
        affine[0, 1], affine[1, 2] = 1.0, 0.5
        turned = nib.Nifti1Image(np.asanyarray(image.dataobj), affine)
        turned.set_qform(None, 0)
        nib.save(turned, path)
    assert Volume(root, "test", split).target("s0013")[0] == pytest.approx(release.volume_ml("s0013"), rel=1e-6)


def test_an_organ_that_a_perturbed_scan_no_longer_holds_has_no_volume(root, split):
    from tapct.volumes.perturb import perturbation

    dataset = Volume(root, "test", split)
    whole, noisy, cut = (
        dataset.perturbed(perturbation(name) if name else None).target("s0013").numpy()
        for name in (None, "noise-30hu", "fov-plane-0.7")
    )
    assert not np.isnan(whole).any()
    assert np.array_equal(noisy, whole)
    assert np.isnan(cut[0])  # the liver lies outermost
    assert not np.isnan(cut[2])
    assert "does not hold all of liver" in dataset.perturbed(perturbation("fov-plane-0.7")).missing("s0013")[0]


def test_a_mask_of_another_scan_is_refused(root, split):
    path = root / "s0013" / "segmentations" / "liver.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj)[:-1], image.affine), path)
    with pytest.raises(TapctError, match=r"liver\.nii\.gz does not lie on the grid"):
        Volume(root, "test", split).read("s0013")


def test_few_patients_are_drawn_evenly_by_age(root, split):
    dataset = Age(root, "train", split)
    assert [dataset.strata(case) for case in dataset.cases] == [
        {"age, part 1 of 5 by size"},
        {"age, part 3 of 5 by size"},
        {"age, part 5 of 5 by size"},
    ]


@pytest.mark.parametrize("task", [Age, Sex])
def test_volumes_of_organs_are_columns_and_what_is_cut_is_not_known(root, split, task):
    dataset = task(root, "train", split)
    columns = dataset.table_columns(["volume_liver", "volume_spleen"])
    assert "volume" not in task.spec.columns, "of no mask: features are pooled over none"
    ml = {case: release.volume_ml(case) for case in dataset.cases}
    found = [dataset.values(case, columns) for case in ("s0001", "s0002")]
    expected = [[math.log10(ml["s0001"])] * 2, [math.log10(ml["s0002"]), math.nan]]
    assert np.array(found) == pytest.approx(np.array(expected), nan_ok=True)
    (root / "s0001" / "segmentations" / "liver.nii.gz").unlink()
    with pytest.raises(TaskError, match="1 files that the column 'volume_liver' is read from are not there"):
        task(root, "train", split).table_columns(["volume_liver"])


def test_what_is_asked_is_no_column(root):
    assert "age" not in Age.spec.columns
    assert "sex" not in Sex.spec.columns
    assert not any(name.startswith("volume") for name in Volume.spec.columns)
    assert ("age",) in Sex.spec.rows_to_beat
    assert (
        "volume_liver",
        "volume_spleen",
        "volume_kidneys",
        "volume_pancreas",
        "volume_heart",
    ) in Age.spec.rows_to_beat


@pytest.mark.parametrize(
    ("adaptor", "why"),
    [
        ("ridge:mean&table=volume_lever", "has no column 'volume_lever'. Did you mean 'volume_liver'"),
        ("ridge:mean&table=sex", "the column 'sex' .* has no level that 5 of them have"),
        ("ridge:mean&table=age", "has no column 'age'"),
    ],
)
def test_columns_are_refused_before_anything_is_encoded(root, split, tmp_path, monkeypatch, adaptor, why):
    monkeypatch.setenv("ADAPTOR", adaptor)
    monkeypatch.setattr(Small3D, "_encode", lambda *of: pytest.fail("it was encoded"))
    with pytest.raises(TaskError, match=why):
        run(CONFIGS / "regression" / "totalsegmentator_age.yaml", root.parent, split, tmp_path, "regression")


@pytest.mark.parametrize(
    "adaptor",
    [
        pytest.param("ridge:table=volume_liver", marks=pytest.mark.thorough),
        "ridge:mean&table=volume_liver+acquisition",
    ],
)
def test_a_table_stands_behind_features_of_regression_and_what_says_nothing_gets_no_weight(
    root, split, tmp_path, monkeypatch, adaptor
):
    monkeypatch.setenv("ADAPTOR", adaptor)
    record = run(CONFIGS / "regression" / "totalsegmentator_age.yaml", root.parent, split, tmp_path, "regression")
    assert record.complete
    volume = record.probe.table[0]
    assert (volume.name, volume.known, volume.unit) == ("volume_liver", 3, "log10 of ml")
    assert {column.name: column.levels for column in record.probe.table}.get("institute", 0) == 0, "of three cases"
