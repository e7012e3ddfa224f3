"""What a user of `eva` is told of a mistake, once our trainer is named in a config.

jsonargparse refuses an unknown key but does not say which one was meant, and eva's command line, which is not ours to
change, shows a trace of 60 lines above every other mistake. The message is completed, the trace left out.
"""

import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import jsonargparse

from tapct.errors import TapctError, in_one_message, nearest, shows_trace

_UNKNOWN = re.compile(r"(?:Option|Key|accept option) '([\w.]+)'")
_CLASS = re.compile(r"class_path '([\w.]+)'")


def name_nearest_keys() -> None:
    """Makes the parsers that are asking for a class of ours, and no others, name the nearest keys to an unknown one.

    jsonargparse tells a class nothing of who parses, so they are looked for among the callers.
    """
    frame = sys._getframe()
    while (caller := frame.f_back) is not None:
        frame = caller
        asking = frame.f_locals.get("self")
        if isinstance(asking, jsonargparse.ArgumentParser) and "error" not in vars(asking):
            asking.error = functools.partial(_error, asking.error)  # type: ignore[method-assign]


def _error(original: Callable[..., NoReturn], message: str, *args: Any, **kwargs: Any) -> NoReturn:
    original(with_nearest(str(message)), *args, **kwargs)


def say_mistakes_in_one_message() -> None:
    """Makes the command `eva` end with the message of an error of ours alone; anywhere else traces are a caller's.

    Of every other error the trace is shown as ever, and of ours with `TAPCT_TRACEBACK=1`.
    """
    if not _is_eva_command() or hasattr(sys.excepthook, "says_one_message"):
        return
    original = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, TapctError) and not shows_trace():
            sys.stderr.write(f"{in_one_message(error)}\n")
        else:
            original(kind, error, trace)

    hook.says_one_message = True  # type: ignore[attr-defined]
    sys.excepthook = hook


def _is_eva_command() -> bool:
    """Returns whether this process is `eva` or `python -m eva`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return Path(sys.argv[0]).stem == "eva" or getattr(spec, "name", None) == "eva.__main__"


def with_nearest(message: str) -> str:
    """Returns jsonargparse's `message`, with the nearest keys where it complains of an unknown one."""
    unknown = _UNKNOWN.search(message)
    if unknown is None or "accept" not in message or "Known: " in message:
        return message  # of something else, or of a nested parser that has said it
    classes = _CLASS.findall(message[: unknown.start()])
    if classes:
        known = parameters_of(classes[-1])
    else:
        known = {"trainer", "model", "data"} if message.startswith("Subcommand") else set()
    return f"{message}\n    {nearest(unknown.group(1).split('.')[0], known)}" if known else message


def parameters_of(class_path: str) -> set[str]:
    """Returns the names of the settings of a class, as jsonargparse finds them; empty where it cannot be imported."""
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return set()
    if not inspect.isclass(found):
        return set()
    # Below a name of its own: a setting may be called as something of the parser.
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    keys = parser.add_class_arguments(found, "init_args", fail_untyped=False)
    return {key.split(".")[1] for key in keys} | {"class_path", "init_args"}
