"""Reading, checking and writing the settings of a run (`pretrain.config`)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from pretrain.config import Config
from pretrain.errors import PretrainError
from tapct.errors import nearest


class _Dumper(yaml.SafeDumper):
    """YAML with one line a key: lists in brackets."""


_Dumper.add_representer(
    list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)
)


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Reads the settings of a run.

    Args:
        path: A YAML file, such as `pretrain/configs/tap_b_3d.yaml`.
        overrides: Changes as ``"section.key=value"``, the value in YAML: ``"optim.base_lr=1e-3"``,
            ``"crops.global_size=[12, 224, 224]"``. A leading ``--`` is allowed.

    Returns:
        The settings, checked.

    Raises:
        PretrainError: The file cannot be read, or a key is unknown, missing, of the wrong type, or does not
            fit the others. Each key is named with its value.
    """
    path = Path(path)
    try:
        content = OmegaConf.load(path)
        if not isinstance(content, DictConfig):
            raise PretrainError(f"the configuration {path} must hold sections ({', '.join(Config.model_fields)})")
        plain = OmegaConf.to_container(_merged(content, overrides), resolve=True)
    except FileNotFoundError as error:
        raise PretrainError(f"there is no configuration {path}") from error
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise PretrainError(f"cannot read the configuration {path}: {error}") from error
    return parse_config(plain, str(path))


def parse_config(content: Any, source: str) -> Config:
    """Checks settings that were read from elsewhere, such as a checkpoint.

    Args:
        content: Sections and their keys, as in YAML.
        source: Where they come from; opens the error message.

    Raises:
        PretrainError: A key is unknown, missing, of the wrong type, or does not fit the others.
    """
    try:
        # By way of JSON, whose strict rules take a list for a tuple and a string for a path, but no "3" for a 3.
        return Config.model_validate_json(json.dumps(content))
    except (TypeError, ValueError) as error:
        details = _explain(error) if isinstance(error, ValidationError) else [str(error)]
        raise PretrainError(f"{source}: " + "; ".join(details)) from error


def dump_config(config: Config) -> str:
    """Writes all settings, defaults included, as YAML that `load_config` reads back to the same."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, default_flow_style=False)


def _merged(content: DictConfig, overrides: Sequence[str]) -> Any:
    """Returns settings with changes in OmegaConf's dot list."""
    changes = []
    for override in overrides:
        key, equals, _ = override.removeprefix("--").partition("=")
        if not equals or not all(key.split(".")):
            raise PretrainError(f"an override reads section.key=value, got {override!r}")
        try:
            changes.append(OmegaConf.from_dotlist([override.removeprefix("--")]))
        except yaml.YAMLError as error:
            raise PretrainError(f"{key}: cannot read the value of {override!r} as YAML: {error}") from error
    return OmegaConf.merge(content, *changes)


def _explain(error: ValidationError) -> list[str]:
    """Turns each complaint into one line that names the key, its value and, if unknown, the nearest one."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "configuration"
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key {key}. {nearest(str(problem['loc'][-1]), _known_keys(problem['loc'][:-1]))}")
        elif problem["type"] == "missing":
            lines.append(f"{key} is missing")
        elif problem["type"] == "value_error":
            lines.append(f"{key}: {problem['ctx']['error']}" if problem["loc"] else str(problem["ctx"]["error"]))
        else:
            lines.append(f"{key}: {problem['msg']}, got {problem['input']!r}")
    return lines


def _known_keys(place: tuple[int | str, ...]) -> list[str]:
    """Returns the keys of the section at a place in the configuration."""
    section: type[BaseModel] = Config
    for name in place:
        annotation = section.model_fields[str(name)].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        section = annotation
    return [field.alias or name for name, field in section.model_fields.items()]
