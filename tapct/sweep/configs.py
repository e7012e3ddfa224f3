"""What configs say once their variables are in: each read once, each value resolved once per its variables.

A sweep asks for the settings of thousands of experiments, of a few dozen configs; resolving each by itself takes
minutes.
"""

import functools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tapct._utils.files import FileStamp, stamp_of

_VARIABLE = re.compile(r"\$\{oc\.env:\s*(\w+)")
_WHOLE = re.compile(rf"{_VARIABLE.pattern}[^{{}}]*\}}")


def resolved(path: Path) -> dict[str, str]:
    """Returns every key of a config by its path, "model.init_args.encoder", as the variables are now.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is empty, or no text.
        yaml.YAMLError: If it is not YAML.
        omegaconf.errors.OmegaConfBaseException: If it cannot be resolved.
    """
    fixed, by_variables = _read(path, stamp_of(path))
    if by_variables is None:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        return {key: text_of(value) for key, value in _leaves(content)}
    now = {name: os.environ.get(name) for name in {name for _, names in by_variables.values() for name in names}}
    return fixed | {
        key: _resolved(written, tuple((name, now[name]) for name in names))
        for key, (written, names) in by_variables.items()
    }


def variables_of(path: Path) -> dict[str, str]:
    """Returns the variable that each key of a config takes its whole value from, by the key's path.

    Raises:
        OSError: If it cannot be read; likewise the others of `resolved`.
    """
    _, by_variables = _read(path, stamp_of(path))
    whole = {key: _WHOLE.fullmatch(written) for key, (written, _) in (by_variables or {}).items()}
    return {key: found[1] for key, found in whole.items() if found is not None}


@functools.lru_cache
def _read(path: Path, stamp: FileStamp | None) -> tuple[dict[str, str], dict[str, tuple[str, list[str]]] | None]:
    """Returns the keys of a config that are fixed, and those of variables as they are written, with the variables.

    The latter are None where a value depends on more than variables: on other keys, or on what a resolver does.
    """
    leaves = list(_leaves(OmegaConf.to_container(OmegaConf.load(path), resolve=False)))
    written = {key: value for key, value in leaves if "${" in str(value)}
    fixed = {key: text_of(value) for key, value in leaves if key not in written}
    if not all(isinstance(v, str) and v.count("${") == len(_VARIABLE.findall(v)) for v in written.values()):
        return fixed, None
    return fixed, {key: (value, _VARIABLE.findall(value)) for key, value in written.items()}


@functools.lru_cache(maxsize=4096)
def _resolved(written: str, variables: tuple[tuple[str, str | None], ...]) -> str:
    """Returns the text of a value under the variables that it names, which are set so."""
    found = OmegaConf.to_container(OmegaConf.create({"value": written}), resolve=True)
    return text_of(found["value"])  # type: ignore[index, call-overload]


def _leaves(content: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from _leaves(value, f"{at}.{key}" if at else str(key))
    else:
        yield at, content


def text_of(value: Any) -> str:
    """Returns a value as a variable holds it, and as `resolved` returns it."""
    if value is None:
        return "null"
    return value if isinstance(value, str) else json.dumps(value)
