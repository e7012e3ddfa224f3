"""What goes wrong in a run stops before it spoils anything, and says what it was."""

import contextlib
import io
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from pretrain.observe import replay
from pretrain.observe.monitor import read_events
from pretrain.replay import main
from pretrain.ssl.model import Pretrainer
from pretrain.training.checkpoint import checkpoints_in, newest_checkpoint
from tests.pretrain.poisoned_batches import poison as poison_batches
from tests.pretrain.runs import Running, checkpoint, differing, logged, run_here, tensors

EVERY_STEP = ("--run.checkpoint_every=1", "--run.keep=20", "--run.steps=5", "--run.micro_batches=2")
SKIP = (*EVERY_STEP, "--run.on_nonfinite=skip")


@pytest.fixture(scope="module")
def poisoned(store, tmp_path_factory):
    """Trains in this process with a NaN in one micro-batch; returns the folder, the exit status and what was said."""

    def train(step: int, index: int, *options: str) -> tuple[Path, int, str]:
        output = tmp_path_factory.mktemp("poisoned")
        with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stderr(io.StringIO()) as said:
            poison_batches(step, index, set_attribute=patched.setattr)
            return output, run_here(store, output, *options), said.getvalue()

    return train


@pytest.fixture(scope="module")
def skipped(poisoned):
    """The folder of a run that leaves out its fourth step."""
    output, status, _ = poisoned(3, 1, *SKIP)
    assert status == 0
    return output


@pytest.fixture(scope="module")
def stopped(poisoned):
    """The folder of a run that ends in its third step, and what it said."""
    output, status, said = poisoned(2, 1, *EVERY_STEP)
    assert status == 1
    return output, said


def events(output: Path, kind: str) -> list[dict]:
    return [event for event in read_events(output) if event["event"] == kind]


def test_a_nan_is_skipped_before_anything_is_touched(skipped):
    before, after = checkpoint(skipped, 3), checkpoint(skipped, 4)
    assert differing(before, after) == []
    assert after["counters"] == {"skipped": 1, "skipped_in_a_row": 1}
    end = checkpoint(skipped, 5)
    assert end["counters"] == {"skipped": 1, "skipped_in_a_row": 0}
    assert "model.dino_centre" in differing(after, end), "the step after it continues"
    assert all(tensor.isfinite().all() for tensor in tensors(end).values())
    (told,) = events(skipped, "skipped")
    assert told["step"] == 4
    assert "micro-batch 1" in told["message"]


def test_a_nan_stops_the_run_and_its_batch_can_be_replayed(stopped, capsys):
    output, said = stopped
    (dump,) = (output / "dumps").iterdir()
    assert f"python -m pretrain.replay {dump}" in said
    assert "step 3: a loss or a gradient is not finite, and nothing was updated" in said
    assert events(output, "end")[-1]["reason"].startswith("PretrainError")
    assert checkpoints_in(output / "checkpoints")[0].name == "step_00000002.pt"

    assert main([str(dump), "--device", "cpu"]) == 0
    again = capsys.readouterr().out
    assert "step 2, micro-batch 1" in again
    recorded, replayed = (line.split(": ", 1)[1] for line in again.splitlines() if line.startswith(("step 2", "repl")))
    assert replayed == recorded.removeprefix("recorded: ")
    assert "global_crops is not finite itself" in replayed
    assert "backbone.patch_embed" in replayed
    assert "quickstart_data" in again, "the scans are named"


def test_the_dump_of_a_finite_batch_says_so(stopped, capsys):
    output, _ = stopped
    (dump,) = (output / "dumps").iterdir()
    model, batch, state = replay.read_dump(dump, "cpu")
    batch.global_crops.nan_to_num_(0.0)
    fixed = replay.diagnose(model, batch, teacher_temperature=state["teacher_temperature"], scale=state["scale"])
    assert fixed.is_finite
    assert main([str(output / "checkpoints" / "step_00000002.pt")]) == 1
    assert "not the dump of a batch" in capsys.readouterr().err


def test_too_many_in_a_row_stop_the_run(store, tmp_path, monkeypatch, capsys):
    whole = Pretrainer.forward_backward

    def infinite_gradient(self, batch, **options):
        losses = whole(self, batch, **options)
        if batch.step >= 2:
            self.student.backbone.norm.bias.grad[0] = float("inf")  # the losses stay finite
        return losses

    monkeypatch.setattr(Pretrainer, "forward_backward", infinite_gradient)
    policy = ("--run.on_nonfinite=skip", "--run.max_skipped_steps=2")
    assert run_here(store, tmp_path, *EVERY_STEP, *policy) == 1
    said = capsys.readouterr().err
    assert "3 in a row" in said
    assert "backbone.norm.bias" in said
    assert [event["step"] for event in events(tmp_path, "skipped")] == [3, 4, 5]
    assert differing(checkpoint(tmp_path, 2), checkpoint(tmp_path, 4)) == []


def test_a_nan_on_one_process_stops_all_of_them(store, tmp_path, skipped):
    run = Running(store, tmp_path, *SKIP, processes=2, poison="3,1")  # a micro-batch of process 1
    assert run.wait() == [0, 0], run.said
    assert differing(checkpoint(tmp_path, 3), checkpoint(tmp_path, 4)) == []
    assert [path.name for path in (tmp_path / "dumps").iterdir()] == ["step_00000003_micro_batch_0001.pt"]
    for step, values in logged(skipped).items():
        assert logged(tmp_path)[step] == pytest.approx(values, rel=2e-3, abs=1e-5)


def test_a_number_of_processes_that_does_not_divide_is_refused(store, tmp_path):
    run = Running(store, tmp_path, processes=3)
    assert run.wait() == [1, 1, 1]
    assert "run.micro_batches = 4 cannot be shared equally by 3 processes" in run.said


def test_the_death_of_one_process_ends_the_others(store, tmp_path):
    run = Running(store, tmp_path, "--run.steps=100000", "--run.checkpoint_every=1", processes=2)
    run.wait_for(lambda: checkpoints_in(tmp_path / "checkpoints"))
    os.kill(run.processes[1].pid, signal.SIGKILL)
    assert run.wait() == [1, -signal.SIGKILL], run.said
    assert "another process of the run is gone" in run.said
    assert "Traceback" not in run.said
    assert newest_checkpoint(tmp_path / "checkpoints") is not None


def test_a_vanished_volume_ends_in_its_name(store, tmp_path):
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    run = Running(copy, tmp_path / "run", "--run.steps=100000")
    run.wait_for(lambda: logged(tmp_path / "run"))
    shutil.rmtree(copy / "volumes")
    assert run.wait() == [1], run.said
    assert "cannot be read" in run.said
    assert str(copy / "volumes") in run.said
    assert "Traceback" not in run.said


@pytest.mark.slow  # its worker imports torch; test_batches has the quick one
def test_a_dead_worker_ends_in_a_word(store, tmp_path):
    run = Running(store, tmp_path, "--run.steps=100000", "--data.workers=1")
    run.wait_for(lambda: logged(tmp_path))
    leaves = [
        pid for pid in descendants(run.processes[0].pid) if not descendants(pid) and b"forkserver" in command(pid)
    ]
    os.kill(leaves[-1], signal.SIGKILL)
    assert run.wait() == [1], run.said
    assert "workers that read" in run.said
    assert "Traceback" not in run.said


def test_a_full_disk_ends_in_a_word(store, tmp_path):
    """The limit on the size of a file stands for the disk: the kernel refuses the write half-way."""
    run = Running(store, tmp_path, "--run.steps=100000", "--run.checkpoint_every=1", most_file_bytes=1_000_000)
    assert run.wait() == [1], run.said
    assert "step_00000001.pt could not be written" in run.said
    assert "Make room on the disk" in run.said
    assert "Traceback" not in run.said
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(store, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    assert run_here(store, tmp_path / "file") == 1
    assert f"{tmp_path / 'file'} cannot be written" in capsys.readouterr().err


def test_an_unknown_key_is_refused(store, tmp_path, capsys):
    assert run_here(store, tmp_path, "--optim.base_rl=1") == 1
    assert "unknown key optim.base_rl. Did you mean 'base_lr'" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_again_and_again_a_run_still_comes_to_the_same_end(store, tmp_path):
    assert run_here(store, tmp_path / "straight", "--run.steps=60") == 0
    draw, kills = random.Random(0), 0
    while True:
        run = Running(store, tmp_path / "killed", "--run.steps=60", "--run.checkpoint_every=3")
        run.processes[0].join(2 + draw.uniform(0, 3))
        if not run.is_alive:
            break
        run.kill()
        kills += 1
        assert kills < 100
    assert run.wait() == [0], run.said
    assert kills > 0
    assert differing(checkpoint(tmp_path / "straight", 60), checkpoint(tmp_path / "killed", 60)) == []


@pytest.mark.slow
def test_memory_does_not_grow_over_300_steps(store, tmp_path):
    run = Running(store, tmp_path, "--run.steps=100000", "--run.checkpoint_every=20")
    resident_kb: dict[int, int] = {}
    while max(resident_kb, default=0) < 400:
        assert run.is_alive, run.said
        time.sleep(0.2)
        if steps := logged(tmp_path):
            resident_kb[max(steps)] = resident(run.processes[0].pid)
    run.kill()
    early = [kb for step, kb in resident_kb.items() if 100 <= step < 150]
    late = [kb for step, kb in resident_kb.items() if 350 <= step < 400]
    assert sum(late) / len(late) < sum(early) / len(early) * 1.03, resident_kb


def descendants(pid: int) -> list[int]:
    children = [
        int(child)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for child in path.read_text(encoding="ascii").split()
    ]
    return [pid for child in children for pid in (child, *descendants(child))]


def command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"process {pid} has no resident size")
