"""Checkpoints that survive whatever happens while they are written."""

import multiprocessing
import os
import random
import resource
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch

from pretrain.errors import PretrainError
from pretrain.state_files import load_checkpoint
from pretrain.training.checkpoint import CheckpointWriter, checkpoints_in, newest_checkpoint

FORK = multiprocessing.get_context("fork")


def state(step: int, size: int = 1000) -> dict:
    return {
        "step": step,
        "model": {"weight": torch.full((size,), float(step)), "half": torch.ones(3, dtype=torch.bfloat16)},
        "optimizer": {
            "state": {0: {"exp_avg": torch.arange(4.0)}},
            "param_groups": [{"lr": 0.1, "betas": (0.9, 0.95)}],
        },
        "counters": {"skipped": 0, "note": "none"},
    }


def load_newest(folder: Path) -> dict | None:
    path = newest_checkpoint(folder)
    return None if path is None else load_checkpoint(path)


def saved(folder: Path, *steps: int, keep: int = 10) -> CheckpointWriter:
    writer = CheckpointWriter(folder, keep)
    for step in steps:
        writer.save(state(step))
    writer.wait()
    return writer


def test_what_is_saved_comes_back_and_is_that_of_the_moment(tmp_path):
    writer, now = CheckpointWriter(tmp_path, 1), state(7, 2_000_000)
    writer.save(now)
    now["model"]["weight"].zero_()  # the training continues at once
    now["counters"]["skipped"] = 5
    writer.wait()
    loaded = load_newest(tmp_path)
    assert loaded["model"]["weight"].unique().tolist() == [7.0]
    assert loaded["model"]["half"].dtype == torch.bfloat16
    assert loaded["optimizer"]["param_groups"] == [{"lr": 0.1, "betas": (0.9, 0.95)}]
    assert loaded["counters"] == {"skipped": 0, "note": "none"}


def test_the_newest_are_kept(tmp_path):
    saved(tmp_path, 10, 20, 30, 40, keep=2)
    assert [path.name for path in checkpoints_in(tmp_path)] == ["step_00000040.pt", "step_00000030.pt"]


def test_steps_beyond_eight_digits_still_come_last(tmp_path):
    saved(tmp_path, 99_999_999, 100_000_000)
    assert load_newest(tmp_path)["step"] == 100_000_000


def test_an_empty_folder_has_none(tmp_path):
    assert load_newest(tmp_path) is None
    assert load_newest(tmp_path / "not-yet") is None


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped directory", "flipped weight", "another file"])
def test_a_damaged_newest_is_passed_over_with_a_word(damage, tmp_path, caplog):
    saved(tmp_path, 1, 2)
    newest = tmp_path / "step_00000002.pt"
    content = newest.read_bytes()
    newest.write_bytes(
        {
            "truncated": content[: len(content) // 2],
            "empty": b"",
            "flipped directory": content[:-40] + bytes(40),
            "flipped weight": content.replace(torch.tensor([2.0] * 8).numpy().tobytes(), bytes(32), 1),
            "another file": b"no checkpoint at all",
        }[damage]
    )
    assert load_newest(tmp_path)["step"] == 1
    assert "step_00000002.pt cannot be read" in caplog.text


def test_where_none_can_be_read_the_run_does_not_start_anew(tmp_path):
    saved(tmp_path, 1)
    (tmp_path / "step_00000001.pt").write_bytes(b"")
    with pytest.raises(PretrainError, match="none of the 1 checkpoints"):
        load_newest(tmp_path)


def test_pickled_code_is_refused(tmp_path):
    torch.save({"format": 1, "step": 1, "evil": print}, tmp_path / "step_00000001.pt")
    with pytest.raises(PretrainError, match="cannot be read"):
        load_checkpoint(tmp_path / "step_00000001.pt")


def test_another_layout_is_refused(tmp_path):
    torch.save({"format": 99, "step": 1}, tmp_path / "step_00000001.pt")
    with pytest.raises(PretrainError, match="layout 1"):
        load_checkpoint(tmp_path / "step_00000001.pt")


def test_at_least_one_is_kept(tmp_path):
    with pytest.raises(PretrainError, match="at least 1"):
        CheckpointWriter(tmp_path, 0)


def write_until_killed(folder: Path, first: int, begun: Event) -> None:
    torch.set_num_threads(1)  # OpenMP's threads do not come along in a fork
    writer = CheckpointWriter(folder, keep=1)
    begun.set()
    for step in range(first, first + 100_000):
        writer.save(state(step, 200_000))


def assert_whole_after_kills(folder: Path, times: int) -> None:
    draw, first = random.Random(0), 1
    saved(folder, first)
    for _ in range(times):
        begun = FORK.Event()
        process = FORK.Process(target=write_until_killed, args=(folder, first + 1, begun))
        process.start()
        assert begun.wait(60)
        time.sleep(draw.uniform(0.0, 0.12))
        while first == 1 and checkpoints_in(folder)[0].name == "step_00000001.pt":
            assert process.is_alive()
            time.sleep(0.01)  # however slow the machine, one is completed
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        loaded = load_newest(folder)
        step = loaded["step"]
        assert step >= first
        assert loaded["model"]["weight"].unique().tolist() == [float(step)]
        assert checkpoints_in(folder)[0].name == f"step_{step:08d}.pt", "the newest file itself is whole"
        first = step
    assert first > 1, "no checkpoint was ever completed, so nothing was tried"
    CheckpointWriter(folder, keep=1)
    assert {path.name for path in folder.iterdir()} <= {path.name for path in checkpoints_in(folder)}, "parts are left"


def test_kill_9_leaves_a_whole_newest_checkpoint(tmp_path):
    assert_whole_after_kills(tmp_path, times=8)


@pytest.mark.slow
def test_kill_9_fifty_times(tmp_path):
    assert_whole_after_kills(tmp_path, times=50)


def save_with_little_room(folder: Path, answers) -> None:
    """A limit on the size of files stands for a full disk: the kernel refuses the write half-way."""
    torch.set_num_threads(1)
    writer = CheckpointWriter(folder, keep=1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        writer.save(state(2, 1_000_000))
        writer.wait()
    except PretrainError as error:
        answers.put(str(error))
    else:
        answers.put("no error")


def test_a_full_disk_is_said_and_costs_no_older_checkpoint(tmp_path):
    saved(tmp_path, 1)
    answers = FORK.Queue()
    process = FORK.Process(target=save_with_little_room, args=(tmp_path, answers))
    process.start()
    answer = answers.get(timeout=60)
    process.join()
    assert "step_00000002.pt could not be written" in answer
    assert f"newest good one is {tmp_path / 'step_00000001.pt'}" in answer
    assert "it takes 4 MB" in answer
    assert "Make room" in answer
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001.pt"]
    assert load_newest(tmp_path)["step"] == 1
