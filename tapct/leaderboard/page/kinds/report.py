"""Reports: every model next to two texts that know nothing of the scan, and each finding by itself."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from tapct import numeric
from tapct.kinds import Cases, Mean
from tapct.kinds.report import COMMON, RANDOM, counts_of, findings_of, knowing_nothing
from tapct.leaderboard.page.sections import DrawnTask, Figure, PageTable
from tapct.leaderboard.page.svg import INK, LINE, MUTED, STYLE, colour, dots, figure, lines, render
from tapct.leaderboard.text import plain
from tapct.metrics.by_label import FEW
from tapct.metrics.report import Counts
from tapct.statistics.inputs import TaskInputs
from tapct.statistics.intervals import estimate
from tapct.statistics.reported import reported
from tapct.statistics.resampling import resample

RESAMPLES = 1_000
"""Of patients, for the intervals next to what knows nothing."""

COLUMNS, ROW_IN, PANEL_IN, LABEL_IN = 5, 0.155, 0.86, 2.1
"""Of the figure: models in a row; height of a finding, width of a model, width of the names, in inches."""

_Runs = Mapping[str, Sequence[Cases]]

BY_FINDING: dict[str, tuple[Callable[[Counts], np.ndarray], str]] = {
    "F1": (Counts.f1, "Harmonic mean of precision and recall; undefined where neither text has the finding."),
    "precision": (Counts.precision, "Undefined where no text of the model has the finding."),
    "recall": (Counts.recall, "Undefined where no reference has the finding."),
}
"""By title: the number of each finding, how it is read."""


def pictures(shown: DrawnTask) -> Iterator[Figure | PageTable]:
    """Yields every model next to what knows nothing, the figure of findings, and a table a number of each finding."""
    runs = _by_row(shown)
    first = next(iter(runs.values()))[0]
    nothing: _Runs = {name: (knowing_nothing(first, name),) for name in (COMMON, RANDOM)}
    yield _beside(shown, {**runs, **nothing})
    drawn = {name: _of_findings(runs[name], Counts.f1) for name in list(runs)[: 3 * COLUMNS]}
    yield Figure(
        title="F1 of each finding",
        svg=_figure(shown, drawn, _of_findings(nothing[RANDOM], Counts.f1)),
        note=f"From 0 to 1: F1 of the model (dot) and of a random report (upright line).{shown.of_many}",
    )
    for title in BY_FINDING:
        yield _by_finding(shown, {**runs, **nothing}, title)


def _by_row(shown: DrawnTask) -> _Runs:
    """Returns the runs of each model, and behind them those under the other adaptors of the board."""
    found = {name: shown.cases(name) for name in shown.models}
    others = {
        f"{model}, {adaptor}": reported(record, shown.split).runs
        for (model, adaptor), record in shown.crossed.items()
        if model in found and adaptor != shown.of.adaptor
    }
    return {**found, **others}


def _beside(shown: DrawnTask, runs: _Runs) -> PageTable:
    """Returns all metrics of every row, the ranked one with its interval."""
    metrics = [metric for metric in shown.kind.metrics if metric.shown]
    ranked = shown.metric.name
    rows = []
    for name, of_model in runs.items():
        numbers = [numeric.mean(_defined([metric.value(run) for run in of_model])) for metric in metrics]
        texts = [_text(value) for value in numbers]
        place = [metric.name for metric in metrics].index(ranked)
        texts[place] = f"{texts[place]}{_interval(shown, of_model)}"
        rows.append([name, *texts])
    return PageTable(
        title="Next to what knows nothing of the scan",
        corner="model",
        heads=[metric.column or metric.title for metric in metrics],
        rows=rows,
        note=f"The {COMMON}: of the training reports with the most frequent set of findings, the most frequent text, "
        f"given to everybody. A {RANDOM}: its findings are those of the expected counts over all training reports, its "
        "words those of one that was drawn for each scan. Neither is ranked. Mean over seeds; of the ranked metric the "
        f"95 % interval over patients.{_reader(shown)}{shown.of_many}",
        open=True,
    )


def _reader(shown: DrawnTask) -> str:
    """Returns who read the findings, and how far that is who made the labels of the release."""
    probe = next(iter(shown.models.values())).probe
    if probe.reader is None:
        return ""
    said = f" Findings were read from both texts by {probe.reader.name} ({probe.reader.weights_sha256[:12]})"
    if probe.reader_agreement is None:
        return f"{said}."
    return f"{said}, which gives {probe.reader_agreement:.1%} of the release's own labels of the training reports."


def _interval(shown: DrawnTask, runs: Sequence[Cases]) -> str:
    """Returns the interval of the ranked metric, in brackets; nothing where there is none."""
    assert not isinstance(shown.metric.of, Mean)
    record = next(iter(shown.models.values()))
    inputs = TaskInputs(
        task=shown.task,
        version=f"{record.task.version}:{record.task.split_sha256}:{shown.split}",
        metric=shown.metric.name,
        models=("this",),
        cases=runs[0].names,
        patients=runs[0].patients,
        samples=(tuple(runs),),
    )
    found = estimate(*resample(inputs, RESAMPLES).mean(0), inputs.num_patients, inputs.undefined)
    return "" if found.low is None or found.high is None else f" ({_text(found.low)} to {_text(found.high)})"


def _by_finding(shown: DrawnTask, runs: _Runs, title: str) -> PageTable:
    """Returns a number of each finding, and its means over findings with enough positives and over the others."""
    metric, note = BY_FINDING[title]
    first = next(iter(runs.values()))[0]
    places = findings_of(first)
    positives = (first["reference"][:, places] == 1).sum(axis=0)
    enough = positives >= FEW
    means = {
        f"mean of {of.sum()} with {words}": of
        for of, words in ((enough, f"{FEW} references or more"), (~enough & (positives > 0), "fewer"))
        if of.any()
    }
    rows = []
    for name, of_model in runs.items():
        values = _of_findings(of_model, metric)
        of_means = [numeric.mean(_defined(values[of])) for of in means.values()]
        rows.append([name, *map(_text, (*of_means, *values))])
    return PageTable(
        title=f"{title[:1].upper()}{title[1:]} of each finding, in numbers",
        corner="model",
        heads=[*means, *(f"{first.classes[k]}, {n} of {len(first)}" for k, n in zip(places, positives, strict=True))],
        rows=rows,
        note=f"Next to each finding: references that have it. Mean over seeds. {note} Findings of fewer than "
        f"{FEW} references are a mean apart: theirs hang on a few patients.{shown.of_many}",
    )


def _of_findings(runs: Sequence[Cases], metric: Callable[[Counts], np.ndarray]) -> np.ndarray:
    """Returns (K,) the mean over the runs that define it."""
    by_run = np.stack([metric(counts_of(run, np.ones((len(run), 1))))[:, 0] for run in runs], axis=1)
    return numeric.means(by_run)


def _defined(values: Sequence[float] | np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else float(value) for value in values]


def _text(value: float) -> str:
    return "" if math.isnan(value) else numeric.fixed(value, 3)


@matplotlib.rc_context(STYLE)
def _figure(shown: DrawnTask, f1: Mapping[str, np.ndarray], floor: np.ndarray) -> str:
    """Returns, per model, a row a finding: a line from 0 to 1, a dot of the model and a tick of a random report."""
    first = next(iter(shown.models.values()))
    findings = first.task.classes
    names = list(f1)
    blocks = [names[start : start + COLUMNS] for start in range(0, len(names), COLUMNS)]
    height = len(findings) * ROW_IN + 0.5
    made = figure(7.4, len(blocks) * height)
    axes = made.add_axes((0, 0, 1, 1))  # in inches, for all panels
    axes.set(xlim=(0, 7.4), ylim=(made.get_figheight(), 0))
    axes.axis("off")
    for block, models in enumerate(blocks):
        rows = block * height + 0.4 + ROW_IN * np.arange(len(findings))
        for name, y in zip(findings, rows, strict=True):
            axes.text(LABEL_IN - 0.1, y, plain(name, 34), fontsize=7, color=INK, ha="right", va="center")
        for column, model in enumerate(models):
            x, width = LABEL_IN + column * (PANEL_IN + 0.18), PANEL_IN
            axes.text(x, block * height + 0.16, plain(model, 16), fontsize=7, color=INK)
            lines(axes, [np.array([[x, y], [x + width, y]]) for y in rows], LINE, 0.4)
            _ticks(axes, x, width, rows, floor)
            there = ~np.isnan(f1[model])
            if there.any():
                dots(axes, x + width * f1[model][there], rows[there], 4, colour(shown.kind.name))
    label = f"F1 of each finding of {shown.title}, one column per model"
    return render(made, f"findings {shown.task}", label)


def _ticks(axes: Axes, x: float, width: float, rows: np.ndarray, values: np.ndarray) -> None:
    """Draws an upright line at each defined value of a panel that begins at x, one a row."""
    there = ~np.isnan(values)
    ends = [np.array([[at, y - 0.045], [at, y + 0.045]]) for at, y in zip(x + width * values, rows, strict=True)]
    if there.any():
        lines(axes, [ends[row] for row in np.flatnonzero(there)], MUTED, 1)
