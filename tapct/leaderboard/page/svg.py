"""Figures as small, reproducible SVG that takes its colours and letters from the page around it."""

import io
import re
from collections.abc import Sequence
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from numpy.typing import ArrayLike

from tapct.kinds import list_kinds

# Stand-ins: Matplotlib takes no CSS variables, so each is replaced by one when the figure is done.
PALETTE = (
    *(("#0072b2", "#5db7ea"), ("#b4480a", "#eda13f"), ("#00755b", "#3fc99e"), ("#a03a78", "#e39bc4")),
    *(("#6a51a3", "#b5a3e6"), ("#7a5c00", "#d9b93b"), ("#8c2d2d", "#f08a80"), ("#3d5a6c", "#9cc0d4")),
)
"""Of the kinds of task in their order: on light paper, and on dark. The first two are those of Okabe and Ito."""

INK, MUTED, LINE, PAPER = "#010203", "#010204", "#010205", "#010206"
_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", PAPER: "var(--paper)"}
_VARIABLES |= {f"#0102{7 + place:02x}": f"var(--kind-{place})" for place in range(len(PALETTE))}


def colour(kind: str) -> str:
    """Returns the colour of a kind of task; there are eight, and the ninth has the first again."""
    return f"#0102{7 + list_kinds().index(kind) % len(PALETTE):02x}"


def style(families: Sequence[str]) -> str:
    """Returns the style of kinds of task: their colours, and that those not asked for are hidden.

    Args:
        families: The kinds that are on the page.
    """
    light, dark = ("; ".join(f"--kind-{i}: {pair[of]}" for i, pair in enumerate(PALETTE)) for of in (0, 1))
    rules = [f":root {{ {light} }}", f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"]
    for name in families:
        chosen = f"[data-family={name}]"
        hidden = (f"{chosen} [{key}]:not([{key}={name}])" for key in ("data-f", "data-of"))
        rules += [f".{name} {{ --at: {_VARIABLES[colour(name)]} }}", f"{', '.join(hidden)} {{ display: none }}"]
    return "\n".join(rules)


STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "path.simplify": False,  # which would take dots for lines that can go
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}


CLOUD = 12
"""From so many dots on, nobody sees a tenth of a point."""


def figure(width: float, height: float) -> Figure:
    """Returns an empty figure of this size in inches."""
    made = Figure(figsize=(width, height))
    FigureCanvasSVG(made)
    return made


def dots(axes: Axes, x: ArrayLike, y: ArrayLike, diameter_pt: float, colour: str, alpha: float = 1) -> None:
    """Draws dots, as lines of no length with round ends: a tenth of the bytes of Matplotlib's markers."""
    ends = np.repeat(np.column_stack([x, y]).astype(float), 2, axis=0)
    _path(axes, ends.reshape(-1, 2, 2), colour, diameter_pt, alpha, "round")


def lines(axes: Axes, points: Sequence[np.ndarray], colour: str, width_pt: float) -> None:
    """Draws lines, each of (n, 2) points, as one path."""
    _path(axes, points, colour, width_pt, 1, "butt")


def _path(
    axes: Axes,
    points: Sequence[np.ndarray] | np.ndarray,
    colour: str,
    width_pt: float,
    alpha: float,
    ends: Literal["butt", "round"],
) -> None:
    codes = [code for each in points for code in [Path.MOVETO] + [Path.LINETO] * (len(each) - 1)]
    patch = PathPatch(
        Path(np.concatenate(list(points)), codes),
        facecolor="none",
        edgecolor=colour,
        linewidth=width_pt,
        alpha=alpha,
        capstyle=ends,
    )
    axes.add_patch(patch)


def render(made: Figure, name: str, label: str) -> str:
    """Returns a figure as an SVG element.

    What Matplotlib writes is taken apart and put together anew as XML, so that whatever a name holds stays text.

    Args:
        made: The figure, drawn under `STYLE`.
        name: Salts its ids, so that no two figures of a page share one.
        label: What it shows, for a screen reader.
    """
    written = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"tapct {name}"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        made.savefig(written, format="svg", transparent=True, metadata=nothing)
    width, height = made.get_size_inches() * 72
    svg = ElementTree.Element("svg", {"role": "img", "aria-label": label, "viewBox": f"0 0 {width:g} {height:g}"})
    # XML has no control characters: a name that holds any is without them.
    seen = "".join(c for c in written.getvalue() if c.isprintable() or c == "\n")
    for element in ElementTree.fromstring(seen).iter():
        if (small := _small(element)) is not None:
            small.tail = "\n"
            svg.append(small)
    return ElementTree.tostring(svg, encoding="unicode")


def _small(element: ElementTree.Element) -> ElementTree.Element | None:
    """Returns what is seen of an element, in short: nothing of groups, ids, clipping and paths without ink."""
    tag = element.tag.removeprefix("{http://www.w3.org/2000/svg}")
    style = dict(part.split(": ", 1) for part in element.get("style", "").split("; ") if part)
    is_inked = "stroke" in style or style.get("fill") != "none"
    if tag not in ("path", "text") or not style or not is_inked:
        return None
    shown = {key: _VARIABLES.get(value, value) for key, value in style.items() if _matters(key, value)}
    small = ElementTree.Element(tag, {"style": ";".join(f"{key}:{value}" for key, value in shown.items())})
    small.text = element.text if tag == "text" else None
    for key in ("x", "y"):
        if key in element.attrib:
            small.set(key, _number(element.attrib[key]))
    if not (turn := element.get("transform", "")).startswith("rotate(-0 ") and turn:
        small.set("transform", turn)
    if tag == "path":
        small.set("d", _short(element.attrib["d"]))
    return small


def _matters(key: str, value: str) -> bool:
    """Returns whether a style is not the page's own."""
    return key not in ("font-family", "stroke-linejoin") and (key, value) not in (
        ("stroke-linecap", "square"),
        ("stroke-linecap", "butt"),
    )


def _number(text: str) -> str:
    short = f"{float(text):.1f}".removesuffix(".0")
    return "0" if short == "-0" else short


def _short(path: str) -> str:
    """Returns path data to a tenth of a point; of a cloud of dots to a point, in their shortest form."""
    starts = re.findall(r"M ([-\d.]+) ([-\d.]+) \s*L \1 \2\s*(?=M|$)", path)
    if len(starts) == path.count("M") >= CLOUD:
        places = sorted((round(float(x)), round(float(y))) for x, y in starts)
        steps = zip([(0, 0), *places], places, strict=False)
        return "".join(f"m{x - from_x} {y - from_y}z" for (from_x, from_y), (x, y) in steps).replace(" -", "-")
    parts = re.findall(r"[A-Za-z]|-?[\d.]+", path)
    short = " ".join(part if part.isalpha() else _number(part) for part in parts)
    short = re.sub(r"M ([-\d.]+ [-\d.]+) L \1(?= M|$)", r"M\1h0", short)
    return re.sub(r" ?([A-Za-z]) ?", r"\1", short)
