"""LUNG1 through `eva fit`: out-of-fold risks of every patient, tables next to features, and what stops a run."""

import numpy as np
import pytest
from sksurv.metrics import concordance_index_ipcw
from sksurv.util import Surv

from tapct.errors import TaskError
from tests.data import lung1
from tests.data.lung1 import Patient
from tests.tasks.end_to_end import run

CONFIG = "survival/lung1_survival.yaml"
PATIENTS = 24
FEW = 12
"""Of them, where the numbers ask for no more: reading their scans is what a run takes."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The release in small, and folds of its patients."""
    folder = tmp_path_factory.mktemp("data")
    patients = lung1.cohort(PATIENTS)
    lung1.write(folder / "lung1_survival", patients)
    write_folds(folder / "few.csv", patients[:FEW])
    return folder, write_folds(folder / "folds.csv", patients)


def write_folds(path, patients):
    rows = [f"{one.name},{one.name},{place % 3},{place // 2 % 3}" for place, one in enumerate(patients)]
    path.write_text("\n".join(["case,patient,fold_0,fold_1", *rows, ""]), encoding="utf-8")
    return path


def test_every_patient_is_predicted_out_of_fold(root, tmp_path):
    data, _ = root
    record = run(CONFIG, data, data / "few.csv", tmp_path, "survival", encoder="chance", runs=2)
    assert record.task.folds is not None
    assert record.probe.adaptor == "cox:mean"
    for one in record.runs:
        cases = one.cases["test"]
        assert len(cases) == FEW
        found = {name: [case.outcome[name]["death"] for case in cases] for name in cases[0].outcome}
        y = Surv.from_arrays(np.array(found["event"]) == 1, found["time_days"])
        assert found["risk"] == [0.0] * FEW, "constant features tell nobody apart"
        assert one.metrics["test"]["UnoC"] == 0.5
        assert len({tuple(curve) for curve in found["survival"]}) == 3, "the survival of the other two folds"
        assert concordance_index_ipcw(y, y, found["risk"], tau=1095.75)[0] == 0.5
    first, second = (
        {case.case: case.outcome["survival"]["death"] for case in one.cases["test"]} for one in record.runs
    )
    assert first != second, "each run deals the patients out anew"


@pytest.mark.parametrize(
    "adaptor",
    [
        "cox:mask&table=age+sex+stage+histology+volume",
        pytest.param("cox:table=age+sex+stage+histology+volume", marks=pytest.mark.thorough),
        pytest.param("cox:mask", marks=pytest.mark.thorough),
        pytest.param("cox:cls&table=age+volume", marks=pytest.mark.thorough),
    ],
)
def test_tables_and_tumours_are_read(root, tmp_path, monkeypatch, adaptor):
    data, folds = root
    monkeypatch.setenv("ADAPTOR", adaptor)
    record = run(CONFIG, data, folds, tmp_path, "survival")
    assert record.probe.adaptor == adaptor
    metrics = record.runs[0].metrics["test"]
    assert {"UnoC", "HarrellC", "AUROC@365d", "IBS"} <= metrics.keys()
    columns = adaptor.partition("table=")[2].split("+") if "table=" in adaptor else []
    assert [one.name for one in record.probe.table or ()] == columns
    known = {one.name: (one.known, one.levels) for one in record.probe.table or ()}
    assert known.get("age", (23, None)) == (23, None)
    assert known.get("histology", (23, 3)) == (23, 3)
    if "age" in adaptor:
        assert metrics["UnoC"] > 0.6, "the ages that were planted"
    assert "non-finite-features" not in {flag.id for flag in record.flags}, "what a table lacks is no feature"


def test_a_column_that_the_table_does_not_have_is_named(root, tmp_path, monkeypatch):
    data, _ = root
    monkeypatch.setenv("ADAPTOR", "cox:table=agee")
    with pytest.raises(TaskError, match=r"no column 'agee'. Did you mean 'age'"):
        run(CONFIG, data, data / "few.csv", tmp_path, "survival", encoder="chance")


def test_another_kinds_head_is_refused(root, tmp_path, monkeypatch):
    data, _ = root
    monkeypatch.setenv("ADAPTOR", "linear:mean")
    with pytest.raises(TaskError, match="cox"):
        run(CONFIG, data, data / "few.csv", tmp_path, "survival", encoder="chance")


def test_a_fold_whose_others_are_all_censored_stops_the_run(tmp_path):
    patients = [Patient(number, event=str(int(number % 2 == 0))) for number in range(1, 9)]
    lung1.write(tmp_path / "lung1_survival", patients)
    rows = [f"{one.name},{one.name},{place % 2}" for place, one in enumerate(patients)]
    folds = tmp_path / "folds.csv"
    folds.write_text("\n".join(["case,patient,fold_0", *rows, ""]), encoding="utf-8")
    with pytest.raises(TaskError, match="none of the 4 training cases ends with a death"):
        run(CONFIG, tmp_path, folds, tmp_path, "survival", encoder="chance")
