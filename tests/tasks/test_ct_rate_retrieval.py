"""Retrieval in CT-RATE, on a tiny release: the gallery, what takes its scans, and what of the release is needed."""

import shutil

import numpy as np
import pytest

from tapct.errors import TaskError
from tapct.tasks import task_class
from tapct.tasks.ct_rate import CTRATE
from tapct.tasks.ct_rate_release import FINDINGS
from tapct.tasks.ct_rate_retrieval import CTRATERetrieval
from tapct.tasks.ct_rate_scans import MACHINE_READ
from tapct.tasks.findings import findings
from tests.data import ct_rate
from tests.data.slabs import edited
from tests.tasks.end_to_end import run

CONFIG = "retrieval/ct_rate_retrieval.yaml"
INTENSITY = {"class_path": "baselines.intensity.Intensity"}
METADATA = "dataset/metadata/validation_metadata.csv"


@pytest.fixture
def root(tmp_path):
    return ct_rate.write(tmp_path / "data" / "ct_rate")


def of_valid_alone(root):
    """Leaves the part that is reported: nothing of the other is fetched, which is sixteen times as much."""
    shutil.rmtree(root / "dataset" / "train_fixed")
    for name in ("multi_abnormality_labels/train_predicted_labels.csv", "metadata/no_chest_train.txt"):
        (root / "dataset" / name).unlink()
    (root / "dataset/metadata/train_metadata.csv").unlink()


@pytest.mark.thorough
def test_eva_fit_searches_all_of_valid_and_no_scan_of_the_querys_patient(root, tmp_path):
    of_valid_alone(root)
    record = run(CONFIG, root.parent, None, tmp_path, "retrieval", encoder=INTENSITY)
    assert record.task.cases == {"train": 0, "val": 0, "test": 4}
    assert record.task.patients == {"train": 0, "val": 0, "test": 3}
    assert record.notice == MACHINE_READ
    assert record.task.excluded == {"valid_2_a": "no_chest_valid.txt lists it: it is a head, not a chest"}
    cases = {case.case: case for case in record.runs[0].cases["test"]}
    assert {name: case.patient for name, case in cases.items()} == ct_rate.REPORTED
    labels = {name: dict(zip(FINDINGS, ct_rate.findings(f"{name}_1"), strict=True)) for name in cases}
    for name, case in cases.items():
        others = [other for other in cases if ct_rate.REPORTED[other] != ct_rate.REPORTED[name]]
        for finding in FINDINGS:
            asked = labels[name][finding] == 1
            relevant = sum(labels[other][finding] for other in others)
            assert case.outcome["relevant"][finding] == (relevant if asked else None)
            assert case.outcome["items"][finding] == (len(others) if asked else None)
    precisions = [list(case.outcome["average_precision"].values()) for case in cases.values()]
    of_labels = np.nanmean(np.array(precisions, dtype=float)[:, : len(FINDINGS)], axis=0)
    assert record.runs[0].metrics["test"]["mAP"] == pytest.approx(np.nanmean(of_labels))


def test_labels_and_gallery_are_those_that_ct_rate_reports(root):
    gallery, reported = CTRATERetrieval(root, "test"), CTRATE(root, "test")
    assert gallery.cases == reported.cases
    assert [gallery.patient(case) for case in gallery.cases] == [reported.patient(case) for case in gallery.cases]
    for case in gallery.cases:
        assert gallery.target(case).tolist() == reported.target(case).tolist()
    assert task_class("ct_rate_retrieval").spec.folder == "ct_rate"


def test_the_metadata_say_what_took_the_volume_that_stands_for_a_scan_and_of_whom(root):
    for task, split in ((CTRATERetrieval, "test"), (CTRATE, "test"), (CTRATE, "train")):
        part = task(root, split)
        for case in part.cases:
            volume = part.of_release(case).name.volume
            row = dict(zip(ct_rate.COLUMNS, map(str, ct_rate.metadata(volume)), strict=True))
            assert part.read_value(case, "age") == (float(row["PatientAge"][:3]) if row["PatientAge"] else None)
            levels = part.levels(case)
            assert {name: levels[name] for name in ("manufacturer", "scanner_model", "kernel", "sex")} == {
                "manufacturer": row["Manufacturer"].split()[0].casefold(),  # SIEMENS and Siemens Healthineers are one
                "scanner_model": row["ManufacturerModelName"].casefold(),
                "kernel": row["ConvolutionKernel"].casefold(),
                "sex": row["PatientSex"].casefold() or None,
            }
    assert CTRATE(root, "test").of_release("valid_2_b").name.volume == "valid_2_b_2"  # the other is a head


def test_a_volume_that_the_metadata_lack_is_not_known_and_the_doctor_says_so(root):
    edited(root / METADATA, lambda text: text.replace("valid_3_b_1", "valid_9_a_1"))
    part = CTRATERetrieval(root, "test")
    assert set(part.levels("valid_3_b").values()) == {None}
    assert part.levels("valid_3_a")["manufacturer"] is not None
    found = {message: status for status, message, _ in findings("ct_rate_retrieval", str(root.parent))}
    assert found["valid: 1 volumes with labels are not in validation_metadata.csv: valid_3_b_1"] == "warn"
    assert not [message for message in found if "train" in message]
    assert "fail" not in found.values()


def test_metadata_that_say_two_things_of_a_volume_are_refused(root):
    row = ",".join(map(str, ["valid_1_a_1.nii.gz", "Philips", *[""] * (len(ct_rate.COLUMNS) - 2)]))
    edited(root / METADATA, lambda text: text + row + "\r\n")
    with pytest.raises(TaskError, match=r"validation_metadata\.csv, valid_1_a_1: two rows have it, and differ"):
        CTRATERetrieval(root, "test").levels("valid_1_a")
