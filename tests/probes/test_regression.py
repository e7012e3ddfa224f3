"""Regression through `eva fit`, on tiny trees of the releases, down to the record."""

import contextlib
import io
import itertools
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

from tapct.errors import TaskError
from tapct.probes.regression import LAST_LAYER
from tapct.records import Record
from tapct.report.page import write_report
from tests.data import ictcf, osic
from tests.data import totalsegmentator as release
from tests.small import Small3D
from tests.tasks.end_to_end import SMALL, run, write_split

AGES = {case: float(age) for case, (age, _, _) in release.PATIENTS.items()}
SIDES = {"train": ["s0001", "s0002", "s0004", "s0011"], "val": ["s0013"], "test": ["s0029", "s0235"]}
TRAINING_MEAN = np.mean([AGES[case] for case in SIDES["train"]])
CHANCE = {"class_path": "baselines.chance.Chance"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    release.write_patients(folder / "totalsegmentator")
    return folder


@dataclass(frozen=True)
class Both:
    """What one process made of two tasks of a release, one after the other."""

    folder: Path
    age: Record
    organ_volume: Record
    said: str
    """On the screen, of the first."""
    windows: tuple[int, int]
    """Windows that were encoded for each."""


@pytest.fixture(scope="module")
def both(written, tmp_path_factory) -> Both:
    folder, encoded, encode = tmp_path_factory.mktemp("both"), [], Small3D._encode
    split, said = write_split(folder / "split.csv", **SIDES), io.StringIO()

    def counted(self, windows_hu):
        encoded.append(len(windows_hu))
        return encode(self, windows_hu)

    def fitted(task: str) -> Record:
        return run(f"regression/totalsegmentator_{task}.yaml", written, split, folder, "regression")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTOR", "ridge")
        patch.setenv("TAPCT_CACHE", str(folder / "cache"))
        patch.setattr(Small3D, "_encode", counted)
        with contextlib.redirect_stdout(said):
            age = fitted("age")
        first = sum(encoded)
        return Both(folder, age, fitted("organ_volume"), said.getvalue(), (first, sum(encoded) - first))


@pytest.fixture
def data(written, tmp_path):
    return shutil.copytree(written, tmp_path / "data")


@pytest.fixture
def split(tmp_path):
    return write_split(tmp_path / "split.csv", **SIDES)


@pytest.fixture
def fit(data, split, tmp_path, monkeypatch):
    """Runs a task of TotalSegmentator under an adaptor."""

    def fitted(task: str, adaptor: str = "ridge", **settings) -> Record:
        monkeypatch.setenv("ADAPTOR", adaptor)
        return run(f"regression/{task}.yaml", data, split, tmp_path, "regression", **settings)

    return fitted


def outcome(record: Record, field: str, split: str = "test") -> dict[str, dict[str, float | None]]:
    return {case.case: case.outcome[field] for case in record.runs[0].cases[split]}


def test_ages_are_predicted_in_years_and_every_number_is_that_of_the_cases(both):
    record = both.age
    assert (record.task.unit, record.task.metric, record.probe.adaptor) == ("years", "MAE", "ridge")
    assert outcome(record, "observed") == {case: {"age": AGES[case]} for case in SIDES["test"]}
    assert {row["age"] for row in outcome(record, "baseline").values()} == {TRAINING_MEAN}
    assert {row["age"] for row in outcome(record, "scale").values()} == {1.0}
    predicted = outcome(record, "predicted")
    errors = np.array([predicted[case]["age"] - AGES[case] for case in SIDES["test"]])
    found = record.runs[0].metrics["test"]
    assert found["MAE"] == pytest.approx(np.abs(errors).mean())
    assert found["RMSE"] == pytest.approx(np.sqrt((errors**2).mean()))
    about = [(AGES[case] - TRAINING_MEAN) ** 2 for case in SIDES["test"]]
    assert found["R2"] == pytest.approx(1 - (errors**2).mean() / np.mean(about))
    assert [case.loss for case in record.runs[0].cases["test"]] == pytest.approx(errors**2)
    assert record.runs[0].selection.patients == 5, "four that train, by cross-validation, and the one that selects"


def test_the_tasks_of_a_release_share_one_encoding(both):
    """Their features have one key: the second task encodes no case (a window shows what the network receives)."""
    first, second = both.windows
    assert first >= len(AGES)
    assert second <= 1


def test_the_unit_stands_beside_the_number_on_the_screen_and_in_the_report(both):
    assert "MAE, years" in both.said
    (path,) = both.folder.glob("logs/*age/*/record.json")
    page = write_report(path).read_text(encoding="utf-8")
    for text in ("MAE, years", "RMSE, years", "age, years: predicted against true", "age, years: errors"):
        assert text in page


def test_chance_predicts_the_training_mean_exactly(fit):
    record = fit("totalsegmentator_age", encoder=CHANCE)
    assert {row["age"] for row in outcome(record, "predicted").values()} == {TRAINING_MEAN}
    found = record.runs[0].metrics["test"]
    assert found["R2"] == 0
    assert "Spearman" not in found
    assert "CalibrationSlope" not in found


def test_body_size_is_an_ordinary_patch(fit):
    record = fit("totalsegmentator_organ_volume", encoder={"class_path": "baselines.body_size.BodySize"})
    assert record.encoder.card.name == "body-size"


def test_the_training_mean_is_of_the_patients_who_train(fit, monkeypatch):
    monkeypatch.setenv("TRAIN_FRACTION", "0.75")
    record = fit("totalsegmentator_age", encoder=CHANCE)
    (mean,) = {row["age"] for row in outcome(record, "predicted").values()}
    assert mean in [np.mean(some) for some in itertools.combinations([AGES[case] for case in SIDES["train"]], 3)]
    assert {row["age"] for row in outcome(record, "baseline").values()} == {mean}


def test_sex_is_an_ordinary_classification_of_the_same_scans(data, split, tmp_path):
    record = run("classification/totalsegmentator_sex.yaml", data, split, tmp_path, "classification")
    assert (record.task.classes, record.probe.adaptor) == (("female",), "linear")
    assert {case.case: case.target["female"] for case in record.runs[0].cases["test"]} == {"s0029": 0, "s0235": 1}


def test_volumes_are_in_ml_their_error_in_deviations_and_what_is_missing_has_a_reason(both):
    record = both.organ_volume
    ml = {case: release.volume_ml(case) for case in AGES}
    known = [ml[case] for case in SIDES["train"]]
    scales = {
        "liver (ml)": np.std(known),
        "spleen (ml)": np.std([ml[case] for case in SIDES["train"] if case != "s0002"]),
        "kidneys (ml)": 2 * np.std(known),
        "pancreas (ml)": np.std(known),
        "heart (ml)": np.std([ml[case] for case in SIDES["train"] if case != "s0011"]),
    }
    assert outcome(record, "scale")["s0029"] == pytest.approx(scales)
    assert outcome(record, "baseline")["s0029"]["liver (ml)"] == pytest.approx(np.mean(known))
    predicted, observed = (outcome(record, field) for field in ("predicted", "observed"))
    errors = [
        np.mean([abs(predicted[case][name] - observed[case][name]) / scale for name, scale in scales.items()])
        for case in SIDES["test"]
    ]
    assert record.runs[0].metrics["test"]["MAE"] == pytest.approx(np.mean(errors))
    assert record.task.unit == "SD"
    assert {*record.runs[0].selection.targets} == set(scales)


def test_a_case_that_lacks_a_target_says_why_and_is_measured_on_the_others(fit, split):
    write_split(split, **{**SIDES, "train": [*SIDES["train"][2:], "s0029"], "test": ["s0002", "s0235"]})
    record = fit("totalsegmentator_organ_volume")
    case = next(case for case in record.runs[0].cases["test"] if case.case == "s0002")
    assert case.outcome["observed"]["spleen (ml)"] is None
    assert any(note.startswith("spleen (ml) is missing: the mask of spleen is empty") for note in case.notes)
    assert math.isfinite(case.loss)


def test_attention_is_trained_on_standardised_ages_and_reports_years(fit, tmp_path):
    record = fit("totalsegmentator_age", "attention:patch", max_steps=2)
    assert record.runs[0].selection.learning_rate in (0.0003, 0.003, 0.03)
    for row in outcome(record, "predicted").values():
        assert abs(row["age"] - TRAINING_MEAN) < 3 * np.std(list(AGES.values())), "near the mean after two steps"
    (selecting,) = record.runs[0].cases["val"]
    error = abs(selecting.outcome["predicted"]["age"] - AGES["s0013"])
    assert record.runs[0].selection.score == pytest.approx(error), "chosen by what would be reported, in years"
    (path,) = tmp_path.glob("logs/*/*/run_0/head.safetensors")
    state = safetensors.torch.load_file(path)
    assert state["baseline"].tolist() == [TRAINING_MEAN]
    deviation = np.std([AGES[case] for case in SIDES["train"]])
    assert float(state[f"{LAST_LAYER}.bias"]) == pytest.approx(TRAINING_MEAN, abs=3 * deviation)


def test_a_target_that_is_constant_in_training_is_refused_before_anything_is_reported(fit, data):
    release.write_meta(data / "totalsegmentator", dict.fromkeys(AGES, ("50.00", "f")))
    for adaptor in ("ridge", "attention"):
        with pytest.raises(TaskError, match="age is 50 in all 4 training cases"):
            fit("totalsegmentator_age", adaptor)


@pytest.mark.parametrize("adaptor", ["linear", "abmil", "ridge:mask"])
def test_adaptors_of_other_kinds_and_masks_that_are_not_there_are_refused(fit, adaptor):
    with pytest.raises(TaskError, match=r"takes the adaptors ridge, attention|has no masks to pool"):
        fit("totalsegmentator_age", adaptor)


@pytest.mark.parametrize(("task", "module"), [("osic_fvc", osic), ("ictcf_lab", ictcf)])
def test_tables_of_lung_patients_run_from_end_to_end(task, module, tmp_path):
    cases = module.write(tmp_path / "data" / task)
    sides = {"train": cases[:3], "val": cases[3:4], "test": cases[4:]}
    split = write_split(tmp_path / "split.csv", **sides)
    record = run(f"regression/{task}.yaml", tmp_path / "data", split, tmp_path, "regression", encoder=SMALL)
    assert len(record.task.excluded) == 2
    assert record.runs[0].metrics["test"]["MAE"] > 0
