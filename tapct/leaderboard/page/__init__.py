"""The page: one HTML file that needs nothing else, the same for the same records."""

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tapct import numeric
from tapct.encoders.licence import NC_MEANS
from tapct.kinds import kind
from tapct.leaderboard import imported, paper_tables, robust_columns
from tapct.leaderboard.board import Board, families, metric_title
from tapct.leaderboard.compared import PROTOCOLS
from tapct.leaderboard.eva_results import NOT_RANKED
from tapct.leaderboard.exports import by_score, ordered
from tapct.leaderboard.input_sheets import sheets_of
from tapct.leaderboard.page import charts, mistakes, paper, svg, views
from tapct.leaderboard.page.sheets import Pictures, source_parts
from tapct.leaderboard.paper import PAPER
from tapct.leaderboard.reproduction import SPLITS_DIFFER
from tapct.leaderboard.text import for_page

__all__ = ["render"]


def render(board: Board) -> str:
    """Returns the page of a board as HTML.

    Whatever a record or a card says is text: the templates escape it and show nothing that cannot be seen, styles hold
    numbers alone, and the policy in the page's head lets no script run but its own, known by its hash, and nothing be
    loaded.
    """
    style, script = (Markup(_asset(name)) for name in ("page.css", "page.js"))
    style += Markup("\n" + svg.style([family for family in families()[1:] if board.family(family)]))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    blobs, costs = _figures(charts.rank_blobs, board), _figures(charts.quality_by_cost, board)
    overview, sheets = views.overview(board), sheets_of(board)
    return (
        _environment()
        .get_template("index.html.j2")
        .render(
            board=board,
            style=style,
            script=script,
            policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'",
            families=families(),
            protocols=PROTOCOLS,
            ordered=ordered,
            by_score=by_score,
            views=views,
            paper=PAPER,
            splits_differ=SPLITS_DIFFER,
            paper_tables=paper_tables,
            eva_note=NOT_RANKED,
            imported=imported,
            mistakes=mistakes,
            robust=robust_columns,
            beside=_figures(paper.ours_by_theirs, board),
            kinds=overview,
            sheets=sheets,
            nc_means=NC_MEANS,
            pictures=Pictures(sheets),
            source_parts=source_parts,
            run=board.family("all"),
            crossed=views.crossed(board),
            figures=bool(blobs or costs or overview.ranked),
            blobs=blobs,
            costs=costs,
            complete=charts.complete,
            safe=_safe,
        )
    )


def _figures(draw: Callable[[Board, str], str | None], board: Board) -> dict[str, Markup]:
    """Returns the figure of each family that has one."""
    drawn = {family: draw(board, family) for family in families()[1:]}
    return {family: _safe(figure) for family, figure in drawn.items() if figure is not None}


def _safe(figure: str) -> Markup:
    """Marks a figure as HTML: its texts were escaped by `svg.render`."""
    return Markup(figure)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tapct.leaderboard.page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=for_page,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["fixed"] = lambda value, digits=3: "–" if value is None else numeric.fixed(value, digits)
    environment.filters["signed"] = paper_tables.signed
    environment.filters["zip"] = zip
    environment.filters["metric"] = metric_title
    environment.filters["kind"] = lambda name: kind(name).title
    return environment


def _asset(name: str) -> str:
    return (files("tapct.leaderboard.page") / "templates" / name).read_text(encoding="utf-8").strip()
