"""The figure of the section *The paper and this run*."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from tapct import numeric
from tapct.leaderboard.board import Board
from tapct.leaderboard.page.svg import LINE, MUTED, PAPER, STYLE, colour, dots, figure, lines, render
from tapct.leaderboard.paper import AVERAGE
from tapct.leaderboard.reproduction import Ours, family_of

COLUMNS, PANEL_IN, SIDE_IN = 5, (2.55, 2.46), 1.98
"""Panels of the figure: in a row; height and width of each; side of its square, in inches."""
LABELS = 6
"""Names in a panel at most: of the cells that are farthest from the paper's."""
LETTER, LINE_HEIGHT = 0.031, 0.065
"""Size of a letter of a name, as a share of the side of a panel."""


@dataclass(frozen=True)
class _Point:
    label: str
    is_tap: bool
    paper: float
    std: float
    ours: Ours

    @property
    def value(self) -> float:
        value = self.ours.estimate.value
        assert value is not None
        return value

    @property
    def ends(self) -> tuple[float, float]:
        low, high = self.ours.estimate.low, self.ours.estimate.high
        return (self.value if low is None else low), (self.value if high is None else high)


@matplotlib.rc_context(STYLE)
def ours_by_theirs(board: Board, family: str) -> str | None:
    """Returns our number of each cell of the paper against the paper's, a panel a task.

    Returns:
        The SVG; None where no cell of the family has both.
    """
    points = _points(board, family)
    if not points:
        return None
    rows = -(-len(points) // COLUMNS)
    made = figure(min(len(points), COLUMNS) * PANEL_IN[1], rows * PANEL_IN[0] + 0.15)
    width, height = made.get_size_inches()
    titles = {task.name: f"{task.title}, {task.heading}" for task in board.tasks}
    for index, (task, of_task) in enumerate(points.items()):
        row, column = divmod(index, COLUMNS)
        left, bottom = column * PANEL_IN[1] + 0.42, height - row * PANEL_IN[0] - 0.3 - SIDE_IN
        axes = made.add_axes((left / width, bottom / height, SIDE_IN / width, SIDE_IN / height))
        _panel(axes, titles[task], of_task, family)
        axes.set_xlabel("the paper" if index + COLUMNS >= len(points) else "", labelpad=1)
        axes.set_ylabel("this run" if column == 0 else "", labelpad=1)
    label = f"This run's number of each cell of the paper against the paper's, by {family} task"
    return render(made, f"paper {family}", label)


def _points(board: Board, family: str) -> dict[str, list[_Point]]:
    """Returns by task the cells that have both numbers; one that two of the paper's tables have, once."""
    assert board.reproduction is not None
    found: dict[str, dict[tuple[str, str], _Point]] = defaultdict(dict)
    for cell in board.reproduction.cells:
        row = cell.row
        if row.mean is None or row.task == AVERAGE or family_of(row.metric) != family:
            continue
        size = row.setup.in_plane_size
        label = f"{row.model} {size}" if row.table == 3 or "star" in row.notes else row.model
        label = label.replace("(Patch Feat.)", "patch")
        for one in cell.ours:
            if one.estimate.value is not None:
                is_tap = row.setup.encoder.startswith("tap-")
                key = row.setup.encoder + str(size) + str(row.adaptor), one.path
                found[row.task][key] = _Point(label, is_tap, row.mean, row.std or 0.0, one)
    return {task: list(of.values()) for task, of in found.items()}


def _panel(axes: Axes, title: str, points: Sequence[_Point], family: str) -> None:
    every = [number for p in points for number in (p.paper - p.std, p.paper + p.std, *p.ends)]
    low, high = min(every), max(every)
    margin = max(0.08 * (high - low), 0.02)
    low, high = max(low - margin, 0.0), min(high + margin, 1.0)
    axes.set(xlim=(low, high), ylim=(low, high))
    axes.spines["left"].set_visible(True)
    axes.set_title(title, fontsize=9, loc="left", pad=5)
    ticks = _ticks(low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.tick_params(labelsize=7.5, labelcolor=MUTED, pad=2)
    lines(axes, [np.array([[low, low], [high, high]])], MUTED, 0.6)
    crosses = [np.array([[p.paper, p.ends[0]], [p.paper, p.ends[1]]]) for p in points]
    crosses += [np.array([[p.paper - p.std, p.value], [p.paper + p.std, p.value]]) for p in points]
    lines(axes, crosses, LINE, 1)
    others = [p for p in points if not p.is_tap]  # rings
    for of, ink, diameter_pt in ((points, colour(family), 5.2), (others, PAPER, 3.0)):
        if of:
            dots(axes, [p.paper for p in of], [p.value for p in of], diameter_pt, ink)
    _names(axes, points, low, high)


def _ticks(low: float, high: float) -> list[float]:
    """Returns two to five round numbers."""
    step = next(step for step in (0.02, 0.05, 0.1, 0.2, 0.5) if (high - low) / step <= 5)
    return [round(step * n, 2) for n in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def _names(axes: Axes, points: Sequence[_Point], low: float, high: float) -> None:
    """Writes the names of the points that are farthest from the line, where they hide no dot and no other name."""
    places = [((p.paper - low) / (high - low), (p.value - low) / (high - low)) for p in points]
    taken = [(x - 0.02, y - 0.02, x + 0.02, y + 0.02) for x, y in places]
    order = numeric.best_first([abs(p.value - p.paper) for p in points])
    written = 0
    for index in order:
        if written == LABELS:
            return
        (x, y), label = places[index], points[index].label
        wide = LETTER * len(label)
        sides = ((x + 0.03, "left"), (x - 0.03 - wide, "right"))
        for (start, side), lift in itertools.product(sides, (0, LINE_HEIGHT * 0.7, -LINE_HEIGHT * 0.7)):
            box = (start, y + lift - LINE_HEIGHT / 2, start + wide, y + lift + LINE_HEIGHT / 2)
            outside = box[0] < 0 or box[2] > 1.12 or box[1] < 0 or box[3] > 1.02
            if outside or any(_overlap(box, other) for other in taken):
                continue
            at = start if side == "left" else start + wide
            axes.text(at, y + lift, label, transform=axes.transAxes, fontsize=6.8, ha=side, va="center", color=MUTED)
            taken.append(box)
            written += 1
            break


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
