"""The page: one HTML file that needs nothing else, the same for the same records."""

import base64
import hashlib
import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tapct import numeric
from tapct.leaderboard.board import FAMILIES, PROTOCOLS, Board, Family
from tapct.leaderboard.exports import ordered
from tapct.leaderboard.page import charts, views
from tapct.leaderboard.paper import PAPER

__all__ = ["render"]


def render(board: Board) -> str:
    """Returns the page of a board as HTML.

    Whatever a record or a card says is text: the templates escape it, and the policy in the page's head lets no script
    run but its own, known by its hash, and nothing be loaded.
    """
    style, script = (Markup(_asset(name)) for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    html = (
        _environment()
        .get_template("index.html.j2")
        .render(
            board=board,
            style=style,
            script=script,
            policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'",
            families=FAMILIES,
            protocols=PROTOCOLS,
            ordered=ordered,
            views=views,
            paper=PAPER,
            blobs=_figures(charts.rank_blobs, board),
            costs=_figures(charts.quality_by_cost, board),
            complete=charts.complete,
            strips=lambda task, models: _safe(charts.patient_strips(task, models)),
            reliability=lambda task, models: _safe(charts.reliability(task, models)),
        )
    )
    return _small(_with_classes(_compact(html)))


def _small(html: str) -> str:
    """Returns the page without what HTML lets out: end tags of cells and items, quotes around plain words.

    Text from records has neither tags nor quotes: it is escaped.
    """
    head, body = html.split("</head>")
    body, script = body.split("<script>")
    body = re.sub(r"\s*</(?:t[dhr]|d[dt]|li)>\s*", "", body)
    body = re.sub(
        r">\n<(?=/?(?:t[dhr]|div|d[dt]|table|thead|tbody|caption|path|text|svg|details|figure|section))", "><", body
    )
    unquoted = re.compile(r'(?<==)"([\w.:#-]+)"(?=[ >])')
    body = re.sub(r"<[a-z][^>]*>", lambda tag: unquoted.sub(r"\1", tag[0]), body)
    return f"{head}</head>{body}<script>{script}"


def _with_classes(html: str) -> str:
    """Returns the page with the styles of its figures, of which there are few, as classes."""
    names: dict[str, str] = {}
    html = re.sub(
        r' style="((?:fill|font-size|stroke)[^"]*)"',
        lambda found: f' class="{names.setdefault(found[1], f"f{len(names)}")}"',
        html,
    )
    rules = "".join(f".{name}{{{style.replace('; ', ';')}}}" for style, name in names.items())
    return html.replace("</style>", f"{rules}</style>", 1)


def _figures(draw: Callable[[Board, Family], str | None], board: Board) -> dict[Family, Markup]:
    """Returns the figure of each family that has one."""
    drawn = {family: draw(board, family) for family in FAMILIES[1:]}
    return {family: _safe(svg) for family, svg in drawn.items() if svg is not None}


def _safe(svg: str) -> Markup:
    """Marks a figure as HTML: its texts were escaped by Matplotlib and by `svg.render`."""
    return Markup(svg)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tapct.leaderboard.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["fixed"] = lambda value, digits=3: "–" if value is None else numeric.fixed(value, digits)
    environment.filters["zip"] = zip
    environment.filters["notice_word"] = views.notice_word
    environment.filters["metric"] = views.metric_title
    return environment


def _asset(name: str) -> str:
    text = _compact((files("tapct.leaderboard.page") / "templates" / name).read_text(encoding="utf-8")).strip()
    return re.sub(r"([;:,{]) ", r"\1", text) if name.endswith(".css") else text


def _compact(text: str) -> str:
    """Returns text without indentation and empty lines."""
    return re.sub(r"\n\s+", "\n", text)
