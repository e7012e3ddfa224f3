"""Fractions and perturbations through eva's own command line, on slabs of the quickstart."""

import pytest

from tapct._utils.files import features_folder
from tapct.features.store import TensorStore
from tapct.statistics import robustness
from tests.data import quickstart
from tests.test_configs import eva_fit, record


@pytest.fixture
def shortest(monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_ROOT", str(quickstart.write(tmp_path / "data")))
    for name, value in (("MAX_STEPS", "2"), ("N_RUNS", "1"), ("ACCELERATOR", "cpu")):
        monkeypatch.setenv(name, value)


def test_a_perturbed_experiment_differs_in_the_reported_scans_alone(monkeypatch, tmp_path, shortest):
    eva_fit(monkeypatch, tmp_path)
    stored = len(TensorStore(features_folder()).files())
    monkeypatch.setenv("PERTURBATION", "noise-100hu")
    eva_fit(monkeypatch, tmp_path)
    assert len(TensorStore(features_folder()).files()) == stored + 1, "features of one noisy scan; labels are those"
    clean, noisy = record(tmp_path, 0), record(tmp_path, 1)
    assert (clean.task.perturbation, noisy.task.perturbation) == (None, "noise-100hu")
    assert noisy.task.perturbation_parameters == {"kind": "noise", "std_hu": 100.0}
    assert clean.runs[0].probe_sha256 == noisy.runs[0].probe_sha256
    assert clean.runs[0].metrics != noisy.runs[0].metrics
    (drop,) = robustness([clean, noisy], "dice_native").drops
    assert drop.same_probes
    assert drop.drop.value == pytest.approx(
        clean.runs[0].metrics["test"]["dice_native"] - noisy.runs[0].metrics["test"]["dice_native"]
    )


def test_a_fraction_reaches_the_record(monkeypatch, tmp_path, shortest):
    monkeypatch.setenv("TRAIN_FRACTION", "0.1")
    monkeypatch.setenv("TRAIN_DRAW", "2")
    eva_fit(monkeypatch, tmp_path)
    task = record(tmp_path).task
    assert (task.train_fraction, task.train_draw) == (0.1, 2)
    assert task.cases == task.patients == {"train": 1, "val": 0, "test": 1}  # one at least, of one


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("TRAIN_FRACTION", "2", r"in \(0, 1\]"), ("PERTURBATION", "noise", "no perturbation 'noise'")],
)
def test_a_wrong_variable_is_refused(name, value, message, monkeypatch, tmp_path, shortest):
    monkeypatch.setenv(name, value)
    with pytest.raises(Exception, match=message):
        eva_fit(monkeypatch, tmp_path)
