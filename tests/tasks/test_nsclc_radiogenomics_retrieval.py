"""NSCLC Radiogenomics: the series that the release's own segmentation was drawn on, stages, and the way through eva."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from tapct.errors import TapctError, TaskError
from tapct.leaderboard.overlap import known_overlap
from tapct.tasks.findings import findings
from tapct.tasks.nsclc_radiogenomics_retrieval import CLINICAL_FILE, NSCLCRadiogenomicsRetrieval
from tests.data import nsclc_radiogenomics as release
from tests.data.slabs import slab
from tests.data.tcia import box, write_ct
from tests.tasks.end_to_end import run, write_split

CASES = [patient.name for patient in release.COHORT]
CONFIG = "retrieval/nsclc_radiogenomics_retrieval.yaml"
TARGETS = [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
"""Of those of the cohort whose stage is known."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    release.write(folder / "nsclc_radiogenomics")
    write_split(folder / "split.csv", test=CASES)
    return folder


def dataset(root) -> NSCLCRadiogenomicsRetrieval:
    return NSCLCRadiogenomicsRetrieval(root / "nsclc_radiogenomics", "test", root / "split.csv")


def test_a_case_is_the_series_that_the_release_drew_on(root):
    part = dataset(root)
    part.validate()
    for patient in release.COHORT:
        assert part.ct_path(patient.name).name.startswith("3.000000-THIN LUNG WINDOW")
        assert "AIMI" not in str(part.tumour_path(patient.name))
        ct, target = part.read(patient.name)
        assert np.array_equal(ct.hu, slab(patient.number % 5).hu)
        assert np.array_equal(part.mask(patient.name, ct.grid).inside, box(patient.number % 5))
        if patient.stage == "Not Collected":
            assert target.isnan().all()
        else:
            assert target.tolist() == TARGETS[patient.number - 1]


def test_a_reformat_of_more_slices_is_not_taken(tmp_path):
    """FlexiCT takes the series of most files: of R01-059, a sagittal one."""
    patient = release.COHORT[0]
    release.write(tmp_path / "nsclc_radiogenomics", [patient])
    write_split(tmp_path / "split.csv", test=[patient.name])
    study = release.study_of(tmp_path / "nsclc_radiogenomics", patient)
    drawn = study / "3.000000-THIN LUNG WINDOW-00001"
    for path in sorted(drawn.iterdir())[:4]:
        path.unlink()
    write_ct(study, patient.name, "SAGITTAL", 1, first=2)
    assert dataset(tmp_path).ct_path(patient.name) == drawn
    (tumour,) = study.glob("300.000000-3D*/1-1.dcm")
    tumour.unlink()
    with pytest.raises(TaskError, match=r"has no segmentation '3D Slicer .*SEG 'AIMI lung and nodule"):
        dataset(tmp_path).ct_path(patient.name)


def test_the_folder_of_a_patient_may_hold_nifti_files(tmp_path):
    patient, ct = release.COHORT[2], slab(3)
    folder = tmp_path / "nsclc_radiogenomics" / patient.name
    folder.mkdir(parents=True)
    release.write_clinical(folder.parent)
    write_split(tmp_path / "split.csv", test=[patient.name])
    xyz = ct.affine @ np.eye(4)[[2, 1, 0, 3]]
    nib.save(nib.Nifti1Image(ct.hu.astype(np.int16).transpose(2, 1, 0), xyz), folder / "CT.nii.gz")
    part = dataset(tmp_path)
    assert part.read(patient.name)[1].tolist() == [0, 1, 0], "whole scans need no drawing"
    with pytest.raises(TaskError, match=r"1 masks of the split 'test' are not there, such as .*tumour.nii.gz"):
        part.require_masks()
    nib.save(nib.Nifti1Image(box(3).astype(np.uint8).transpose(2, 1, 0), xyz), folder / "tumour.nii.gz")
    assert np.array_equal(part.mask(patient.name, part.scan_grid(patient.name)).inside, box(3))


def test_the_split_has_the_patients_that_a_tumour_is_drawn_of():
    assert NSCLCRadiogenomicsRetrieval.split_counts() == (0, 0, 144)
    assert sum(NSCLCRadiogenomicsRetrieval.in_groups) == 144


def test_a_stage_that_cannot_be_is_refused(root, tmp_path):
    release.write_clinical(tmp_path, [replace(release.COHORT[0], stage="T1c")])
    part = NSCLCRadiogenomicsRetrieval(tmp_path, "test", root / "split.csv")
    with pytest.raises(
        TapctError, match="R01-001: Pathological T stage is 'T1c', and must be one of Tis, T1a, T1b, T2a"
    ):
        part.target("R01-001")


def test_scanner_and_patient_are_told_by_headers_and_table(root):
    levels = dataset(root).levels("R01-002")
    found = (levels["manufacturer"], levels["institute"], levels["sex"], levels["age"])
    assert found == ("ge", "va", "female", "60 to 70 years")


def test_the_tumour_alone_is_ranked(root, tmp_path):
    encoder = {"class_path": "baselines.intensity.Intensity"}
    record = run(CONFIG, root, root / "split.csv", tmp_path, "retrieval", encoder=encoder)
    assert record.probe.pooling == "mask"
    by_case = {case.case: case.outcome for case in record.runs[0].cases["test"]}
    assert by_case["R01-001"]["items"]["Tis-T1"] == 5, "without itself, and one of which nothing is known"
    assert by_case["R01-001"]["relevant"] == {"Tis-T1": 1, "T2": None, "T3-T4": None}
    assert by_case["R01-007"]["relevant"] == dict.fromkeys(("Tis-T1", "T2", "T3-T4"))


def test_the_doctor_counts_against_the_release(root):
    found = [*findings("nsclc_radiogenomics_retrieval", str(root), split_file=str(root / "split.csv"))]
    said = {message: status for status, message, _ in found}
    assert said[f"{CLINICAL_FILE} has 7 patients, and the release has 211"] == "warn"
    assert said["Tis-T1: 2 patients of the split, and the release has 74"] == "warn"
    assert said["all 7 cases can be read, scan and target"] == "ok"


def test_models_that_have_seen_the_scans_are_marked():
    assert known_overlap("nsclc_radiogenomics_retrieval", ["NSCLC-Radiogenomics", "NSCLC-Radiomics"]) == (
        "NSCLC-Radiogenomics",
    )
