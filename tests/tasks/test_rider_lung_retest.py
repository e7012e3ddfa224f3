"""RIDER Lung CT: which series are test and retest, what is left out and said of it, and the way through eva."""

import shutil

import nibabel as nib
import numpy as np
import pytest

from tapct.errors import TaskError
from tapct.tasks.findings import findings
from tapct.tasks.rider_lung_retest import COLLECTION, RIDERLungRetest
from tests.data import rider
from tests.data.drawn import write_seg
from tests.data.slabs import slab
from tests.data.tcia import box, places
from tests.kinds.test_reliability import by_hand
from tests.tasks.end_to_end import run, write_split

CONFIG = "reliability/rider_lung_retest.yaml"
FIRST, *OTHERS = rider.PATIENTS


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return rider.write(tmp_path_factory.mktemp("release"))


@pytest.fixture
def root(release, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(release, tmp_path / "data" / "rider_lung_retest")


def said(root) -> dict[str, str]:
    return {message: status for status, message, _ in findings("rider_lung_retest", str(root.parent))}


def series_number(path) -> int:
    return int(path.name.partition(".")[0])


def test_a_case_is_a_series_of_a_patient_in_the_order_of_time(release):
    part = RIDERLungRetest(release, "test")
    part.validate()
    assert part.cases == [f"{patient}_{one}" for patient in rider.PATIENTS for one in ("TEST", "RETEST")]
    assert {part.patient(case) for case in part.cases} == set(rider.PATIENTS)
    for place, patient in enumerate(rider.PATIENTS):
        test, retest = (f"{patient}_{one}" for one in ("TEST", "RETEST"))
        assert [series_number(part.ct_path(case)) for case in (test, retest)] == [4, 8]
        one, other = (part.read(case) for case in (test, retest))
        assert one[1].tolist() == [1, 0, 1.25]
        assert other[1].tolist() == [2, 0, 1.25]
        away = one[0].hu - slab(place).hu
        assert away.min() >= 0
        assert away.max() < 20
        assert not np.array_equal(one[0].hu, other[0].hu)


def test_time_goes_before_number_and_number_decides_without_it(root):
    study = rider.folder_of(root, FIRST)
    shutil.rmtree(study)
    rider.write_series(study, FIRST, 4, 0, seed=1, AcquisitionDate="20060920", AcquisitionTime="101500.25")
    rider.write_series(study, FIRST, 8, 0, seed=2, AcquisitionDate="20060920", AcquisitionTime="095900")
    assert series_number(RIDERLungRetest(root, "test").ct_path(f"{FIRST}_TEST")) == 8
    shutil.rmtree(study)
    rider.write_series(study, FIRST, 101, 0, seed=1)
    rider.write_series(study, FIRST, 12, 0, seed=2)
    assert series_number(RIDERLungRetest(root, "test").ct_path(f"{FIRST}_TEST")) == 12


def test_structure_sets_segmentations_and_scouts_are_passed_over(root):
    study = rider.folder_of(root, FIRST)
    for title, number in (("RIDER-112916494020190220TEST", 24503), ("RIDER-112916494020190402RETEST", 93341)):
        path = study / f"300.000000-{title}-{number}" / "1-1.dcm"
        write_seg(path, {"GTV": box(0)}, places(0), rider.uid_of(FIRST, 4), pixel_spacing=(6, 6))
    part = RIDERLungRetest(root, "test")
    assert len(part) == 8
    assert "fail" not in said(root).values()


def test_reconstructions_that_were_added_are_passed_over_and_named(root):
    study = root / COLLECTION / FIRST / "09-05-2006-NA-NA-04592"
    for number, (thickness, kernel) in {100: ("1.25", "STANDARD"), 2: ("2.5", "STANDARD")}.items():
        uid = rider.uid_of(FIRST, number, "1.3.6.1.4.1.14519.5.2.1.")
        header = {"SliceThickness": thickness, "ConvolutionKernel": kernel}
        rider.write_series(study, FIRST, number, 0, seed=number, uid=uid, **header)
    part = RIDERLungRetest(root, "test")
    assert [series_number(part.ct_path(f"{FIRST}_{one}")) for one in ("TEST", "RETEST")] == [4, 8]
    (message,) = (message for message in said(root) if "passed over" in message)
    assert message.startswith(f"{FIRST}: 2 other CT series are passed over: 100.000000-NA-")


def test_a_patient_with_one_scan_is_left_out_by_name(root):
    shutil.rmtree(next(rider.folder_of(root, FIRST).glob("8.000000-*")))
    part = RIDERLungRetest(root, "test")
    assert part.patients == OTHERS
    assert set(part.excluded) == {f"{FIRST}_TEST", f"{FIRST}_RETEST"}
    reason = part.excluded[f"{FIRST}_TEST"]
    assert reason.startswith(f"{FIRST} has one CT series alone, 4.000000-NA-")
    assert reason.endswith("(1.25 mm, kernel LUNG): there is nothing to compare")
    found = said(root)
    assert found[f"{FIRST}_TEST, {FIRST}_RETEST (2 cases) are left out: {reason}"] == "warn"
    assert found["all 6 cases can be read, scan and target"] == "ok"


def odd_third(root, study):
    rider.write_series(study, FIRST, 12, 0, seed=5, ConvolutionKernel="STANDARD")


def odd_patient(root, study):
    shutil.rmtree(next(study.glob("8.000000-*")))
    rider.write_series(study, OTHERS[0], 8, 0, seed=5)


def odd_order(root, study):
    for path in study.glob("[48].000000-*"):
        shutil.rmtree(path)
    for number in (4, 8):
        rider.write_series(study, FIRST, number, 0, seed=number, SeriesNumber=None)


def odd_days(root, study):
    shutil.rmtree(next(study.glob("8.000000-*")))
    rider.write_series(study, FIRST, 8, 0, seed=5, AcquisitionDate="20061120", AcquisitionTime="092800")


def odd_twice(root, study):
    (study.parent / "TEST.nii.gz").touch()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (odd_third, "has 3 CT series, of which 3 are of the first upload: "),
        (odd_patient, f"is of the patient {OTHERS[0]}"),
        (odd_order, "neither time of acquisition nor number says which of "),
        (odd_days, "are of different days (20060920, 20061120)"),
        (odd_twice, "is there as NIfTI and as DICOM"),
    ],
)
def test_what_is_not_clear_is_not_guessed(root, change, words):
    change(root, rider.folder_of(root, FIRST))
    part = RIDERLungRetest(root, "test")
    assert part.patients == OTHERS
    assert words in part.excluded[f"{FIRST}_RETEST"]
    (status,) = (
        status for message, status in said(root).items() if message.startswith(f"{FIRST} ") and words in message
    )
    assert status == "fail"


def test_nifti_files_serve_too_and_folders_of_the_downloader_do_not_matter(tmp_path):
    for place, patient in enumerate(OTHERS):
        folder = tmp_path / "manifest-1581629373965" / COLLECTION / patient
        folder.mkdir(parents=True)
        ct = slab(place)
        for name in ("TEST", "RETEST"):
            xyz = ct.affine @ np.eye(4)[[2, 1, 0, 3]]
            nib.save(nib.Nifti1Image(ct.hu.astype(np.int16).transpose(2, 1, 0), xyz), folder / f"{name}.nii.gz")
    part = RIDERLungRetest(tmp_path, "test")
    part.validate()
    ct, target = part.read(f"{OTHERS[1]}_RETEST")
    assert np.array_equal(ct.hu, slab(1).hu)
    assert target[0] == 2
    assert target[1:].isnan().all()


def test_a_split_with_one_scan_of_a_patient_is_refused(release, tmp_path):
    split = tmp_path / "split.csv"
    rows = [f"{FIRST}_TEST,{FIRST},test", *(f"{OTHERS[0]}_{one},{OTHERS[0]},test" for one in ("TEST", "RETEST"))]
    split.write_text("\n".join(["case,patient,split", *rows, ""]))
    with pytest.raises(TaskError, match=f"does not have a first and a second scan, and no other, of {FIRST}"):
        RIDERLungRetest(release, "test", split).validate()
    write_split(split, test=["RIDER-1_FIRST"])
    with pytest.raises(TaskError, match="'RIDER-1_FIRST' is no case of rider_lung_retest"):
        RIDERLungRetest(release, "test", split).validate()


def test_a_folder_without_a_pair_is_refused_by_name(root):
    for patient in rider.PATIENTS:
        shutil.rmtree(next(rider.folder_of(root, patient).glob("4.000000-*")))
    with pytest.raises(TaskError, match=f"no patient with two scans under .*: {FIRST} has one CT series alone"):
        RIDERLungRetest(root, "test")
    shutil.rmtree(root / COLLECTION)
    with pytest.raises(TaskError, match=r"nor a folder of one \(RIDER-\.\.\.\)"):
        RIDERLungRetest(root, "test")
    (message,) = (message for message, status in said(root).items() if status == "fail")
    assert message.startswith("there is no patient with two scans")


def test_the_doctor_counts_against_the_collection(root):
    found = said(root)
    assert found["4 patients, and the collection has 32"] == "warn"
    assert (
        found["4 pairs; in 0 the kernels differ, in 0 the slice thickness, and of 0 one of both is not known"] == "ok"
    )
    assert found["all 8 cases are there (8 test)"] == "ok"
    assert "fail" not in found.values()


def test_eva_fit_reports_the_correlations_of_its_own_features(root, tmp_path):
    record = run(CONFIG, root.parent, None, tmp_path, "reliability", encoder="intensity")
    assert record.task.cases == {"train": 0, "val": 0, "test": 8}
    assert (record.probe.adaptor, record.probe.pooling) == ("cosine", "mean")
    assert record.shortcuts is None
    (of_run,) = record.runs
    cases = {case.case: case.outcome for case in of_run.cases["test"]}
    first, second = (
        np.array([cases[f"{patient}_{one}"]["features"]["scan"] for patient in rider.PATIENTS]).T
        for one in ("TEST", "RETEST")
    )
    varies = np.array([bool(a.any() or b.any()) for a, b in zip(first, second, strict=True)])
    expected = [max(-1, by_hand(a, b)) for a, b in zip(first[varies], second[varies], strict=True)]
    assert of_run.metrics["test"]["MedianICC"] == pytest.approx(np.median(expected), abs=1e-9)
    assert of_run.metrics["test"]["ConstantFeatures"] == (~varies).sum()
    assert of_run.metrics["test"]["Identification"] == 1, "a patient's own noise is less than another patient"
