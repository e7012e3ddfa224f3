"""Localisation: FROC curves, how far what was found lies from where it is, and what is found of each size."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

import matplotlib
import numpy as np

from tapct import numeric
from tapct.kinds.localisation import detections
from tapct.leaderboard.page.charts import SIDE_IN, panels
from tapct.leaderboard.page.sections import DrawnTask, Figure, PageTable
from tapct.leaderboard.page.svg import LINE, MUTED, STYLE, colour, lines, render
from tapct.metrics.froc import BANDS_MM, RATE_NAMES, RATES, Detections

POINTS = 97
"""Of a curve: sixteen between a rate and the next."""
BINS = 12
"""Of the histogram of errors."""

_Runs = Mapping[str, Sequence[Detections]]
"""By model, what the candidates of each run come to."""


def pictures(shown: DrawnTask) -> Iterator[Figure | PageTable]:
    """Yields the curves, the errors, and a table by diameter."""
    runs = {name: [detections(cases) for cases in shown.cases(name)] for name in shown.models}
    yield Figure(
        title="FROC",
        svg=_curves(shown, runs),
        note="Share of the findings that are found, up from 0 to 1, against false positives a scan, a line for "
        f"each seed. Upright: {RATE_NAMES[0]} to {RATE_NAMES[-1]}, the rates over which sensitivity is averaged."
        f"{shown.of_many}",
    )
    yield Figure(
        title="errors",
        svg=_errors(shown, runs),
        note="How far candidates lie from the centres of the findings that they find, in shares of them, all seeds. "
        "What is found lies within its radius. In a cube, the mean place is half an edge away from the middle: patches "
        f"of N mm leave an error of about N / 2, but for what the scores of their neighbours tell.{shown.of_many}",
    )
    rows = list(by_diameter(runs))
    if len(rows) > 1:
        yield PageTable(
            title="Sensitivity by diameter",
            heads=list(shown.models),
            rows=rows,
            note="FROC of the findings of each diameter alone, all false positives of the scans counted; mean over "
            f"seeds, with the number of findings.{shown.of_many}",
            open=True,
        )


@matplotlib.rc_context(STYLE)
def _curves(shown: DrawnTask, runs: _Runs) -> str:
    """Returns the curves of each model, a panel each; the rates are an octave apart."""
    rates, right = np.geomspace(RATES[0], RATES[-1], POINTS), np.linspace(0, SIDE_IN, POINTS)
    ticks = np.linspace(0, SIDE_IN, len(RATES))
    made, axes, origins = panels(list(runs))
    lines(axes, [np.add([[at, 0], [at, -SIDE_IN]], origin) for origin in origins for at in ticks], LINE, 0.4)
    drawn = [
        np.add(np.column_stack([right, -SIDE_IN * np.interp(rates, *one.curve())]), origin)
        for found, origin in zip(runs.values(), origins, strict=True)
        for one in found
    ]
    lines(axes, drawn, colour(shown.kind.name), 1)
    for x, y in origins:
        for at, name in zip(ticks, RATE_NAMES, strict=True):
            axes.text(x + at, y + 0.02, name, fontsize=6.5, color=MUTED, ha="center", va="top")
    return render(made, f"froc {shown.task}", f"FROC curves of {shown.title}, one panel per model")


@matplotlib.rc_context(STYLE)
def _errors(shown: DrawnTask, runs: _Runs) -> str:
    """Returns a histogram of each model's errors in mm, a panel each, all on one scale."""
    errors = [np.concatenate([one.errors_mm for one in found]) for found in runs.values()]
    errors = [found[~np.isnan(found)] for found in errors]
    reach = math.ceil(max((float(found.max(initial=0)) for found in errors), default=0.0)) or 1
    shares = [np.histogram(found, BINS, (0, reach))[0] / max(1, len(found)) for found in errors]
    tallest = max(float(share.max()) for share in shares) or 1.0
    made, axes, origins = panels(list(runs))
    right = np.repeat(np.linspace(0, SIDE_IN, BINS + 1), 2)
    drawn = [
        np.add(np.column_stack([right, -SIDE_IN / tallest * np.concatenate([[0], np.repeat(share, 2), [0]])]), origin)
        for share, origin in zip(shares, origins, strict=True)
    ]
    lines(axes, drawn, colour(shown.kind.name), 1)
    for x, y in origins:
        axes.text(x, y + 0.02, "0", fontsize=7, color=MUTED, va="top")
        axes.text(x + SIDE_IN, y + 0.02, f"{reach} mm", fontsize=7, color=MUTED, ha="right", va="top")
    return render(made, f"errors {shown.task}", f"Errors in mm of {shown.title}, one panel per model")


def by_diameter(runs: _Runs) -> Iterator[list[str]]:
    """Yields the bands that have findings, with the FROC of each model, mean over its runs."""
    for low, high in BANDS_MM:
        parts = [[one.within(low, high) for one in found] for found in runs.values()]
        number = len(parts[0][0].scores) if parts else 0
        if number:
            means = [fmean(float(one.froc(np.ones((one.scans, 1)))[0]) for one in found) for found in parts]
            yield [f"{_in_words(low, high)} ({number})", *(numeric.fixed(mean, 3) for mean in means)]


def _in_words(low_mm: float, high_mm: float) -> str:
    if low_mm == 0:
        return f"under {high_mm:g} mm"
    return f"{low_mm:g} to {high_mm:g} mm" if math.isfinite(high_mm) else f"from {low_mm:g} mm"
