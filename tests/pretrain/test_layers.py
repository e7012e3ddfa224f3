"""Imports of `pretrain` point one way: commands, training, observe, ssl, data, and what all of them share."""

import ast
from pathlib import Path

import pytest

import pretrain

ROOT = Path(pretrain.__file__).parent
PACKAGES = ("data", "ssl", "observe", "training")
"""From the lowest to the highest."""
COMMANDS = ("prepare", "train", "export", "report", "replay")


def layer(module: str) -> int:
    """The height of a module: 0 is what all share, the commands are above every package."""
    first = module.split(".")[1] if "." in module else ""
    if first in PACKAGES:
        return 1 + PACKAGES.index(first)
    return 1 + len(PACKAGES) if first in COMMANDS else 0


def imported(path: Path) -> set[str]:
    """The modules of `pretrain` that a file imports, types included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                f"{node.module}.{alias.name}" if node.module == "pretrain" else node.module for alias in node.names
            }
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("pretrain.")}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_down(path):
    module = ".".join(["pretrain", *path.relative_to(ROOT).with_suffix("").parts])
    assert [name for name in imported(path) if layer(name) > layer(module)] == []
    if layer(module) == 1 + len(PACKAGES):
        assert [name for name in imported(path) if layer(name) == layer(module)] == [], (
            "commands do not call each other"
        )
