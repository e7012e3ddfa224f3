"""RIDER Lung CT: which series are test and retest, what the doctor says of the others, and the way through eva."""

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
NEWER = "1.3.6.1.4.1.14519.5.2.1."
"""How UIDs of what was added begin."""


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return rider.write(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return rider.split(tmp_path_factory.mktemp("split") / "split.csv")


@pytest.fixture
def root(release, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(release, tmp_path / "data" / "rider_lung_retest")


@pytest.fixture
def said(root, split):
    """What the doctor says, message to status."""

    def ask() -> dict[str, str]:
        found = findings("rider_lung_retest", str(root.parent), split_file=str(split))
        return {message: status for status, message, _ in found}

    return ask


def series_number(path) -> int:
    return int(path.name.partition(".")[0])


def test_the_split_has_both_scans_of_the_patients_with_two():
    cases = RIDERLungRetest.shipped_split().cases["test"]
    assert len(cases) == 2 * len(set(cases.values())) == 62
    assert set(cases) == {f"{patient}_{one}" for patient in cases.values() for one in ("TEST", "RETEST")}
    assert set(rider.PATIENTS) < set(cases.values())
    assert "RIDER-8509201188" not in cases.values(), "it has one scan"


def test_a_case_is_a_series_of_a_patient_in_the_order_of_time(release, split):
    part = RIDERLungRetest(release, "test", split)
    part.validate()
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


@pytest.mark.parametrize(
    ("one", "other", "first"),
    [
        ((4, 1, {"AcquisitionTime": "101500.25"}), (8, 2, {"AcquisitionTime": "095900"}), 2),
        ((101, 1, {}), (12, 2, {}), 2),
        ((5, 2, {}), (5, 1, {}), 1),
    ],
)
def test_time_goes_before_number_and_the_uid_decides_without_both(root, split, one, other, first):
    """Four patients have two series of one number, each in a study of its own."""
    folder = rider.folder_of(root, FIRST)
    shutil.rmtree(folder)
    made = {}
    for number, uid, header in (one, other):
        study = folder.with_name(f"study {uid}")
        made[uid] = rider.write_series(study, FIRST, number, 0, seed=uid, uid=rider.uid_of(FIRST, uid), **header)
    assert RIDERLungRetest(root, "test", split).ct_path(f"{FIRST}_TEST") == made[first]


def test_what_was_added_to_the_collection_is_passed_over(root, split, said):
    study = rider.folder_of(root, FIRST)
    for title, number in (("RIDER-112916494020190220TEST", 24503), ("RIDER-112916494020190402RETEST", 93341)):
        path = study / f"300.000000-{title}-{number}" / "1-1.dcm"
        write_seg(path, {"GTV": box(0)}, places(0), rider.uid_of(FIRST, 4), pixel_spacing=(6, 6))
    added = root / COLLECTION / FIRST / "09-05-2006-NA-NA-04592"
    for number, (thickness, kernel) in {100: ("1.25", "STANDARD"), 2: ("2.5", "STANDARD")}.items():
        header = {"SliceThickness": thickness, "ConvolutionKernel": kernel, "uid": rider.uid_of(FIRST, number, NEWER)}
        rider.write_series(added, FIRST, number, 0, seed=number, **header)
    part = RIDERLungRetest(root, "test", split)
    assert [series_number(part.ct_path(f"{FIRST}_{one}")) for one in ("TEST", "RETEST")] == [4, 8]
    found = said()
    assert found["2 CT series that are not of the first upload are passed over"] == "ok"
    assert "fail" not in found.values()


def test_a_scan_that_is_not_there_is_missing_by_name_and_nothing_takes_its_place(root, split, said):
    study = rider.folder_of(root, FIRST)
    shutil.rmtree(next(study.glob("8.000000-*")))
    rider.write_series(study, FIRST, 9, 0, seed=9, uid=rider.uid_of(FIRST, 9, NEWER))
    with pytest.raises(TaskError, match=r"2 of 8 cases of the split 'test' lack files .*RIDER-1129164940"):
        RIDERLungRetest(root, "test", split).validate()
    found = said()
    (message,) = (message for message in found if message.startswith(f"{FIRST} has one CT series of the first upload"))
    assert found[message] == "fail"
    assert "4.000000-NA-" in message
    assert "(1.25 mm, kernel LUNG) (others: 9.000000-NA-" in message
    assert any(message.startswith("6 of 8 cases are there; missing: ") for message in found)
    shutil.rmtree(study.parent)
    assert f"{FIRST}_TEST (<series of the TEST>)" in next(m for m in said() if m.startswith("6 of 8 cases are there"))


def odd_third(study):
    rider.write_series(study, FIRST, 12, 0, seed=5)


def odd_patient(study):
    shutil.rmtree(next(study.glob("8.000000-*")))
    rider.write_series(study, OTHERS[0], 8, 0, seed=5)


def odd_twice(study):
    (study.parent / "TEST.nii.gz").touch()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (odd_third, "has 3 CT series of the first upload: "),
        (odd_patient, f"is of the patient {OTHERS[0]}"),
        (odd_twice, "is there as NIfTI and as DICOM"),
    ],
)
def test_what_is_not_clear_is_not_guessed(root, split, said, change, words):
    change(rider.folder_of(root, FIRST))
    with pytest.raises(TaskError, match=words):
        RIDERLungRetest(root, "test", split).ct_path(f"{FIRST}_RETEST")
    assert any(words in message and status == "fail" for message, status in said().items())


@pytest.mark.parametrize(
    ("header", "doubt"),
    [
        ({"AcquisitionDate": "20060922"}, "its scans are of 20060920 and 20060922 by their headers"),
        (
            {"AcquisitionTime": "091500"},
            "both series have one time of acquisition, as two reconstructions of one scan do",
        ),
        ({"ConvolutionKernel": "STANDARD"}, "its scans have the kernels LUNG and STANDARD"),
        ({"SliceThickness": "2.5"}, "its slices are 1.25 and 2.5 mm thick"),
    ],
)
def test_a_pair_that_may_be_none_is_told(root, split, said, header, doubt):
    study = rider.folder_of(root, FIRST)
    shutil.rmtree(next(study.glob("8.000000-*")))
    usual = {"AcquisitionDate": "20060920", "AcquisitionTime": "092800"}
    rider.write_series(study, FIRST, 8, 0, seed=5, **usual | header)
    RIDERLungRetest(root, "test", split).validate()
    assert said()[f"{FIRST}: {doubt}"] == "warn"


def test_nifti_files_serve_too_and_folders_of_the_downloader_do_not_matter(tmp_path, split):
    for place, patient in enumerate(rider.PATIENTS):
        folder = tmp_path / "manifest-1581629373965" / COLLECTION / patient
        folder.mkdir(parents=True)
        ct = slab(place)
        for name in ("TEST", "RETEST"):
            xyz = ct.affine @ np.eye(4)[[2, 1, 0, 3]]
            nib.save(nib.Nifti1Image(ct.hu.astype(np.int16).transpose(2, 1, 0), xyz), folder / f"{name}.nii.gz")
    part = RIDERLungRetest(tmp_path, "test", split)
    part.validate()
    ct, target = part.read(f"{OTHERS[1]}_RETEST")
    assert np.array_equal(ct.hu, slab(2).hu)
    assert target[0] == 2
    assert target[1:].isnan().all()


def test_a_split_with_one_scan_of_a_patient_is_refused(release, tmp_path):
    split = tmp_path / "split.csv"
    rows = [f"{FIRST}_TEST,{FIRST},test", *(f"{OTHERS[0]}_{one},{OTHERS[0]},test" for one in ("TEST", "RETEST"))]
    split.write_text("\n".join(["case,patient,split", *rows, ""]), encoding="utf-8")
    with pytest.raises(TaskError, match=f"does not have a first and a second scan, and no other, of {FIRST}"):
        RIDERLungRetest(release, "test", split).validate()
    write_split(split, test=["RIDER-1_FIRST"])
    with pytest.raises(TaskError, match="'RIDER-1_FIRST' is no case of rider_lung_retest"):
        RIDERLungRetest(release, "test", split).validate()


def test_the_doctor_says_of_a_valid_release_that_it_is(said):
    found = said()
    pairs = "4 pairs; in 0 the kernels differ, in 0 the slice thickness, and of 0 one of both is not known"
    assert found[pairs] == "ok"
    assert found["all 8 cases are there (8 test)"] == "ok"
    assert set(found.values()) == {"ok"}


@pytest.mark.thorough
def test_eva_fit_reports_the_correlations_of_its_own_features(root, split, tmp_path):
    record = run(CONFIG, root.parent, split, tmp_path, "reliability", encoder="intensity")
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
