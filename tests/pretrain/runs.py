"""Small runs of the real training command: in this process, in processes of their own, or under torchrun."""

import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from pretrain import train
from pretrain.observe.monitor import read_events
from pretrain.state_files import load_checkpoint
from tests.pretrain.tiny import CONFIGS

PROJECT = Path(__file__).parents[2]

TINY = (
    *("--crops.global_size=[4, 32, 32]", "--crops.local_size=[4, 16, 16]", "--crops.num_local=2"),
    *("--heads.prototypes=64", "--heads.hidden_dim=32", "--heads.bottleneck_dim=16"),
    *("--optim.warmup_steps=2", "--optim.freeze_last_layer_steps=1", "--losses.teacher_temperature_warmup_steps=3"),
    *("--model.drop_path_rate=0.3", "--run.micro_batch_size=2", "--run.micro_batches=4", "--run.steps=6"),
    *("--run.checkpoint_every=3", "--run.log_every=1", "--data.slab_slices=4"),
)
STEPS = 6

# Processes are forked from one that has imported everything and computed nothing: torch's import alone takes seconds.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.pretrain.runs", "torch._dynamo", "pretrain.data.batches", "pretrain.prepare"])


def arguments(store: Path | str, output: Path, *more: str) -> list[str]:
    config = str(CONFIGS / "tap_debug.yaml")
    return ["--config", config, *TINY, f"--data.store={store}", f"--run.output={output}", *more]


def run_here(store: Path | str, output: Path, *more: str) -> int:
    """Trains in this process, whose memory stays as it is; returns the exit status."""
    return train.main(arguments(store, output, "--run.keep_freed_memory=false", *more))


class Running:
    """Processes of one run, with the environment that torchrun gives them."""

    started: list["Running"] = []  # noqa: RUF012 - for the fixture that ends what a failed test leaves

    def __init__(
        self,
        store: Path,
        output: Path,
        *more: str,
        processes: int = 1,
        poison: str | None = None,
        most_file_bytes: int | None = None,
    ) -> None:
        output.mkdir(parents=True, exist_ok=True)
        self.log = output / "said.txt"
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes)}
        self.processes = []
        for rank in range(processes):
            of_rank = {"RANK": str(rank), "LOCAL_RANK": str(rank)} | shared if processes > 1 else {}
            extra = (of_rank | ({"POISON": poison} if poison else {}), str(self.log), most_file_bytes)
            self.processes.append(start(_train, arguments(store, output, *more), *extra))
        Running.started.append(self)

    @property
    def is_alive(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def signal(self, number: int) -> None:
        for process in self.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        for process in self.processes:
            process.join()

    def wait(self, timeout_s: float = 120) -> list[int]:
        """Returns the exit status of each process."""
        end = time.monotonic() + timeout_s
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
            assert process.exitcode is not None, f"still running after {timeout_s} s:\n{self.said}"
        return [process.exitcode for process in self.processes]

    def wait_for(self, what, timeout_s: float = 120) -> None:
        """Waits until `what()` is true."""
        end = time.monotonic() + timeout_s
        while not what():
            assert self.is_alive, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.01)


def start(target: Callable[..., None], *args: object) -> BaseProcess:
    """Starts a process that has imported everything and computed nothing."""
    process = _SERVER.Process(target=target, args=args)
    process.start()
    return process


def _train(argv: list[str], environment: dict[str, str], log: str, most_file_bytes: int | None) -> None:
    os.environ.update(environment)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    torch.set_num_threads(1)
    if most_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_file_bytes, most_file_bytes))
    if "POISON" in environment:
        from tests.pretrain import poisoned_batches

        poisoned_batches.poison(*(int(part) for part in environment["POISON"].split(",")))
    sys.exit(train.main(argv))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def torchrun(store: Path, output: Path, *more: str, processes: int) -> subprocess.Popen:
    """Starts the command as a user does."""
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "pretrain.train"]
    return subprocess.Popen(
        [sys.executable, *command, *arguments(store, output, *more)],
        cwd=PROJECT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def checkpoint(output: Path, step: int) -> dict:
    return load_checkpoint(output / "checkpoints" / f"step_{step:08d}.pt")


def tensors(state: dict, prefix: str = "") -> dict[str, torch.Tensor]:
    """Returns the tensors of a checkpoint by their path in it."""
    found = {}
    for key, value in state.items():
        if isinstance(value, torch.Tensor):
            found[f"{prefix}{key}"] = value
        elif isinstance(value, dict):
            found |= tensors(value, f"{prefix}{key}.")
    return found


def differing(one: dict, other: dict) -> list[str]:
    """Returns the names of the tensors of two checkpoints that differ in any bit."""
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys()
    return [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])]


def logged(output: Path) -> dict[int, dict[str, float]]:
    """Returns the metrics of each step that do not depend on the clock; none where nothing is logged yet."""
    clock = {"event", "time_s", "elapsed_s", "step", "step_s", "samples_per_s", "data_wait", "eta_s", "mfu"}
    if not (output / "metrics.jsonl").exists():
        return {}
    return {
        event["step"]: {name: value for name, value in event.items() if name not in clock}
        for event in read_events(output)
        if event["event"] == "metrics"
    }
