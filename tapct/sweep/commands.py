"""What `tapct run` and `tapct status` do."""

import json
import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.live import Live

from tapct import locks, terminal
from tapct.encoders import list_declared, list_encoders
from tapct.encoders.eva_names import encoder_name, from_folders, in_folders
from tapct.names import SHIPPED_SPLITS
from tapct.sweep import adaptors, bags, launches, local, matrix, suites
from tapct.sweep.bill import Shown
from tapct.sweep.bill.cards import card_named
from tapct.sweep.cell import (
    SHIPPED_CONFIGS,
    VARIABLES,
    Cell,
    Keep,
    Order,
    SweepError,
    absolute,
    choose,
    choose_tasks,
    configs_by_task,
    weights_by_encoder,
)
from tapct.sweep.lock import LOCK_FILE
from tapct.sweep.notices import Notices
from tapct.sweep.state import ABOUT_FILE, SUBMITTED_FILE, State, state_of
from tapct.sweep.variants import Variant, encoder_of, meant, one_spelling, require_options, variants
from tapct.sweep.varied import TaskConfig

WATCH_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What was asked for.

    Attributes:
        encoders: Names by comma, or "all"; `@random` behind one is that encoder with random weights, and
            `+in_plane_size=512` with that option; where none is named, those of the variable ENCODER_OPTIONS. Beside a
            suite: those of its encoders that are meant, None being all.
        tasks: Names by comma, or "all": the ten of the benchmark. Beside a suite: likewise.
        suite: Name of a shipped suite, or the path of one.
        weights: One value for all, or ENCODER=VALUE by comma; None is the variable ENCODER_WEIGHTS, else the config's.
        results: Folder of the results.
        configs: Folder of the configs; None is the project's own.
        overrides: Further configs.
        max_steps: Optimizer steps; None is the variable MAX_STEPS, else the config's.
        runs: Runs; likewise, of N_RUNS.
        accelerator: Likewise, of ACCELERATOR.
        adaptors: Names by comma, or "all"; None is the variable ADAPTOR, else each task's own.
        bags: Names by comma, of what attention looks at; None is the variable BAG, else each task's own.
        fractions: Shares of the training patients, each a cell of its own; empty is all patients.
        draws: How often patients are drawn for each share below 1.
        perturbations: Of the test scans, by comma, or "all": each a cell beside the unperturbed one.
    """

    encoders: str | None = None
    tasks: str | None = None
    suite: str | None = None
    weights: str | None = None
    results: str | None = None
    configs: str | None = None
    overrides: Sequence[str] = ()
    max_steps: int | None = None
    runs: int | None = None
    accelerator: str | None = None
    adaptors: str | None = None
    bags: str | None = None
    fractions: Sequence[float] = ()
    draws: int = 1
    perturbations: str | None = None

    def cells(self) -> list[Cell]:
        """Returns the cells, task by task: scans that were just read need no disk.

        Raises:
            SweepError: If an encoder, a task, a suite, a config or an override does not exist.
        """
        folder = Path(absolute(self.configs)) if self.configs else SHIPPED_CONFIGS
        configs = configs_by_task(folder)
        overrides = tuple(Path(absolute(path)) for path in self.overrides)
        for path in overrides:
            if not path.is_file():
                raise SweepError(f"there is no override {path}")
        varied: dict[str, dict[str, Variant]] = {}
        blocks = self._blocks()
        for block in blocks:
            with suites.told_of(block):
                for task in choose_tasks(block.tasks, configs, folder):
                    found = self._variants(TaskConfig(task, configs[task], overrides), block)
                    varied.setdefault(task, {}).update({one.label: one for one in found})
        if self.suite is not None:
            varied = suites.narrowed(varied, Path(self.suite).stem, self.encoders, self.tasks)
        cells = self._cells(varied, configs, overrides)
        if not cells:
            asked = [block.adaptors for block in blocks] + [block.bags and f"the bag {block.bags}" for block in blocks]
            words = ", ".join(dict.fromkeys(filter(None, asked)))
            raise SweepError(f"no task or encoder that was asked for has what {words} pools: nothing runs")
        return cells

    def _blocks(self) -> Sequence[suites.Block]:
        """Returns what is asked for: the suite's blocks, or the one of the command line."""
        if self.suite is None:
            if self.encoders is None or self.tasks is None:
                raise SweepError("name encoders and tasks (-e and -t), or a suite (--suite; `tapct list suites`)")
            on = {"adaptors": self.adaptors or os.environ.get("ADAPTOR"), "bags": self.bags or os.environ.get("BAG")}
            options = os.environ.get("ENCODER_OPTIONS")
            return [suites.Block(encoders=self.encoders, tasks=self.tasks, options=options, **on)]
        for option, value in {"--adaptors": self.adaptors, "--bags": self.bags}.items():
            if value is not None:
                raise SweepError(f"{option}: a suite says itself what stands on the features; leave it out, or --suite")
        suite = suites.read_suite(self.suite)
        if not suite.blocks:
            raise SweepError(f"the suite {suite.name} names no cells: others include it")
        return suite.blocks

    def _variants(self, of: TaskConfig, block: suites.Block) -> list[Variant]:
        """Returns what a block has of a task, without what cannot be pooled."""
        varied = variants(
            block.encoders,
            list_encoders(),
            adaptors=adaptors.of_task(of, adaptors.parse(block.adaptors)),
            bags=bags.of_task(of, bags.parse(block.bags)).of,
            fractions=self.fractions,
            draws=self.draws,
            perturbations=self.perturbations,
            options=block.options,
        )
        require_options(of.config, of.overrides, varied)
        return [variant for variant in varied if adaptors.fits(variant)]

    def _cells(
        self, varied: Mapping[str, Mapping[str, Variant]], configs: Mapping[str, Path], overrides: tuple[Path, ...]
    ) -> list[Cell]:
        names = list(dict.fromkeys(one.encoder for of_task in varied.values() for one in of_task.values()))
        weights = weights_by_encoder(self.weights or os.environ.get("ENCODER_WEIGHTS"), names)
        results = results_folder(self.results)
        return [
            Cell(
                task=task,
                encoder=variant.encoder,
                label=variant.label,
                folder=results / task / variant.label,
                config=configs[task],
                overrides=overrides,
                variables={**self._variables(weights.get(variant.encoder)), **variant.variables},
            )
            for task, of_task in varied.items()
            for variant in of_task.values()
        ]

    def _variables(self, weights: str | None) -> dict[str, str]:
        own = {"ENCODER_WEIGHTS": weights, "MAX_STEPS": self.max_steps, "N_RUNS": self.runs}
        asked: Mapping[str, object] = {**own, "ACCELERATOR": self.accelerator}
        varied = {"ENCODER_WEIGHTS", "ENCODER_OPTIONS", "ADAPTOR", "BAG"}
        kept = set(VARIABLES) - {"ENCODER", "OUTPUT_ROOT"} - varied
        found = {name: os.environ[name] for name in kept if name in os.environ}
        paths = [name for name in ("DATA_ROOT", "SPLIT_FILE") if name in found and found[name] not in SHIPPED_SPLITS]
        found |= {name: absolute(found[name]) for name in paths}
        return found | {name: str(value) for name, value in asked.items() if value is not None}


def shares(fractions: str | None) -> list[float]:
    """Returns the numbers of a list by comma.

    Raises:
        SweepError: If one is no number.
    """
    try:
        return [float(word) for word in (fractions or "").split(",") if word.strip()]
    except ValueError as error:
        raise SweepError(f"--fractions {fractions}: write numbers by comma, such as 0.01,0.1,1") from error


def results_folder(results: str | None) -> Path:
    """Returns the folder of the results: the one named, else the variable RESULTS_ROOT, else `results`."""
    return Path(absolute(results or os.environ.get("RESULTS_ROOT") or "results"))


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
    shown: Shown | None = None,
) -> int:
    """Runs what is not done.

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
        shown: How a dry run shows the bill.

    Returns:
        The exit status: 0 if every cell is done, runs elsewhere or is queued.

    Raises:
        SweepError: If what the cells would store has no room; nothing is started.
    """
    cells = sweep.cells()
    if not dry_run:
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
        from tapct.sweep.bill.commands import require_room  # torch, only where something runs

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
            with Live(matrix.table(look()), console=terminal.output(), auto_refresh=False) as live:
                while True:
                    time.sleep(WATCH_S)
                    live.update(matrix.table(look()), refresh=True)
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
    known_tasks = dict.fromkeys(configs_by_task(SHIPPED_CONFIGS), False) | dict.fromkeys(found_tasks, True)
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
    names = [in_folders(encoder_name(name.strip())) for name in encoders.split(",") if name.strip()]
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
