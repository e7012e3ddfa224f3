"""Predictions made again from what a session left, and the cases that are drawn."""

import csv
import json
import shutil
import statistics
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from tapct.encoders import registry
from tapct.encoders.registry import places_of
from tapct.errors import RecordError
from tapct.features.filling import Filling
from tapct.names import ABOUT_FILE
from tapct.probes.predictions import LocatedRecord, predict
from tapct.records import read_record
from tapct.report.overlays import choose, draw_overlays, ranked
from tests.records.made import changed
from tests.small import Small3D

CPU = torch.device("cpu")


def mean_dice(folder, case, run):
    """Of a case in a run, from the JSON by hand."""
    content = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    (row,) = (row for row in content["runs"][run]["cases"]["test"] if row["case"] == case)
    return statistics.mean(v for v in row["dice"]["native"].values() if v is not None)


def test_predictions_made_again_are_those_of_the_record(copies, data_root, monkeypatch):
    def never(*_):
        raise AssertionError("the features are stored")

    monkeypatch.setattr(Filling, "run", never)
    predictions = predict(LocatedRecord.at(copies[0]), ["c3", "c2"], str(data_root), CPU)
    assert list(predictions) == ["c3", "c2"]
    for case, prediction in predictions.items():
        assert prediction.dice == pytest.approx(mean_dice(copies[0], case, run=0))
        assert prediction.labels.shape == prediction.truth.shape == prediction.scan.shape
        assert len(np.unique(prediction.labels)) > 1


def test_an_encoder_of_other_settings_than_the_record_s_is_named(copies, data_root, monkeypatch):
    monkeypatch.setattr(Small3D, "native_window", (8, 32, 64))
    monkeypatch.setattr(Small3D, "card", replace(Small3D.card, num_params=72_576))
    with pytest.raises(RecordError, match=r"made with another native_window of small-3d.*was \[8, 64, 64\], and is \["):
        predict(LocatedRecord.at(copies[0]), ["c3"], str(data_root), CPU)


def test_cases_are_ranked_over_runs_and_records(copies):
    found = [LocatedRecord.at(path) for path in copies]
    scores = {case: [[mean_dice(p, case, run) for run in (0, 1)] for p in copies] for case in ("c2", "c3", "c4", "c5")}
    by_all = sorted(scores, key=lambda case: np.mean(scores[case]))
    by_first = sorted(scores, key=lambda case: np.mean(scores[case][0]))
    assert ranked(found) == by_all
    assert ranked(found, "first") == by_first
    assert choose(found, ["best", "median", "worst"], "mean") == {
        by_all[3]: "best",
        by_all[1]: "median",
        by_all[0]: "worst",
    }
    assert choose(found, [by_all[0], "worst", "best"], "mean") == {by_all[0]: "worst", by_all[3]: "best"}
    with pytest.raises(RecordError, match=r"'bset' is neither a rule.*Did you mean 'best'"):
        choose(found, ["bset"], "mean")


def test_a_picture_a_case_and_a_table_of_what_is_drawn(copies, data_root, tmp_path):
    out = tmp_path / "pictures"
    written = list(draw_overlays(copies, out, data_root=str(data_root)))
    rows = list(csv.DictReader((out / "cases.csv").open(encoding="utf-8")))
    assert [path.name for path in written] == [
        *(f"{case}.png" for case in dict.fromkeys(r["case"] for r in rows)),
        "cases.csv",
    ]
    assert {row["model"] for row in rows} == {
        "Small 3D (random weights) experiment0",
        "Small 3D (random weights) experiment1",
    }
    assert len(rows) == 6
    for row in rows:
        folder = copies[int(row["model"][-1])]
        assert float(row["dice"]) == pytest.approx(mean_dice(folder, row["case"], run=0), abs=1e-6)


def test_a_record_that_a_sweep_has_published_finds_its_session(copies, data_root, tmp_path):
    experiment = tmp_path / "results" / "quickstart" / "small-3d"
    shutil.copytree(copies[0], experiment / "sessions" / "x")
    shutil.copy(copies[0] / "record.json", experiment)
    (experiment / ABOUT_FILE).write_text(json.dumps({"session": "sessions/x"}))
    assert predict(LocatedRecord.at(experiment), ["c2"], str(data_root), CPU)["c2"].dice is not None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda head: head.unlink(), "keep a record with its runs"),
        (lambda head: head.write_bytes(head.read_bytes()[:50]), "damaged"),
        (lambda head: shutil.copy(head.parents[1] / "run_1" / "head.safetensors", head), "its hash differs"),
    ],
)
def test_a_head_that_is_not_the_reported_one_is_refused(damage, message, copies, data_root):
    damage(copies[0] / "run_0" / "head.safetensors")
    with pytest.raises(RecordError, match=message):
        predict(LocatedRecord.at(copies[0]), ["c2"], str(data_root), CPU)


def test_numbers_that_do_not_come_out_are_refused(copies, data_root, tmp_path):
    """The label map was changed after the record was made."""
    root = tmp_path / "data"
    shutil.copytree(data_root / "quickstart", root / "quickstart")
    path = root / "quickstart" / "c2" / "organs.nii.gz"
    image = nib.load(path)
    labels = np.roll(np.asarray(image.dataobj), 20, axis=0)
    path.unlink()
    nib.save(nib.Nifti1Image(labels, image.affine), path)
    with pytest.raises(RecordError, match=r"made again, the Dice of .* in case c2"):
        predict(LocatedRecord.at(copies[0]), ["c2"], str(root), CPU)


def test_records_of_different_tasks_are_not_drawn_together(copies, tmp_path, data_root):
    record = read_record(copies[1] / "record.json")
    other = changed(record, task={"version": 99})
    (copies[1] / "record.json").write_text(other.to_json())
    with pytest.raises(RecordError, match="draw them apart"):
        list(draw_overlays(copies, tmp_path / "out", data_root=str(data_root)))


def test_a_classification_has_nothing_to_overlay(copies, data_root):
    record = read_record(copies[0] / "record.json")
    other = changed(record, task={"kind": "classification", "metric": "MicroAUROC"})
    (copies[0] / "record.json").write_text(other.to_json())
    with pytest.raises(RecordError, match="there is nothing to draw"):
        predict(LocatedRecord.at(copies[0]), ["c2"], str(data_root), CPU)


def test_an_encoder_that_is_not_installed_is_named_on_the_command_line(copies, data_root, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    with pytest.raises(RecordError, match=r"small-3d, is not installed here: .* --encoders package\.module:Class"):
        predict(LocatedRecord.at(copies[0]), ["c2"], str(data_root), CPU)
    drawn = draw_overlays(
        [copies[0]], tmp_path, ["c2"], data_root=str(data_root), places=places_of("tests.small:Small3D")
    )
    assert [path.name for path in drawn] == ["c2.png", "cases.csv"]
