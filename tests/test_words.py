"""Words: docs/glossary.md says which ones are not written here; no page, help text, message or docstring has one.

And a name is of one class or type.
"""

import ast
import functools
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
(BLOCK,) = re.findall(r"^```words\n(.*?)^```", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
INSTEAD = dict(line.split(" -> ") for line in BLOCK.strip().splitlines())
PAGES = [*ROOT.glob("*.md"), *(page for page in (ROOT / "docs").glob("*.md") if page != GLOSSARY)]
TEMPLATES = sorted(
    path for top in ("tapct", "pretrain") for end in ("j2", "html") for path in (ROOT / top).rglob(f"*.{end}")
)
MODULES = sorted(path for top in ("tapct", "pretrain", "baselines") for path in (ROOT / top).rglob("*.py"))
CODE = re.compile(r"```.*?```|`[^`\n]*`|\]\([^)]*\)|\{[^{}]*\}|<[^>]*>", re.DOTALL)  # names of files and keys stay
FINE = re.compile(r"[tT]able cells?|[cC]ell by cell|[tT]here is no")


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def forbidden(text: str, words: list[str]) -> list[str]:
    """The words that a text has and should not, each with what to write instead."""
    prose = FINE.sub("", CODE.sub("", text))
    if not re.search(rf"(?<![\w-])(?:{'|'.join(words)})(?![\w-])", prose, re.IGNORECASE):
        return []  # as nearly always: each word by itself takes long
    return [
        f"{word} -> {INSTEAD[word]}" for word in words if re.search(rf"(?<![\w-]){word}(?![\w-])", prose, re.IGNORECASE)
    ]


def strings(path: Path) -> Iterator[str]:
    """The texts of a module: docstrings and messages, not keys or names."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value


def test_the_glossary_says_what_to_write_instead():
    assert len(INSTEAD) > 10
    assert forbidden("How to mend it", list(INSTEAD)) == ["mend -> fix"]
    assert forbidden("`mend`, recommended, {mend}", list(INSTEAD)) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_have_none_of_these_words(path):
    assert forbidden(path.read_text(encoding="utf-8"), list(INSTEAD)) == []


def test_messages_docstrings_and_help_have_none_of_these_words():
    # A table has cells, also in code that writes one.
    words = [word for word in INSTEAD if word not in ("cell", "cells")]
    found = {path.relative_to(ROOT).as_posix(): forbidden("\n".join(strings(path)), words) for path in MODULES}
    found |= {path.name: forbidden(path.read_text(encoding="utf-8"), words) for path in TEMPLATES}
    assert {path: of for path, of in found.items() if of} == {}


def named(node: ast.stmt) -> Iterator[str]:
    """The class or type that a statement of a module gives a public name."""
    if isinstance(node, ast.ClassDef):
        yield node.name
    for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]:
        if isinstance(target, ast.Name) and target.id[0].isupper() and target.id != target.id.upper():
            yield target.id


def test_a_name_is_of_one_class_or_type():
    homes = defaultdict(list)
    for path in MODULES:
        for node in parsed(path).body:
            for name in named(node):
                if not name.startswith("_"):
                    homes[name].append(path.relative_to(ROOT).as_posix())
    assert len(homes) > 500
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}
