"""What `tapct run` and `tapct status` do."""

import json
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from rich.live import Live

from tapct._utils import locks, terminal
from tapct.encoders import list_declared, list_encoders
from tapct.encoders.eva_names import encoder_name, from_folders, in_folders
from tapct.encoders.options import encoder_of, parse_spec
from tapct.sweep import launches, local, matrix
from tapct.sweep.asked import Sweep, results_folder
from tapct.sweep.bill import Shown
from tapct.sweep.bill.cards import card_named
from tapct.sweep.cell import Cell, Keep, Order, SweepError, choose, runnable
from tapct.sweep.lock import LOCK_FILE
from tapct.sweep.notices import Notices
from tapct.sweep.state import ABOUT_FILE, SUBMITTED_FILE, State, state_of
from tapct.sweep.variants import meant, one_spelling

WATCH_S = 5.0


def shares(fractions: str | None) -> list[float]:
    """Returns the numbers of a list by comma.

    Raises:
        SweepError: If one is no number.
    """
    try:
        return [float(word) for word in (fractions or "").split(",") if word.strip()]
    except ValueError as error:
        raise SweepError(f"--fractions {fractions}: write numbers by comma, such as 0.01,0.1,1") from error


def job_resources(
    partition: str | None,
    gpus: int | None,
    time_min: int | None,
    cpus: int | None,
    mem_gb: float | None,
    extra: Sequence[str],
    sweep: Sweep,
) -> dict[str, object]:
    """Returns what each Slurm job asks for, without what is left to its default.

    Raises:
        SweepError: If an extra option is not KEY=VALUE.
    """
    pairs = [option.lstrip("-").partition("=") for option in extra]
    if wrong := [option for option, (key, equals, _) in zip(extra, pairs, strict=True) if not (key and equals)]:
        raise SweepError(f"--slurm-extra {wrong[0]}: write KEY=VALUE, such as account=radiology")
    if gpus is None and _accelerator(sweep) == "cpu":
        gpus = 0
    asked = {"partition": partition, "gpus": gpus, "time_min": time_min, "cpus": cpus, "mem_gb": mem_gb}
    return {k: v for k, v in asked.items() if v is not None} | {"extra": {key: value for key, _, value in pairs}}


def run(
    sweep: Sweep,
    *,
    launcher: Literal["local", "slurm"],
    dry_run: bool,
    replace: bool,
    jobs: int | None,
    detach: bool,
    resources: Mapping[str, object],
    keep: Keep = "all",
    start: local.Start = local.Worker,
    refused: Callable[[Sequence[Cell]], Mapping[str, str]] | None = None,
    shown: Shown | None = None,
) -> int:
    """Runs what is not done, and can run: cells whose weights or data are not there are refused before the first.

    Args:
        sweep: What was asked for.
        launcher: Where the workers are.
        dry_run: Only show the matrix, and the bill of what would run.
        replace: Put records aside that are broken or of other settings, and run their cells again.
        jobs: Workers at once on this machine; None is one a device.
        detach: Leave Slurm's jobs alone once they are submitted.
        resources: Of Slurm's jobs, as `tapct.sweep.slurm.Resources` takes them.
        keep: What stays of a cell's features once it and all that need them are done; see `tapct.features.keeping`.
        start: Starts a worker; the tests put something faster here.
        refused: Says, by name, which cells cannot run and why; likewise. None is `tapct.sweep.ready.refused`.
        shown: How a dry run shows the bill.

    Returns:
        The exit status: 0 if every cell is done, runs elsewhere or is queued.

    Raises:
        SweepError: If what the cells would store has no room, or on Windows; nothing is started.
    """
    cells = sweep.cells()
    if not dry_run:
        _require_signals()
        _require_locks(results_folder(sweep.results))
    # What would run is told by the headers of what is there; what is left alone is read in full.
    states = _states(cells, whole=not dry_run)
    runs = ("missing", "failed", *(("other", "broken") if replace else ()))
    orders = [
        Order(cell, state.attempts, replace, keep)
        for cell, state in zip(cells, states, strict=True)
        if state.status in runs
    ]
    at_once = len(orders) if launcher == "slurm" else len(local.slots(jobs, _accelerator(sweep)))
    if dry_run:
        _show_bill(sweep, states, orders, at_once, shown or Shown(), keep)
        return 0
    if orders:
        from tapct.sweep import ready  # torch, only where something runs
        from tapct.sweep.bill.commands import require_room

        orders = ready.ready(orders, (refused or ready.refused)([order.cell for order in orders]))
        require_room([order.cell for order in orders], jobs=at_once, keep=keep)
    try:
        with launches.announced(cells if orders else (), keep, outlives=launcher == "slurm"):
            if orders and launcher == "slurm":
                _run_on_slurm(orders, resources, results_folder(sweep.results), detach, start)
            elif orders:
                with Notices(len(orders)) as notices:
                    local.run(orders, local.slots(jobs, _accelerator(sweep)), notices, start)
            launches.remove_left(cells, keep)
    except local.Interrupted as interrupted:
        _show(_states(cells))
        print(f"ended by {interrupted}; the workers were ended too. The same command resumes", file=sys.stderr)
        return 128 + interrupted.signum
    return _report(_states(cells))


def status(results: str | None, encoders: str | None, tasks: str | None, *, watch: bool, as_json: bool) -> int:
    """Shows what the files of a results folder say.

    Args:
        results: The folder.
        encoders: Names by comma; None is those that are there.
        tasks: Likewise.
        watch: Refresh until Ctrl-C.
        as_json: Print JSON instead of a table.

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

    if as_json:
        print(json.dumps([asdict(state) for state in look()], indent=1))
    elif not watch:
        _show(look())
    else:
        try:
            console = terminal.output()
            with Live(console.laid_out(matrix.table(look())), console=console, auto_refresh=False) as live:
                while True:
                    time.sleep(WATCH_S)
                    live.update(console.laid_out(matrix.table(look())), refresh=True)
        except KeyboardInterrupt:
            pass
    return 0


def _run_on_slurm(
    orders: list[Order], resources: Mapping[str, object], results: Path, detach: bool, start: local.Start
) -> None:
    from tapct.sweep import slurm

    asked = slurm.Resources(**resources)  # type: ignore[arg-type]
    jobs = slurm.submit(orders, asked, results / ".slurm", start)
    print(f"submitted {len(jobs)} jobs: {', '.join(jobs)}. `tapct status --results {results} --watch` shows them")
    if detach:
        return
    try:
        with Notices(len(jobs)) as notices:
            slurm.wait(jobs, notices)
    except KeyboardInterrupt:
        print(
            f"no longer waiting; the jobs go on (scancel {next(iter(jobs)).split('_')[0]} ends them)", file=sys.stderr
        )


def _accelerator(sweep: Sweep) -> str | None:
    return sweep.accelerator or os.environ.get("ACCELERATOR")


def _states(cells: Sequence[Cell], *, whole: bool = True) -> list[State]:
    # Where Slurm cannot be asked, a job that may still wait does not hold its cell: the lock does, once it starts.
    live = _live_jobs([cell.folder for cell in cells]) or {}
    return [state_of(cell.folder, cell.settings(), live, whole=whole) for cell in cells]


def _require_signals() -> None:
    """Makes sure that workers can be ended with their launcher.

    Raises:
        SweepError: On Windows, which has no groups of processes and no signals for them.
    """
    if not hasattr(os, "killpg"):
        raise SweepError(
            "cells cannot be run on Windows: use Linux or macOS (on Windows, WSL), or `eva fit` for one cell. "
            "`tapct run --dry-run` and `tapct status` work as it is"
        )


def _require_locks(results: Path) -> None:
    """Tries the locks of the results folder before any work.

    Raises:
        SweepError: If it cannot be written, or two launchers would run one cell.
    """
    try:
        locks.require(results)
    except OSError as error:
        raise SweepError(
            f"cells cannot be run in {results}: {error}. Or name another folder (--results). `tapct run --dry-run` and "
            "`tapct status` work as it is"
        ) from error


def _live_jobs(folders: Sequence[Path]) -> dict[str, str] | None:
    """Asks Slurm, where any cell was ever submitted to it."""
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
    # The name of an encoder means its variants too, and so does any part of a label; by itself it is a cell as well.
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
    return {o.cell.name: times.minutes(by_name[o.cell.name], o.cell.settings()) for o in orders}


def _report(states: list[State]) -> int:
    _show(states)
    stuck = [state for state in states if state.status in ("other", "broken")]
    if stuck:
        print(
            f"{len(stuck)} records are in the way; --replace puts them aside and runs their cells again",
            file=sys.stderr,
        )
    return int(any(state.status not in ("done", "running", "queued") for state in states))


def _show_bill(
    sweep: Sweep, states: Sequence[State], orders: Sequence[Order], jobs: int, shown: Shown, keep: Keep
) -> None:
    """Shows the matrix, and the bill of what would run.

    Raises:
        SweepError: If the card does not exist.
    """
    card = None if shown.card is None else card_named(shown.card)
    results, cells = results_folder(sweep.results), [order.cell for order in orders]
    if not shown.json:
        _show(states, _estimates(orders, states, results))
    if cells or shown.json:
        from tapct.sweep.bill.commands import show  # torch, which the matrix alone does without

        bill = show(cells, results, shown, card, jobs=jobs, accelerator=_accelerator(sweep), keep=keep)
        if bill is not None:
            print(json.dumps({"states": [asdict(state) for state in states], **bill}, indent=1))


def _show(states: Sequence[State], estimates: Mapping[str, float | None] | None = None) -> None:
    if states:
        terminal.output().print(matrix.table(states, estimates))
    else:
        print("nothing has been run")
