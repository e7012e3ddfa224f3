"""Retrieval: how well each label is found, and what else a scan shares with the one that lies nearest to it."""

import math
from collections.abc import Iterator, Mapping, Sequence

import matplotlib
import numpy as np

from tapct import numeric
from tapct.kinds import Cases
from tapct.kinds.retrieval import at_chance, by_class, labels, shared_by_nearest
from tapct.leaderboard.page.charts import SIDE_IN, panels
from tapct.leaderboard.page.sections import Picture, Shown, Table
from tapct.leaderboard.page.svg import INK, LINE, MUTED, STYLE, colour, dots, lines, render
from tapct.leaderboard.resampling import draw_patients

DRAWN = 10
"""Models with panels at most."""

RESAMPLES = 500
"""Of patients, for the intervals of what is shared."""

Runs = Mapping[str, Sequence[Cases]]


def pictures(shown: Shown) -> Iterator[Picture | Table]:
    """Yields the table of labels, and the picture and table of what the nearest scan shares."""
    runs = {name: shown.cases(name) for name in shown.models}
    first = next(iter(runs.values()))[0]
    yield _by_label(shown, runs, first)
    chance = {name: _mean(values) for name, values in shared_by_nearest(at_chance(first)).items()}
    chance = {name: value for name, value in chance.items() if not math.isnan(value)}
    if len(chance) > 1:
        shared = {name: {what: _share(of, what) for what in chance} for name, of in runs.items()}
        drawn = {name: shared[name] for name in list(shared)[:DRAWN]}
        yield Picture(
            title="What the nearest scan shares",
            svg=_neighbours(shown, drawn, chance),
            note="To the right, from 0 to 1: how often the nearest scan of another patient shares the query's label, "
            "and each column of the task's table (dot); what chance gives (upright line). A model whose neighbours "
            f"share the scanner more than the label sorts scans by how they were taken.{shown.of_many}",
        )
        yield _table(shown, runs, chance)


def _by_label(shown: Shown, runs: Runs, first: Cases) -> Table:
    """Returns the mean average precision of each label, beside that of chance."""
    places = labels(first.classes)
    found = {name: np.mean([_of_labels(run, places) for run in of], axis=0) for name, of in runs.items()}
    chance = _of_labels(at_chance(first), places)
    rows = []
    for row, place in enumerate(places):
        relevant = first["relevant"][:, place]
        queries, undefined = int((relevant > 0).sum()), int((relevant == 0).sum())
        said = f"{queries}{f', {undefined} undefined' if undefined else ''}"
        rows.append([first.classes[place], said, _text(chance[row]), *(_text(of[row]) for of in found.values())])
    return Table(
        title="mAP of each label",
        corner="label",
        heads=["queries", "chance", *runs],
        rows=rows,
        note="Mean over seeds. A query is undefined where no other patient has its label. mAP is their mean."
        f"{shown.of_many}",
        open=True,
    )


def _of_labels(run: Cases, places: Sequence[int]) -> np.ndarray:
    return by_class(run["average_precision"][:, places], np.ones((len(run), 1)))[:, 0]


def _table(shown: Shown, runs: Runs, chance: Mapping[str, float]) -> Table:
    """Returns what the nearest scan shares as numbers, with intervals over patients."""
    rows = [
        [what, _text(of_chance), *(_with_interval(shown, of, what) for of in runs.values())]
        for what, of_chance in chance.items()
    ]
    return Table(
        title="What the nearest scan shares, in numbers",
        corner="shared",
        heads=["chance", *runs],
        rows=rows,
        note="Share of the queries, mean over seeds, with 95 % intervals over patients (of the queries; the gallery "
        f"stays). Chance: any other patient's scan in the place of the nearest.{shown.of_many}",
    )


def _with_interval(shown: Shown, runs: Sequence[Cases], what: str) -> str:
    scores = np.mean([shared_by_nearest(run)[what] for run in runs], axis=0)
    names, patient = np.unique(runs[0].patients, return_inverse=True)
    drawn = draw_patients(len(names), RESAMPLES, f"{shown.task} {what}")[patient]
    values = by_class(scores[:, None], drawn)[0]
    values = values[~np.isnan(values)]
    if len(names) < 2 or not len(values):
        return _text(_mean(scores))
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{_text(_mean(scores))} ({_text(low)} to {_text(high)})"


def _share(runs: Sequence[Cases], what: str) -> float:
    return float(np.mean([_mean(shared_by_nearest(run)[what]) for run in runs]))


def _mean(values: np.ndarray) -> float:
    return float(numeric.means(values[None])[0])


def _text(value: float) -> str:
    return "" if math.isnan(value) else numeric.fixed(value, 2)


@matplotlib.rc_context(STYLE)
def _neighbours(shown: Shown, shared: Mapping[str, Mapping[str, float]], chance: Mapping[str, float]) -> str:
    """Returns, per model, a line for each thing that is shared, from what chance gives to what the model gives."""
    made, axes, origins = panels(list(shared))
    height = SIDE_IN / len(chance)
    for (x, y), of_model in zip(origins, shared.values(), strict=True):
        middles = [y - height * (row + 0.7) for row in range(len(chance))]
        ends = [(x + SIDE_IN * chance[what], x + SIDE_IN * of_model[what]) for what in chance]
        lines(axes, [np.array([[x, at], [x + SIDE_IN, at]]) for at in middles], LINE, 0.4)
        lines(axes, [np.array([[a, at], [b, at]]) for (a, b), at in zip(ends, middles, strict=True)], MUTED, 1)
        ticks = [np.array([[a, at - 0.04], [a, at + 0.04]]) for (a, _), at in zip(ends, middles, strict=True)]
        lines(axes, ticks, MUTED, 1)
        dots(axes, np.array([b for _, b in ends]), np.array(middles), 4.5, colour(shown.kind.name))
        for what, at in zip(chance, middles, strict=True):
            axes.text(x + 0.04, at - 0.03, what, fontsize=6.5, color=INK, va="bottom")
        axes.text(x, y + 0.02, "0", fontsize=7, color=MUTED, va="top")
        axes.text(x + SIDE_IN, y + 0.02, "1", fontsize=7, color=MUTED, ha="right", va="top")
    label = f"What the nearest scan shares with a query of {shown.title}, one panel per model"
    return render(made, f"neighbours {shown.task}", label)
