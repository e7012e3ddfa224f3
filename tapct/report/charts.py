"""Charts of one record, as SVG in the colours of the page; the same bytes for the same record."""

import math
import statistics
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tapct.leaderboard.page.svg import INK, LINE, MUTED, STYLE, colour, dots, figure, render
from tapct.viz.canvas import OKABE_ITO

_BAR = colour("segmentation")
_WIDTH_IN, _BAR_IN = 7.2, 0.27
_LINE_STYLES = ("-", "--", ":", "-.")


@mpl.rc_context(STYLE)
def class_bars(name: str, table: Mapping[str, Sequence[float | None]], label: str, end: float | None = None) -> Markup:
    """Returns a bar a class: the mean over runs, with a dot a run; an undefined one has a dash.

    Args:
        name: Of the chart, its own on the page.
        table: Per class, the number of each run.
        label: Of the axis.
        end: End of the axis; None is where the numbers end.
    """
    made = figure(_WIDTH_IN, _BAR_IN * len(table) + 0.6)
    axes = made.subplots()
    for row, values in enumerate(table.values()):
        defined = [v for v in values if v is not None]
        if not defined:
            axes.text(0, row, " – undefined", va="center", fontsize=8, color=MUTED)
            continue
        axes.barh(row, statistics.mean(defined), height=0.62, color=_BAR, alpha=0.55)
        dots(axes, defined, [row] * len(defined), 3.5, INK)
    axes.set_yticks(range(len(table)), list(table))
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlim(0, end)
    axes.set_xlabel(label)
    axes.grid(axis="x")
    return _finished(made, name, f"{label} by class")


@mpl.rc_context(STYLE)
def case_strip(name: str, cases: Mapping[str, Sequence[float]], label: str) -> Markup:
    """Returns a column a case, from the lowest to the highest, with a dot a run: an outlier shows.

    Args:
        name: Of the chart, its own on the page.
        cases: Per case, the number of each run.
        label: Of the axis.
    """
    order = sorted(cases, key=lambda case: (statistics.mean(cases[case]), case))
    made = figure(_WIDTH_IN, 3.0)
    axes = made.subplots()
    for column, case in enumerate(order):
        axes.plot([column] * 2, [min(cases[case]), max(cases[case])], color=_BAR, lw=1.2)
        dots(axes, [column] * len(cases[case]), cases[case], 3.5, INK)
    if len(order) <= 30:
        axes.set_xticks(range(len(order)), order, rotation=60, ha="right", fontsize=7)
    else:
        axes.set_xticks([])
    axes.set_xlim(-0.6, len(order) - 0.4)
    axes.set_ylabel(label)
    axes.grid(axis="y")
    return _finished(made, name, f"{label} of {len(order)} cases, from the lowest to the highest")


@mpl.rc_context(STYLE)
def curves(
    name: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    label: str,
    marks: Sequence[tuple[float, float]] = (),
) -> Markup:
    """Returns numbers over optimizer steps.

    Args:
        name: Of the chart, its own on the page.
        lines: By name, (step, number) in order.
        label: Of the axis.
        marks: (step, number) to mark, such as the heads that were chosen.
    """
    made = figure(_WIDTH_IN, 2.8)
    axes = made.subplots()
    for index, (line, points) in enumerate(lines.items()):
        colour = OKABE_ITO[(4 + index) % len(OKABE_ITO)]
        style = _LINE_STYLES[index // len(OKABE_ITO) % len(_LINE_STYLES)]
        steps, values = [step for step, _ in points], [value for _, value in points]
        axes.plot(steps, values, style, color=colour, lw=1.4, label=line)
        if len(points) < 30:
            dots(axes, steps, values, 3.5, colour)
    for step, value in marks:
        dots(axes, [step], [value], 7, INK)
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(label)
    axes.grid(axis="y")
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return _finished(made, name, f"{label} over optimizer steps")


@mpl.rc_context(STYLE)
def reliability(name: str, pairs: Sequence[tuple[float, int]], bins: int = 15) -> Markup:
    """Returns how often what was predicted with a probability was so, against that probability.

    Args:
        name: Of the chart, its own on the page.
        pairs: (probability, 0 or 1) of every case and class.
        bins: Equal bins of the probability; 15, as of the calibration error (docs/methodology.md).
    """
    groups: dict[int, list[tuple[float, int]]] = {}
    for probability, target in pairs:
        groups.setdefault(min(int(probability * bins), bins - 1), []).append((probability, target))
    found = [[statistics.mean(values) for values in zip(*groups[b], strict=True)] for b in sorted(groups)]
    sizes = [3 + 12 * math.sqrt(len(groups[b]) / len(pairs)) for b in sorted(groups)]
    made = figure(4.2, 3.4)
    axes = made.subplots()
    axes.plot([0, 1], [0, 1], color=LINE, lw=1)
    axes.plot(*zip(*found, strict=True), color=_BAR, lw=1)
    for (predicted, true), size in zip(found, sizes, strict=True):
        dots(axes, [predicted], [true], size, _BAR)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("predicted probability (larger dots: more pairs)")
    axes.set_ylabel("share that is so")
    return _finished(made, name, "Reliability diagram")


def _finished(made: Figure, name: str, label: str) -> Markup:
    made.set_layout_engine("constrained")
    return Markup(render(made, name, label))
