"""Workers as jobs of a Slurm cluster, through submitit: one job an experiment.

The job's own process stays small: it starts the same worker as the local launcher does, and ends with it. When Slurm
says that the time is nearly up, or takes the node away, submitit asks it for a checkpoint and queues the job again;
the same experiment then resumes from the features that are stored.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import submitit

from tapct._utils.files import write_atomically
from tapct.sweep import lock
from tapct.sweep.experiment import Order, SweepError
from tapct.sweep.local import Notify, Process, Start, Worker, settle
from tapct.sweep.resources import Resources
from tapct.sweep.state import SUBMITTED_FILE, state_of
from tapct.sweep.worker import FAILED, note_end

POLL_S = 5.0
_ASK_TIMEOUT_S = 60.0
_MAX_REQUEUES = 10
_TAIL = 20


@dataclass(frozen=True)
class SubmittedJob:
    """A job that was submitted, as the file in its experiment's folder says.

    Attributes:
        job: Its name, as `squeue` shows it.
        submitted_at: UTC.
        log: What the job printed outside the worker.
    """

    job: str
    submitted_at: str
    log: str


class ExperimentJob:
    """What a node runs: a worker, watched."""

    def __init__(self, order: Order, start: Start = Worker) -> None:
        """Initializes the job; nothing is started yet."""
        self._order, self._start = order, start
        self._worker: Process | None = None

    def __call__(self) -> str:
        """Runs the experiment, and returns its state in words.

        Raises:
            SweepError: If the experiment failed, so that Slurm says so too.
        """
        before, _ = lock.last_attempt(self._order.experiment.folder)
        if before is not None and before.slurm_job is not None and before.slurm_job == lock.slurm_job():
            # Slurm started this job again: it continues with its own attempt, not with another launcher's.
            self._order = replace(self._order, attempts_seen=max(self._order.attempts_seen, before.number))
        self._worker = self._start(self._order, {})
        try:
            while (status := self._worker.poll()) is None:
                time.sleep(1)
        except SystemExit:  # submitit's, once it has called `checkpoint` and queued the job again
            raise
        except BaseException as error:  # submitit's too, when the time was up too often
            self._worker.kill()
            note_end(self._order, f"the job ended: {error}", [])
            raise
        settle(self._order, status, self._worker.last_words())
        state = state_of(self._order.experiment.folder, self._order.experiment.settings())
        if status == FAILED or state.status == "failed":
            raise SweepError(f"{state.name}: {state.detail}. Log: {state.log}")
        return f"{state.name}: {state.status} {state.detail}"

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Ends the worker; the job that is queued again starts it anew. Called by submitit."""
        if self._worker is not None:
            self._worker.kill()
        with lock.between_attempts(self._order.experiment.folder):
            pass  # notes that the attempt has ended
        return submitit.helpers.DelayedSubmission(ExperimentJob(self._order, self._start))


def submit(orders: Sequence[Order], resources: Resources, folder: Path, start: Start = Worker) -> dict[str, Order]:
    """Submits a job for each experiment, as one array.

    Args:
        orders: The experiments.
        resources: Of each job.
        folder: Shared with the nodes; for submitit's files.
        start: Starts a worker on the node.

    Returns:
        The experiments by the names of their jobs.

    Raises:
        SweepError: If there is no Slurm, or it refuses the jobs.
    """
    if shutil.which("sbatch") is None:
        raise SweepError("there is no sbatch on this machine. Submit from a login node, or use --launcher local")
    try:
        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=_MAX_REQUEUES)
        executor.update_parameters(
            name="tapct",
            timeout_min=resources.time_min,
            cpus_per_task=resources.cpus,
            tasks_per_node=1,
            slurm_additional_parameters={"requeue": True, **_options(resources)},
        )
        with executor.batch():
            jobs = [executor.submit(ExperimentJob(order, start)) for order in orders]
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, ValueError) as error:
        raise SweepError(f"Slurm does not take the jobs: {_last_line(str(error))}") from error
    for order, job in zip(orders, jobs, strict=True):
        about = SubmittedJob(job.job_id, lock.now(), str(job.paths.stderr))
        write_atomically(order.experiment.folder / SUBMITTED_FILE, json.dumps(asdict(about), indent=1))
    return {job.job_id: order for order, job in zip(orders, jobs, strict=True)}


def wait(orders: dict[str, Order], notify: Notify, poll_s: float = POLL_S) -> None:
    """Waits until every job has ended, and notes why for those that could not do it themselves.

    Args:
        orders: The experiments by the names of their jobs.
        notify: Called as an experiment starts and ends.
        poll_s: How often Slurm is asked.
    """
    started: set[str] = set()
    gone: set[str] = set()
    while orders:
        live = live_jobs()
        for name, order in list(orders.items()):
            if live is None:
                break  # a controller that is busy says nothing; ask again
            if name in live:
                if live[name] == "RUNNING" and name not in started:
                    started.add(name)
                    notify(order, "started")
                gone.discard(name)
            elif name not in gone:
                gone.add(name)  # once more: what the node wrote may take a moment to be seen here
            else:
                del orders[name]
                _settle_job(name, order)
                notify(order, "ended")
        if orders:
            time.sleep(poll_s)


def live_jobs() -> dict[str, str] | None:
    """Returns the state of each job that waits or runs; None if Slurm cannot be asked."""
    if shutil.which("squeue") is None:
        return None
    answer = _ask("squeue", "--noheader", "--array", "--format=%i %T")
    if answer is None:
        return None
    rows = (line.split() for line in answer.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


def _settle_job(name: str, order: Order) -> None:
    state = state_of(order.experiment.folder, order.experiment.settings(), {})
    if state.status in ("done", "running"):
        return
    log = Path(json.loads((order.experiment.folder / SUBMITTED_FILE).read_text(encoding="utf-8"))["log"])
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:] if log.exists() else []
    note_end(order, f"slurm job {name} ended without a record: {_end_of(name)}. Its own log: {log}", lines)


def _end_of(name: str) -> str:
    """Returns how a job ended; Slurm remembers for some minutes, and for longer where it keeps accounts."""
    answer = _ask("scontrol", "show", "job", name, "--oneliner") or ""
    found = dict(word.partition("=")[::2] for word in answer.split())
    if "JobState" in found:
        return f"{found['JobState']} (reason {found.get('Reason')}, exit {found.get('ExitCode')})"
    answer = _ask("sacct", "--noheader", "--parsable2", "--allocations", "--format=State", "-j", name) or ""
    return answer.strip().splitlines()[0] if answer.strip() else "Slurm no longer knows how"


def _ask(*command: str) -> str | None:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None


def _options(resources: Resources) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if resources.partition is not None:
        options["partition"] = resources.partition
    if (gpus := 1 if resources.gpus is None else resources.gpus) > 0:
        options["gpus-per-node"] = gpus
    if resources.mem_gb is not None:
        options["mem"] = f"{int(resources.mem_gb * 1024)}M"
    return options | dict(option.lstrip("-").split("=", 1) for option in resources.extra)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else text
