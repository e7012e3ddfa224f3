"""CT-RATE on a tiny release of its layout and quirks, with real slices and invented labels."""

import shutil

import nibabel as nib
import numpy as np
import pytest

from tapct.errors import TapctError, TaskError
from tapct.leaderboard.overlap import known_overlap
from tapct.tasks import SPLITS, TaskData
from tapct.tasks.ct_rate import CTRATE
from tapct.tasks.ct_rate_release import FINDINGS, CTRateRelease, VolumeName
from tapct.tasks.ct_rate_scans import MACHINE_READ, side
from tapct.tasks.findings import findings
from tests.data import ct_rate
from tests.data.slabs import edited
from tests.tasks.end_to_end import SMALL, run

PATCHES = {**SMALL, "class_path": "tests.small.Drifting"}
METADATA = "dataset/metadata/validation_metadata.csv"
LABELS = "dataset/multi_abnormality_labels/valid_predicted_labels.csv"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return ct_rate.write(tmp_path_factory.mktemp("release"))


@pytest.fixture
def root(release, tmp_path):
    return shutil.copytree(release, tmp_path / "data" / "ct_rate")


def parts(root):
    return {split: CTRATE(root, split) for split in SPLITS}


@pytest.mark.thorough
def test_the_whole_task_runs_in_eva(root, tmp_path):
    record = run("classification/ct_rate.yaml", root.parent, None, tmp_path, "classification", encoder=PATCHES)
    cases = {case.case: case for case in record.runs[0].cases["test"]}
    assert {case: of.patient for case, of in cases.items()} == ct_rate.REPORTED
    for name, case in cases.items():
        assert case.target == dict(zip(FINDINGS, ct_rate.findings(f"{name}_1"), strict=True))
    assert record.task.cases == {"train": 5, "val": 2, "test": 4}
    assert record.task.patients == {"train": 4, "val": 2, "test": 3}
    assert record.task.excluded == {"valid_2_a": "no_chest_valid.txt lists it: it is a head, not a chest"}
    assert record.task.split == CTRATE.split_rule
    assert record.notice == MACHINE_READ
    assert record.task.metric == "MacroAUROC"
    found = record.runs[0].metrics["test"]
    assert "MacroAUROC" not in found, "four cases are too few for a mean over labels"
    assert found["RareLabels"] + found["UndefinedLabels"] == len(FINDINGS)
    assert 0 <= found["MicroAUROC"] <= 1


def test_one_volume_stands_for_the_reconstructions_of_a_scan_and_it_is_no_head(root):
    release = CTRateRelease(root)
    assert {scan: of.name.volume for scan, of in release.scans.items() if scan.startswith("valid")} == {
        **{"valid_1_a": "valid_1_a_1", "valid_2_a": "valid_2_a_1", "valid_2_b": "valid_2_b_2"},
        **{"valid_3_a": "valid_3_a_1", "valid_3_b": "valid_3_b_1"},
    }
    assert {scan: of.left_out is None for scan, of in release.scans.items()}["valid_2_a"] is False
    assert parts(root)["test"].ct_path("valid_2_b") == ct_rate.path_of(root / "dataset", "valid_2_b_2")


def test_the_order_of_rows_and_the_top_folder_decide_nothing(root, tmp_path):
    wanted = {split: (part.table.sha256, sorted(part.cases)) for split, part in parts(root).items()}
    edited(root / LABELS, lambda text: "".join([(rows := text.splitlines(True))[0], *reversed(rows[1:])]))
    assert {split: (part.table.sha256, sorted(part.cases)) for split, part in parts(root).items()} == wanted
    (root / "dataset").rename(tmp_path / "bare")
    assert {split: (p.table.sha256, sorted(p.cases)) for split, p in parts(tmp_path / "bare").items()} == wanted
    for part in parts(tmp_path / "bare").values():
        part.validate()


def test_a_tenth_of_the_training_patients_selects_and_a_patient_is_on_one_side():
    sides = [side(VolumeName.parse(f"train_{n}_a_1.nii.gz", "")) for n in range(1, 5001)]
    assert 0.09 < sides.count("val") / len(sides) < 0.11
    assert {side(VolumeName.parse(f"train_7_{letter}_2", "")) for letter in "abc"} == {
        side(VolumeName.parse("train_7_a_1", ""))
    }
    assert side(VolumeName.parse("valid_7_a_1", "")) == "test"


def test_a_volume_of_one_millimetre_is_read_where_the_metadata_say_so(root):
    hu_without_spacing(root)
    part = CTRATE(root, "test")
    (root / METADATA).write_text(
        (root / METADATA).read_text().replace('"[0.7, 0.7]",-1024,1,251,1.5', '"[1, 1.0]",0,1,8,1')
    )
    scan = part.read_scan("valid_1_a")
    assert scan.spacing_mm == (1, 1, 1)
    grid = part.scan_grid("valid_1_a")
    assert tuple(grid.shape) == scan.shape
    np.testing.assert_array_equal(grid.affine, scan.affine)


def test_models_that_saw_it_are_marked():
    assert known_overlap("ct_rate", ["CT-RATE", "LIDC-IDRI"]) == ("CT-RATE",)


# --- what can be wrong -------------------------------------------------------------------------------------


def another_part(root):
    edited(root / LABELS, lambda text: text.replace("valid_3_b_1", f"{ct_rate.train()[0]}"))


def twice(root):
    edited(root / LABELS, lambda text: text.replace("valid_3_b_1", "valid_3_a_1"))


def no_list(root):
    (root / "dataset/metadata/no_chest_valid.txt").unlink()


def a_list_of_something_else(root):
    edited(root / "dataset/metadata/no_chest_valid.txt", lambda text: "<!doctype html>\n")


def cut_metadata(root):
    edited(root / METADATA, lambda text: text[: len(text) // 2])


def no_metadata(root):
    (root / METADATA).unlink()


def no_volume(root):
    ct_rate.path_of(root / "dataset", "valid_1_a_1").unlink()


def first_upload(root):
    shutil.move(root / "dataset" / "valid_fixed", root / "dataset" / "valid")


def first_upload_in_the_place_of_the_second(root):
    path = ct_rate.path_of(root / "dataset", "valid_1_a_1")
    ct_rate.as_first_upload(path, path)


def hu_without_spacing(root):
    """A volume of the first upload whose voxels happen to be HU, as those of scanners that store them so."""
    path = ct_rate.path_of(root / "dataset", "valid_1_a_1")
    stored = np.asanyarray(nib.load(path).dataobj)
    nib.save(nib.Nifti1Image(stored, np.eye(4)), path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (another_part, r"valid_predicted_labels\.csv: train_\d+_a_1 is of the other part, 'train'"),
        (twice, r"valid_3_a_1: it is there twice"),
        (no_list, r"there is no list .*no_chest_valid\.txt.*of CT-RATE that are heads"),
        (a_list_of_something_else, r"no_chest_valid\.txt: '<!doctype html>' is not a volume of CT-RATE"),
        (no_metadata, r"there is no metadata .*validation_metadata\.csv"),
        (cut_metadata, r"validation_metadata\.csv: line \d has \d+ values, and the header 16"),
        (no_volume, r"1 of 4 cases of the split 'test' lack files .*valid_1_a_1\.nii\.gz"),
        (first_upload, r"4 scans of the split 'test' are there in the first upload alone.*lack rescale and spacing"),
        (hu_without_spacing, r"valid_1_a: .*voxels of 1 mm .* \(0\.7, 0\.7, 1\.5 mm\): it is of the first upload"),
        (first_upload_in_the_place_of_the_second, r"case valid_1_a: .*lack their RescaleIntercept"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_data_stops_before_anything_is_encoded_and_is_named(spoil, message, root):
    spoil(root)
    with pytest.raises(TapctError, match=message):
        TaskData("ct_rate", str(root.parent)).setup("fit")


def test_a_value_that_is_no_label_is_refused_and_one_that_pandas_wrote_is_read(root):
    first = f"valid_1_a_1.nii.gz,{ct_rate.findings('valid_1_a_1')[0]},"
    edited(root / LABELS, lambda text: text.replace(first, first[:-1] + ".0,"))
    assert CTRATE(root, "test").targets("valid_1_a") == tuple(ct_rate.findings("valid_1_a_1"))
    edited(root / LABELS, lambda text: text.replace(first[:-1] + ".0,", "valid_1_a_1.nii.gz,0.7,"))
    with pytest.raises(TaskError, match=r"valid_1_a_1: Medical material is '0\.7', but must be 0 or 1"):
        CTRATE(root, "test")


def test_a_scan_whose_reconstructions_have_different_labels_is_left_out_and_named(root):
    other = 1 - ct_rate.findings("valid_1_a_2")[0]
    edited(root / LABELS, lambda text: text.replace(f"valid_1_a_2.nii.gz,{1 - other}", f"valid_1_a_2.nii.gz,{other}"))
    part = CTRATE(root, "test")
    assert part.excluded["valid_1_a"] == "its reconstructions have different labels, and one report"
    assert "valid_1_a" not in part.cases


def test_the_doctor_counts_against_the_release_and_names_reports_without_scans(root):
    found = list(findings("ct_rate", str(root.parent)))
    assert ("ok", "all 11 cases can be read, scan and target", "") in found
    assert [message for status, message, _ in found if status == "fail"] == []
    messages = {message: status for status, message, _ in found}
    assert messages["valid: 7 volumes with labels, and the release has 3,039"] == "warn"
    assert messages["valid: 2 volumes listed as no chest, and the release has 37"] == "warn"
    assert not [message for message in messages if "report" in message and messages[message] != "ok"]
    assert not [message for message in messages if "in no split" in message]
    edited(
        root / "dataset/radiology_text_reports/validation_reports.csv",
        lambda t: t.replace("valid_3_b_1", "valid_9_a_1"),
    )
    ct_rate.write_volume(root / "dataset", "valid_9_a_1", 0)
    messages = {message: status for status, message, _ in findings("ct_rate", str(root.parent))}
    assert messages["valid: 1 reports without labels and scan: valid_9_a_1"] == "warn"
    assert messages["valid: 1 volumes with labels and without a report: valid_3_b_1"] == "warn"
    assert messages["1 scans are in no split of the task: dataset/valid_fixed/valid_9/valid_9_a"] == "warn"
    no_volume(root)
    assert messages.keys() != {message for _, message, _ in findings("ct_rate", str(root.parent))}
