"""The launcher with workers that leave a record at once: what runs, what does not, what is said."""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tapct.records import read_record
from tapct.sweep import commands, local
from tapct.sweep.experiment import INCIDENTAL, WEIGHTS_CONTENT, SweepError, environment
from tapct.sweep.lock import attempt, last_attempt
from tapct.sweep.state import state_of
from tests.records.made import changed
from tests.sweep.fakes import Lab

E, T = "curia,fmcib", "amos22,lits17"
ALL = ["curia on amos22", "fmcib on amos22", "curia on lits17", "fmcib on lits17"]


@pytest.fixture
def lab(tmp_path, real_record, monkeypatch) -> Lab:
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setattr(local, "POLL_S", 0.02)
    return Lab(tmp_path, real_record)


def state(lab: Lab, name: str):
    return state_of(lab.folder(name))


def gone(pid: int, timeout_s: float = 10) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].startswith("Z"):
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_a_failed_experiment_stops_no_other_and_the_same_command_tries_it_alone(lab, capsys):
    lab.fails = {"curia on amos22"}
    assert lab.run(E, T) == 1
    assert lab.ran() == ALL
    out = capsys.readouterr().out
    assert "3 done, 1 failed" in out
    assert "RuntimeError: the GPU fell off the bus" in out
    log = lab.folder("curia on amos22") / "log.txt"
    assert str(log) in out
    failure = json.loads((log.parent / "failure.json").read_text(encoding="utf-8"))
    assert failure["reason"] == "RuntimeError: the GPU fell off the bus"
    assert failure["attempt"] == 1
    assert any("fitting curia on amos22" in line for line in failure["traceback"])
    lab.fails = set()
    assert lab.run(E, T) == 0
    assert lab.ran() == [*ALL, "curia on amos22"]
    assert not (log.parent / "failure.json").exists()
    text = log.read_text(encoding="utf-8")
    assert text.index("attempt 1 on ") < text.index("Traceback") < text.index("attempt 2 on ") < text.index("done in")
    assert lab.run(E, T) == 0
    assert len(lab.ran()) == 5, "everything is done"


def test_as_many_run_at_once_as_asked(lab):
    lab.waits = set(ALL)
    launcher = lab.launch(E, T, jobs=3)
    for name in ALL[:3]:
        lab.pid_of(name)
    time.sleep(0.3)
    assert sorted(lab.ran()) == sorted(ALL[:3])
    assert [state(lab, name).status for name in ALL] == ["running"] * 3 + ["missing"]
    lab.release()
    launcher.receive()
    assert launcher.receive() == 0
    assert sorted(lab.ran()) == sorted(ALL)


def test_two_launchers_on_one_folder_run_each_experiment_once(lab):
    lab.fails, lab.takes_s = {"curia on lits17"}, 0.1
    tasks = "amos22,lits17,kits23,luna16"
    launchers = [lab.launch(E, tasks, jobs=2) for _ in range(2)]
    ends = [(launcher.receive(), launcher.receive())[1] for launcher in launchers]
    assert set(ends) <= {0, 1}
    assert sorted(lab.ran()) == sorted(f"{encoder} on {task}" for encoder in E.split(",") for task in tasks.split(","))
    found = [state_of(lab.results / task / e).status for task in tasks.split(",") for e in E.split(",")]
    assert found == ["done", "done", "failed", "done", "done", "done", "done", "done"]


EVA = """
import os, pathlib, sys
print("fitting with", sys.argv[1], "and telemetry off:", os.environ["ORT_DISABLE_TELEMETRY"])
def main():
    if os.environ["ENCODER"] == "fmcib":
        raise RuntimeError("the GPU fell off the bus")
    session = pathlib.Path(os.environ["OUTPUT_ROOT"]) / "session"
    session.mkdir(parents=True)
    (session / "record.json").write_bytes(pathlib.Path(os.environ["MADE"]).read_bytes())
"""


def test_workers_are_processes_of_their_own(lab, tmp_path, monkeypatch, capsys):
    """Real ones, in which a module of eva's name leaves a record at once: eva itself takes long to import."""
    experiment, _ = commands.Sweep(encoders=E, tasks="amos22", results=str(lab.results)).experiments()
    (tmp_path / "made.json").write_text(lab.record(experiment).to_json(), encoding="utf-8")
    (tmp_path / "stand_in" / "eva").mkdir(parents=True)
    for name, content in {"__init__": "", "__main__": EVA}.items():
        (tmp_path / "stand_in" / "eva" / f"{name}.py").write_text(content, encoding="utf-8")
    monkeypatch.setenv("MADE", str(tmp_path / "made.json"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "stand_in"), *sys.path]))
    lab.start = local.Worker
    assert lab.run(E, "amos22", jobs=2) == 1
    assert "1 done, 1 failed" in capsys.readouterr().out
    assert state(lab, ALL[0]).status == "done"
    assert "RuntimeError: the GPU fell off the bus" in state(lab, ALL[1]).detail
    for name in ALL[:2]:
        log = (lab.folder(name) / "log.txt").read_text(encoding="utf-8")
        assert "fitting with fit and telemetry off: 1" in log
        assert f"(pid {os.getpid()})" not in log


def test_data_that_ship_with_a_task_are_used_where_the_folder_of_the_data_lacks_it(lab, tmp_path, monkeypatch):
    seen = tmp_path / "seen"
    fit = lab.fit
    lab.fit = lambda experiment: seen.write_text(str(os.environ.get("DATA_ROOT"))) and fit(experiment)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    for there, root in ((False, "None"), (True, str(tmp_path))):
        if there:
            (tmp_path / "quickstart").mkdir()
        assert lab.run("curia", "quickstart") == 0
        assert seen.read_text(encoding="utf-8") == root
        log = (lab.folder("curia on quickstart") / "log.txt").read_text(encoding="utf-8")
        assert log.count("DATA_ROOT has no folder 'quickstart': the data that ship with it are used") == 1
        lab.folder("curia on quickstart").joinpath("record.json").unlink()


def test_an_experiment_that_another_runs_is_skipped_and_said(lab, capsys):
    with attempt(lab.folder(ALL[0])) as held:
        assert held is not None
        assert lab.run(E, "amos22") == 0
        out = capsys.readouterr().out
    assert lab.ran() == [ALL[1]]
    assert "1 done, 1 running" in out
    assert f"running curia on amos22: attempt 1 on {held.host} (pid {os.getpid()}) since {held.started_at}" in out


def test_a_worker_finds_the_experiment_held_or_just_tried_though_its_launcher_did_not(lab, monkeypatch):
    """What the launcher sees may be seconds old."""
    from tapct.sweep.experiment import Order
    from tapct.sweep.worker import HELD, work

    (experiment,) = commands.Sweep(encoders="curia", tasks="amos22", results=str(lab.results)).experiments()
    with attempt(experiment.folder):
        assert work(Order(experiment), lab.fit) == HELD
    monkeypatch.setenv("SLURM_JOB_ID", "77")  # as in a job that was started again, in which a person runs `tapct run`
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert work(Order(experiment, attempts_seen=0), lab.fit) == HELD
    assert lab.ran() == []


@pytest.mark.parametrize(("before", "runs"), [("77", True), ("78", False), (None, False)])
def test_a_job_that_slurm_starts_again_goes_on_and_leaves_the_attempts_of_others_alone(lab, monkeypatch, before, runs):
    from tapct.sweep.experiment import Order
    from tapct.sweep.slurm import ExperimentJob

    (experiment,) = commands.Sweep(encoders="curia", tasks="amos22", results=str(lab.results)).experiments()
    if before is not None:
        monkeypatch.setenv("SLURM_JOB_ID", before)
    with attempt(experiment.folder):
        pass
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    ExperimentJob(Order(experiment, attempts_seen=0), lab.start)()
    assert lab.ran() == ["curia on amos22"] * runs


def test_kill_9_of_the_launcher_ends_the_worker_and_blocks_nothing(lab):
    lab.waits = {ALL[1]}
    launcher = lab.launch(E, T)
    worker = lab.pid_of(ALL[1])
    launcher.kill()
    assert gone(worker)
    left = state(lab, ALL[1])
    assert left.status == "failed"
    assert "ended without a word" in left.detail
    assert str(worker) in left.detail
    lab.waits = set()
    assert lab.run(E, T) == 0
    assert lab.ran() == [*ALL[:2], *ALL[1:]], "what was done is not done again"


def test_kill_9_of_a_worker_is_a_failure_with_its_reason(lab, capsys):
    lab.waits = {ALL[0]}
    launcher = lab.launch(E, T)
    os.kill(lab.pid_of(ALL[0]), signal.SIGKILL)
    launcher.receive()
    assert launcher.receive() == 1
    assert lab.ran() == ALL
    assert "the worker was killed by SIGKILL (out of memory? the kernel's log says)" in state(lab, ALL[0]).detail
    lab.waits = set()
    assert lab.run(E, T) == 0
    assert state(lab, ALL[0]).attempts == 2


def test_a_loader_process_that_outlives_a_killed_worker_does_not_hold_the_experiment(lab, tmp_path):
    def fit(experiment):
        orphan = os.fork()
        if orphan == 0:
            time.sleep(60)
        (tmp_path / "orphan").write_text(str(orphan))
        os.kill(os.getpid(), signal.SIGKILL)

    lab.fit = fit
    assert lab.run("curia", "amos22") == 1
    orphan = int((tmp_path / "orphan").read_text(encoding="utf-8"))
    os.kill(orphan, 0)
    assert last_attempt(lab.folder("curia on amos22"))[1] is False
    os.kill(orphan, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_workers_and_is_no_failure(number, lab):
    lab.waits = {ALL[0]}

    launcher = lab.launch(E, T)
    pid = launcher.receive()
    worker = lab.pid_of(ALL[0])
    os.kill(pid, number)
    assert launcher.receive() == 128 + number
    assert gone(worker)
    assert state(lab, ALL[0]).status == "missing"
    lab.release()
    assert lab.run(E, T) == 0


@pytest.mark.parametrize("damage", ["truncated", "changed", "half of its runs"])
def test_a_broken_record_is_said_and_run_again_only_when_told(damage, lab, capsys):
    assert lab.run("curia", "amos22") == 0
    path = lab.folder("curia on amos22") / "record.json"
    if damage == "truncated":
        path.write_text(path.read_text(encoding="utf-8")[:500])
    elif damage == "changed":
        path.write_text(path.read_text(encoding="utf-8").replace('"seed": 0', '"seed": 7', 1))
    else:
        record = read_record(path)
        path.write_text(record.model_copy(update={"runs": record.runs[:1]}).to_json())
    broken = path.read_text(encoding="utf-8")
    assert lab.run("curia", "amos22") == 1
    captured = capsys.readouterr()
    assert "1 broken" in captured.out
    assert {"truncated": "It may be truncated", "changed": "was changed"}.get(
        damage, "holds 1 of 2 runs"
    ) in captured.out
    assert "--replace" in captured.err
    assert len(lab.ran()) == 1
    assert lab.run("curia", "amos22", replace=True) == 0
    (kept,) = path.parent.glob("replaced-*-record.json")
    assert kept.read_text(encoding="utf-8") == broken
    assert state(lab, "curia on amos22").status == "done"


def test_a_record_of_other_settings_is_never_replaced_in_silence(lab, capsys):
    assert lab.run("curia", "amos22", max_steps=2) == 0
    first = (lab.folder("curia on amos22") / "record.json").read_text(encoding="utf-8")
    assert lab.run("curia", "amos22", max_steps=3) == 1
    assert "trainer.init_args.max_steps was 2, asked 3" in capsys.readouterr().out
    assert (lab.folder("curia on amos22") / "record.json").read_text(encoding="utf-8") == first
    assert lab.run("curia", "amos22", max_steps=2) == 0
    assert len(lab.ran()) == 1
    lab.fails = {"curia on amos22"}
    assert lab.run("curia", "amos22", max_steps=3, replace=True) == 1
    assert (lab.folder("curia on amos22") / "record.json").read_text(encoding="utf-8") == first, (
        "until there is a better one"
    )
    lab.fails = set()
    assert lab.run("curia", "amos22", max_steps=3, replace=True) == 0
    assert lab.run("curia", "amos22", max_steps=3) == 0
    assert len(lab.ran()) == 3


def test_weights_steps_runs_split_and_overrides_decide_and_the_machine_does_not(lab, tmp_path, monkeypatch):
    override = tmp_path / "o.yaml"
    override.write_text("model:\n  init_args:\n    seed: 5\n")
    (tmp_path / "data").mkdir()
    assert lab.run("curia", "amos22") == 0
    for same in ({"ACCELERATOR": "cpu"}, {"DATA_ROOT": str(tmp_path / "data")}, {"NUM_WORKERS": "0"}):
        with monkeypatch.context() as context:
            for name, value in same.items():
                context.setenv(name, value)
            assert lab.run("curia", "amos22", max_steps=1000) == 0, "1000 is the config's own"
    for other in ({"weights": "random"}, {"max_steps": 9}, {"runs": 1}, {"overrides": [str(override)]}):
        assert lab.run("curia", "amos22", **other) == 1
    monkeypatch.setenv("SPLIT_FILE", str(tmp_path / "split.csv"))
    assert lab.run("curia", "amos22") == 1
    assert len(lab.ran()) == 1


def test_weights_that_changed_behind_their_name_are_other_settings(lab, tmp_path, capsys):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"one")
    assert lab.run("curia", "amos22", weights=str(weights)) == 0
    weights.touch()
    assert lab.run("curia", "amos22", weights=str(weights)) == 0
    weights.write_bytes(b"two")
    assert lab.run("curia", "amos22", weights=str(weights)) == 1
    assert "what ENCODER_WEIGHTS holds (sha256) was" in " ".join(capsys.readouterr().out.split())
    about = lab.folder("curia on amos22") / "cell.json"
    older = json.loads(about.read_text(encoding="utf-8"))
    del older["settings"][WEIGHTS_CONTENT]
    about.write_text(json.dumps(older), encoding="utf-8")
    assert lab.run("curia", "amos22", weights=str(weights)) == 0, "an experiment of before it was kept"
    assert len(lab.ran()) == 1


def test_a_pack_is_another_setting_and_an_experiment_of_before_there_were_packs_is_done(lab, monkeypatch, capsys):
    assert lab.run("curia", "amos22") == 0
    about = lab.folder("curia on amos22") / "cell.json"
    older = json.loads(about.read_text(encoding="utf-8"))
    assert older["settings"].pop("data.init_args.pack") == "null"
    assert older["settings"].pop("model.init_args.feature_dtype") == "bf16", "what held before the configs said it"
    about.write_text(json.dumps(older), encoding="utf-8")
    assert lab.run("curia", "amos22") == 0
    assert len(lab.ran()) == 1
    monkeypatch.setenv("PACK", "amos22-curia-0123")
    assert lab.run("curia", "amos22") == 1
    assert "asked amos22-curia-0123" in " ".join(capsys.readouterr().out.split())
    monkeypatch.delenv("PACK")
    monkeypatch.setenv("FEATURE_DTYPE", "int8")
    assert lab.run("curia", "amos22") == 1
    assert "feature_dtype was absent, asked int8" in " ".join(capsys.readouterr().out.split())


def test_an_experiment_of_before_bags_were_named_is_done_and_another_bag_is_another_experiment(lab):
    assert lab.run("curia", "fdg_pet_ct") == 0
    about = lab.folder("curia on fdg_pet_ct") / "cell.json"
    older = json.loads(about.read_text(encoding="utf-8"))
    assert older["settings"].pop("model.init_args.bag") == "auto"
    about.write_text(json.dumps(older), encoding="utf-8")
    assert lab.run("curia", "fdg_pet_ct", bags="auto,cls") == 0
    assert len(lab.ran()) == 1
    assert lab.run("curia", "fdg_pet_ct", bags="patch") == 0
    assert lab.ran()[1:] == ["curia+bag=patch on fdg_pet_ct"]


def test_a_record_of_another_encoder_or_task_or_without_all_runs_is_no_result(lab, capsys):
    def another(experiment):
        card = {**real.encoder.card.content(), "name": "fmcib"}
        lab.write(changed(lab.record(experiment), encoder={"card": card}), at(experiment))

    def half(experiment):
        lab.write(lab.record(experiment, runs=real.runs[:1]), at(experiment))

    def at(experiment):
        return experiment.folder / "sessions" / "s"

    real = lab._record
    for fit, reason in (
        (another, "the record is of fmcib on amos22, not of curia on amos22"),
        (half, "holds 1 of 2 runs"),
        (lambda experiment: None, "left 0 records"),
    ):
        lab.fit = fit
        assert lab.run("curia", "amos22") == 1
        assert reason in capsys.readouterr().out
        assert not (lab.folder("curia on amos22") / "record.json").exists()


def test_dry_run_estimates_from_what_has_finished_and_runs_nothing(lab, capsys):
    lab.fails = {"fmcib on lits17"}
    assert lab.run("curia", "amos22") == 0
    assert lab.run("fmcib", "lits17") == 1
    about = lab.folder("curia on amos22") / "cell.json"
    about.write_text(json.dumps({**json.loads(about.read_text(encoding="utf-8")), "wall_s": 90.0}))
    capsys.readouterr()
    before = sorted(p for p in lab.results.rglob("*"))
    assert lab.run(E, "amos22,lits17,luna16", dry_run=True) == 0
    out = capsys.readouterr().out
    rows = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines()]
    assert ["curia", "done 1.5 min", "to do ~1.5 min", "to do ?"] in rows
    assert ["fmcib", "to do ~1.5 min", "failed ?", "to do ?"] in rows
    assert "the GPU fell off the bus" in out
    assert "1 done, 1 failed, 4 to do; about 3.0 min of work for 2 experiments to run; no estimate for 3" in out
    assert sorted(p for p in lab.results.rglob("*")) == before
    assert lab.run(E, "amos22", dry_run=True, runs=1) == 0
    assert "no estimate for 1" in capsys.readouterr().out, "one run says nothing of three"


def test_status_tells_from_the_disk(lab, capsys):
    lab.fails = {"curia on lits17"}
    assert lab.run("curia", T) == 1
    with attempt(lab.folder("fmcib on amos22")):
        capsys.readouterr()
        assert commands.status(results=str(lab.results), json=True) == 0
        states = {f"{s['label']} on {s['task']}": s for s in json.loads(capsys.readouterr().out)}
        assert commands.status(results=str(lab.results), encoders="fmcib", tasks="kits23,amos22") == 0
        assert "1 running, 1 to do" in capsys.readouterr().out
    assert {name: s["status"] for name, s in states.items()} == {
        "curia on amos22": "done",
        "fmcib on amos22": "running",
        "curia on lits17": "failed",
        "fmcib on lits17": "missing",
    }
    assert "the GPU fell off the bus" in states["curia on lits17"]["detail"]
    assert states["curia on lits17"]["log"] == str(lab.folder("curia on lits17") / "log.txt")


def test_a_record_of_an_older_schema_is_done_and_said_to_be_older(lab, capsys):
    assert lab.run("curia", "amos22") == 0
    path = lab.folder("curia on amos22") / "record.json"
    older = read_record(path).model_copy(update={"older_schema": 2})
    path.write_text(older.to_json(), encoding="utf-8")
    about = json.loads((path.parent / "cell.json").read_text(encoding="utf-8"))
    (path.parent / "cell.json").write_text(json.dumps(about | {"fingerprint": older.fingerprint}), encoding="utf-8")
    capsys.readouterr()
    assert lab.run("curia", "amos22", dry_run=True) == 0
    out = capsys.readouterr().out
    assert "(older protocol)" in out
    assert "1 done; 1 of what is done are of an older protocol" in out
    assert lab.run("curia", "amos22") == 0
    assert len(lab.ran()) == 1
    capsys.readouterr()
    assert commands.status(results=str(lab.results), json=True) == 0
    assert json.loads(capsys.readouterr().out)[0]["older"] == "schema 2"


ODD = '{"settings": 1, "job": 7, "number": "x", "host": 1, "pid": 1, "started_at": 2}'


@pytest.mark.parametrize("content", ["", "[]", "{}", ODD, "[" * 5000])
def test_files_of_an_experiment_that_are_not_ours_end_no_status(content, lab, capsys):
    assert lab.run("curia", "amos22") == 0
    for experiment in ("curia", "[bold]fmcib"):
        (lab.results / "amos22" / experiment).mkdir(exist_ok=True)
        for name in ("cell.json", "failure.json", "slurm.json", "cell.lock"):
            (lab.results / "amos22" / experiment / name).write_text(content, encoding="utf-8")
    capsys.readouterr()
    assert commands.status(results=str(lab.results)) == 0
    out = capsys.readouterr().out
    assert "1 done, 1 to do" in out
    assert "[bold]fmcib" in out
    assert lab.run("curia", "amos22", dry_run=True) == 0
    assert "so its settings are unknown" in capsys.readouterr().out


def test_status_and_dry_run_read_no_cases_and_a_run_reads_what_it_leaves_alone(lab, capsys):
    assert lab.run("curia", "amos22") == 0
    path = lab.folder("curia on amos22") / "record.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"seed": 0', '"seed": 7', 1), encoding="utf-8")
    assert lab.run("curia", "amos22", dry_run=True) == 0
    assert "1 done" in capsys.readouterr().out
    assert lab.run("curia", "amos22") == 1
    assert "was changed after it was written" in capsys.readouterr().out


SETTINGS = ({"weights": "curia=random"}, {"max_steps": 7, "runs": 1}, {"fractions": [0.1, 1]}, {"perturbations": "all"})
FEW = "amos22,lung1_survival"


@pytest.mark.parametrize("tasks", [FEW, pytest.param("all", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("asked", SETTINGS, ids=lambda asked: next(iter(asked)))
def test_settings_are_those_of_the_whole_config_resolved(asked, tasks, tmp_path, monkeypatch):
    """Resolved value by value, for speed: an override that refers to other keys, and lists, are no exception."""
    override = tmp_path / "o.yaml"
    override.write_text("a: ${oc.env:ENCODER}\nb: {c: '${a}-x', d: [1, '${oc.env:MAX_STEPS, 3}'], e: }\n")
    for overrides in ((), (str(override),)):
        for experiment in commands.Sweep(
            encoders="curia,fmcib", tasks=tasks, overrides=overrides, **asked
        ).experiments():
            whole = {}
            with environment({**experiment.environment, **dict.fromkeys(INCIDENTAL, "")}):
                for path in (experiment.config, *experiment.overrides):
                    whole |= flat(OmegaConf.to_container(OmegaConf.load(path), resolve=True))
            assert experiment.settings() == dict(sorted(whole.items()))
    monkeypatch.setenv("SPLIT_FILE", "x.csv")
    (experiment,) = commands.Sweep(encoders="curia", tasks="amos22").experiments()
    assert experiment.settings()["data.init_args.split_file"].endswith("x.csv"), "a variable that changed is seen"


def flat(content, at=()) -> dict[str, str]:
    if isinstance(content, dict) and content:
        return {key: value for k, v in content.items() for key, value in flat(v, (*at, str(k))).items()}
    text = "null" if content is None else content if isinstance(content, str) else json.dumps(content)
    return {".".join(at): text}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoders": "curai"}, "there is no encoder 'curai'. Did you mean 'curia'"),
        ({"tasks": "amos"}, "there is no task 'amos'. Did you mean 'amos22'"),
        ({"weights": "fmcib=random"}, "'fmcib' is not among the encoders that run"),
        ({"weights": "curia=random,x"}, "write ENCODER=PATH"),
        ({"overrides": ["none.yaml"]}, "there is no override"),
        ({"configs": "nowhere"}, "there are no configs in"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(arguments, message, lab):
    with pytest.raises(SweepError, match=message):
        lab.run(**{"encoders": "curia", "tasks": "amos22", **arguments})


def test_all_is_every_encoder_on_every_task_but_the_demonstration():
    experiments = commands.Sweep(encoders="all", tasks="all").experiments()
    assert {experiment.task for experiment in experiments} >= {"amos22", "fdg_pet_ct"}
    assert "quickstart" not in {experiment.task for experiment in experiments}
    assert len(experiments) == len({experiment.task for experiment in experiments}) * len(
        {experiment.encoder for experiment in experiments}
    )


def test_each_worker_has_a_device_or_its_share_of_the_cores(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert local.slots(None, None) == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in local.slots(3, "gpu")] == ["5", "7", "5"]
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    assert local.slots(None, "cpu") == [{}]
    assert local.slots(4, "cpu") == [{"OMP_NUM_THREADS": "2"}] * 4
