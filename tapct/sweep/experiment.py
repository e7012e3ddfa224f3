"""Experiments of a sweep: an encoder on a task under given settings, and where its files are."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tapct._utils.content_hashes import ContentHashes
from tapct._utils.installed import is_ours
from tapct.encoders.eva_names import card_file
from tapct.encoders.places import exported
from tapct.errors import TapctError, TaskError, nearest
from tapct.names import Keep
from tapct.sweep.configs import resolved

VARIABLES = (
    *("ENCODER", "ENCODER_WEIGHTS", "ENCODER_OPTIONS", "DATA_ROOT", "SPLIT_FILE", "NUM_WORKERS"),
    *("MAX_STEPS", "N_RUNS", "ACCELERATOR", "OUTPUT_ROOT"),
    *("TRAIN_FRACTION", "TRAIN_DRAW", "PERTURBATION", "ADAPTOR", "BAG", "PACK", "FEATURE_DTYPE"),
    *("READER_WEIGHTS", "READER_BACKBONE", "LANGUAGE_MODEL"),
)
"""The variables that the shipped configs read."""

INCIDENTAL = ("DATA_ROOT", "NUM_WORKERS", "ACCELERATOR", "OUTPUT_ROOT")
"""Those that do not decide a result: the same experiment may be finished on another machine."""

WEIGHTS_CONTENT = "what ENCODER_WEIGHTS holds (sha256)"
"""A setting of an experiment next to the keys of its configs: a file of weights may change behind its name."""

READER_CONTENT = "what READER_WEIGHTS holds (sha256)"
"""Likewise, of the reader of reports."""

LANGUAGE_MODEL_CONTENT = "what LANGUAGE_MODEL holds (sha256)"
"""Likewise, of the folder of the language model that writes reports."""

CARD_CONTENT = "what the card ENCODER holds (sha256)"
"""Likewise, of an encoder that is a card of a user's (`eva:PATH.yaml`), or an exported folder."""

SHIPPED_CONFIGS = Path(__file__).resolve().parents[2] / "eva_configs"
"""Next to the package, in a checkout and where a wheel is installed."""

SUITES_FOLDER = "suites"
"""The folder next to the configs that holds no tasks (see `tapct.sweep.suites`)."""


class SweepError(TapctError, ValueError):
    """A sweep was asked for that cannot be run, or an experiment left something else than its record."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An encoder on a task.

    Attributes:
        task: Name of the task, which is also that of its config.
        encoder: Name of the encoder.
        label: Names the experiment among those of its task (see `tapct.sweep.variants`).
        folder: Where the experiment's files are, absolute.
        config: The task's config, absolute.
        overrides: Further configs, each over the ones before, absolute.
        variables: The variables of the config that are set; all others are not.
    """

    task: str
    encoder: str
    label: str
    folder: Path
    config: Path
    overrides: tuple[Path, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The experiment in words."""
        return f"{self.label} on {self.task}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that its config reads."""
        return {**self.variables, "ENCODER": self.encoder, "OUTPUT_ROOT": str(self.folder / "sessions")}

    def settings(self) -> dict[str, str]:
        """Returns what decides the result: every key of the resolved configs, by its path, and the weights' content.

        Raises:
            SweepError: If a config cannot be read.
        """
        flat: dict[str, str] = {}
        with environment({**self.environment, **dict.fromkeys(INCIDENTAL, "")}):
            for path in (self.config, *self.overrides):
                try:
                    flat |= resolved(path)
                except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
                    raise SweepError(f"the config {path} cannot be read: {error}") from error
        card = card_file(self.encoder)
        if card is not None and card.is_file():
            flat[CARD_CONTENT] = ContentHashes().of_files([card])
        elif (place := exported(self.encoder)) is not None:
            flat[CARD_CONTENT] = ContentHashes().of_files(sorted(place.folder.glob("*.json")))
        for variable, setting in {"ENCODER_WEIGHTS": WEIGHTS_CONTENT, "READER_WEIGHTS": READER_CONTENT}.items():
            weights = Path(self.variables.get(variable, ""))
            if weights.is_file():
                flat[setting] = ContentHashes().of_files([weights])
        if (model := self.variables.get("LANGUAGE_MODEL")) is not None and (folder := Path(model)).is_dir():
            kinds = (".json", ".safetensors", ".model", ".txt")
            files = sorted(path for path in folder.iterdir() if path.suffix in kinds)
            flat[LANGUAGE_MODEL_CONTENT] = ContentHashes().of_files(files)
        return dict(sorted(flat.items()))

    def to_dict(self) -> dict[str, Any]:
        """Returns the experiment as JSON can hold it."""
        paths = {"folder": str(self.folder), "config": str(self.config), "overrides": [str(p) for p in self.overrides]}
        names = {"task": self.task, "encoder": self.encoder, "label": self.label}
        return {**names, **paths, "variables": dict(self.variables)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Experiment":
        """Returns the experiment that `to_dict` was called on."""
        paths = {"folder": Path(content["folder"]), "config": Path(content["config"])}
        return cls(**{**content, **paths, "overrides": tuple(Path(p) for p in content["overrides"])})


@dataclass(frozen=True)
class Order:
    """An experiment that a launcher wants run.

    Attributes:
        experiment: The experiment.
        attempts_seen: Attempts at it when the launcher looked; another one since is another launcher's.
        replace: Whether a record that is in the way may be put aside.
        keep: What stays of its features once no experiment needs them; see `tapct.features.keeping`.
    """

    experiment: Experiment
    attempts_seen: int = 0
    replace: bool = False
    keep: Keep = "all"

    def to_json(self) -> str:
        """Returns the order as a worker takes it."""
        return json.dumps({**vars(self), "experiment": self.experiment.to_dict()})

    @classmethod
    def from_json(cls, text: str) -> "Order":
        """Returns the order that `to_json` was called on."""
        content = json.loads(text)
        return cls(**{**content, "experiment": Experiment.from_dict(content["experiment"])})


def configs_by_task(folder: Path) -> dict[str, Path]:
    """Returns the config of each task: `KIND/TASK.yaml`, and `TASK.yaml` for what is not a benchmark.

    Raises:
        SweepError: If there are none, or two of one name.
    """
    paths = [path for pattern in ("*/*.yaml", "*.yaml") for path in sorted(folder.glob(pattern))]
    paths = [path for path in paths if path.parent != folder / SUITES_FOLDER]
    if not paths:
        raise SweepError(
            f"there are no configs in {folder}. Name the folder with --configs; without, those that are installed count"
        )
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise SweepError(f"{path} and {found[path.stem]} have one name, which is that of the task; rename one")
        found[path.stem] = path
    return found


def runnable(folder: Path | None = None) -> dict[str, Path]:
    """Returns the config of each task that runs by its name.

    Args:
        folder: Where they are; None for those that ship, and those of tasks that other packages install.

    Raises:
        SweepError: If there are none, or two of one name.
    """
    return configs_by_task(folder) if folder is not None else {**configs_by_task(SHIPPED_CONFIGS), **_installed()}


def _installed() -> dict[str, Path]:
    """Returns the configs that third-party tasks bring, of those that can be imported."""
    if all(is_ours(point) for point in entry_points(group="tapct.tasks")):
        return {}  # the rule, in which nothing that imports torch is needed
    from tapct.tasks.registry import task_class, third_party_tasks

    found = {}
    for task in third_party_tasks():
        with contextlib.suppress(TaskError):
            if (path := task_class(task).shipped_config()) is not None:
                found[task] = path
    return found


def choose(what: str, asked: str, known: Mapping[str, bool]) -> list[str]:
    """Returns the names of a comma-separated list.

    Args:
        what: What they are names of, for the error.
        asked: Names, or "all".
        known: The names that exist; whether "all" means them too.

    Raises:
        SweepError: If a name does not exist.
    """
    if asked == "all":
        return [name for name, is_meant in known.items() if is_meant]
    names = list(dict.fromkeys(name.strip() for name in asked.split(",") if name.strip()))
    if not names:
        raise SweepError(f"name at least one {what}, or all")
    for name in names:
        if name not in known:
            raise SweepError(f"there is no {what} '{name}'. {nearest(name, known)}")
    return names


def choose_tasks(asked: str, configs: Mapping[str, Path], folder: Path) -> list[str]:
    """Returns the tasks of a comma-separated list.

    "all" means neither the quickstart, whose config lies in no folder of a kind, nor what ships next to the tasks of
    the benchmark.

    Args:
        asked: Names, or "all".
        configs: Task to config.
        folder: That of the configs.

    Raises:
        SweepError: If a name does not exist.
    """
    from tapct.tasks.registry import further_tasks, third_party_tasks  # imports torch

    if asked != "all":
        for task in third_party_tasks():
            if task not in configs and task in map(str.strip, asked.split(",")):
                raise SweepError(_without_config(task))
        return choose("task", asked, dict.fromkeys(configs, False))
    elsewhere = {*further_tasks(), *third_party_tasks()}
    return [task for task, path in configs.items() if path.parent != folder and task not in elsewhere]


def _without_config(task: str) -> str:
    """Returns why a third-party task does not run by its name."""
    from tapct.tasks.registry import task_class

    try:
        module = task_class(task).__module__
    except TaskError as error:
        return str(error)
    return (
        f"the task {task} brings no config: put it next to its module, {module}, as configs/{task}.yaml, or name the "
        "folder that holds it with --configs"
    )


def weights_by_encoder(asked: str | None, encoders: list[str]) -> dict[str, str]:
    """Returns the weights asked for: one value for all encoders, or NAME=VALUE by comma.

    Raises:
        SweepError: If it names an encoder that does not run, or mixes the two.
    """
    if not asked:
        return {}
    if "=" not in asked:
        return dict.fromkeys(encoders, _weights(asked))
    found = {}
    for part in asked.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not (equals and value):
            raise SweepError(f"--weights {part}: write ENCODER=PATH, ENCODER=random or ENCODER=null (published)")
        if name not in encoders:
            raise SweepError(
                f"--weights {part}: '{name}' is not among the encoders that run. {nearest(name, encoders)}"
            )
        found[name] = _weights(value)
    return found


def _weights(value: str) -> str:
    return value if value in ("random", "null") else absolute(value)


def absolute(path: str) -> str:
    """Returns a path that holds in any process."""
    return str(Path(path).expanduser().absolute())


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets exactly these of the config's variables for a while."""
    before = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    try:
        set_variables(variables)
        yield
    finally:
        set_variables(before)


def set_variables(variables: Mapping[str, str]) -> None:
    """Sets exactly these of the config's variables."""
    for name in VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(variables)
