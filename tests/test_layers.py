"""Imports point down: what docs/architecture.md lists is what the code does."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BLOCKS = re.findall(r"^```layers (\w+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def layers(lines: str) -> dict[str, int]:
    """Package to height, of lines "NAME, NAME   what they are" from the highest to the lowest."""
    named = [re.split(r"\s{2,}", line)[0].split(", ") for line in lines.strip().splitlines()]
    return {name: height for height, names in enumerate(reversed(named)) for name in names}


LAYERS = {root: layers(lines) for root, lines in BLOCKS}


def package(module: str) -> str | None:
    """The package right below the top that a module is in; None of the top itself."""
    return module.split(".")[1] if "." in module else None


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """The modules that a file imports, wherever in it, those for types included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            is_top = "." not in node.module
            found |= {f"{node.module}.{alias.name}" if is_top else node.module for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset(found)


def files(root: str) -> list[Path]:
    return sorted(path for path in (ROOT / root).rglob("*.py") if path != ROOT / root / "__init__.py")


@pytest.mark.parametrize("root", ["tapct", "pretrain"])
def test_the_page_names_every_package(root):
    there = {package(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in files(root)}
    assert set(LAYERS[root]) == there


@pytest.mark.parametrize("root", ["tapct", "pretrain"])
def test_imports_point_down(root):
    heights, wrong = LAYERS[root], []
    for path in files(root):
        own = package(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for module in sorted(imported(path)):
            other = package(module) if module.startswith(f"{root}.") else None
            if other in heights and other != own and heights[other] >= heights[own]:
                wrong.append(f"{path.relative_to(ROOT).as_posix()} imports {module}")
    assert wrong == []


@pytest.mark.parametrize(
    ("root", "forbidden"),
    [("tapct", {"pretrain", "baselines"}), ("baselines", {"pretrain"}), ("pretrain", {"baselines"})],
)
def test_what_is_found_by_entry_points_is_not_imported(root, forbidden):
    tops = {(path.name, module.split(".")[0]) for path in files(root) for module in imported(path)}
    assert [(name, top) for name, top in sorted(tops) if top in forbidden] == []
