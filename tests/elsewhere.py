"""A stand-in for Windows and macOS: our packages find nothing there that only Linux, or only Unix, has.

Run as a program, it imports all of them, or those of the packages that it is told, and then runs the commands that it
is given on stdin as JSON.
"""

import builtins
import importlib
import json
import os
import pkgutil
import signal
import sys
from collections.abc import Iterable, Mapping
from typing import Any

OURS = ("tapct", "baselines", "pretrain")
MODULES = frozenset({"fcntl", "grp", "pwd", "resource", "syslog", "termios", "triton", "tty"})
"""What Windows lacks, and Triton, which is for Linux alone."""
NAMES = {
    os: ("getloadavg", "getuid", "killpg", "register_at_fork", "sched_getaffinity", "setsid", "sysconf", "uname"),
    signal: ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2"),
}


QUICK = ("torch", "submitit", "filelock", "blosc2")
"""What our packages below eva import of others."""


def leave(others: Iterable[str]) -> None:
    """Takes away what other systems lack: modules from our packages alone, since others' builds for Linux have them."""
    for module in others:
        importlib.import_module(module)
    whole = builtins.__import__

    def without(name: str, globals: Mapping[str, Any] | None = None, *others: Any, **more: Any) -> Any:
        importer = str((globals or {}).get("__name__")).partition(".")[0]
        if importer in OURS and name.partition(".")[0] in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return whole(name, globals, *others, **more)

    builtins.__import__ = without
    for module, names in NAMES.items():
        for name in names:
            delattr(module, name)


def main() -> None:
    packages = sys.argv[1:] or OURS
    leave(QUICK if sys.argv[1:] else (*QUICK, "lightning", "eva.vision", "transformers"))
    for package in map(importlib.import_module, packages):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name != "tapct.probes.dense_triton":
                importlib.import_module(module.name)
    statuses = []
    for program, *arguments in json.load(sys.stdin):
        sys.argv = [program, *arguments]
        try:
            importlib.import_module({"eva": "eva.__main__", "tapct": "tapct.cli"}[program]).main()
            statuses.append(0)
        except SystemExit as ended:
            statuses.append(ended.code)
    print(json.dumps(statuses))


if __name__ == "__main__":
    main()
