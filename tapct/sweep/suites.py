"""Suites: named lists of experiments, such as a table of the paper, as YAML of encoders, tasks and what is varied."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from yaml import YAMLError

from tapct.encoders.options import encoder_of
from tapct.errors import nearest
from tapct.sweep.experiment import SHIPPED_CONFIGS, SUITES_FOLDER, SweepError, choose
from tapct.sweep.variants import Variant, meant

_Name = Annotated[str, StringConstraints(strict=True, min_length=1, pattern=r"^[^,\s][^,]*$")]
_Names = Annotated[tuple[_Name, ...], Field(min_length=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class _Experiments(_Model):
    """Experiments of a suite's file: each encoder on each task under each adaptor and bag."""

    encoders: _Names
    """As `tapct run -e` takes them: `tap-b-3d+in_plane_size=512`, `all`."""
    tasks: _Names
    """Names of tasks, or `all`."""
    adaptors: _Names | None = None
    """As `--adaptors`; without, each task's own."""
    bags: _Names | None = None
    """As `--bags`; without, each encoder's own."""


OLDER_KEYS = ("cells",)
"""What `experiments` was called in older files."""


class _File(_Model):
    """A suite's file."""

    title: Annotated[str, StringConstraints(strict=True, min_length=1)]
    """What it is, for `tapct list suites`."""
    include: tuple[_Name, ...] = ()
    """Suites whose experiments it has too: names of shipped ones, or paths from the file's folder."""
    experiments: tuple[_Experiments, ...] = Field(default=(), validation_alias=AliasChoices("experiments", *OLDER_KEYS))
    """Its own."""
    unspecified: dict[str, str] = Field(default_factory=dict)
    """What the source of the suite does not say, and what is done here."""


@dataclass(frozen=True, kw_only=True)
class SuiteBlock:
    """Encoders that cross tasks, adaptors and bags, in the words of the command line.

    Attributes:
        encoders: Names by comma, or "all".
        tasks: Likewise.
        options: Of the encoders that name none.
        adaptors: Names by comma, or "all"; None is each task's own.
        bags: Likewise; None is each encoder's own.
        where: What asks for it, for errors; None for the command line.
    """

    encoders: str
    tasks: str
    options: str | None = None
    adaptors: str | None = None
    bags: str | None = None
    where: str | None = None


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite as it was read, with all that it includes.

    Attributes:
        name: Its file's name without the ending.
        title: What it is.
        blocks: What its experiments are made of, those of included suites first; an experiment may be named more than
            once.
        unspecified: What its source does not say, with what is done here.
    """

    name: str
    title: str
    blocks: tuple[SuiteBlock, ...]
    unspecified: tuple[tuple[str, str], ...]


def shipped_suites(folder: Path = SHIPPED_CONFIGS / SUITES_FOLDER) -> dict[str, Path]:
    """Returns the files of the suites that ship, by name."""
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_suite(suite: str) -> Suite:
    """Reads a suite.

    Args:
        suite: The name of one that ships, or the path of a YAML file.

    Raises:
        SweepError: If there is none, or it is malformed: with the file and the key.
    """
    return _read(_path(suite, Path.cwd(), "there is no suite"), ())


def tasks_of(names: str, known: list[str]) -> list[str]:
    """Returns the tasks of a comma-separated list in which a suite, by name or path, stands for its tasks.

    Args:
        names: Names of tasks, and suites.
        known: The tasks that "all" in a suite means.
    """
    found: dict[str, None] = {}
    for name in filter(None, map(str.strip, names.split(","))):
        if not _is_path(name) and name not in shipped_suites():
            found[name] = None
            continue
        for block in read_suite(name).blocks:
            found |= dict.fromkeys(known if block.tasks == "all" else block.tasks.split(","))
    return list(found)


@contextlib.contextmanager
def told_of(block: SuiteBlock) -> Iterator[None]:
    """Says in errors which part of a suite asks for it."""
    try:
        yield
    except SweepError as error:
        raise SweepError(f"{block.where}: {error}" if block.where else str(error)) from error


def narrowed(
    varied: Mapping[str, Mapping[str, Variant]], suite: str, encoders: str | None, tasks: str | None
) -> dict[str, dict[str, Variant]]:
    """Returns those of a suite's experiments that `-e` and `-t` next to it mean.

    Args:
        varied: Task to label to variant.
        suite: The suite's name, for errors.
        encoders: By comma: names, which mean every setting of an encoder, or names with more of a label behind them,
            such as `curia@random`; None is all.
        tasks: Names by comma; None is all.

    Raises:
        SweepError: If the suite has no such encoder or task, or none of the encoders on the tasks.
    """
    labels = list(dict.fromkeys(label for of_task in varied.values() for label in of_task))
    asked = labels if encoders in (None, "all") else [*filter(None, map(str.strip, (encoders or "").split(",")))]
    if not asked:
        raise SweepError("name at least one encoder, or all")
    chosen: set[str] = set()
    for name in asked:
        chosen.update(found := meant(name, labels))
        if not found:
            raise SweepError(f"the suite {suite} has no encoder '{name}'. {nearest(name, {*map(encoder_of, labels)})}")
    where = choose(f"task in the suite {suite},", tasks or "all", dict.fromkeys(varied, True))
    experiments = {
        task: {label: one for label, one in varied[task].items() if label in chosen} for task in varied if task in where
    }
    if not any(experiments.values()):
        raise SweepError(f"the suite {suite} has none of these encoders on these tasks")
    return experiments


def _is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _path(name: str, folder: Path, fault: str) -> Path:
    """Returns the file of a suite by its name, or by its path from a folder; `fault` begins the error."""
    if _is_path(name):
        path = folder / Path(name).expanduser()
        if not path.is_file():
            raise SweepError(f"{fault} {path}")
        return path.resolve()
    shipped = shipped_suites()
    if name not in shipped:
        raise SweepError(f"{fault} '{name}', and it is not a path of a .yaml file. {nearest(name, shipped)}")
    return shipped[name]


def _read(path: Path, within: tuple[Path, ...]) -> Suite:
    """Reads a file, and what it includes; `within` are the files that include it."""
    if path in within:
        raise SweepError(f"{path}: include: it includes itself, by {' -> '.join(p.stem for p in (*within, path))}")
    content = _content(path)
    included = [
        _read(_path(name, path.parent, f"{path}: include[{i}]: there is no suite"), (*within, path))
        for i, name in enumerate(content.include)
    ]
    own = [
        SuiteBlock(
            encoders=",".join(experiments.encoders),
            tasks=",".join(experiments.tasks),
            adaptors=None if experiments.adaptors is None else ",".join(experiments.adaptors),
            bags=None if experiments.bags is None else ",".join(experiments.bags),
            where=f"{path}: experiments[{i}]",
        )
        for i, experiments in enumerate(content.experiments)
    ]
    return Suite(
        name=path.stem,
        title=content.title,
        blocks=tuple(dict.fromkeys([*(block for suite in included for block in suite.blocks), *own])),
        unspecified=tuple(
            dict.fromkeys([*(one for suite in included for one in suite.unspecified), *content.unspecified.items()])
        ),
    )


def _content(path: Path) -> _File:
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise SweepError(f"the suite {path} cannot be read: {error}") from error
    try:
        return _File.model_validate(content)
    except ValidationError as error:
        raise SweepError("\n".join(f"{path}: {fault}" for fault in _faults(error))) from error


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False):
        place, last = fault["loc"], str(fault["loc"][-1]) if fault["loc"] else ""
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
        if fault["type"] == "extra_forbidden":
            known: dict[str, Any] = dict(
                _Experiments.model_fields if {"experiments", *OLDER_KEYS} & {*place} else _File.model_fields
            )
            yield f"unknown key {key}. {nearest(last, known)}"
        elif fault["type"] == "missing":
            yield f"{key} is missing"
        else:
            yield f"{key or 'the file'}: {fault['msg']}, not {str(fault['input'])[:60]!r}"
