"""What the files of an experiment say: done, running, failed and why, or nothing yet."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tapct._utils.files import write_atomically
from tapct.errors import RecordError
from tapct.names import ABOUT_FILE
from tapct.sweep import lock
from tapct.sweep.experiment import WEIGHTS_CONTENT
from tapct.sweep.progress import Progress, progress_of

LOG_FILE = "log.txt"
FAILURE_FILE = "failure.json"
SUBMITTED_FILE = "slurm.json"

NOT_STARTED = 0
"""Attempt of a failure that was known before there was one."""

ExperimentStatus = Literal["done", "running", "queued", "unknown", "other", "broken", "failed", "missing"]
"""`other`: a record of other settings than those asked for. `broken`: a record that cannot be read. `unknown`: an
attempt that runs or was killed, which cannot be told where the file system refuses locks."""

UNTOLD = "is running, or was killed: the file system refuses locks here, so only another machine may tell"
LOST = "ended without a word: killed, out of memory, or the machine went down"


@dataclass(frozen=True)
class State:
    """The state of an experiment.

    Attributes:
        label: Names the experiment among those of its task: the encoder, and what is varied about it.
        task: Name of the task.
        status: In a word.
        detail: Who runs it since when, why it failed, what is wrong with its record.
        attempts: Attempts so far.
        log: What the attempts printed, if there was one.
        wall_s: What the attempt that gave the record took, in seconds.
        settings: What the record was made under.
        older: How the record was made otherwise than today's, such as "schema 2"; None if it was not.
        progress: How far the last attempt has come, or had when it failed; None where it did not say so.
    """

    label: str
    task: str
    status: ExperimentStatus
    detail: str = ""
    attempts: int = 0
    log: str | None = None
    wall_s: float | None = None
    settings: dict[str, str] | None = None
    older: str | None = None
    progress: Progress | None = None

    @property
    def name(self) -> str:
        """The experiment in words."""
        return f"{self.label} on {self.task}"


@dataclass(frozen=True)
class Failure:
    """Why an attempt gave no record.

    Attributes:
        reason: In a line.
        traceback: The end of what was printed.
        time: UTC.
        host: Name of the machine.
        attempt: Which attempt it was; `NOT_STARTED` where the launcher refused the experiment.
        log: Path of the log.
    """

    reason: str
    traceback: list[str]
    time: str
    host: str
    attempt: int
    log: str

    def write(self, folder: Path) -> None:
        """Writes it into the folder of its experiment."""
        write_atomically(folder / FAILURE_FILE, json.dumps(asdict(self), indent=1))


def state_of(
    folder: Path,
    asked: dict[str, str] | None = None,
    live_jobs: Mapping[str, str] | None = None,
    *,
    whole: bool = True,
) -> State:
    """Returns the state of an experiment.

    Args:
        folder: The experiment's folder, RESULTS/TASK/ENCODER; need not exist.
        asked: The settings that the record must have been made under; None takes any.
        live_jobs: The Slurm jobs that wait or run, to their state; None if Slurm cannot be asked.
        whole: Read the record in full, so that one that was changed is `broken`; else its header alone, which is
            thousands of experiments in seconds.
    """
    attempt, running = lock.last_attempt(folder)
    common: dict[str, Any] = {"label": folder.name, "task": folder.parent.name}
    common["attempts"] = 0 if attempt is None else attempt.number
    common["log"] = str(folder / LOG_FILE) if (folder / LOG_FILE).exists() else None
    if running or running is None:
        progress = None if attempt is None else progress_of(folder, attempt.number)
        come = "" if progress is None else f"{progress.in_words()}; "
        if running:
            return State(status="running", detail=f"{come}{attempt or 'just started'}", progress=progress, **common)
        detail = f"{come}{attempt or 'its first attempt'} {UNTOLD}"
        return State(status="unknown", detail=detail, progress=progress, **common)
    recorded = recorded_state(folder, asked, whole=whole)
    if recorded is not None and recorded["status"] == "done":
        return State(**common, **recorded)
    job = _json(folder / SUBMITTED_FILE, job=str, submitted_at=str)
    if job and live_jobs is None and (attempt is None or job["submitted_at"] > attempt.started_at):
        return State(status="queued", detail=f"slurm job {job['job']}, submitted {job['submitted_at']}", **common)
    if job and job["job"] in (live_jobs or {}):
        detail = f"slurm job {job['job']}, {(live_jobs or {})[job['job']]}, submitted {job['submitted_at']}"
        return State(status="queued", detail=detail, **common)
    if recorded is not None:
        return State(**common, **recorded)
    return _failed(folder, attempt, common) or State(status="missing", **common)


def _failed(folder: Path, attempt: lock.Attempt | None, common: dict[str, Any]) -> State | None:
    """Returns why the last attempt at an experiment gave no record, and how far it had come; None where none failed."""
    progress = None if attempt is None else progress_of(folder, attempt.number)
    come = "" if progress is None else f" (it had come to {progress.count})"
    if attempt is not None and attempt.ended_at is None:
        return State(status="failed", detail=f"{attempt}: {LOST}{come}", progress=progress, **common)
    failure = _json(folder / FAILURE_FILE, attempt=int, host=str, time=str, reason=str)
    if not failure:
        return None
    if progress is None or failure["attempt"] != progress.attempt:  # refused since, before it was started
        come, progress = "", None
    which = "not started" if failure["attempt"] == NOT_STARTED else f"attempt {failure['attempt']}"
    detail = f"{which} on {failure['host']}, {failure['time']}: {failure['reason']}{come}"
    return State(status="failed", detail=detail, progress=progress, **common)


def recorded_state(folder: Path, asked: dict[str, str] | None, *, whole: bool = True) -> dict[str, Any] | None:
    """Returns what the record of an experiment makes of its state: the fields of `State`; None without a record."""
    path = folder / "record.json"
    if not path.exists():
        return None
    from tapct.records import RecordHeader, read_header, read_record  # pyarrow and pydantic, only where one is read

    try:
        header = RecordHeader.of(read_record(path)) if whole else read_header(path)
    except RecordError as error:
        return {"status": "broken", "detail": f"{error}".splitlines()[0]}
    if not header.complete:
        return {"status": "broken", "detail": f"{path} holds {header.runs} of {header.runs_planned} runs"}
    about = _json(folder / ABOUT_FILE, fingerprint=str, settings=dict, wall_s=float)
    ours = about.get("fingerprint") == header.fingerprint
    settings = about["settings"] if ours else None
    difference = None if asked is None else _difference(settings, asked)
    found = {"wall_s": about["wall_s"] if ours else None, "settings": settings, "older": header.older_protocol}
    if difference is not None:
        return {"status": "other", "detail": difference, **found}
    steps = "solved" if header.probe.steps is None else f"{header.probe.steps} steps"
    words = f"{header.runs} runs, weights {header.encoder.weights_name}, {steps}"
    return {"status": "done", "detail": words, **found}


_BEFORE = {"model.init_args.bag": "auto", "model.init_args.feature_dtype": "bf16"}
"""What held in experiments from before a config said it."""


def _difference(settings: dict[str, str] | None, asked: dict[str, str]) -> str | None:
    if settings is None:
        return f"its record has no {ABOUT_FILE} of its own, so its settings are unknown"
    # A key that a later release's config has got, with what was without it, changes nothing.
    unsaid = {key: _BEFORE.get(key, "null") for key in {**asked, **settings}}
    keys = [key for key, value in unsaid.items() if settings.get(key, value) != asked.get(key, value)]
    if WEIGHTS_CONTENT not in settings or WEIGHTS_CONTENT not in asked:  # an older experiment, or the file is not here
        keys = [key for key in keys if key != WEIGHTS_CONTENT]
    if not keys:
        return None
    shown = (f"{key} was {settings.get(key, 'absent')}, asked {asked.get(key, 'absent')}" for key in keys[:3])
    return f"its record is of other settings: {'; '.join(shown)}{' ...' if len(keys) > 3 else ''}"


def _json(path: Path, **fields: type) -> dict[str, Any]:
    """Returns a small file of ours; empty if it is not there, is not JSON, or lacks a field of its type."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    valid = all(isinstance(content.get(name), (kind, int) if kind is float else kind) for name, kind in fields.items())
    return content if valid else {}
