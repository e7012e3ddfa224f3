"""The pages that `make docs` lays out: a reader of the site sees what a reader of GitHub sees."""

import re
from collections import Counter
from pathlib import Path

import markdown
import pytest
import yaml
from markdown_it import MarkdownIt

from tools import site

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
ELEMENTS = ("ul", "ol", "li", "table", "tr", "td", "h1", "h2", "h3", "em", "strong", "a", "img")


def elements(html: str) -> Counter[str]:
    return Counter(name for name in re.findall(r"<(\w+)[ >]", html) if name in ELEMENTS)


def without_blocks(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```$", "(code)", text, flags=re.MULTILINE | re.DOTALL)


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
    page = site.page(
        '[a](docs/tasks.md#dice) [b](LICENSE) <img src="docs/images/overlay.png">', REPOSITORY / "README.md"
    )
    assert page == '[a](tasks.md#dice) [b](repository/LICENSE) <img src="images/overlay.png">\n'
    page = site.page("[a](../README.md) [b](tutorial.py) [c](https://a.b/c.md)", REPOSITORY / "docs" / "tasks.md")
    assert page == "[a](index.md) [b](tutorial.md) [c](https://a.b/c.md)\n"


def test_every_page_is_in_the_navigation():
    class Loader(yaml.SafeLoader):
        """Reads the Python objects of mkdocs.yml as nothing."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)

    def names(part):
        return (
            [part]
            if isinstance(part, str)
            else [n for p in (part.values() if isinstance(part, dict) else part) for n in names(p)]
        )

    listed = set(names(yaml.load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"]))
    docs = REPOSITORY / "docs"
    assert listed >= {
        path.relative_to(docs).with_suffix(".md").as_posix() for s in ("md", "py") for path in docs.rglob(f"*.{s}")
    }
