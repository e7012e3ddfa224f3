"""Localisation: FROC curves, how far what was found lies from where it is, and what is found of each size."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean

import matplotlib
import numpy as np

from tapct import numeric
from tapct.kinds.localisation import detections
from tapct.leaderboard.page.sections import Picture, Shown, Table
from tapct.leaderboard.page.svg import LINE, MUTED, STYLE, colour, figure, lines, render
from tapct.leaderboard.text import plain
from tapct.metrics.froc import BANDS_MM, RATE_NAMES, RATES, Detections

COLUMNS, WIDTH_IN, HEIGHT_IN = 5, 1.46, 1.6
"""Panels in a row, and the room of each."""

PANEL_IN = (1.16, 1.0)
"""Width and height of a panel's axes."""

POINTS = 97
"""Of a curve: sixteen between a rate and the next."""

BINS = 12
"""Of the histogram of errors."""

Runs = Mapping[str, Sequence[Detections]]
"""What the candidates of each run of a model come to."""


def pictures(shown: Shown) -> Iterator[Picture | Table]:
    """Yields the curves, the errors, and a table by diameter."""
    runs = {name: [detections(cases) for cases in shown.cases(name)] for name in shown.models}
    yield Picture(
        title="FROC",
        svg=froc_curves(shown.task, runs),
        note="FROC: share of the findings that are found, against false positives a scan, a line for each seed. "
        f"Upright: {RATE_NAMES[0]} to {RATE_NAMES[-1]}, the rates over which sensitivity is averaged.{shown.of_many}",
    )
    yield Picture(
        title="errors",
        svg=errors(shown.task, runs),
        note="How far candidates lie from the centres of the findings that they find, in shares of them, all seeds. "
        "What is found lies within its radius. In a cube, the mean place is half an edge away from the middle: cells "
        f"of N mm leave an error of about N / 2, but for what the scores of their neighbours tell.{shown.of_many}",
    )
    rows = list(by_diameter(runs))
    if len(rows) > 1:
        yield Table(
            title="Sensitivity by diameter",
            heads=list(shown.models),
            rows=rows,
            note="FROC of the findings of each diameter alone, all false positives of the scans counted; mean over "
            f"seeds, with the number of findings.{shown.of_many}",
            open=True,
        )


def froc_curves(task: str, runs: Runs) -> str:
    """Returns the curves of each model, a panel each."""
    rates = np.geomspace(RATES[0], RATES[-1], POINTS)

    def curves(found: Sequence[Detections]) -> list[np.ndarray]:
        across = np.linspace(0, 1, POINTS)
        return [np.column_stack([across, np.interp(rates, *one.curve())]) for one in found]

    ticks = {name: place / (len(RATES) - 1) for place, name in enumerate(RATE_NAMES)}
    return _panels(task, "froc", "FROC curves", runs, curves, ticks, "false positives a scan", ("0", "1"))


def errors(task: str, runs: Runs) -> str:
    """Returns a histogram of each model's errors, a panel each, all to one scale."""
    each = {name: np.concatenate([one.errors_mm for one in found]) for name, found in runs.items()}
    each = {name: found[~np.isnan(found)] for name, found in each.items()}
    most = max((float(found.max(initial=0)) for found in each.values()), default=0.0) or 1.0
    edges = np.linspace(0, np.ceil(most), BINS + 1)
    shares = {name: np.histogram(found, edges)[0] / max(1, len(found)) for name, found in each.items()}
    top = max(float(share.max()) for share in shares.values()) or 1.0
    steps = np.repeat(edges / edges[-1], 2)
    outlines = {
        name: np.column_stack([steps, np.repeat([0, *share / top, 0], 2)[1:-1]]) for name, share in shares.items()
    }
    by_runs = {id(found): outlines[name] for name, found in runs.items()}
    ticks = {"0": 0.0, numeric.fixed(float(edges[-1]), 0): 1.0}
    heads = ("0", f"{numeric.fixed(100 * top, 0)} %")
    return _panels(task, "errors", "Errors in mm", runs, lambda found: [by_runs[id(found)]], ticks, "mm", heads)


@matplotlib.rc_context(STYLE)
def _panels(
    task: str,
    name: str,
    label: str,
    runs: Runs,
    curves: Callable[[Sequence[Detections]], list[np.ndarray]],
    ticks: Mapping[str, float],
    title: str,
    heads: tuple[str, str],
) -> str:
    """Draws a panel for each model.

    Args:
        task: Name of the task.
        name: Of the figure.
        label: What it shows.
        runs: The models.
        curves: Gives the lines of a model, (n, 2) in [0, 1] to the right and up.
        ticks: Of the horizontal axis, by their texts.
        title: Of the horizontal axis.
        heads: Lowest and highest number of the vertical one.
    """
    rows = -(-len(runs) // COLUMNS)
    made = figure(7.4, rows * HEIGHT_IN + 0.1)
    axes = made.add_axes((0, 0, 1, 1))  # in inches, for all panels: one path for all frames, one for all curves
    axes.set(xlim=(0, 7.4), ylim=(0, made.get_figheight()))
    axes.axis("off")
    size, drawn, frames, upright = np.array(PANEL_IN), [], [], []
    for index, (model, found) in enumerate(runs.items()):
        row, column = divmod(index, COLUMNS)
        origin = np.array([column * WIDTH_IN + 0.27, (rows - row - 1) * HEIGHT_IN + 0.4])
        drawn += [origin + size * curve for curve in curves(found)]
        frames.append(origin + size * np.array([[0, 1], [0, 0], [1, 0]]))
        upright += [origin + size * np.array([[at, 0], [at, 1]]) for at in ticks.values()]
        axes.text(origin[0], origin[1] + size[1] + 0.07, plain(model, 22), fontsize=7.5)
        for text, at in ticks.items():
            axes.text(origin[0] + size[0] * at, origin[1] - 0.12, text, fontsize=6.5, color=MUTED, ha="center")
        axes.text(origin[0] + size[0] / 2, origin[1] - 0.25, title, fontsize=6.5, color=MUTED, ha="center")
        if column == 0:
            for text, at in zip(heads, (0, size[1]), strict=True):
                axes.text(origin[0] - 0.04, origin[1] + at, text, fontsize=6.5, color=MUTED, ha="right", va="center")
    lines(axes, upright, LINE, 0.4)
    lines(axes, frames, LINE, 0.8)
    lines(axes, drawn, colour("localisation"), 1)
    return render(made, f"{name} {task}", f"{label} of {task}, one panel per model")


def by_diameter(runs: Runs) -> Iterator[list[str]]:
    """Yields the bands that have findings, with the FROC of each model, mean over its runs."""
    for low, high in BANDS_MM:
        parts = {name: [one.within(low, high) for one in found] for name, found in runs.items()}
        number = len(next(iter(parts.values()))[0].scores)
        if not number:
            continue
        means = [fmean(float(one.froc(np.ones((one.scans, 1)))[0]) for one in found) for found in parts.values()]
        band = (
            f"under {high:g} mm" if low == 0 else f"{low:g} to {high:g} mm" if np.isfinite(high) else f"from {low:g} mm"
        )
        yield [f"{band} ({number})", *(numeric.fixed(mean, 3) for mean in means)]
