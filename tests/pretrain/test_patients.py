"""Ten patients are counted as ten, however their folders are laid out."""

from pathlib import Path

import pytest

from pretrain.data.patients import is_placeholder, patients_of

TEN = range(1, 11)
UID = "1.2.840.113619.2.55"

LAYOUTS = {
    "the file says what it is": [f"p{i:02}/CT.nii.gz" for i in TEN],
    "a folder says what it is": [f"p{i:02}/CT/scan.nii.gz" for i in TEN],
    "the file has a number": [f"p{i:02}/CT/{1000 * i:05}.nii.gz" for i in TEN],
    "study and series": [f"p{i:02}/study/series/ct.nii.gz" for i in TEN],
    "series of DICOM by UID": [f"p{i:02}/{UID}.{i}/{UID}.{i}.{j}" for i in TEN for j in (1, 2)],
    "as TCIA has it": [f"LIDC-IDRI-{i:04}/01-01-2000-NA-NA-3017{i}/300{i}.000000-NA-0319{i}" for i in TEN],
    "as BIDS has it": [f"sub-{i}/ses-0{j}/anat/sub-{i}_ct.nii.gz" for i in TEN for j in (1, 2)],
    "as CT-RATE has it": [f"valid_{i}/valid_{i}_a/valid_{i}_a_{j}.nii.gz" for i in TEN for j in (1, 2)],
    "as FDG-PET-CT has it": [f"PETCT_{i:010x}/0{i % 9 + 1}-06-2003-NA-PET-CT/CTres.nii.gz" for i in TEN],
    "as nnU-Net has it": [f"imagesTr/liver_{i}_0000.nii.gz" for i in TEN],
    "numbers in one folder": [f"images/patient_{i:04}.nii.gz" for i in TEN],
    "bare numbers in one folder": [f"{i:03}.nii.gz" for i in TEN],
    "as LiTS has it": [f"Training Batch {1 + i // 6}/volume-{i}.nii" for i in TEN],
    "as BTCV has it": [f"img/img{i:04}.nii.gz" for i in TEN],
    "as KiTS has it": [f"case_{i:05}/imaging.nii.gz" for i in TEN],
    "phases by the same names": [f"p{i}/{phase}.nii.gz" for i in TEN for phase in ("early", "late")],
    "two scans of a patient": [f"p{i}/CT_{j}.nii.gz" for i in TEN for j in (1, 2)],
    "two datasets with the same numbers": [f"{name}/{i:03}/ct.nii.gz" for name in ("A", "B") for i in range(1, 6)],
    "two parts of a dataset": [f"{'train' if i < 7 else 'test'}/patient{i}/img.nii.gz" for i in TEN],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ten_patients_are_ten(layout):
    paths = [Path("/data/ct") / path for path in LAYOUTS[layout]]
    named = patients_of(paths)
    assert named.keys() == set(paths)
    assert len(set(named.values())) == 10


def test_names_are_those_of_the_folders():
    named = patients_of([Path("/d/p1/CT/a.nii.gz"), Path("/d/p2/CT/b.nii.gz")])
    assert set(named.values()) == {"p1", "p2"}
    two_datasets = patients_of(
        [Path("/d/A/7/ct.nii"), Path("/d/A/8/ct.nii"), Path("/d/B/7/ct.nii"), Path("/d/B/9/ct.nii")]
    )
    assert set(two_datasets.values()) == {"A/7", "8", "B/7", "9"}


def test_one_scan_alone_is_named_by_what_is_above_it():
    for path, patient in (
        ("/data/p1/CT/scan.nii.gz", "p1"),
        ("/data/p1/ct.nii.gz", "p1"),
        ("/data/CT/p7.nii.gz", "p7"),
        ("/ct/scan.nii.gz", "scan"),
    ):
        assert patients_of([Path(path)]) == {Path(path): patient}
    assert patients_of([]) == {}


@pytest.mark.parametrize(
    "patient_id", ["ANONYMOUS", "Anonymized", "anon", "0000", "XXXX", "unknown", "N/A", "-", "Patient"]
)
def test_ids_that_name_nobody(patient_id):
    assert is_placeholder(patient_id)


@pytest.mark.parametrize("patient_id", ["Jane^0042", "P7", "LIDC-IDRI-0001", "1", "100", "Anonymous_17"])
def test_ids_that_name_somebody(patient_id):
    assert not is_placeholder(patient_id)
