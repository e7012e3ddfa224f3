"""A run that is interrupted is the run that is not: to the bit with as many processes, else up to summation order."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml

from pretrain.observe.monitor import read_events
from pretrain.state_files import load_checkpoint, write_whole
from pretrain.training.checkpoint import checkpoints_in
from tests.pretrain.runs import STEPS, Running, checkpoint, differing, logged, run_here, tensors, torchrun

CLOSE = {"rel": 2e-3, "abs": 1e-5}


@pytest.fixture(scope="module")
def straight(store, tmp_path_factory):
    """All steps without interruption."""
    output = tmp_path_factory.mktemp("straight")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes that are compared with it
    assert run_here(store, output) == 0
    yield output
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def by_two(store, tmp_path_factory):
    """All steps without interruption, by two processes."""
    output = tmp_path_factory.mktemp("by_two")
    run = Running(store, output, processes=2)
    assert run.wait() == [0, 0], run.said
    return output


def half_of(whole: Path, folder: Path) -> Path:
    """Copies a run as it was when its first half was done."""
    shutil.copytree(whole, folder)
    (folder / "checkpoints" / f"step_{STEPS:08d}.pt").unlink()
    (metrics := folder / "metrics.jsonl").unlink()
    for line in (whole / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        if json.loads(line)["step"] <= STEPS // 2 and json.loads(line)["event"] != "end":
            with metrics.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    assert max(logged(folder)) == STEPS // 2
    return folder


def assert_close(ours: dict[int, dict[str, float]], theirs: dict[int, dict[str, float]]) -> None:
    assert ours.keys() == theirs.keys()
    for step, values in ours.items():
        assert values == pytest.approx(theirs[step], **CLOSE), f"step {step}"


def test_everything_that_is_trained_moves(straight):
    half, end = (tensors(checkpoint(straight, step)) for step in (STEPS // 2, STEPS))
    still = [name for name, tensor in half.items() if torch.equal(tensor, end[name])]
    assert still == []
    assert {"model.dino_centre", "model.ibot_centre", "model.teacher.backbone.cls_token"} <= half.keys()


@pytest.mark.thorough
def test_kill_9_and_resumed_is_bitwise_the_same(store, straight, tmp_path):
    run = Running(store, tmp_path)
    run.wait_for(lambda: checkpoints_in(tmp_path / "checkpoints"))
    run.kill()
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"event": "metr')  # killed in the middle of a line
    assert run_here(store, tmp_path) == 0
    assert differing(checkpoint(tmp_path, STEPS), checkpoint(straight, STEPS)) == []
    assert logged(tmp_path) == logged(straight)
    assert [event["step"] for event in read_events(tmp_path) if event["event"] == "start"] == [0, STEPS // 2]


def test_a_run_resumes_where_its_store_was_copied_to(store, straight, tmp_path):
    """From the network, of which the cache here keeps but a part."""
    run = half_of(straight, tmp_path / "run")
    cache = (f"--data.cache={tmp_path / 'cache'}", "--data.cache_gb=0.0005")
    assert run_here(f"file://{store}", run, "--data.workers=0", *cache) == 0
    assert differing(checkpoint(run, STEPS), checkpoint(straight, STEPS)) == []
    assert logged(run) == logged(straight)


def test_sigterm_saves_the_step_and_asks_to_be_started_again(store, straight, tmp_path):
    run = Running(store, tmp_path, "--run.checkpoint_every=1000")
    run.wait_for(lambda: logged(tmp_path))
    run.signal(signal.SIGTERM)
    run.signal(signal.SIGTERM)  # Slurm and torchrun both send one
    assert run.wait() == [75], run.said
    assert "all is saved" in run.said
    (saved,) = checkpoints_in(tmp_path / "checkpoints")
    assert 0 < int(saved.stem.removeprefix("step_")) < STEPS
    assert run_here(store, tmp_path) == 0
    assert differing(checkpoint(tmp_path, STEPS), checkpoint(straight, STEPS)) == []


def test_two_processes_see_the_same_and_resume_to_the_bit(store, straight, by_two, tmp_path):
    parts = half_of(by_two, tmp_path / "parts")
    again = Running(store, parts, processes=2)
    assert again.wait() == [0, 0], again.said
    assert differing(checkpoint(parts, STEPS), checkpoint(by_two, STEPS)) == []
    assert logged(parts) == logged(by_two)
    assert_close(logged(by_two), logged(straight))


def test_a_run_goes_on_with_another_number_of_processes(store, straight, by_two, tmp_path):
    run = half_of(by_two, tmp_path / "run")
    assert run_here(store, run) == 0
    assert_close(logged(run), logged(straight))


@pytest.mark.slow
def test_one_process_may_become_two(store, straight, tmp_path):
    assert run_here(store, tmp_path, f"--run.stop_at={STEPS // 2}") == 0
    run = Running(store, tmp_path, processes=2)
    assert run.wait() == [0, 0], run.said
    assert_close(logged(tmp_path), logged(straight))


@pytest.mark.slow
@pytest.mark.usefixtures("straight")  # for its one thread
def test_twenty_steps_are_ten_a_kill_and_ten_more(store, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    longer = ("--run.steps=20", "--run.checkpoint_every=10")
    assert run_here(store, whole, *longer) == 0
    run = Running(store, parts, *longer)
    run.wait_for(lambda: checkpoints_in(parts / "checkpoints"))
    run.kill()
    assert run_here(store, parts, *longer) == 0
    assert differing(checkpoint(parts, 20), checkpoint(whole, 20)) == []
    assert logged(parts) == logged(whole)


@pytest.mark.thorough
def test_sigterm_to_one_process_stops_all_at_one_step(store, straight, tmp_path):
    run = Running(store, tmp_path, "--run.checkpoint_every=1000", processes=2)
    run.wait_for(lambda: logged(tmp_path))
    run.processes[1].terminate()
    assert run.wait() == [75, 75], run.said
    assert run_here(store, tmp_path) == 0
    assert_close(logged(tmp_path), logged(straight))


@pytest.mark.parametrize("change", ["--optim.base_lr=0.002", "--run.seed=1", "--run.steps=30", "--run.micro_batches=2"])
def test_other_settings_are_another_run(store, straight, change, capsys):
    assert run_here(store, straight, change) == 1
    key, value = change.removeprefix("--").split("=")
    said = capsys.readouterr().err
    assert f"{key} was" in said
    assert f"is {value}" in said


def test_a_run_from_before_crops_could_be_averaged_was_cut_without(store, tmp_path, capsys):
    """Its checkpoint says nothing of it: it neither becomes another run in silence nor is it lost."""
    plain = ("--data.antialias=false", "--run.micro_batches=1")
    assert run_here(store, tmp_path, *plain, "--run.stop_at=1") == 0
    (path,) = checkpoints_in(tmp_path / "checkpoints")
    state = load_checkpoint(path)
    settings = yaml.safe_load(state["config"])
    del settings["data"]["antialias"]
    write_whole(path, {**state, "config": yaml.safe_dump(settings)})
    assert run_here(store, tmp_path, *plain[1:], "--run.stop_at=2") == 1
    assert "data.antialias was False, is True" in capsys.readouterr().err
    assert run_here(store, tmp_path, *plain, "--run.stop_at=2") == 0


def test_what_changes_nothing_may_change(store, tmp_path):
    one = "--run.micro_batches=1"
    assert run_here(store, tmp_path, one, "--run.stop_at=1") == 0
    assert run_here(store, tmp_path, one, "--run.stop_at=2", "--run.log_every=2", "--run.keep=1") == 0
    assert checkpoint(tmp_path, 2)["step"] == 2


def test_a_second_launch_is_kept_out(store, tmp_path, capsys):
    run = Running(store, tmp_path, "--run.steps=100000")
    run.wait_for(lambda: logged(tmp_path))
    assert run_here(store, tmp_path, "--run.steps=100000") == 1
    assert f"is being trained in by process {run.processes[0].pid}" in capsys.readouterr().err
    run.kill()


@pytest.mark.slow
def test_under_torchrun_sigterm_saves_and_the_same_command_goes_on(store, straight, tmp_path):
    process = torchrun(store, tmp_path, "--run.checkpoint_every=1000", processes=2)
    while not logged(tmp_path):
        assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0, f"torchrun has a status of its own: {said}"
    (saved,) = checkpoints_in(tmp_path / "checkpoints")
    assert 0 < int(saved.stem.removeprefix("step_")) < STEPS
    process = torchrun(store, tmp_path, processes=2)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert_close(logged(tmp_path), logged(straight))
