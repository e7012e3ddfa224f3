"""LUNA16 from a tree like the release's to a record, and each nodule's crop against its place in the world."""

from collections import Counter

import numpy as np
import pytest
import SimpleITK as sitk
import yaml

from tapct.errors import TaskError, VolumeError
from tapct.tasks import SplitTable, TaskData, crops
from tapct.tasks.luna16 import COLUMNS, LIST, LUNA16
from tapct.tasks.nodules import lps_to_ras_point, read_nodules
from tapct.volumes import Grid, read_ct
from tests.data import luna16
from tests.data.luna16 import CUBE_HU, UNMEASURED_HU
from tests.tasks import end_to_end
from tests.tasks.shipped import SPLITS
from tools.splits import luna_splits

SPLIT = SPLITS / "luna16.csv"


@pytest.fixture(scope="module")
def listed():
    return read_nodules(LIST, COLUMNS)


def some(listed, split, *labels):
    """The first nodules of a split that have these labels and are alone in their scan."""
    alone = Counter(n.series for n in listed.values())
    names = [case for case in SplitTable.read(SPLIT).cases[split] if alone[listed[case].series] == 1]
    return [next(c for c in names if listed[c].malignant == label) for label in labels]


def one_case(tmp_path, case, **options) -> LUNA16:
    """The dataset of one nodule, in the folder tmp_path/luna16."""
    luna16.write(tmp_path / "luna16", [case], **options)
    return LUNA16(tmp_path / "luna16", "test", luna16.write_split(tmp_path / "split.csv", test=[case]))


def test_the_list_and_the_split_have_the_published_numbers(listed):
    assert len(listed) == 677
    assert Counter(n.malignant for n in listed.values()) == {0: 350, 1: 327}
    assert len({n.series for n in listed.values()}) == 433
    assert len({n.patient for n in listed.values()}) == 432
    table = SplitTable.read(SPLIT)  # refuses a patient on two sides
    assert table.counts == {"train": 453, "val": 75, "test": 149}
    patients = {split: {listed[case].patient for case in cases} for split, cases in table.cases.items()}
    assert {split: len(p) for split, p in patients.items()} == {"train": 303, "val": 43, "test": 86}
    assert sum(map(len, patients.values())) == 432
    malignant = {split: sum(listed[case].malignant for case in cases) for split, cases in table.cases.items()}
    assert malignant == {"train": 225, "val": 34, "test": 68}


def test_the_split_comes_from_the_list_byte_for_byte():
    assert luna_splits.to_csv("luna16", LIST) == SPLIT.read_text(encoding="utf-8")


def test_a_scan_that_is_replaced_behind_its_name_is_read_again(tmp_path, listed):
    case = some(listed, "test", 1)[0]
    dataset = one_case(tmp_path, case)
    before = dataset.read_scan(case).hu
    (raw,) = (tmp_path / "luna16").rglob("*.raw")
    (np.fromfile(raw, np.int16) + 7).astype(np.int16).tofile(raw)
    after = dataset.read_scan(case).hu
    assert before.shape == after.shape
    assert not np.array_equal(before, after), "the scan in memory is of the file as it was"


def test_places_are_turned_from_lps_to_ras_once(tmp_path):
    """ITK is the judge: its voxel of a point in its world is ours of the turned point."""
    place = (40.0, -25.0, 310.0)
    image = luna16.scan([place])
    sitk.WriteImage(image, str(tmp_path / "scan.mha"))
    index = read_ct(tmp_path / "scan.mha").world_to_index(np.array([lps_to_ras_point(*place)]))[0]
    assert index[::-1] == pytest.approx(image.TransformPhysicalPointToContinuousIndex(place))
    assert lps_to_ras_point(*place) == (-40.0, 25.0, 310.0)


@pytest.mark.parametrize("flipped", [False, True])
def test_a_crop_has_its_nodule_in_the_middle(flipped, tmp_path, listed):
    """(world - origin) / spacing, without the direction, is off by the whole scan where rows run backwards."""
    (case,) = some(listed, "test", 1)
    dataset = one_case(tmp_path, case, flipped=flipped)
    volume, target, metadata = dataset[0]
    hu = volume[:, 0].numpy()
    assert hu.shape == (17, 17, 17)  # 50 mm at 3 mm
    assert np.argwhere(hu == CUBE_HU).mean(axis=0) == pytest.approx([8, 8, 8])
    assert (hu == CUBE_HU).sum() == 27
    x, y, z, _ = metadata["affine"].numpy() @ [8, 8, 8, 1]
    assert (-x, -y, z) == pytest.approx(luna16.lps(listed[case]), abs=1.51)
    assert target.tolist() == [1]
    assert metadata["patient"] == listed[case].patient
    mask = dataset.mask(case, Grid.of(hu.shape, metadata["affine"].numpy()))
    middle_mm = mask.grid.affine @ [*np.argwhere(mask.inside).mean(axis=0), 1]
    assert np.linalg.solve(metadata["affine"].numpy(), middle_mm)[:3] == pytest.approx([8, 8, 8], abs=0.51)
    mm3 = mask.inside.sum() * abs(np.linalg.det(mask.grid.affine[:3, :3]))
    assert mm3 == pytest.approx(np.pi / 6 * listed[case].diameter_mm ** 3, rel=0.01)
    # The whole crop is the scan's own voxels, without resampling: by ITK, in the scan's own order of rows.
    image = sitk.ReadImage(str(dataset.ct_path(case)))
    k, j, i = image.TransformPhysicalPointToIndex(luna16.lps(listed[case]))[::-1]
    block = sitk.GetArrayFromImage(image)[k - 8 : k + 9, j - 8 : j + 9, i - 8 : i + 9]
    assert np.array_equal(hu, block[:, ::-1, ::-1] if flipped else block)


def test_what_the_scanner_did_not_measure_is_as_outside_the_scan_and_all_else_untouched(tmp_path, listed):
    (case,) = some(listed, "test", 0)
    whole = one_case(tmp_path / "whole", case)[0][0]
    round_ = one_case(tmp_path / "round", case, field_of_view_mm=20)[0][0]
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(next((tmp_path / "round").rglob("subset3/*.mhd")))))
    assert stored.min() == UNMEASURED_HU
    outside = round_ == -1024
    assert 0.3 < outside.float().mean() < 0.8
    assert (round_[~outside] == whole[~outside]).all()


def test_noise_below_air_is_air(tmp_path, listed):
    (case,) = some(listed, "test", 0)
    dataset = one_case(tmp_path, case)
    path = str(dataset.ct_path(case))
    image = sitk.ReadImage(path)
    hu = sitk.GetArrayFromImage(image)
    hu[:, ::2] = -1030
    noisy = sitk.GetImageFromArray(hu)
    noisy.CopyInformation(image)
    sitk.WriteImage(noisy, path)
    assert dataset[0][0].min() == -1024


@pytest.mark.parametrize("folder", ["subset0", "", "LUNA16/subset7", "LUNA16"])
def test_scans_are_found_where_mirrors_put_them_and_the_masks_of_their_name_are_not(folder, tmp_path, listed):
    (case,) = some(listed, "test", 1)
    dataset = one_case(tmp_path, case, folder=folder)
    dataset.validate()
    assert dataset.ct_path(case).parent == tmp_path / "luna16" / folder
    assert dataset.filename(0).endswith(f"{listed[case].series}.mhd")
    assert dataset[0][0].max() == CUBE_HU


def test_a_place_outside_the_scan_names_the_nodule(tmp_path, listed):
    (case,) = some(listed, "test", 1)
    dataset = one_case(tmp_path, case)
    path = dataset.ct_path(case)
    image = sitk.ReadImage(str(path))
    image.SetOrigin([v + 1000 for v in image.GetOrigin()])
    sitk.WriteImage(image, str(path))
    with pytest.raises(VolumeError, match=rf"luna16, case {case}: .*outside the scan"):
        dataset[0]


def test_damaged_scans_are_named_before_anything_is_encoded(tmp_path, listed):
    (case,) = some(listed, "test", 1)
    raw = one_case(tmp_path, case).ct_path(case).with_suffix(".raw")

    def setup():
        TaskData("luna16", str(tmp_path), split_file=str(tmp_path / "split.csv")).setup("fit")

    setup()
    raw.write_bytes(raw.read_bytes()[:100_000])
    with pytest.raises(TaskError, match=rf"1 cases cannot be used:\n  luna16, case {case}: .*mhd has a header"):
        setup()
    raw.unlink()
    with pytest.raises(TaskError, match=r"of the split 'test' lack files .*\.raw\. To obtain"):
        setup()
    dataset = LUNA16(tmp_path / "luna16", "test", tmp_path / "split.csv")
    with pytest.raises(TaskError, match=rf"1 of 1 cases of the split 'test' lack files .*{raw.name}.*zenodo"):
        dataset.validate()


def test_a_scan_of_three_slices_is_refused_though_its_crop_is_padded_to_seventeen(tmp_path, listed):
    (case,) = some(listed, "test", 1)
    dataset = one_case(tmp_path, case)
    path = str(dataset.ct_path(case))
    image = sitk.ReadImage(path)
    k = image.TransformPhysicalPointToIndex(luna16.lps(listed[case]))[2]
    sitk.WriteImage(image[:, :, k - 1 : k + 2], path)
    with pytest.raises(TaskError, match=rf"case {case}: .*has 3 slices"):
        dataset[0]
    sitk.WriteImage(image[:, :, k - 2 : k + 3], path)
    assert dataset[0][0].shape[0] == 17, "five are enough"


def test_nodules_of_one_scan_are_cut_from_one_reading_of_it(tmp_path, listed, monkeypatch):
    pair = [case for case in listed if listed[case].patient == "LIDC-IDRI-0003"][:2]
    luna16.write(tmp_path, pair)
    other = some(listed, "train", 0)
    luna16.write(tmp_path, other)
    dataset = LUNA16(tmp_path, "train", luna16.write_split(tmp_path / "split.csv", train=[*pair, *other]))
    reads, read = [], crops.read_ct
    monkeypatch.setattr(crops, "read_ct", lambda path: reads.append(path) or read(path))
    cubes = [dataset[i][0] for i in range(3)]
    assert len(reads) == 2
    assert all(cube[8, 0, 8, 8] == CUBE_HU for cube in cubes)
    assert not (cubes[0] == cubes[1]).all()
    one, another = (dataset.scan_cache_key(case) for case in pair)
    assert one != another, "the keys of their features"
    assert one == dataset.scan_cache_key(pair[0])


def test_a_split_that_gives_a_nodule_to_another_patient_is_refused(tmp_path, listed):
    first, second = [case for case in listed if listed[case].patient == "LIDC-IDRI-0003"][:2]
    split = end_to_end.write_split(tmp_path / "split.csv", train=[first], test=[second])  # case = patient
    with pytest.raises(TaskError, match=r"is of patient LIDC-IDRI-0003 in .*a patient could be on two sides"):
        LUNA16(tmp_path, "train", split)
    split = end_to_end.write_split(tmp_path / "split.csv", train=["1.2.3_1"])
    with pytest.raises(TaskError, match=r"lacks 1 of the 1 nodules of the split split.csv, such as 1\.2\.3_1"):
        LUNA16(tmp_path, "train", split)


def test_the_whole_task_runs_through_eva(tmp_path, listed):
    cases = {split: some(listed, split, 0, 1) for split in ("train", "val", "test")}
    luna16.write(tmp_path / "luna16", [case for names in cases.values() for case in names])
    split = luna16.write_split(tmp_path / "split.csv", **cases)
    record = end_to_end.run("classification/luna16.yaml", tmp_path, split, tmp_path, "classification")
    (run,) = record.runs
    assert {part: [r.case for r in results] for part, results in run.cases.items()} == {
        part: cases[part] for part in ("val", "test")
    }
    assert [r.target for r in run.cases["test"]] == [{"malignant": 0}, {"malignant": 1}]
    assert [r.patient for r in run.cases["test"]] == [listed[case].patient for case in cases["test"]]
    assert 0 <= run.metrics["test"]["MicroAUROC"] <= 1
    assert record.task.metric == "MicroAUROC"
    assert record.task.cases == {"train": 2, "val": 2, "test": 2}
    assert record.probe.fit_windows is True


@pytest.mark.parametrize("task", ["luna16", "luna25"])
def test_a_step_is_of_64_nodules_as_in_the_paper(task):
    config = yaml.safe_load((end_to_end.CONFIGS / "classification" / f"{task}.yaml").read_text(encoding="utf-8"))
    assert config["trainer"]["init_args"]["accumulate_grad_batches"] * config["data"]["init_args"]["batch_size"] == 64
