"""The figures of the page. Models are told apart by place, families by colour and place, nothing by colour alone."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tapct import numeric
from tapct.kinds import Cases
from tapct.leaderboard.board import Board, Model, Task
from tapct.leaderboard.exports import ordered
from tapct.leaderboard.page.svg import INK, LINE, MUTED, PAPER, STYLE, colour, dots, figure, lines, render
from tapct.leaderboard.text import plain
from tapct.metrics import ranks
from tapct.statistics.inputs import TaskInputs, from_records

ROW_IN = 0.26
"""Height of a row, in inches."""
LONGEST_LABEL = 34
"""Letters of a name in a figure."""
BINS = 15
"""Bins of a reliability diagram, as of the calibration error (docs/methodology.md)."""
COLUMNS, PANEL_IN, SIDE_IN = 5, (1.55, 1.46), 1.1
"""Panels of reliability diagrams: in a row; height and width of each; side of its square, in inches."""
FEW_PAIRS = 10
"""Bins with fewer pairs get a smaller dot."""
BLOBS = 25
"""Sizes of blobs: shares of resamples are rounded to four in a hundred; what is rarer than one in a hundred is none."""


def complete(board: Board, family: str) -> list[Model]:
    """Returns the models that have a number on every task of a family, best mean rank first."""
    found = board.overall[family, "native"]
    return [m for m in ordered(board, family) if m.name in found and found[m.name].mean_rank.value is not None]


@matplotlib.rc_context(STYLE)
def rank_blobs(board: Board, family: str) -> str | None:
    """Returns how often each model has each rank when patients are resampled, over the suite's tasks of a family.

    After the blob plots of challengeR (Wiesenfarth et al. 2021, doi:10.1038/s41598-021-82017-6).

    Returns:
        The SVG; None where fewer than two models have every task, or patients cannot be resampled.
    """
    models = complete(board, family)
    if len(models) < 2 or any(task.summaries["native"].num_patients < 2 for task in board.in_suite(family)):
        return None
    share = rank_shares(board, family, models)
    made, axes = _rows([model.name for model in models])
    size = np.where(share < 0.01, 0, np.maximum(np.rint(share * BLOBS), 0.5))
    for step in np.unique(size[size > 0]):
        place, rank = np.nonzero(size == step)
        dots(axes, rank + 1, place, 17 * np.sqrt(step / BLOBS), colour(family), 0.55)
    for row, model in enumerate(models):
        mean = board.overall[family, "native"][model.name].mean_rank
        if mean.low is not None and mean.high is not None:
            axes.plot([mean.low, mean.high], [row, row], color=INK, linewidth=1, clip_on=False)
        dots(axes, [mean.value or 0.0], [row], 4, INK)
    axes.set_xlim(0.4, len(models) + 0.6)
    axes.set_xticks(range(1, len(models) + 1))
    axes.set_xlabel("rank")
    return render(made, f"blobs {family}", f"Ranks of the models over the {family} tasks when patients are resampled")


def rank_shares(board: Board, family: str, models: Sequence[Model]) -> np.ndarray:
    """Returns the (models, models) share of resamples and tasks in which a model (row) has a rank (column), from 1."""
    share = np.zeros((len(models), len(models)))
    tasks = board.in_suite(family)
    for task in tasks:
        summary = task.summaries["native"]
        place = {model.name: row for row, model in enumerate(summary.models)}
        bootstrap = summary.bootstrap[[place[model.name] for model in models]]
        bootstrap = bootstrap[:, ~np.isnan(bootstrap).any(axis=0)]
        ranks = numeric.ranks(bootstrap, summary.sign, method="min").astype(int) - 1
        for row, own in enumerate(ranks):
            share[row] += np.bincount(own, minlength=len(models)) / max(bootstrap.shape[1], 1) / len(tasks)
    return share


@matplotlib.rc_context(STYLE)
def quality_by_cost(board: Board, family: str) -> str | None:
    """Returns quality against the number of parameters, with the front that no model is both smaller and better than.

    Quality is the mean score where the tasks of the family share a metric, else the mean rank.
    """
    models = [model for model in complete(board, family) if model.parameters > 0]
    if len(models) < 2:
        return None
    overall = [board.overall[family, "native"][model.name] for model in models]
    by_score = overall[0].mean_score.value is not None
    is_better_high = by_score and not board.in_suite(family)[0].of_metric.lower_is_better
    chosen = [one.mean_score if by_score else one.mean_rank for one in overall]
    quality = np.array([one.value for one in chosen], dtype=float)
    cost = np.array([model.parameters / 1e6 for model in models])
    made = figure(7.4, max(3.2, 0.9 + len(models) * 0.21))
    axes = made.add_axes((0.09, 0.5 / made.get_figheight(), 0.58, 1 - 0.65 / made.get_figheight()))
    axes.set_xscale("log", subs=(2, 5))
    axes.grid(True)
    axes.spines["left"].set_visible(True)
    for x, one in zip(cost, chosen, strict=True):
        if one.low is not None and one.high is not None:
            axes.plot([x, x], [one.low, one.high], color=colour(family), linewidth=1, alpha=0.6)
    dots(axes, cost, quality, 6, colour(family))
    front = pareto(cost, quality if is_better_high else -quality)
    axes.plot(cost[front], quality[front], color=INK, linewidth=0.9, linestyle=(0, (4, 3)), drawstyle="steps-post")
    axes.margins(0.08)
    if not is_better_high:
        axes.invert_yaxis()
    axes.set_xlabel("parameters of the frozen encoder (million)")
    axes.set_ylabel(f"mean {board.in_suite(family)[0].heading}" if by_score else "mean rank")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="y", labelcolor=MUTED)
    _labels_beside(axes, cost, quality, [model.name for model in models])
    return render(made, f"cost {family}", f"Quality on the {family} tasks against the number of parameters")


def pareto(cost: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Returns the indices of the points that none is both cheaper and better than, by rising cost."""
    level = numeric.levels(quality)
    order = np.lexsort((-level, cost))
    best = np.maximum.accumulate(level[order])
    return order[np.concatenate([[True], best[1:] > best[:-1]])]


def _labels_beside(axes: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> None:
    """Writes the names right of the axes in the order of the points, with a thin line to each."""
    axes.figure.canvas.draw()
    to_axes = axes.transAxes.inverted().transform(axes.transData.transform(np.column_stack([x, y])))
    order = numeric.best_first(to_axes[:, 1])
    top = np.linspace(1, 0, len(names)) if len(names) > 1 else np.array([to_axes[0, 1]])
    for place, index in zip(top, order, strict=True):
        line = [*zip(to_axes[index], (1.03, place), strict=True)]
        axes.plot(*line, transform=axes.transAxes, color=LINE, linewidth=0.7, clip_on=False, zorder=0.5)
        axes.text(1.04, place, plain(names[index], LONGEST_LABEL), transform=axes.transAxes, va="center", fontsize=8)


@matplotlib.rc_context(STYLE)
def patient_strips(task: Task, models: Sequence[Model]) -> str:
    """Returns every patient's score (mean over seeds and cases) as a dot, and the mean with its interval, per model."""
    inputs = task_inputs(task, models)
    assert inputs.values is not None
    made, axes = _rows(inputs.models)
    patients = np.bincount(inputs.patient_index, minlength=inputs.num_patients)
    # Dots of neighbouring values lie above each other: spread them, the same patient always at the same height.
    height = (np.arange(inputs.num_patients) * 0.618034 % 1 - 0.5) * 0.56
    for row, name in enumerate(inputs.models):
        with np.errstate(invalid="ignore"):
            by_case = inputs.values[row].mean(axis=0)
        by_patient = np.bincount(inputs.patient_index, weights=by_case, minlength=inputs.num_patients) / patients
        shown = ~np.isnan(by_patient)
        dots(axes, by_patient[shown], row + height[shown], 2.6, colour(task.family), 0.45)
        one = task.summary(name, "native")
        if one is None or one.estimate.value is None:
            continue
        if one.estimate.low is not None and one.estimate.high is not None:
            axes.plot([one.estimate.low, one.estimate.high], [row, row], color=INK, linewidth=1.4)
        dots(axes, [one.estimate.value], [row], 5.5, PAPER)
        dots(axes, [one.estimate.value], [row], 4, INK)
    axes.set_xlim(0, task.of_metric.high if np.isfinite(task.of_metric.high) else None)
    axes.set_xlabel(f"{task.heading} of a patient")
    return render(made, f"strips {task.name}", f"{task.heading} of every patient of {task.title}, by model")


def panels(names: Sequence[str]) -> tuple[Figure, Axes, list[tuple[float, float]]]:
    """Returns a figure with a square frame and a name for each model, and room for ticks below.

    Args:
        names: Of the models.

    Returns:
        The figure, its axes in inches (down and to the right), and where the lower left corner of each frame is.
    """
    rows = -(-len(names) // COLUMNS)
    made = figure(7.4, rows * (PANEL_IN[0] + 0.2) + 0.1)
    axes = made.add_axes((0, 0, 1, 1))  # in inches, for all panels: one path for all frames
    axes.set(xlim=(0, 7.4), ylim=(made.get_figheight(), 0))
    axes.axis("off")
    places = (divmod(index, COLUMNS) for index in range(len(names)))
    origins = [(column * PANEL_IN[1] + 0.25, (row + 1) * (PANEL_IN[0] + 0.2) - 0.25) for row, column in places]
    square = SIDE_IN * np.array([[0, -1], [0, 0], [1, 0]])
    lines(axes, [np.add(square, origin) for origin in origins], LINE, 0.8)
    for name, (x, y) in zip(names, origins, strict=True):
        axes.text(x, y - SIDE_IN - 0.09, plain(name, 22), fontsize=7.5, color=INK)
    return made, axes, origins


@matplotlib.rc_context(STYLE)
def reliability(task: str, title: str, family: str, runs: Mapping[str, Sequence[Cases]]) -> str:
    """Returns, per model, the share of positives among pairs of about the same predicted probability.

    Args:
        task: The task.
        title: As a reader calls it.
        family: Its kind.
        runs: The cases of each run, by model.
    """
    made, axes, origins = panels(list(runs))
    curves, counts = [], []
    for (x, y), of_model in zip(origins, runs.values(), strict=True):
        predicted, observed, count = reliability_curve(of_model)
        curves.append(np.column_stack([x + SIDE_IN * predicted, y - SIDE_IN * observed]))
        counts.append(count)
    lines(axes, [np.add(SIDE_IN * np.array([[0, 0], [1, -1]]), origin) for origin in origins], MUTED, 0.5)
    lines(axes, curves, colour(family), 1)
    points, pairs = np.concatenate(curves), np.concatenate(counts)
    for chosen, diameter_pt in ((pairs < FEW_PAIRS, 1.8), (pairs >= FEW_PAIRS, 4.5)):
        if chosen.any():
            dots(axes, points[chosen, 0], points[chosen, 1], diameter_pt, colour(family))
    for x, y in origins[::COLUMNS]:
        axes.text(x - 0.05, y - SIDE_IN, "1", fontsize=7, color=MUTED, ha="right", va="center")
        axes.text(x - 0.05, y, "0", fontsize=7, color=MUTED, ha="right", va="center")
    return render(made, f"reliability {task}", f"Reliability diagrams of {title}, one per model")


def reliability_curve(runs: Sequence[Cases]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns mean probability, share of positives and number of pairs of each bin that has any, all seeds together."""
    pairs = [ranks.stated(run["probability"], run["target"]) for run in runs]
    probability, target = (np.concatenate(of) for of in zip(*pairs, strict=True))
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    filled = count > 0
    predicted, observed = (np.bincount(place, weights=of, minlength=BINS)[filled] for of in (probability, target))
    return predicted / count[filled], observed / count[filled], count[filled]


def task_inputs(task: Task, models: Sequence[Model]) -> TaskInputs:
    """Returns what the native statistics of a task were computed from, the models in the given order."""
    chosen = [model for model in models if task.name in model.entries]
    records = [model.entries[task.name].record for model in chosen]
    return from_records(records, task.summaries["native"].metric, names=[model.name for model in chosen])


def _rows(names: Sequence[str]) -> tuple[Figure, Axes]:
    """Returns axes with a row per name, the first on top, and room for the names on the left."""
    names = [plain(name, LONGEST_LABEL) for name in names]
    left = 0.2 + 0.075 * max(map(len, names))  # inches, of letters of 9 points
    height = len(names) * ROW_IN + 0.5
    made = figure(7.4, height)
    axes = made.add_axes((left / 7.4, 0.42 / height, 0.98 - left / 7.4, (len(names) * ROW_IN) / height))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.grid(True, axis="x")
    return made, axes
