"""Regression: predicted against true, how errors are spread, and each target in its own unit."""

import math
from collections.abc import Iterator, Mapping, Sequence

import matplotlib
import numpy as np

from tapct import numeric
from tapct.kinds import Cases
from tapct.leaderboard.page.charts import SIDE_IN, panels
from tapct.leaderboard.page.sections import DrawnTask, Figure, PageTable
from tapct.leaderboard.page.svg import MUTED, STYLE, colour, dots, lines, render
from tapct.metrics import regression

DRAWN = 10
"""Models with panels at most."""
BINS = 25
"""Bars of a histogram of errors; the outermost hold everything beyond."""


def pictures(shown: DrawnTask) -> Iterator[Figure | PageTable]:
    """Yields two figures a target, and the table of targets where there are several."""
    runs = {name: shown.cases(name) for name in shown.models}
    drawn = {name: runs[name] for name in list(runs)[:DRAWN]}
    for k, target in enumerate(shown.classes):
        pairs = {name: _pairs(of_model, k) for name, of_model in drawn.items()}
        if not any(len(observed) for _, observed in pairs.values()):
            continue
        called = target if len(shown.classes) > 1 else f"{target}, {shown.unit}"
        yield Figure(
            title=f"{called}: predicted against true",
            svg=_against(shown, called, pairs),
            note="Up: predicted. To the right: true. On the line, both agree. Dots on the frame lie beyond. All seeds "
            f"and cases.{shown.of_many}",
        )
        yield Figure(
            title=f"{called}: errors",
            svg=_errors(shown, called, pairs),
            note="Predicted minus true, in shares of the cases; the outermost bars hold what lies beyond. A model that "
            "knows nothing but the training mean has the spread of the patients.",
        )
    if len(shown.classes) > 1:
        yield _by_target(shown, runs)


def _pairs(runs: Sequence[Cases], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the predictions and references of a target, of the cases of all runs that have one."""
    predicted, observed = (np.concatenate([run[field][:, k] for run in runs]) for field in ("predicted", "observed"))
    there = ~np.isnan(observed)
    return predicted[there], observed[there]


@matplotlib.rc_context(STYLE)
def _against(shown: DrawnTask, target: str, pairs: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """Returns, per model, a dot for each case, and the line on which prediction and reference are equal."""
    low, high = _span(np.concatenate([observed for _, observed in pairs.values()]))
    made, axes, origins = panels(list(pairs))
    lines(axes, [np.add(SIDE_IN * np.array([[0, 0], [1, -1]]), origin) for origin in origins], MUTED, 0.7)
    for (predicted, observed), (x, y) in zip(pairs.values(), origins, strict=True):
        right, up = (np.clip((of - low) / (high - low), 0, 1) for of in (observed, predicted))
        dots(axes, x + SIDE_IN * right, y - SIDE_IN * up, 2.4, colour(shown.kind.name), 0.5)
    for x, y in origins:
        axes.text(x, y + 0.02, f"{low:g}", fontsize=7, color=MUTED, va="top")
        axes.text(x + SIDE_IN, y + 0.02, f"{high:g}", fontsize=7, color=MUTED, ha="right", va="top")
    name = f"predicted against true {shown.task} {target}"
    return render(made, name, f"Predicted against true {target} of {shown.title}, one panel per model")


@matplotlib.rc_context(STYLE)
def _errors(shown: DrawnTask, target: str, pairs: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """Returns, per model, the histogram of prediction minus reference, all on one scale."""
    errors = {name: predicted - observed for name, (predicted, observed) in pairs.items()}
    reach = _round_up(float(np.quantile(np.abs(np.concatenate(list(errors.values()))), 0.98)))
    edges = np.linspace(-reach, reach, BINS + 1)
    shares = [np.histogram(np.clip(of, -reach, reach), edges)[0] / max(len(of), 1) for of in errors.values()]
    tallest = max(share.max() for share in shares)
    made, axes, origins = panels(list(pairs))
    lines(axes, [np.add(SIDE_IN * np.array([[0.5, 0], [0.5, -1]]), origin) for origin in origins], MUTED, 0.7)
    outlines = []
    for share, origin in zip(shares, origins, strict=True):
        right = np.repeat(np.linspace(0, 1, BINS + 1), 2)
        up = np.concatenate([[0], np.repeat(share / tallest, 2), [0]])
        outlines.append(np.add(SIDE_IN * np.column_stack([right, -up]), origin))
    lines(axes, outlines, colour(shown.kind.name), 1)
    for x, y in origins:
        axes.text(x, y + 0.02, f"{-reach:g}", fontsize=7, color=MUTED, va="top")
        axes.text(x + SIDE_IN, y + 0.02, f"{reach:g}", fontsize=7, color=MUTED, ha="right", va="top")
    return render(made, f"errors {shown.task} {target}", f"Errors of {target} of {shown.title}, one panel per model")


def _span(observed: np.ndarray) -> tuple[float, float]:
    """Returns round numbers between which all references lie."""
    low, high = float(observed.min()), float(observed.max())
    step = _round_up((high - low) / 10 or max(abs(high), 1.0) / 10)
    return math.floor(low / step) * step, (math.floor(high / step) + 1) * step


def _round_up(value: float) -> float:
    """Returns the next of 1, 2, 5, 10, 20, ... of a positive number; 1 of 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 5, 10) if value <= power * step * (1 + 1e-9))


def _by_target(shown: DrawnTask, runs: Mapping[str, Sequence[Cases]]) -> PageTable:
    """Returns the MAE of each target in its unit, and next to it that of the training mean."""
    targets, first = range(len(shown.classes)), next(iter(runs.values()))

    def row(name: str, of_model: Sequence[Cases], field: str) -> list[str]:
        return [name, *(_text(_mae(of_model, k, field)) for k in targets)]

    known = [int((~np.isnan(first[0]["observed"][:, k])).sum()) for k in targets]
    return PageTable(
        title="MAE of each target, in its unit",
        corner="model",
        heads=[f"{name}, {cases} cases" for name, cases in zip(shown.classes, known, strict=True)],
        rows=[*(row(name, of, "predicted") for name, of in runs.items()), row("the training mean", first, "baseline")],
        note=f"Mean over seeds. Cases without a reference are left out.{shown.of_many}",
    )


def _mae(runs: Sequence[Cases], k: int, field: str) -> float:
    """Returns the mean over runs of the MAE of a target; of no case NaN."""
    errors = [regression.absolute_errors(run[field][:, [k]], run["observed"][:, [k]]) for run in runs]
    return float(numeric.means(np.array(errors)).mean())


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"
