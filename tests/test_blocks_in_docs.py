"""Every block of code in the docs is run: here, or by what a comment above it names. Or the comment says why not.

`<!-- run by: tests/test_add_a_task.py -->` and `<!-- not run: needs a cluster -->`, in the line above the block.
Commands that are not run are read all the same, by test_commands_in_docs.py.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tapct.records import RECORD_FILE, write_record
from tapct.records.cases import CASES_FILE
from tests.leaderboard.results import record

REPOSITORY = Path(__file__).parents[1]
DOCS = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:^ *<!-- (run by|not run): (.+) -->\n)?^( *)```(.*)\n((?:.*\n)*?) *```$", re.MULTILINE)
NOTHING_TO_RUN = {"", "text", "layers tapct", "layers pretrain"}
"""Of a block that shows a folder or a table. A language is named wherever there is code."""


class Block(NamedTuple):
    where: str
    run: str
    why: str
    language: str
    code: str


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text[: found.start(4)].count("\n") + 1
        yield Block(f"{page.name}:{line}", found[1] or "", found[2] or "", found[4], found[5])


BLOCKS = [block for page in DOCS for block in blocks(page)]
RUN_HERE = [one for one in BLOCKS if one.language == "python" and not one.run]


def test_blocks_are_found():
    fences = sum(len(re.findall(r"^ *```", page.read_text(encoding="utf-8"), re.MULTILINE)) for page in DOCS)
    assert 2 * len(BLOCKS) == fences
    assert len(RUN_HERE) > 1


def test_every_block_is_run_or_says_why_not():
    unmarked = [one.where for one in BLOCKS if not one.run and one.language not in NOTHING_TO_RUN | {"python"}]
    assert unmarked == [], "above each: <!-- run by: tests/... --> or <!-- not run: why -->"


def test_blocks_without_a_language_are_no_code():
    code = re.compile(r"^ *(?:def|class|import|tapct|eva|make|python|pip)\b(?!.*/.*  )", re.MULTILINE)
    assert [one.where for one in BLOCKS if one.language in NOTHING_TO_RUN - {"text"} and code.search(one.code)] == []


def test_what_is_to_run_a_block_names_its_page_or_its_commands():
    for one in BLOCKS:
        if one.run == "run by":
            runner = (REPOSITORY / one.why).read_text(encoding="utf-8")
            commands = re.findall(r"^(?:tapct \w+|eva fit|python -m [\w.]+)", one.code, re.MULTILINE)
            assert one.where.partition(":")[0] in runner or all(name in runner for name in commands), one


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """A folder in which results lie where the pages say."""
    folder = tmp_path_factory.mktemp("results")
    for encoder in ("curia", "tap-b-3d"):
        write_record(record(encoder, "amos22", patients=5, seeds=1), folder / "results" / "amos22" / encoder)
        assert {RECORD_FILE, CASES_FILE} <= {path.name for path in (folder / "results/amos22" / encoder).iterdir()}
    return folder


@pytest.mark.parametrize("block", RUN_HERE, ids=lambda block: block.where)
def test_python_runs(block, results, monkeypatch):
    monkeypatch.chdir(results)
    names: dict[str, object] = {}
    exec(compile(block.code, block.where, "exec"), names)
    assert names.keys() - {"__builtins__"}, "a block leaves what it imported and computed"
