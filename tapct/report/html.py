"""What the pages of reports share: one file each, which needs no network, in one style."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from tapct.leaderboard.page import svg
from tapct.leaderboard.text import for_page


def page(template: str, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """Returns a page.

    Args:
        template: Name of a file in `templates`.
        filters: Of jinja, by name.
        values: Of the template; `style` it has already.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=for_page, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(filters or {})
    style = Markup("\n".join([_text("style.css"), svg.style([])]))
    return environment.from_string(_text(template)).render(style=style, **values)


def _text(name: str) -> str:
    return (files("tapct.report") / "templates" / name).read_text("utf-8")
