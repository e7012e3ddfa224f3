"""Lays out the pages of the documentation for `mkdocs.yml`, in build/pages: `make docs`.

The pages are written for GitHub, and lie where it shows them. In the site README.md is the first page, what pages link
to outside of `docs/` (the changelog, a table of sizes) is under `repository/`, and a script in cells is a page. These
are plain files, and no plug-in is needed: any generator that reads `mkdocs.yml` makes the site.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS, PAGES = REPOSITORY / "docs", REPOSITORY / "build" / "pages"
LINK = re.compile(r'(?:(?<=\]\()|(?<=src="))(?!https?:|mailto:|#)([^)"#\s]+)')
FENCE = re.compile(r" *```")
MARK = re.compile(r"(?:[-*+]|\d+\.) ")
"""Begins an entry of a list."""
FIRST = re.compile(r"(?:[-*+]|1\.) ")
"""Begins a list right below a paragraph."""
CELL = "# %%"
"""Begins a cell of a script, which is code unless [markdown] follows."""


def main() -> None:
    """Writes build/pages anew."""
    shutil.rmtree(PAGES, ignore_errors=True)
    waiting = [REPOSITORY / "README.md", *(path for path in sorted(DOCS.rglob("*")) if path.is_file())]
    done: set[Path] = set()
    while waiting:
        source = waiting.pop()
        if source in done or "__pycache__" in source.parts:
            continue
        done.add(source)
        place = PAGES / _in_site(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix not in (".md", ".py"):
            shutil.copyfile(source, place)
            continue
        text = source.read_text(encoding="utf-8")
        text_of_page = page(of_script(text) if source.suffix == ".py" else text, source)
        place.write_text(text_of_page, encoding="utf-8")
        waiting += [target for link in LINK.findall(text) if (target := _target(source, link)).is_file()]


def _in_site(source: Path) -> Path:
    """Returns where a file of the repository is in the site."""
    if source == REPOSITORY / "README.md":
        return Path("index.md")
    if not source.is_relative_to(DOCS):
        return "repository" / source.relative_to(REPOSITORY)
    return source.relative_to(DOCS).with_suffix(".md" if source.suffix == ".py" else source.suffix)


def _target(source: Path, link: str) -> Path:
    return Path(os.path.normpath(source.parent / link))


def page(text: str, source: Path) -> str:
    """Returns a page with links as they are in the site, and lists and tables as GitHub sees them."""
    folder = _in_site(source).parent

    def in_site(link: re.Match[str]) -> str:
        return Path(os.path.relpath(_in_site(_target(source, link[1])), folder)).as_posix()

    return "\n".join(_as_on_github(LINK.sub(in_site, text).splitlines())) + "\n"


def _as_on_github(lines: Iterable[str]) -> Iterator[str]:
    """Yields lines for a parser that wants more of them empty around lists and tables, and four blanks under a mark."""
    fenced = below_text = below_parts = False
    before = deeper = ""
    for line in lines:
        nested = line.startswith("  ")
        if not fenced and line and not nested:
            mark = MARK.match(line)
            if (below_text and (FIRST.match(line) or line.startswith("|"))) or (below_parts and mark):
                yield ""
            if mark or not before:  # text right below an entry belongs to it
                deeper = " " * (4 - len(mark[0])) if mark else ""
            below_text = not mark and not line.startswith(("#", "|", "<", "```"))
        below_text = below_text and bool(line)
        below_parts = (nested and (below_parts or not before)) or (below_parts and not line)
        if FENCE.match(line):
            fenced = not fenced
            below_text = not fenced
        yield deeper + line if nested else line
        before = line


def of_script(text: str) -> str:
    """Returns a script in cells as a page: text cells as text, code cells as blocks."""
    parts: list[str] = []
    for cell in text.split(CELL)[1:]:
        kind, _, body = cell.partition("\n")
        code = body.strip("\n")
        if "[markdown]" in kind:
            parts.append("\n".join(line.removeprefix("#").removeprefix(" ") for line in code.splitlines()))
        elif code:
            parts.append(f"```python\n{code}\n```")
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
