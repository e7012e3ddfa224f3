"""What `tapct run` and `tapct status` do."""

import json as json_lib
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from dataclasses import replace as replaced
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.live import Live

from tapct._utils import locks, terminal
from tapct.arguments import ENCODERS, NOT_AN_OPTION, SETTINGS, TASKS, WHOLE
from tapct.encoders import list_declared, list_encoders
from tapct.encoders.eva_names import encoder_name, from_folders, in_folders
from tapct.encoders.options import encoder_of, parse_spec
from tapct.names import ABOUT_FILE, Keep
from tapct.sweep import launches, local, matrix
from tapct.sweep.asked import Sweep, results_folder
from tapct.sweep.bill import BillOptions
from tapct.sweep.bill.cards import card_named
from tapct.sweep.experiment import Experiment, Order, SweepError, choose, runnable
from tapct.sweep.lock import LOCK_FILE
from tapct.sweep.notices import Notices
from tapct.sweep.resources import Resources
from tapct.sweep.state import SUBMITTED_FILE, State, state_of
from tapct.sweep.variants import meant, one_spelling

WATCH_S = 5.0


def run(
    sweep: Annotated[Sweep, SETTINGS] = Sweep(),  # noqa: B008, as it is frozen
    *,
    launcher: Literal["local", "slurm"] = "local",
    dry_run: bool = False,
    replace: bool = False,
    keep: Annotated[Keep, Parameter(name="--keep-features")] = "all",
    jobs: Annotated[int | None, WHOLE] = None,
    detach: bool = False,
    resources: Annotated[Resources, SETTINGS] = Resources(),  # noqa: B008
    shown: Annotated[BillOptions, SETTINGS] = BillOptions(),  # noqa: B008
    start: Annotated[local.Start, NOT_AN_OPTION] = local.Worker,
    refused: Annotated[Callable[[Sequence[Experiment]], Mapping[str, str]] | None, NOT_AN_OPTION] = None,
) -> int:
    """Runs encoders on tasks: every experiment that is not done. The same command again resumes where it stopped.

    Experiments whose weights or data are not there are refused before the first one starts.

    Args:
        sweep: What was asked for.
        launcher: Where to run: in processes on this machine, or as jobs of a Slurm cluster.
        dry_run: Only show what is done, what would run, and what that takes: windows, TFLOP, hours, disk, memory.
        replace: Put records aside that are broken or of other settings, and run their experiments again.
        keep: What to keep of an experiment's stored features once no experiment needs them: "all", the "embeddings" of
            windows without the maps, or "none".
        jobs: The number of processes at once on this machine. The default is one for each GPU.
        detach: Do not wait for Slurm's jobs.
        resources: What each Slurm job asks for.
        shown: How a dry run shows its bill.
        start: Starts a worker; the tests put something faster here.
        refused: Says, by name, which experiments cannot run and why; likewise. None is `tapct.sweep.ready.refused`.

    Returns:
        The exit status: 0 if every experiment is done, runs elsewhere or is queued; 1 if one failed; 128 + N if signal
        N ended the launcher.

    Raises:
        SweepError: If what the experiments would store has no room, or on Windows; nothing is started.
    """
    if shown != BillOptions() and not dry_run:
        raise SweepError("--card, --measure and --json say how a dry run shows its bill: add --dry-run")
    if resources.gpus is None and _accelerator(sweep) == "cpu":
        resources = replaced(resources, gpus=0)
    experiments = sweep.experiments()
    if not dry_run:
        _require_signals()
        _require_locks(results_folder(sweep.results))
    # What would run is told by the headers of what is there; what is left alone is read in full.
    states = _states(experiments, whole=not dry_run)
    runs = ("missing", "failed", *(("other", "broken") if replace else ()))
    orders = [
        Order(experiment, state.attempts, replace, keep)
        for experiment, state in zip(experiments, states, strict=True)
        if state.status in runs
    ]
    at_once = len(orders) if launcher == "slurm" else len(local.slots(jobs, _accelerator(sweep)))
    if dry_run:
        _show_bill(sweep, states, orders, at_once, shown, keep)
        return 0
    if orders:
        from tapct.sweep import ready  # torch, only where something runs
        from tapct.sweep.bill.commands import require_room

        orders = ready.ready(orders, (refused or ready.refused)([order.experiment for order in orders]))
        require_room([order.experiment for order in orders], jobs=at_once, keep=keep)
    try:
        with launches.announced(experiments if orders else (), keep, outlives=launcher == "slurm"):
            if orders and launcher == "slurm":
                _run_on_slurm(orders, resources, results_folder(sweep.results), detach, start)
            elif orders:
                with Notices(len(orders)) as notices:
                    local.run(orders, local.slots(jobs, _accelerator(sweep)), notices, start)
            launches.remove_left(experiments, keep)
    except local.Interrupted as interrupted:
        _show(_states(experiments))
        print(f"ended by {interrupted}; the workers were ended too. The same command resumes", file=sys.stderr)
        return 128 + interrupted.signum
    return _report(_states(experiments))


def status(
    *,
    results: str | None = None,
    encoders: Annotated[str | None, ENCODERS] = None,
    tasks: Annotated[str | None, TASKS] = None,
    watch: bool = False,
    json: bool = False,
) -> int:
    """Shows which experiments are done, running (where, since when), failed (why) or missing.

    Args:
        results: The folder of the results. The default is the variable RESULTS_ROOT, or "results".
        encoders: Comma-separated names of encoders, each with all that is varied about it, or with an option such as
            tap-b-3d+in_plane_size=512 only that. The default are those that have been run.
        tasks: Comma-separated names of tasks. The default are those that have been run.
        watch: Refresh until Ctrl-C.
        json: Print JSON instead of a table.

    Returns:
        The exit status.

    Raises:
        SweepError: If there is no such folder.
    """
    folder = results_folder(results)
    if not folder.is_dir():
        raise SweepError(f"there is no folder {folder}. Name the one of `tapct run` with --results or RESULTS_ROOT")

    def look() -> list[State]:
        folders = _folders(folder, encoders, tasks)
        live = _live_jobs(folders)
        return [state_of(one, None, live, whole=False) for one in folders]

    if json:
        print(json_lib.dumps([asdict(state) for state in look()], indent=1))
    elif not watch:
        _show(look())
    else:
        try:
            console = terminal.output()
            shown = console.laid_out(matrix.table(look()))
            # Taller than the terminal it scrolls: what runs and the summary are the last lines.
            with Live(shown, console=console, auto_refresh=False, vertical_overflow="visible") as live:
                while True:
                    time.sleep(WATCH_S)
                    live.update(console.laid_out(matrix.table(look())), refresh=True)
        except KeyboardInterrupt:
            pass
    return 0


def _run_on_slurm(orders: list[Order], resources: Resources, results: Path, detach: bool, start: local.Start) -> None:
    from tapct.sweep import slurm  # submitit

    jobs = slurm.submit(orders, resources, results / ".slurm", start)
    print(f"submitted {len(jobs)} jobs: {', '.join(jobs)}. `tapct status --results {results} --watch` shows them")
    if detach:
        return
    try:
        with Notices(len(jobs)) as notices:
            slurm.wait(jobs, notices)
    except KeyboardInterrupt:
        print(
            f"no longer waiting; the jobs continue (scancel {next(iter(jobs)).split('_')[0]} ends them)",
            file=sys.stderr,
        )


def _accelerator(sweep: Sweep) -> str | None:
    return sweep.accelerator or os.environ.get("ACCELERATOR")


def _states(experiments: Sequence[Experiment], *, whole: bool = True) -> list[State]:
    # Where Slurm cannot be asked, a job that may still wait does not hold its experiment: the lock does, once it
    # starts.
    live = _live_jobs([experiment.folder for experiment in experiments]) or {}
    return [state_of(experiment.folder, experiment.settings(), live, whole=whole) for experiment in experiments]


def _require_signals() -> None:
    """Makes sure that workers can be ended with their launcher.

    Raises:
        SweepError: On Windows, which has no groups of processes and no signals for them.
    """
    if not hasattr(os, "killpg"):
        raise SweepError(
            "experiments cannot be run on Windows: use Linux or macOS (on Windows, WSL), or `eva fit` for one "
            "experiment. `tapct run --dry-run` and `tapct status` work as it is"
        )


def _require_locks(results: Path) -> None:
    """Tries the locks of the results folder before any work.

    Raises:
        SweepError: If it cannot be written, or two launchers would run one experiment.
    """
    try:
        locks.require(results)
    except OSError as error:
        raise SweepError(
            f"experiments cannot be run in {results}: {error}. Or name another folder (--results). `tapct run "
            "--dry-run` and `tapct status` work as it is"
        ) from error


def _live_jobs(folders: Sequence[Path]) -> dict[str, str] | None:
    """Asks Slurm, where any experiment was ever submitted to it."""
    if not any((folder / SUBMITTED_FILE).exists() for folder in folders):
        return None
    from tapct.sweep.slurm import live_jobs

    return live_jobs()


def _folders(results: Path, encoders: str | None, tasks: str | None) -> list[Path]:
    found = (sorted(results.glob(f"*/*/{name}")) for name in (LOCK_FILE, "record.json"))
    there = list(dict.fromkeys(path.parent for paths in found for path in paths))
    labels = list(dict.fromkeys(path.name for path in there))
    found_tasks = list(dict.fromkeys(path.parent.name for path in there))
    known_tasks = dict.fromkeys(runnable(), False) | dict.fromkeys(found_tasks, True)
    known = dict.fromkeys([*list_encoders(), *list_declared(), *map(encoder_of, labels)])
    asked = labels if encoders in (None, "all") else _labels(encoders or "", known)
    # The name of an encoder means its variants too, and so does any part of a label; by itself it is an experiment as
    # well.
    of = {name: meant(name, labels) for name in asked}
    plain = {name for name in asked if from_folders(name) == encoder_of(name)}
    chosen = dict.fromkeys(
        label for name in asked for label in ([name] if name in plain else []) + (of[name] or [one_spelling(name)])
    )
    return [results / task / label for task in choose("task", tasks or "all", known_tasks) for label in chosen]


def _labels(encoders: str, known: Collection[str]) -> list[str]:
    """Returns what was asked for, of encoders that there are."""
    specs = [parse_spec(name) for name in encoders.split(",") if name.strip()]
    names = [spec.behind(in_folders(encoder_name(spec.encoder))) for spec in specs]
    choose("encoder", ",".join(map(encoder_of, names)), dict.fromkeys(known, True))
    return list(dict.fromkeys(names))


def _estimates(orders: Sequence[Order], states: Sequence[State], results: Path) -> dict[str, float | None]:
    by_folder = {(state.task, state.label): state for state in states}
    finished = []
    for about in results.glob(f"*/*/{ABOUT_FILE}"):
        known = by_folder.get((about.parent.parent.name, about.parent.name))
        finished.append(state_of(about.parent, whole=False) if known is None else known)
    times, by_name = matrix.Times(finished), {state.name: state for state in states}
    return {o.experiment.name: times.minutes(by_name[o.experiment.name], o.experiment.settings()) for o in orders}


def _report(states: list[State]) -> int:
    _show(states)
    stuck = [state for state in states if state.status in ("other", "broken")]
    if stuck:
        print(
            f"{len(stuck)} records are in the way; --replace puts them aside and runs their experiments again",
            file=sys.stderr,
        )
    return int(any(state.status not in ("done", "running", "queued") for state in states))


def _show_bill(
    sweep: Sweep, states: Sequence[State], orders: Sequence[Order], jobs: int, shown: BillOptions, keep: Keep
) -> None:
    """Shows the matrix, and the bill of what would run.

    Raises:
        SweepError: If the card does not exist.
    """
    card = None if shown.card is None else card_named(shown.card)
    results, experiments = results_folder(sweep.results), [order.experiment for order in orders]
    if not shown.json:
        _show(states, _estimates(orders, states, results))
    if experiments or shown.json:
        from tapct.sweep.bill.commands import show  # torch, which the matrix alone does without

        bill = show(experiments, results, shown, card, jobs=jobs, accelerator=_accelerator(sweep), keep=keep)
        if bill is not None:
            print(json_lib.dumps({"states": [asdict(state) for state in states], **bill}, indent=1))


def _show(states: Sequence[State], estimates: Mapping[str, float | None] | None = None) -> None:
    if states:
        terminal.output().print(matrix.table(states, estimates))
    else:
        print("nothing has been run")
