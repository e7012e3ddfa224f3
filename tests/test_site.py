"""The pages that `make docs` lays out: a reader of the site sees what a reader of GitHub sees."""

import re
from collections import Counter
from pathlib import Path

import markdown
import pytest
from markdown_it import MarkdownIt

from tools import site

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
ELEMENTS = ("ul", "ol", "li", "table", "tr", "td", "h1", "h2", "h3", "em", "strong", "a", "img")


def elements(html: str) -> Counter[str]:
    return Counter(name for name in re.findall(r"<(\w+)[ >]", html) if name in ELEMENTS)


def without_blocks(text: str) -> str:
    return re.sub(r"^( *)```.*?^ *```$", r"\1(code)", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lists_tables_and_links_are_those_of_github(page):
    text = page.read_text(encoding="utf-8")
    of_github = MarkdownIt("commonmark").enable("table").render(without_blocks(text))
    of_site = markdown.markdown(without_blocks(site.page(text, page)), extensions=["tables"])
    assert elements(of_site) == elements(of_github)


def test_a_script_in_cells_is_a_page():
    text = "# %% [markdown]\n# # Title\n# A line.\n\n# %%\nx = 1\n\n# %% [markdown]\n# Then\n# - a list\n"
    assert site.of_script(text) == "# Title\nA line.\n\n```python\nx = 1\n```\n\nThen\n- a list"


def test_links_lead_to_where_files_are_in_the_site():
    text = '[a](docs/tasks.md#dice) [b](LICENSE) <img src="docs/images/overlay.png">'
    of_home = '[a](tasks.md#dice) [b](repository/LICENSE) <img src="images/overlay.png">\n'
    assert site.page(text, REPOSITORY / "README.md") == of_home
    text = "[a](../README.md) [b](tutorial.py) [c](https://a.b/c.md)"
    assert site.page(text, DOCS / "tasks.md") == "[a](index.md) [b](tutorial.md) [c](https://a.b/c.md)\n"


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"\S+\.md", (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]))
    pages = [path.relative_to(DOCS) for ending in ("md", "py") for path in DOCS.rglob(f"*.{ending}")]
    assert {path.with_suffix(".md").as_posix() for path in pages} <= listed
