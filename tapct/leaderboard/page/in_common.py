"""What the encoders of a task have in common: a map of pairs, with its numbers in it."""

import matplotlib
from matplotlib.patches import Rectangle

from tapct.leaderboard.board import Task
from tapct.leaderboard.page.sections import Figure
from tapct.leaderboard.page.svg import INK, STYLE, colour, figure, render
from tapct.leaderboard.text import plain
from tapct.similarity.found import Similarity

TITLE = "What the encoders have in common"

CELL_IN, LETTER_IN = (0.46, 0.3), 0.07
"""Width and height of a cell, and room for a letter of a name, in inches."""
LONGEST = 34
DARKEST = 0.6
"""Opacity of a full cell, on which ink is still read."""


@matplotlib.rc_context(STYLE)
def in_common(task: Task, alike: Similarity) -> Figure:
    """Returns the picture of a task: CKA below the diagonal, common neighbours above it."""
    titles = [plain(one.title, LONGEST) for one in alike.encoders]
    number = len(titles)
    room = 0.2 + LETTER_IN * max(map(len, titles))
    width, height = room + CELL_IN[0] * number, room + CELL_IN[1] * number
    made = figure(width, height)
    axes = made.add_axes((room / width, 0, 1 - room / width, 1 - room / height))
    for row, one in enumerate(alike.encoders):
        for column, other in enumerate(alike.encoders):
            pair = alike.pair(one.label, other.label)
            if pair is None:
                continue
            value = pair.cka if column < row else pair.neighbours
            share = min(max(value or 0.0, 0.0), 1.0)
            axes.add_patch(
                Rectangle((column, row), 1, 1, facecolor=colour(task.family), alpha=DARKEST * share, linewidth=0)
            )
            text = "–" if value is None else f"{value + 0.0:.2f}"
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=INK, fontsize=7.5)
    axes.set(xlim=(0, number), ylim=(number, 0))
    axes.set_xticks([place + 0.5 for place in range(number)], titles, rotation=90)
    axes.set_yticks([place + 0.5 for place in range(number)], titles)
    axes.xaxis.tick_top()
    axes.tick_params(labelsize=8)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return Figure(
        title=TITLE,
        svg=render(made, f"in common {task.name}", f"{TITLE} on {plain(task.title)}"),
        note=_note(alike),
    )


def _note(alike: Similarity) -> str:
    titles = {one.label: plain(one.title, LONGEST) for one in alike.encoders}
    said = (
        f"Below the diagonal, linear CKA (debiased: 0 of features that have nothing in common, 1 of such that are the "
        f"same but for rotation, shift and scale); above it, how many of a case's {alike.neighbours} nearest cases of "
        f"other patients both have ({alike.by_chance:.2f} by chance). Of {alike.cases} cases of {alike.patients} "
        "patients, without their labels; high numbers say that two models see the same, not that it is right."
    )
    same = [f"{titles[pair.second]} is {titles[pair.first]} under another name" for pair in alike.same]
    return said + (f" {'; '.join(same)}: on these cases their features are the same." if same else "")
