"""Pages and sections that are referred to, by the docs and by the sources, are there."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path

from tapct.sweep.experiment import VARIABLES

REPOSITORY = Path(__file__).parents[1]
PAGES = [
    path
    for folder in (".", "docs", "docs/api", "tapct", "pretrain")
    for path in sorted((REPOSITORY / folder).glob("*.md"))
]
SOURCES = [
    REPOSITORY / "pyproject.toml",
    *(
        path
        for folder in ("tapct", "baselines", "pretrain", "benchmarks", "eva_configs")
        for path in sorted((REPOSITORY / folder).rglob("*"))
        if path.suffix in (".py", ".yaml", ".md", ".html")
    ),
]


@functools.cache
def sections(page: Path) -> set[str]:
    """Returns the anchors that GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.add(next(name for name in (anchor, *(f"{anchor}-{i}" for i in range(1, 99))) if name not in found))
    return found


def named_in_all(pattern: str) -> list[tuple[Path, str]]:
    """Returns what pages and sources name where a pattern's group stands, with where."""
    return [(place, name) for place in {*PAGES, *SOURCES} for name in re.findall(pattern, place.read_text("utf-8"))]


def missing(place: Path, page: Path, section: str) -> Iterator[str]:
    if not page.exists():
        yield f"{place.relative_to(REPOSITORY)}: {page.relative_to(REPOSITORY)} is not there"
    elif section and section not in sections(page):
        yield f"{place.relative_to(REPOSITORY)}: {page.name} has no section #{section}"


def test_links_of_the_pages_lead_somewhere():
    links = [
        (page, (page.parent / target if target else page).resolve(), section)
        for page in PAGES
        for target, section in re.findall(
            r'(?:\]\(|src=")(?!https?:|mailto:)([^)"#\s]*)(?:#([^)\s]*))?[)"]', page.read_text("utf-8")
        )
    ]
    assert len(links) > 100
    assert [fault for link in links for fault in missing(*link)] == []


def test_pages_that_the_sources_name_are_there():
    named = [
        (source, REPOSITORY / page, section)
        for source in SOURCES
        for page, section in re.findall(r"(?<![\w/])(docs/[\w-]+(?:\.\w+)+)(?:#([\w-]+))?", source.read_text("utf-8"))
    ]
    assert len(named) > 20
    assert [fault for name in named for fault in missing(*name)] == []


def test_files_and_programs_that_are_named_are_there():
    stand_for_others = {"eva_configs/...yaml", "eva_configs/KIND/TASK.yaml", "tapct/kinds/NAME.py"}
    folders = "tapct|baselines|pretrain|benchmarks|eva_configs|tests|tools"
    files = named_in_all(rf"(?<![\w/.-])((?:{folders})/[\w./-]+\.(?:py|yaml|csv|json|md|html))\b")
    assert len(files) > 100
    assert [named for named in files if not ((REPOSITORY / named[1]).exists() or named[1] in stand_for_others)] == []
    modules = named_in_all(rf"python -m ((?:{folders})(?:\.\w+)+)")
    assert len(modules) > 30
    assert [named for named in modules if not (REPOSITORY / f"{named[1].replace('.', '/')}.py").is_file()] == []


def test_readme_says_what_every_variable_of_the_configs_is():
    table = (REPOSITORY / "README.md").read_text("utf-8").partition("| variable | is |")[2].partition("\n\n")[0]
    said = {name for row in table.splitlines() for name in re.findall(r"`([A-Z_]+)`", row.partition(" | ")[0])}
    assert said == {*VARIABLES, "TAPCT_FEATURES", "TAPCT_CACHE"}
