"""Pairs of reconstructions of CT-RATE, on a tiny release: which volumes they are, and the way through eva."""

import numpy as np
import pytest

from tapct.errors import TaskError
from tapct.tasks import ct_rate_reconstructions
from tapct.tasks.ct_rate_reconstructions import CTRATEReconstructions
from tapct.tasks.ct_rate_retrieval import CTRATERetrieval
from tapct.tasks.findings import findings
from tests.data import ct_rate
from tests.tasks.end_to_end import run, write_split

CONFIG = "reliability/ct_rate_reconstructions.yaml"
PAIRS = {
    "valid_1": ("valid_1_a", "valid_1_a_2"),
    "valid_4": ("valid_4_a", "valid_4_a_2"),
    "valid_5": ("valid_5_a", "valid_5_a_3"),
}


@pytest.fixture
def root(tmp_path):
    return ct_rate.write(tmp_path / "data" / "ct_rate", more=ct_rate.MORE)


def test_a_pair_is_the_first_two_reconstructions_that_are_a_chest_of_one_scan_a_patient(root):
    part = CTRATEReconstructions(root, "test")
    part.validate()
    found = {}
    for case in part.cases:
        found.setdefault(part.patient(case), []).append(case)
    assert {patient: tuple(cases) for patient, cases in found.items()} == PAIRS
    assert [part.ct_path(case).name for case in PAIRS["valid_5"]] == ["valid_5_a_2.nii.gz", "valid_5_a_3.nii.gz"]
    assert part.excluded == {}
    stands, other = CTRATERetrieval(root, "test"), PAIRS["valid_1"][0]
    assert part.scan_cache_key(other) == stands.scan_cache_key(other), "its stored features serve both"


def test_kernel_and_thickness_are_those_of_the_metadata(root):
    part = CTRATEReconstructions(root, "test")
    kernels = {volume: ct_rate.metadata(volume)[6] for volume in ("valid_1_a_1", "valid_1_a_2")}
    differs = float(len({kernel.casefold() for kernel in kernels.values()}) > 1)
    assert part.target("valid_1_a").tolist() == [1, differs, 1.5]
    assert part.target("valid_1_a_2").tolist() == [2, differs, 1.5]
    assert differs == 1


def test_so_many_patients_are_reported_whoever_else_is_there(root, monkeypatch):
    monkeypatch.setattr(ct_rate_reconstructions, "PATIENTS", 2)
    chosen = CTRATEReconstructions(root, "test").patients
    assert len(chosen) == 2
    monkeypatch.setattr(ct_rate_reconstructions, "PATIENTS", 1)
    assert set(CTRATEReconstructions(root, "test").patients) < set(chosen)


def test_a_head_and_a_volume_that_is_not_there_are_refused(root, tmp_path):
    for name in ("valid_2_a_1", "valid_9_a_2"):
        split = write_split(tmp_path / "split.csv", test=[name])
        with pytest.raises(TaskError, match=f"has the volume {name}, or it is a head"):
            CTRATEReconstructions(root, "test", split).ct_path(name)


def test_the_doctor_says_how_many_pairs_there_are(root):
    said = {message: status for status, message, _ in findings("ct_rate_reconstructions", str(root.parent))}
    assert said["3 patients have a pair of reconstructions, and 200 are reported"] == "warn"
    assert "3 pairs; in 3 the kernels differ, in 0 the slice thickness, and of 0 one of both is not known" in said
    assert "fail" not in said.values()


def test_eva_fit_reports_pairs_and_tells_kernels(root, tmp_path):
    record = run(CONFIG, root.parent, None, tmp_path, "reliability", encoder="intensity")
    assert record.task.cases == {"train": 0, "val": 0, "test": 6}
    assert record.notice is None, "no label is read by a machine here"
    cases = {case.case: case.outcome for case in record.runs[0].cases["test"]}
    assert {case.patient for case in record.runs[0].cases["test"]} == set(PAIRS)
    for first, second in PAIRS.values():
        assert (cases[first]["occasion"]["scan"], cases[second]["occasion"]["scan"]) == (1, 2)
        assert cases[first]["cosine"] == cases[second]["cosine"]
        assert cases[first]["others"]["scan"] == 2
    assert np.isfinite(record.runs[0].metrics["test"]["MedianICC"])
