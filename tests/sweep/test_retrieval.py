"""Retrieval through the commands: experiments of adaptors and perturbed scans, the page, `eva test` on a gallery."""

import os
import sys
from unittest import mock

import pytest
import yaml
from eva.__main__ import main

from baselines.intensity import Intensity
from tapct.features import TensorStore, leases
from tapct.leaderboard import site as leaderboard
from tapct.records import read_record
from tapct.sweep import commands
from tests.data import totalsegmentator
from tests.sweep.fakes import Here
from tests.tasks.end_to_end import CONFIGS, write_split

TASK = "totalsegmentator_retrieval"


@pytest.fixture
def variables(tmp_path):
    root = tmp_path / "totalsegmentator"
    totalsegmentator.write_patients(root)
    totalsegmentator.write_about(root)
    split = write_split(tmp_path / "split.csv", test=[*totalsegmentator.PATIENTS])
    return {"DATA_ROOT": str(tmp_path), "SPLIT_FILE": str(split), "NUM_WORKERS": "0"}


def test_from_scans_to_the_page(variables, tmp_path, monkeypatch, capsys):
    results = tmp_path / "results"
    monkeypatch.setattr("sys.argv", ["tapct"])
    options = {"jobs": 1}
    asked = commands.Sweep(
        encoders="intensity",
        tasks=TASK,
        results=str(results),
        accelerator="cpu",
        adaptors="cosine,cosine:max,knn",
        perturbations="noise-30hu",
    )
    with mock.patch.dict(os.environ, variables):
        assert commands.run(asked, **options, start=Here) == 0
        experiments = asked.experiments()
    assert f"left out: knn on {TASK}: its probe takes cosine" in capsys.readouterr().err
    records = {experiment.label: read_record(experiment.folder / "record.json") for experiment in experiments}
    assert {record.probe.pooling for record in records.values()} == {"mean", "max"}
    assert {record.task.perturbation for record in records.values()} == {None, "noise-30hu"}
    assert all(len(record.runs) == 1 for record in records.values())
    audited = [record for record in records.values() if record.task.perturbation is None]
    assert [record.shortcuts.pooling for record in audited] == [record.probe.pooling for record in audited]
    assert all(record.shortcuts is None for record in records.values() if record.task.perturbation)
    assert leaderboard.build([results], tmp_path / "site", resamples=200) == 0
    assert "What the nearest scan shares" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")


def test_features_stay_for_another_task_on_the_scans_of_the_release(variables, tmp_path, monkeypatch):
    encode, seen = Intensity._encode, list[bytes]()

    def counted(self, windows):
        seen.extend(window.numpy().tobytes() for window in windows)
        return encode(self, windows)

    monkeypatch.setattr(Intensity, "_encode", counted)
    monkeypatch.setattr("tapct.probes.input_sheet.received_of", lambda encoder, ct: None)
    monkeypatch.setattr("sys.argv", ["tapct"])
    options = {"jobs": 1}
    tasks, results = f"{TASK},totalsegmentator_study_retrieval", str(tmp_path / "results")
    asked = commands.Sweep(encoders="intensity", tasks=tasks, results=results, accelerator="cpu")
    with mock.patch.dict(os.environ, {**variables, "TAPCT_FEATURES": str(tmp_path / "features")}):
        assert commands.run(asked, **options, keep="none", start=Here) == 0
    leases.let_go()
    assert len(seen) == len({*seen}) >= len(totalsegmentator.PATIENTS)
    store = TensorStore(tmp_path / "features")
    assert "features" not in {store.about(file.key)["kind"] for file in store.files()}


def test_a_gallery_is_reported_again_as_it_was_and_refused_for_other_scans(variables, tmp_path, monkeypatch):
    config, own = CONFIGS / "retrieval" / f"{TASK}.yaml", tmp_path / "own.yaml"

    def eva(command: str, **model: str) -> None:
        own.write_text(yaml.safe_dump({"model": {"init_args": {"encoder": "intensity", **model}}}))
        logs = {"OUTPUT_ROOT": str(tmp_path / command), "ACCELERATOR": "cpu"}
        with mock.patch.dict(os.environ, {**variables, **logs}):
            monkeypatch.setattr(sys, "argv", ["eva", command, "--config", str(config), "--config", str(own)])
            main()

    eva("fit")
    (fitted,) = (tmp_path / "fit").rglob("record.json")
    eva("test", head=str(fitted.parent))
    (tested,) = (tmp_path / "test").rglob("record.json")
    assert read_record(tested).runs[0].cases == read_record(fitted).runs[0].cases
    assert read_record(tested).shortcuts == read_record(fitted).shortcuts
    assert set(read_record(tested).shortcuts.columns) >= {"institute", "manufacturer"}
    write_split(tmp_path / "split.csv", test=[*totalsegmentator.PATIENTS][:5])
    with pytest.raises(Exception, match="the head holds 7 scans, and 5 are reported"):
        eva("test", head=str(fitted.parent))
