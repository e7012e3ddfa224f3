"""The process that runs one experiment: `python -m tapct.sweep.worker ORDER LAUNCHER_PID`.

It does what `eva fit --config CONFIG` does, in the same words: it sets the config's variables and calls eva's own
`main`. Around that it holds the experiment's lock, writes the log, and leaves a record or the reason why there is none.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from tapct._utils import progress, telemetry
from tapct._utils.files import write_atomically
from tapct.encoders.eva_names import encoder_name
from tapct.encoders.options import parse_options
from tapct.errors import TapctError
from tapct.names import ABOUT_FILE
from tapct.sweep import launches, lock, matrix
from tapct.sweep.experiment import Experiment, Order, SweepError, set_variables
from tapct.sweep.progress import PROGRESS_FILE, Reports
from tapct.sweep.state import FAILURE_FILE, LOG_FILE, NOT_STARTED, Failure, recorded_state

DONE, FAILED, HELD = 0, 10, 11
"""Exit statuses. Any other one, or a signal, is an end without a word."""

_PR_SET_PDEATHSIG = 1
_TAIL = 30
"""Lines of the log that a failure keeps."""


class Terminated(BaseException):
    """The process was told to end by SIGTERM: `scancel`, preemption, or a machine that goes down."""


def eva_fit(experiment: Experiment) -> None:
    """Runs an experiment as `eva fit` would, in this process."""
    sys.argv = [
        "eva",
        "fit",
        *(word for path in (experiment.config, *experiment.overrides) for word in ("--config", str(path))),
    ]
    print("$", " ".join([*(f"{k}={v}" for k, v in sorted(experiment.environment.items())), *sys.argv]), flush=True)
    from eva.__main__ import main

    main()


def work(order: Order, fit: Callable[[Experiment], None] = eva_fit) -> int:
    """Runs an experiment unless it is done, or another process has it or has just tried it.

    Args:
        order: The experiment.
        fit: What runs it; the tests put something faster here.

    Returns:
        The exit status.
    """
    experiment = order.experiment
    with lock.attempt(experiment.folder) as attempt:
        if attempt is None:
            return HELD
        recorded = recorded_state(experiment.folder, experiment.settings())
        if recorded is not None and recorded["status"] == "done":
            return DONE
        if recorded is not None and not order.replace:
            return HELD
        if attempt.number - 1 > order.attempts_seen:
            return HELD
        with _logged(experiment.folder / LOG_FILE) as start:
            print(f"===== {experiment.name}, {attempt} =====", flush=True)
            try:
                with progress.told_to(Reports(experiment.folder, attempt.number, _that_take_time(experiment))):
                    _run(order, fit)
            except BaseException as error:  # noqa: BLE001 whatever it was is the reason
                _fail(experiment.folder, attempt, error, start)
                return FAILED
            _remove_features(order)
    return DONE


def _that_take_time(experiment: Experiment) -> dict[str, str]:
    settings = experiment.settings()
    return {key: settings[key] for key in matrix.BUDGET if key in settings}


def _run(order: Order, fit: Callable[[Experiment], None]) -> None:
    experiment = order.experiment
    sessions = experiment.folder / "sessions"
    before = set(sessions.glob("**/record.json"))
    settings, started = experiment.settings(), time.perf_counter()
    set_variables(experiment.environment)
    _leave_shipped_data_alone(experiment)
    fit(experiment)
    new = sorted(set(sessions.glob("**/record.json")) - before)
    if len(new) != 1:
        raise SweepError(f"eva ended well but left {len(new)} records under {sessions}; one was expected")
    launches.note_features(experiment, order.keep)
    _publish(experiment, settings, new[0], time.perf_counter() - started)


def _remove_features(order: Order) -> None:
    """Removes features that no experiment needs any more; the record is there, whatever comes of it."""
    from tapct.features import leases

    leases.let_go()
    try:
        print(launches.remove_unneeded(order.experiment, order.keep) or "all features are kept", flush=True)
    except (TapctError, OSError) as error:
        print(f"features are not removed: {error}", flush=True)


def _leave_shipped_data_alone(experiment: Experiment) -> None:
    """Takes DATA_ROOT away from a task that ships with its data and has no folder there."""
    root = os.environ.get("DATA_ROOT")
    if root is None or (Path(root) / experiment.task).is_dir():
        return
    from tapct.tasks import list_tasks, task_class  # imports torch

    if experiment.task in list_tasks() and task_class(experiment.task).shipped_root is not None:
        print(f"DATA_ROOT has no folder '{experiment.task}': the data that ship with it are used", flush=True)
        del os.environ["DATA_ROOT"]


def _publish(experiment: Experiment, settings: dict[str, str], session: Path, wall_s: float) -> None:
    """Puts the record of a session where the results are read, with the settings that it was asked under."""
    from tapct import flags
    from tapct.records import RECORD_FILE, read_record, write_record

    record = read_record(session)
    found = (record.task.name, record.encoder.card.name)
    if found != (experiment.task, encoder_name(experiment.encoder)):
        raise SweepError(
            f"the record is of {found[1]} on {found[0]}, not of {experiment.name}: the config or an override names "
            f"another one than the variable ENCODER and the file's name. It stays at {session}"
        )
    options = parse_options(experiment.encoder, experiment.variables.get("ENCODER_OPTIONS"))
    if not options.items() <= parse_options(experiment.encoder, record.encoder.options).items():
        raise SweepError(
            f"the record is of {record.encoder.label}, not of {experiment.name}: the config or an override sets other "
            f"encoder_options than the variable ENCODER_OPTIONS. It stays at {session}"
        )
    if not record.complete:
        raise SweepError(f"{session} holds {len(record.runs)} of {record.runs_planned} runs")
    target = experiment.folder / RECORD_FILE
    if target.exists():  # only with --replace
        stamp = lock.now().replace(":", "").replace("+0000", "")
        shutil.move(target, experiment.folder / f"replaced-{stamp}-{RECORD_FILE}")
    about = {
        "settings": settings,
        "fingerprint": record.fingerprint,
        "session": str(session.parent.relative_to(experiment.folder)),
        "wall_s": round(wall_s, 1),
        "finished_at": lock.now(),
    }
    write_atomically(experiment.folder / ABOUT_FILE, json.dumps(about, indent=1))
    write_record(flags.with_cross_checks(record, experiment.folder.parents[1]), experiment.folder)
    for file in (FAILURE_FILE, PROGRESS_FILE):
        (experiment.folder / file).unlink(missing_ok=True)
    print(f"done in {wall_s:.0f} s: {target}", flush=True)


def _fail(folder: Path, attempt: lock.Attempt, error: BaseException, log_start: int) -> None:
    if not isinstance(error, SystemExit):
        traceback.print_exc()
    sys.stderr.flush()
    log = folder / LOG_FILE
    with log.open("rb") as file:
        file.seek(log_start)
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    # Who ends by SystemExit (a wrong config) has printed why.
    reason = lines[-1] if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
    Failure(" ".join(reason.split())[:1000], lines[-_TAIL:], lock.now(), attempt.host, attempt.number, str(log)).write(
        folder
    )


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[int]:
    """Sends all output of this process and its children to the end of a file; yields where that was."""
    with path.open("ab") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield file.tell()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


def note_end(order: Order, reason: str, tail: list[str]) -> bool:
    """Writes a failure for an attempt that was killed before it could; returns whether there was one to write.

    Nothing is written where the attempt left a record or a reason, or somebody else has the experiment by now.
    """
    folder = order.experiment.folder
    last, _ = lock.last_attempt(folder)
    number = max(order.attempts_seen + 1, 0 if last is None else last.number)
    with lock.between_attempts(folder, number) as held:
        recorded = recorded_state(folder, order.experiment.settings()) or {}
        if not held or recorded.get("status") == "done" or _failed_attempt(folder) >= number:
            return False
        host = socket.gethostname() if last is None else last.host
        Failure(reason, tail[-_TAIL:], lock.now(), host, number, str(folder / LOG_FILE)).write(folder)
        return True


def note_refusal(order: Order, reason: str) -> None:
    """Writes why an experiment was not started; nothing where somebody else has it."""
    folder = order.experiment.folder
    with lock.between_attempts(folder) as held:
        if held:
            Failure(reason, [], lock.now(), socket.gethostname(), NOT_STARTED, str(folder / LOG_FILE)).write(folder)


def _failed_attempt(folder: Path) -> int:
    try:
        return int(json.loads((folder / FAILURE_FILE).read_text(encoding="utf-8"))["attempt"])
    except (OSError, ValueError, KeyError):
        return 0


def die_with(launcher: int) -> None:
    """Makes the kernel kill this process when its launcher dies, however that dies (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:  # it died before
        sys.exit(f"the launcher {launcher} is gone")


def _terminated(signum: int, frame: FrameType | None) -> None:
    raise Terminated(f"told to end by {signal.Signals(signum).name}: scancel, preemption, or a shutdown")


def main() -> None:
    """Runs the experiment of the command line."""
    os.environ[telemetry.VARIABLE] = "1"  # before anything imports eva
    die_with(int(sys.argv[2]))
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # submitit's; it goes to every process of a job, and is the parent's
    sys.exit(work(Order.from_json(sys.argv[1])))


if __name__ == "__main__":
    main()
