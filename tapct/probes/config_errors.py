"""Naming the nearest key where a config has one that does not exist.

jsonargparse refuses an unknown key but does not say which one was meant, and eva's command line is not
ours to change. Its message is completed here, once our trainer is named in a config.
"""

import importlib
import inspect
import re
from typing import Any

import jsonargparse

from tapct.errors import nearest

_UNKNOWN = re.compile(r"(?:Option|Key|accept option) '([\w.]+)'")
_CLASS = re.compile(r"class_path '([\w.]+)'")


def name_nearest_keys() -> None:
    """Makes jsonargparse's error for an unknown key end with the nearest keys that exist."""
    parser = jsonargparse.ArgumentParser
    if hasattr(parser.error, "names_nearest_keys"):
        return
    original = parser.error

    def error(self: jsonargparse.ArgumentParser, message: str, *args: Any, **kwargs: Any) -> Any:
        return original(self, with_nearest(str(message)), *args, **kwargs)

    error.names_nearest_keys = True  # type: ignore[attr-defined]
    parser.error = error  # type: ignore[method-assign]


def with_nearest(message: str) -> str:
    """Returns jsonargparse's `message`, with the nearest keys where it complains of an unknown one."""
    unknown = _UNKNOWN.search(message)
    if unknown is None or "accept" not in message or "Known: " in message:
        return message  # of something else, or of a nested parser that has said it
    classes = _CLASS.findall(message[: unknown.start()])
    if classes:
        known = _parameters(classes[-1])
    else:
        known = {"trainer", "model", "data"} if message.startswith("Subcommand") else set()
    return f"{message}\n    {nearest(unknown.group(1).split('.')[0], known)}" if known else message


def _parameters(class_path: str) -> set[str]:
    """Returns the names of the parameters of a class and of its bases; empty where it cannot be imported."""
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return set()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names: set[str] = set()
    for cls in inspect.getmro(found):
        if "__init__" not in vars(cls):
            continue
        parameters = list(inspect.signature(vars(cls)["__init__"]).parameters.values())
        names |= {p.name for p in parameters if p.kind in named}
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break  # this constructor passes nothing on to its bases
    return names - {"self"} | {"class_path", "init_args"}
