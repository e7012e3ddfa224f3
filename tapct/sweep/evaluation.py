"""One experiment in Python: `tapct.evaluate`, through the engine of `tapct run`, and into the same folders."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tapct._utils import locks
from tapct._utils.files import write_atomically
from tapct.errors import nearest
from tapct.records import RECORD_FILE, Record, read_record
from tapct.sweep import launches, local
from tapct.sweep.asked import Sweep, results_folder
from tapct.sweep.configs import text_of, variables_of
from tapct.sweep.experiment import (
    SHIPPED_CONFIGS,
    VARIABLES,
    Experiment,
    Order,
    SweepError,
    absolute,
    choose_tasks,
    environment,
    runnable,
)
from tapct.sweep.notices import Notices
from tapct.sweep.state import State, state_of
from tapct.sweep.varied import TaskConfig

SECTIONS = ("model", "data", "trainer")
"""Where a config has settings; of the name that two have, `precision`, the encoder's is meant."""

SETTINGS_FOLDER = ".settings"
"""In a results folder: what `evaluate` sets over a config, as files that experiments can be run by again."""

_NAMED_OTHERWISE = {
    "encoder_options": "options of an encoder are part of its name: encoder='tap-b-3d+in_plane_size=512'",
    "default_root_dir": "results= names the folder of the results",
    "head": "a head that was trained before is reported by `eva test`; evaluate trains its own",
}
_NO_SETTINGS = {"class_path", "init_args", "encoder", "weights", "task", "data_root", *_NAMED_OTHERWISE}
_PATHS = {"split_file"}
_VARIED = ("train_fraction", "train_draw", "perturbation")
"""What makes an experiment of its own (`tapct.sweep.variants`), and is only a setting where one is asked for."""


def evaluate(
    encoder: str,
    task: str,
    data_root: str | Path | None = None,
    *,
    weights: str | Path | None = None,
    results: str | Path | None = None,
    replace: bool = False,
    **settings: Any,
) -> Record:
    """Evaluates an encoder on a task, as `tapct run -e ENCODER -t TASK` does, and returns the record.

    An experiment that is done is read and not run again, whoever ran it; one that was ended before its time resumes. It
    runs in a process of its own; what that prints is in the experiment's log.

    Args:
        encoder: Name of the encoder, with options and `@random` behind it as `tapct run` takes them:
            "tap-b-3d+in_plane_size=512", "curia@random"; or the folder of an exported encoder.
        task: Name of the task.
        data_root: Folder that holds one folder per task; by default the variable DATA_ROOT. The quickstart needs none.
        weights: A path, "random", or None: the variable ENCODER_WEIGHTS, else the published file.
        results: Folder of the results; by default the variable RESULTS_ROOT, else "results".
        replace: Put a record aside that is broken, or of other settings, and run the experiment again.
        settings: Of the task's config, by the names that it has below `init_args`: max_steps=200, n_runs=1,
            adaptor="knn", learning_rates=[0.001], split_file="mine.csv". What is left out is as the config has it.

    Returns:
        The record, as `tapct.read_record` returns it.

    Raises:
        SweepError: If something does not exist, or the experiment fails, runs elsewhere, or has a record of other
            settings.
        KeyboardInterrupt: If it is told to end; the same call again resumes.
    """
    results = results_folder(None if results is None else str(results))
    experiment = _experiment(_Asked.of(task, settings), encoder, data_root, weights, results)
    state = state_of(experiment.folder, experiment.settings())
    if state.status != "done":
        _require_free(experiment, state, replace=replace)
        run_one(Order(experiment, state.attempts, replace))
        state = state_of(experiment.folder, experiment.settings())
        if state.status != "done":
            log = "" if state.log is None else f". Log: {state.log}"
            raise SweepError(f"{experiment.name} {state.status}: {state.detail}{log}")
    return read_record(experiment.folder / RECORD_FILE)


def run_one(order: Order, *, start: local.Start = local.Worker) -> None:
    """Runs an experiment on this machine, with a bar of how far it is. What came out is on disk.

    Args:
        order: The experiment.
        start: Starts its worker; the tests put something faster here.

    Raises:
        SweepError: If its weights or data are not there, or what it would store has no room; nothing is started.
        KeyboardInterrupt: By SIGINT, SIGTERM or SIGHUP; the worker is ended first.
    """
    from tapct.sweep import ready
    from tapct.sweep.bill.commands import require_room

    experiment = order.experiment
    locks.require(experiment.folder.parents[1])
    for reason in ready.refused([experiment]).values():
        raise SweepError(f"{experiment.name}: {reason}")
    require_room([experiment], jobs=1, keep=order.keep)
    slots = local.slots(1, experiment.variables.get("ACCELERATOR"))
    try:
        with launches.announced([experiment], order.keep, outlives=False), Notices(1) as notices:
            local.run([order], slots, notices, start)
    except local.Interrupted as interrupted:
        raise KeyboardInterrupt(
            f"{experiment.name} was ended by {interrupted}; the same call again resumes"
        ) from interrupted


@dataclass(frozen=True)
class _Asked:
    """What is set over a task's config.

    Attributes:
        task: Name of the task.
        variables: Set through the variables that the config reads, so that the experiment is that of `tapct run`.
        overrides: By section and name, what no variable has.
        varied: What makes an experiment of its own.
    """

    task: str
    variables: Mapping[str, str]
    overrides: Mapping[str, Mapping[str, Any]]
    varied: Mapping[str, Any]

    @classmethod
    def of(cls, task: str, settings: Mapping[str, Any]) -> "_Asked":
        """Sorts settings by where they are set.

        Raises:
            SweepError: If there is no such task or setting.
        """
        configs = runnable()
        (task,) = choose_tasks(task, configs, SHIPPED_CONFIGS)
        by_key = variables_of(configs[task])
        variables: dict[str, str] = {}
        overrides: dict[str, dict[str, Any]] = {}
        for name, value in settings.items():
            section = _section(name, TaskConfig(task, configs[task]))
            value = absolute(value) if name in _PATHS and Path(value).exists() else value
            if name in _VARIED:
                continue
            if (variable := by_key.get(f"{section}.init_args.{name}")) is not None:
                variables[variable] = text_of(value)
            else:
                overrides.setdefault(section, {})[name] = value
        return cls(task, variables, overrides, {name: settings[name] for name in _VARIED if name in settings})


def _section(name: str, config: TaskConfig) -> str:
    """Returns the section of a config whose class has a setting.

    Raises:
        SweepError: If none has, with the names that there are.
    """
    if name in _NAMED_OTHERWISE:
        raise SweepError(f"'{name}' is no setting of evaluate: {_NAMED_OTHERWISE[name]}")
    of = config.settings()
    for section in SECTIONS:
        root = f"{section}.init_args.{name}"
        if any(key == root or key.startswith(f"{root}.") for key in of):
            return section
    from tapct.probes.config_errors import parameters_of  # jsonargparse; and each class imports eva

    known = {section: parameters_of(of.get(f"{section}.class_path", "")) - _NO_SETTINGS for section in SECTIONS}
    for section, names in known.items():
        if name in names:
            return section
    raise SweepError(f"{config.task} has no setting '{name}'. {nearest(name, set().union(*known.values()))}")


def _experiment(
    asked: _Asked, encoder: str, data_root: str | Path | None, weights: str | Path | None, results: Path
) -> Experiment:
    """Returns the one experiment that is asked for.

    Raises:
        SweepError: If there is none, or several.
    """
    fraction, draw = float(asked.varied.get("train_fraction", 1)), int(asked.varied.get("train_draw", 0))
    perturbation = asked.varied.get("perturbation")
    if fraction < 1 and perturbation is not None:
        raise SweepError(
            "train_fraction and perturbation are experiments of their own, and do not cross: name one of them"
        )
    sweep = Sweep(
        encoders=encoder,
        tasks=asked.task,
        weights=None if weights is None else str(weights),
        results=str(results),
        overrides=_written(asked.overrides, results),
        fractions=(fraction,),
        draws=draw + 1,
        perturbations=perturbation,
    )
    wanted = {"TRAIN_FRACTION": f"{fraction:g}", "TRAIN_DRAW": str(draw)} if fraction < 1 else {}
    wanted |= {} if perturbation is None else {"PERTURBATION": perturbation}
    root = {} if data_root is None else {"DATA_ROOT": absolute(str(data_root))}
    with environment({**_of_process(), **asked.variables, **root}):
        experiments = [
            experiment for experiment in sweep.experiments() if wanted.items() <= experiment.variables.items()
        ]
    if len(experiments) != 1:
        raise SweepError(
            f"evaluate runs one encoder on one task, and these are {len(experiments)} experiments: use `tapct run`"
        )
    return experiments[0]


def _written(overrides: Mapping[str, Mapping[str, Any]], results: Path) -> tuple[str, ...]:
    """Writes what is set over a config, under a name that its content has, and returns the path; none of nothing."""
    if not overrides:
        return ()
    try:
        text = OmegaConf.to_yaml(
            OmegaConf.create({section: {"init_args": dict(of)} for section, of in overrides.items()})
        )
    except ValueError as error:
        raise SweepError(f"a setting is nothing that a config can hold: {error}") from error
    path = results / SETTINGS_FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.yaml"
    write_atomically(path, text)
    return (str(path),)


def _of_process() -> dict[str, str]:
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def _require_free(experiment: Experiment, state: State, *, replace: bool) -> None:
    if state.status in ("running", "queued", "unknown"):
        raise SweepError(
            f"{experiment.name} is {state.status} elsewhere: {state.detail}. `tapct status` shows how it goes"
        )
    if state.status in ("other", "broken") and not replace:
        raise SweepError(
            f"{experiment.name}: {state.detail}. replace=True puts that record aside; results= names another folder"
        )
