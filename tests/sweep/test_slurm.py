"""The Slurm launcher on a real Slurm: one node on loopback."""

import json
import os
import re
import subprocess
import sys
import time

import pytest

from tests.sweep.conftest import REPO, Installed

SLURM_UP = REPO.parent / "shared" / "services" / "slurm-up"
ASKED = (
    "-t",
    "quickstart",
    "--runs",
    "1",
    "--accelerator",
    "cpu",
    "--launcher",
    "slurm",
    "--cpus",
    "1",
    "--time",
    "20",
)
LONG = ("-e", "small-3d", "-w", "random", "--max-steps", "100000")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not SLURM_UP.exists() or os.geteuid() != 0, reason="needs ../shared/services/slurm-up, and root"
    ),
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    whole = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}  # it asks nproc, which heeds this
    up = subprocess.run([SLURM_UP, folder], env=whole, capture_output=True, text=True, check=False, timeout=400)
    if up.returncode:
        pytest.skip(f"Slurm does not start here: {up.stderr}")
    yield re.search(r"SLURM_CONF=(\S+)", up.stdout).group(1)
    conf = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf"}
    subprocess.run(["scancel", "--user", "root"], env=conf, check=False)
    until(lambda: not subprocess.run(["squeue", "-h"], env=conf, capture_output=True, check=False).stdout)
    subprocess.run([SLURM_UP, "--stop", folder], check=False)


@pytest.fixture
def tapct(slurm, site, tmp_path) -> Installed:
    tapct = Installed(site, tmp_path)
    tapct.environment["SLURM_CONF"] = slurm
    return tapct


def state(tapct: Installed, encoder: str) -> dict:
    states = json.loads(tapct("status", "--json", "-e", encoder, "-t", "quickstart").stdout)
    return states[0]


def until(what, timeout_s: float = 120):
    deadline = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(1)
    return found


def job_of(tapct: Installed, encoder: str) -> str:
    return json.loads((tapct.results / "quickstart" / encoder / "slurm.json").read_text(encoding="utf-8"))["job"]


def launch(tapct: Installed, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tapct.cli", "run", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=tapct.environment, cwd=REPO, **pipes)


def log(tapct: Installed, encoder: str) -> str:
    path = tapct.results / "quickstart" / encoder / "log.txt"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def test_one_experiment_is_cancelled_one_fails_on_its_node_and_the_same_command_resumes(tapct):
    two = ("-e", "small-3d,cubic", "--max-steps", "100000")
    weights = ("-w", f"small-3d=random,cubic={tapct.results}/none.pth")
    waiting = launch(tapct, *two, *weights, *ASKED)
    until(lambda: "A demonstration" in log(tapct, "small-3d"))
    running = state(tapct, "small-3d")
    assert running["status"] == "running"
    assert f"slurm job {job_of(tapct, 'small-3d')}" in running["detail"]
    subprocess.run(["scancel", job_of(tapct, "small-3d")], env=tapct.environment, check=True)
    out, _ = waiting.communicate(timeout=180)
    assert waiting.returncode == 1, out
    assert "2 failed" in out
    assert "there is no weights file" in out
    assert re.search(r"told to end by SIGTERM|CANCELLED", state(tapct, "small-3d")["detail"])
    # The same command again, now shorter so that it ends, and with weights that are there.
    again = tapct("run", *two[:2], "--max-steps", "2", "-w", "random", *ASKED)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 done" in again.stdout
    assert "attempt 2 on " in log(tapct, "small-3d")


def test_what_slurm_ends_outside_the_worker_is_reported(tapct):
    held = launch(tapct, *LONG, *ASKED, "--slurm-extra", "begin=now+1hour")
    until(lambda: (tapct.results / "quickstart" / "small-3d" / "slurm.json").exists())
    queued = state(tapct, "small-3d")
    assert queued["status"] == "queued"
    assert "PENDING" in queued["detail"]
    second = tapct("run", *LONG, *ASKED)
    assert (second.returncode, "1 queued" in second.stdout) == (0, True), "it is not submitted twice"
    subprocess.run(["scancel", job_of(tapct, "small-3d")], env=tapct.environment, check=True)
    out, _ = held.communicate(timeout=120)
    assert held.returncode == 1
    assert "ended without a record: CANCELLED" in state(tapct, "small-3d")["detail"], out


def test_a_preempted_job_is_queued_again_and_goes_on(tapct):
    submitted = tapct("run", *LONG, *ASKED, "--detach", "--slurm-extra", "comment=preempted")
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    until(lambda: "A demonstration" in log(tapct, "small-3d"))
    job = job_of(tapct, "small-3d")
    subprocess.run(["scancel", "--signal=USR2", job], env=tapct.environment, check=True)
    # A requeued job waits for two minutes before it starts again, unless it is let go.
    until(lambda: state(tapct, "small-3d")["status"] == "queued")
    until(lambda: _let_go(tapct, job) and "attempt 2 on " in log(tapct, "small-3d"), 240)
    assert state(tapct, "small-3d")["status"] == "running"
    subprocess.run(["scancel", job], env=tapct.environment, check=True)


def test_what_slurm_refuses_is_said(tapct):
    refused = tapct("run", *LONG, *ASKED, "--partition", "nowhere")
    assert refused.returncode == 1
    assert "Slurm does not take the jobs" in refused.stderr
    assert "partition" in refused.stderr


def _let_go(tapct: Installed, job: str) -> bool:
    subprocess.run(["scontrol", "release", job], env=tapct.environment, check=False, capture_output=True)
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], env=tapct.environment, check=False)
    return True


def test_without_slurm_it_says_so(site, tmp_path):
    ran = Installed(site, tmp_path)("run", *LONG, *ASKED, PATH=str(tmp_path))
    assert ran.returncode == 1
    assert "there is no sbatch on this machine" in ran.stderr
