"""`tapct run` and `tapct status` as a user starts them: real experiments through eva, on the quickstart."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from eva.__main__ import main

from tapct.features import TensorStore
from tapct.leaderboard.assembly import assemble
from tapct.records import Record, read_cases, read_record, read_records
from tests.sweep.conftest import SWEEP, Installed, one_thread, weights


def test_a_good_experiment_beside_one_that_fails(swept):
    assert_one_is_good(*swept)


@pytest.mark.thorough
def test_the_same_in_processes_of_their_own_on_the_data_that_ship(site, tmp_path):
    tapct = Installed(site, tmp_path)
    assert_one_is_good(tapct, tapct.here("run", *SWEEP, "--jobs", "2", *weights(tapct)))
    log = (tapct.results / "quickstart" / "small-3d" / "log.txt").read_text(encoding="utf-8")
    assert "DATA_ROOT has no folder 'quickstart': the data that ship with it are used" in log


def assert_one_is_good(tapct, ran):
    assert ran.returncode == 1, ran.stderr
    assert "1 done, 1 failed" in ran.stdout
    reason = f"WeightsError: cubic: there is no weights file {tapct.results}/none.pth"
    assert reason in ran.stdout
    good, bad = tapct.results / "quickstart" / "small-3d", tapct.results / "quickstart" / "cubic"
    record = read_record(good / "record.json")
    assert record.complete
    assert (record.probe.steps, record.runs_planned) == (2, 2)
    about = json.loads((good / "cell.json").read_text(encoding="utf-8"))
    assert about["fingerprint"] == record.fingerprint
    assert about["settings"]["trainer.init_args.max_steps"] == "2"
    kept = read_record(good / about["session"] / "record.json")
    assert kept.fingerprint == record.fingerprint, "eva's own folder keeps what eva put there"
    assert read_cases(record, good).num_rows > 0
    assert (good / about["session"] / "results.json").exists()
    log = (good / "log.txt").read_text(encoding="utf-8")
    assert "attempt 1 on " in log
    assert "Dice" in log, "eva's own output is in the log"
    assert f"cubic on quickstart: not started: {reason}" in ran.stderr, (
        "nothing of an experiment runs whose weights are missing"
    )
    assert not (bad / "log.txt").exists()
    assert json.loads((bad / "failure.json").read_text(encoding="utf-8"))["reason"].startswith(reason)
    assert not (bad / "record.json").exists()


def dry_run(tapct) -> dict:
    command = [word if word != "small-3d,cubic" else "small-3d" for word in SWEEP]
    shown = tapct.here("run", *command, "-w", "random", "--results", str(tapct.results / "none"), "--dry-run", "--json")
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)


def test_windows_and_disk_of_the_bill_are_those_that_the_experiment_then_took(swept, monkeypatch, tmp_path):
    monkeypatch.setenv("TAPCT_FEATURES", str(tmp_path))  # as if nothing were stored
    tapct, _ = swept
    store = TensorStore(Path(tapct.environment["TAPCT_CACHE"]) / "features")
    files = {kind: [] for kind in ("features", "labels", "derived")}
    for file in store.files():
        files[store.about(file.key)["kind"]].append(file)
    of_experiment = {file.key for file in store.files() if store.about(file.key)["card"] == "small-3d@random"}
    entries = [file for file in (*files["features"], *files["labels"]) if file.key in of_experiment]
    windows = sum(store.load(file.key).tensors["embeddings"].shape[0] for file in files["features"] if file in entries)
    bill = dry_run(tapct)
    (experiment,) = bill["cells"]
    assert (experiment["scans"], experiment["windows"]) == (2, windows)
    assert experiment["typical"] is None
    assert experiment["stored_scans"] == 0
    taken = {kind: sum(file.nbytes for file in entries if file in files[kind]) for kind in files}
    assert experiment["disk_bytes"] - experiment["guessed_bytes"] == pytest.approx(taken["features"], rel=0.02)
    assert taken["labels"] / 3 < experiment["guessed_bytes"] < 3 * taken["labels"]
    assert bill["folders"][0]["missing_bytes"] == experiment["disk_bytes"]


def test_what_is_stored_is_known_without_reading_a_scan(swept, monkeypatch):
    tapct, _ = swept
    monkeypatch.setattr("tapct._utils.content_hashes._sha256", None)  # nothing is hashed
    monkeypatch.setattr("tapct.tasks.dataset.read_ct", None)
    (experiment,) = dry_run(tapct)["cells"]
    assert experiment["stored_scans"] == 2
    store = TensorStore(Path(tapct.environment["TAPCT_CACHE"]) / "features")
    about = {file: store.about(file.key) for file in store.files()}
    of_experiment = [
        f for f, of in about.items() if of["card"] == "small-3d@random" and of["kind"] in ("features", "labels")
    ]
    assert experiment["stored_bytes"] == experiment["disk_bytes"] == sum(file.nbytes for file in of_experiment)
    assert experiment["guessed_bytes"] == 0
    assert experiment["hours"] == 0


def test_one_command_shows_matrix_bill_and_checks(swept):
    tapct, _ = swept
    shown = tapct.here("run", "-e", "small-3d,tap-b-2.5d", "-t", "quickstart", "--dry-run", "--card", "h100")
    assert shown.returncode == 0, shown.stderr
    assert "to do" in shown.stdout
    assert "25% of its 989 TFLOPS" in shown.stdout
    assert "weights tap-b-2.5d: no file that could be downloaded is known" in shown.stdout
    wrong = tapct.here("run", "-e", "small-3d", "-t", "quickstart", "--dry-run", "--card", "h10")
    assert "'h100'" in wrong.stderr
    assert "add --dry-run" in tapct.here("run", "-e", "small-3d", "-t", "quickstart", "--json").stderr


def test_the_same_command_again_runs_only_what_is_not_done(swept):
    tapct, _ = swept
    good = tapct.results / "quickstart" / "small-3d"
    before = (good / "record.json").stat().st_mtime_ns, (good / "log.txt").read_text(encoding="utf-8")
    again = tapct.here("run", "-e", "small-3d", *SWEEP[2:], "-w", "random")
    assert (again.returncode, "1 done" in again.stdout) == (0, True), again.stdout + again.stderr
    assert ((good / "record.json").stat().st_mtime_ns, (good / "log.txt").read_text(encoding="utf-8")) == before
    dry = tapct.here("run", *SWEEP, "-w", "random", "--dry-run")
    assert (dry.returncode, "1 done, 1 failed" in dry.stdout) == (0, True)


def test_status_from_a_shell(swept):
    tapct, _ = swept
    states = json.loads(tapct("status", "--json", FORCE_COLOR="1").stdout)
    assert {(s["label"], s["status"]) for s in states} == {("small-3d", "done"), ("cubic", "failed")}


def test_it_is_what_eva_fit_gives(swept, site, monkeypatch, tmp_path):
    tapct, _ = swept
    monkeypatch.syspath_prepend(str(site))
    found = eva_fit(tapct, monkeypatch, tmp_path)
    assert found.fingerprint == read_record(tapct.results / "quickstart" / "small-3d" / "record.json").fingerprint


def eva_fit(tapct, monkeypatch, tmp_path, **more: str) -> Record:
    """Does in this process what an experiment does, and returns its record."""
    variables = {"ENCODER": "small-3d", "ENCODER_WEIGHTS": "random", "MAX_STEPS": "2", "N_RUNS": "2"} | more
    same = {name: tapct.environment[name] for name in ("DATA_ROOT", "TAPCT_CACHE")}
    for name, value in {**variables, **same, "ACCELERATOR": "cpu"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["eva", "fit", "--config", "eva_configs/quickstart.yaml"])
    with one_thread():
        main()
    (path,) = (tmp_path / "logs").glob("*/*/record.json")
    return read_record(path)


def test_options_are_an_experiment_a_record_and_a_row_of_their_own(swept, site, monkeypatch, tmp_path):
    tapct, _ = swept
    monkeypatch.syspath_prepend(str(site))
    label, plain = "small-3d+in_plane_size=96+precision=fp32", tapct.results / "quickstart" / "small-3d"
    results = tmp_path / "results"
    asked = ("-e", "small-3d+precision=fp32+in_plane_size=096", *SWEEP[2:], "-w", "random", "--results", str(results))
    with one_thread():
        ran = tapct.here("run", *asked, workers_too=True)
    assert (ran.returncode, f"{label} on quickstart: done" in ran.stderr) == (0, True), ran.stdout + ran.stderr
    record = read_record(results / "quickstart" / label / "record.json")
    assert record.encoder.options == {"in_plane_size": 96, "precision": "fp32"}
    assert (record.encoder.card.in_plane_size, record.encoder.precision) == (96, "fp32")
    assert "Small 3D, 96 px, precision fp32" in (results / "quickstart" / label / "log.txt").read_text(encoding="utf-8")
    assert read_record(plain / "record.json").encoder.options == {}
    by_eva = eva_fit(tapct, monkeypatch, tmp_path, ENCODER_OPTIONS="precision=fp32+in_plane_size=96")
    assert by_eva.fingerprint == record.fingerprint

    shutil.copytree(plain, results / "quickstart" / "small-3d", ignore=shutil.ignore_patterns("sessions"))
    for named, shown in (("small-3d", {label, "small-3d"}), ("small-3d+in_plane_size=96", {label})):
        states = tapct.here("status", "--json", "-e", named, "--results", str(results))
        assert {state["label"] for state in json.loads(states.stdout)} == shown
    (board,) = assemble({results: read_records(results)}, resamples=20).own
    assert [model.name for model in board.board.models] == [
        "Small 3D (random weights)",
        "Small 3D, 96 px, precision fp32 (random weights)",
    ]


def test_an_override_does_not_set_options_behind_a_experiments_name(swept, tmp_path):
    tapct, _ = swept
    override = tmp_path / "large.yaml"
    override.write_text("model:\n  init_args:\n    encoder_options: {in_plane_size: 96}\n")
    ran = tapct.here("run", *SWEEP, "-w", "random", "--override", str(override), "--dry-run")
    assert ran.returncode == 1
    assert "encoder_options is part of who runs" in ran.stderr


def test_a_wrong_command_line_ends_with_status_2_and_a_wrong_name_with_1(swept):
    tapct, _ = swept
    assert tapct.here("run", "-e", "curia", "-t", "amos22", "--jbos", "2").returncode == 2
    short = tapct.here("run", "-e", "curia")
    assert (short.returncode, "or a suite" in short.stderr) == (1, True)
    wrong = tapct.here("run", "-e", "curai", "-t", "amos22")
    assert wrong.returncode == 1
    assert "Did you mean 'curia'" in wrong.stderr
