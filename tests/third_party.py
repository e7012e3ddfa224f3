"""Packages of somebody's own, installed next to ours for a while."""

import contextlib
import functools
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest


def blocks(guide: str, language: str) -> list[str]:
    """Returns the blocks of code of one language in a guide."""
    return re.findall(rf"```{language}\n(.*?)```", guide, re.DOTALL)


def lay_out(folder: Path, pyproject: str, modules: Mapping[str, str]) -> Path:
    """Writes a package as pip lays one out that is installed, and returns its folder.

    Args:
        folder: Where it is installed.
        pyproject: Text of its `pyproject.toml`.
        modules: Name to source.
    """
    project = tomllib.loads(pyproject)["project"]
    name = project["name"].replace("-", "_")
    package, info = folder / name, folder / f"{name}-{project['version']}.dist-info"
    for each in (package / "splits", info):
        each.mkdir(parents=True)
    for module, source in modules.items():
        (package / f"{module}.py").write_text(source, encoding="utf-8")
    groups = project["entry-points"].items()
    lines = [line for group, points in groups for line in (f"[{group}]", *map(" = ".join, points.items()))]
    (info / "entry_points.txt").write_text("\n".join([*lines, ""]))
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    return package


@contextlib.contextmanager
def installed(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """Makes what a folder installs be found as in a process that starts in it; nothing of it stays."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.chdir(folder)
        patch.setenv("TAPCT_CACHE", str(folder / "cache"))
        _forget()
        try:
            yield patch
        finally:
            for name in set(sys.modules) - before:
                if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(folder):
                    del sys.modules[name]
            _forget()


def _forget() -> None:
    """Clears what functions of ours have remembered, above all of what is installed; sources are known by content."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "tapct" and name != "tapct.source_code"]:
        for value in list(vars(sys.modules[name]).values()):
            if isinstance(value, functools._lru_cache_wrapper):
                value.cache_clear()
